"""Measures of disentanglement on codes made by hand, whose score is known; their parts against closed forms."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import scipy.stats
import torch
from sklearn.metrics import balanced_accuracy_score, mutual_info_score, roc_auc_score
from torch import Tensor

import sandglass
from helpers import fresh
from sandglass.core import Batch, Latent, Model, Phase, Spec
from sandglass.data.dataset import Split
from sandglass.errors import ConfigError, DataError
from sandglass.metrics._bootstrap import bootstrap
from sandglass.metrics._factors import balanced, binned
from sandglass.metrics._information import contingency, entropy, mutual_information
from sandglass.metrics.dci import completeness, disentanglement
from sandglass.metrics.measure import measure
from sandglass.metrics.modularity import Ranking, modularity
from sandglass.runs.result import Result

FAST = ("mig", "factor_vae", "sap", "modularity")
NAMES = ("a", "b", "c")


class Coded(Model):
    """Its code is its input."""

    provides = ("encode",)

    def __init__(self, dim: int, provides: Sequence[str] = ("encode",)) -> None:
        super().__init__()
        self.spec, self.provides = Spec((dim,)), tuple(provides)
        self.latents = (Latent("z", (dim,)),)
        self.weight = torch.nn.Parameter(torch.zeros(1).double())

    def phases(self) -> Sequence[Phase]:
        return ()

    def encode(self, batch: Batch) -> Tensor:
        return batch.x

    def sample(self, n: int, given: Batch | None = None, *, noise: bool = False) -> Tensor:
        return torch.zeros(n, *self.spec.shape)


def grid(*values: int, times: int = 1) -> Tensor:
    """``(N, F)`` every combination, so that the factors are exactly independent."""
    return torch.tensor(list(itertools.product(*map(range, values))) * times)


def scores(
    codes: Tensor, factors: Tensor, names: Sequence[str] = FAST, provides: Sequence[str] = ("encode",), **options: Any
) -> dict[str, Result]:
    found = measure(
        Coded(codes.shape[1], provides), Split(codes.double(), factors=factors), names=names,
        factors=NAMES[: factors.shape[1]], **options,
    )  # fmt: skip
    return {r.name: r for r in found}


def values(found: dict[str, Result]) -> dict[str, float]:
    return {name: r.value for name, r in found.items()}


def noise(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


FACTORS = grid(4, 5, 6, times=10)


@pytest.fixture(scope="module")
def identity() -> dict[str, Result]:
    return scores(FACTORS, FACTORS, (*FAST, "dci"), dci={"trees": 10})


def test_a_dimension_a_factor_is_perfect(identity: dict[str, Result]) -> None:
    found = values(identity)
    most = 1 - (1 / 4 + 1 / 5 + 1 / 6) / 3
    assert found == pytest.approx(dict.fromkeys(found, 1.0) | {"sap": most}, abs=1e-12)
    # Of a resample the factors are not quite independent; no figure moves by more than that.
    assert all(r.stderr is not None and r.stderr < 0.003 for r in identity.values())
    assert f"at most {most:.2f}" in identity["sap"].note and "a 1.00, b 1.00, c 1.00" in identity["mig"].note
    assert identity["mig"].n == len(FACTORS) == 2 * identity["sap"].n == 2 * identity["dci_informativeness"].n


def test_two_factors_turned_by_45_degrees_are_not_apart() -> None:
    factors = grid(6, 6, times=20)
    turned = torch.stack([factors[:, 0] + factors[:, 1], factors[:, 0] - factors[:, 1]], 1)
    found = values(scores(turned, factors, (*FAST, "dci"), dci={"trees": 5}))
    # By the symmetry of b -> 5 - b both dimensions know the same of both factors.
    assert found["mig"] == pytest.approx(0, abs=1e-12) and found["modularity_score"] == pytest.approx(0, abs=1e-12)
    assert found["factor_vae"] < 0.65 and found["sap"] < 0.1  # chance is 0.5 and 0
    assert found["dci_disentanglement"] < 0.2 and found["dci_completeness"] < 0.2
    assert found["dci_informativeness"] > 0.95, "nothing is lost, though"


def test_random_codes_score_nothing() -> None:
    factors = FACTORS.repeat(3, 1)
    found = scores(noise(len(factors), 6), factors, (*FAST, "dci"), dci={"trees": 3})
    assert found["mig"].value < 0.01 and abs(found["sap"].value) < 0.03
    assert found["factor_vae"].value < 0.6  # 1/3 by chance, and some more from values of few examples
    assert found["dci_disentanglement"].value < 0.05 and found["dci_completeness"].value < 0.05
    # Held out, so at chance: |z| < 4.5 with binomial errors of (F = 3) x 1,800 answers.
    chance = (1 / 4 + 1 / 5 + 1 / 6) / 3
    assert abs(found["dci_informativeness"].value - chance) < 4.5 * math.sqrt(chance / (3 * 1800))
    assert abs(found["explicitness"].value - 0.5) < 0.03


def test_a_factor_coded_twice_is_not_complete_but_disentangled(identity: dict[str, Result]) -> None:
    twice = torch.cat([FACTORS, FACTORS[:, :1] * 2], 1)
    found = scores(twice, FACTORS, (*FAST, "dci"), dci={"trees": 10})
    assert found["mig"].value == pytest.approx(2 / 3, abs=1e-12) and found["mig"].note.startswith("a 0.00, b 1.00")
    assert found["sap"].value == pytest.approx((4 / 5 + 5 / 6) / 3, abs=1e-12)
    assert found["dci_disentanglement"].value == pytest.approx(1, abs=1e-12)
    assert found["dci_completeness"].value < 0.95 < identity["dci_completeness"].value
    assert found["modularity_score"].value == pytest.approx(1, abs=1e-12) and found["factor_vae"].value == 1.0


def test_dimensions_of_noise_do_not_matter() -> None:
    every = grid(4, 5, 6, 7)  # the last is no factor: exactly independent of the three
    found = scores(every, every[:, :3], (*FAST, "dci"), dci={"trees": 5})
    assert found["mig"].value == pytest.approx(1, abs=1e-12) and found["factor_vae"].value == 1.0
    assert found["modularity_score"].value == pytest.approx(1, abs=1e-12)
    assert found["dci_disentanglement"].value == pytest.approx(1, abs=1e-12)
    assert found["sap"].value == pytest.approx(1 - (1 / 4 + 1 / 5 + 1 / 6) / 3, abs=0.03)


def test_order_sign_and_scale_of_dimensions_do_not_matter() -> None:
    codes = FACTORS.float() @ torch.tensor([[1.0, 0.4, 0.0, 0.1], [0.0, 1.0, 0.0, 0.7], [0.3, 0.0, 1.0, 0.2]])
    codes = codes.double() + 0.3 * noise(len(codes), 4)
    few = {"factor_vae": {"votes": 400}}
    plain = scores(codes, FACTORS, **few)
    permuted = scores(codes[:, [2, 0, 3, 1]], FACTORS, **few)
    scaled = scores(codes * torch.tensor([2.0, -4.0, -0.5, 8.0]), FACTORS, **few)  # powers of two: no rounding
    for other in (permuted, scaled):
        assert values(other) == pytest.approx(values(plain), abs=1e-3 if other is scaled else 1e-9)
    for name in ("mig", "modularity_score"):
        assert scaled[name].value == pytest.approx(plain[name].value, abs=1e-12)
    assert 0.05 < plain["mig"].value < 0.95, "neither end, so that something could change"


def test_one_dimension_of_everything_is_told_by_chance() -> None:
    """Every vote is for the one dimension, which is given to one factor; the others' votes are all wrong."""
    found = scores(FACTORS.sum(1, keepdim=True), FACTORS, ["factor_vae"])
    assert found["factor_vae"].value == pytest.approx(1 / 3, abs=1e-12)


def test_votes_are_told_by_other_votes() -> None:
    """Of 40 dimensions and 51 votes hardly two are for one, so that votes would tell themselves."""
    found = scores(noise(len(FACTORS), 40), FACTORS, ["factor_vae"], factor_vae={"votes": 100})
    assert found["factor_vae"].value < 0.6


def test_the_dimension_is_normalised_by_its_spread() -> None:
    """Of two dimensions of one factor with noise, the tighter *in units of its own spread* gets the votes."""
    factors = grid(4, 4, times=50)
    codes = torch.stack([factors[:, 0] * 1000.0, 0.001 * factors[:, 1]], 1).double()
    codes = codes + codes.std(0) * 0.2 * noise(len(codes), 2)
    assert scores(codes, factors, ["factor_vae"])["factor_vae"].value == 1.0


def test_mutual_information_through_a_noisy_channel() -> None:
    """A bit that is flipped in one example of ten: log 2 - H(0.1)."""
    bit = torch.tensor([0, 1]).repeat_interleave(50)
    code = torch.where(torch.arange(100) % 10 == 0, 1 - bit, bit)
    flipped = -0.1 * math.log(0.1) - 0.9 * math.log(0.9)
    found = scores(code[:, None], torch.stack([bit, torch.zeros(100).long()], 1), ["mig"])["mig"]
    assert found.value == pytest.approx(1 - flipped / math.log(2), abs=1e-12)
    assert "factor 'b' is constant and excluded" in found.note and "only one factor varies" in found.note


def test_entropies_and_information_are_those_of_scikit_learn() -> None:
    generator = np.random.default_rng(0)
    a, b = generator.integers(0, 7, 500), generator.integers(0, 4, 500)
    b = np.where(generator.random(500) < 0.5, a % 4, b)
    table = contingency(a, b, (8, 5))  # with an empty row and an empty column
    assert float(mutual_information(table)) == pytest.approx(mutual_info_score(a, b), abs=1e-12)
    assert float(entropy(table.sum(1))) == pytest.approx(scipy.stats.entropy(np.bincount(a)), abs=1e-12)
    assert float(mutual_information(np.diag(table.sum(1)))) == pytest.approx(float(entropy(table.sum(1))), abs=1e-12)
    assert float(entropy(np.zeros(3))) == 0.0 == float(mutual_information(np.zeros((2, 2))))
    weights = generator.integers(0, 3, 500)
    again = mutual_info_score(np.repeat(a, weights), np.repeat(b, weights))
    assert float(mutual_information(contingency(a, b, (7, 4), weights))) == pytest.approx(again, abs=1e-12)


def test_bins_are_those_of_a_histogram() -> None:
    codes = noise(500, 2).numpy()
    for column, cells in zip(codes.T, binned(codes, 20).T, strict=True):
        assert np.bincount(cells, minlength=20).tolist() == np.histogram(column, 20)[0].tolist()


def test_ranking_and_balanced_accuracy_are_those_of_scikit_learn() -> None:
    generator = np.random.default_rng(0)
    up = generator.random(300) < 0.3
    marks = np.round(generator.normal(size=300) + up, 1)  # many are equal
    weights = generator.integers(0, 4, 300).astype(float)
    assert Ranking(marks, up)(weights) == pytest.approx(roc_auc_score(up, marks, sample_weight=weights), abs=1e-12)
    assert Ranking(marks, np.zeros(300, bool))(weights) == 0.5
    y, told = generator.integers(0, 3, 300), generator.integers(0, 3, 300)
    ours = balanced((y == told)[:, None].astype(float), y, 4, weights)  # no example has the fourth value
    assert float(ours[0]) == pytest.approx(balanced_accuracy_score(y, told, sample_weight=weights), abs=1e-12)


def test_importances_have_the_scores_of_the_paper() -> None:
    mixed = np.array([[3.0, 1.0], [1.0, 3.0]])
    expected = 1 + (0.25 * math.log(0.25) + 0.75 * math.log(0.75)) / math.log(2)
    assert disentanglement(mixed) == pytest.approx(expected) == completeness(mixed)
    # Two dimensions of importance 3 and 1, the second of both factors alike: (3 * 1 + 1 * 0) / 4.
    assert disentanglement(np.array([[3.0, 0.0], [0.5, 0.5]])) == pytest.approx(0.75)
    assert disentanglement(np.zeros((2, 2))) == 0.0
    # Deviation from the template: 1 - (0.5^2 + 0.1^2) / (1 * 2).
    assert modularity(np.array([[1.0, 0.5, 0.1], [0.0, 1e-16, 0.0]])) == pytest.approx(1 - 0.26 / 2)
    assert modularity(np.zeros((2, 2))) == 0.0


def test_the_standard_error_is_that_of_repeated_data() -> None:
    """50 data sets: the spread of their figures (known to 10 %) against the mean of their bootstrap errors."""

    def draw(seed: int) -> tuple[Tensor, Tensor]:
        factors = torch.randint(4, (400, 2), generator=torch.Generator().manual_seed(seed))
        return factors + 0.5 * noise(400, 2, seed=seed), factors

    found = [scores(*draw(seed), ["mig"], mig={"bins": 8})["mig"] for seed in range(50)]
    errors = [r.stderr for r in found if r.stderr is not None]
    assert np.mean(errors) == pytest.approx(np.std([r.value for r in found]), rel=0.3)


def test_the_bootstrap_of_a_mean_is_its_standard_error() -> None:
    x = noise(400).numpy()
    value, error = bootstrap(lambda w: np.array([np.average(x, weights=w)]), 400, 0, times=2000)
    assert value[0] == x.mean() and error[0] == pytest.approx(x.std() / 20, rel=0.08)  # 5 errors of an error


def test_dead_dimensions_are_left_out_and_said() -> None:
    dead = torch.cat([FACTORS.double(), 0.05 * FACTORS[:, :1]], 1)  # knows a factor, with a variance of 0.003
    with_posterior = scores(dead, FACTORS, ["mig"], ("encode", "posterior"))["mig"]
    assert with_posterior.value == pytest.approx(1, abs=1e-12)
    assert "posterior means; 3 of 4 dimensions are active" in with_posterior.note
    assert scores(dead, FACTORS, ["mig"])["mig"].value == pytest.approx(2 / 3, abs=1e-12), "without a prior's scale"
    rounding = 1e-10 * (torch.arange(len(FACTORS)) % 2)[:, None].double()
    constant = torch.cat([FACTORS.double(), 1e6 / 3 + rounding], 1)
    assert "3 of 4 dimensions are active" in scores(constant, FACTORS, ["mig"])["mig"].note


def test_of_a_collapsed_model_nothing_is_said_to_be_known() -> None:
    found = scores(torch.zeros(len(FACTORS), 3), FACTORS, (*FAST, "dci"), dci={"trees": 2})
    assert all("none of 3 dimensions is active" in r.note for r in found.values())
    chance = {"factor_vae": 1 / 3, "explicitness": 0.5, "dci_informativeness": found["dci_informativeness"].value}
    assert values(found) == pytest.approx(dict.fromkeys(found, 0.0) | chance, abs=1e-12)
    assert found["dci_informativeness"].value < 0.25


def test_notes_warn_of_too_little() -> None:
    factors = grid(4, 5, 6)[:60]
    found = scores(factors, factors)
    assert "chance alone gives up to" in found["mig"].note and "chance alone" in found["modularity_score"].note
    assert "a vote is over 64, drawn with replacement from as few as 10" in found["factor_vae"].note
    assert all("few examples: a value of 'c' has 10" in r.note for r in found.values())
    fine = scores(grid(30, 2, times=40), grid(30, 2, times=40), ["mig"])["mig"]
    assert "more values than the 20 bins: a" in fine.note and fine.value < 1
    assert scores(grid(30, 2, times=40), grid(30, 2, times=40), ["mig"], mig={"bins": 30})["mig"].value > 1 - 1e-12


def test_what_cannot_be_judged_is_refused() -> None:
    with pytest.raises(DataError, match="'mig' needs at least 20 examples, and there are 12"):
        scores(grid(3, 4), grid(3, 4), ["mig"])
    one = torch.cat([FACTORS[:, :1], torch.zeros(len(FACTORS), 2).long()], 1)
    for name in ("factor_vae", "modularity", "dci"):
        with pytest.raises(DataError, match=f"'{name}' needs two factors that vary; varying here: a"):
            scores(FACTORS, one, [name])
    with pytest.raises(DataError, match="needs a factor that varies; varying here: none"):
        scores(FACTORS, torch.zeros(len(FACTORS), 2).long(), ["sap"])
    bad: list[tuple[str, dict[str, int]]] = [
        ("mig", {"bins": 1}), ("modularity", {"bins": 1}), ("dci", {"trees": 0}),
        ("factor_vae", {"votes": 99}), ("factor_vae", {"examples": 1}),
    ]  # fmt: skip
    for name, options in bad:
        with pytest.raises(ConfigError, match=f"{name} needs .*{next(iter(options))} >="):
            scores(FACTORS, FACTORS, [name], **{name: options})


def test_shapes_has_enough_of_every_factor_in_its_test_split() -> None:
    data = sandglass.load_data({"name": "shapes", "side": 16})
    model = fresh("vae", data, latent_dim=3, net={"name": "mlp", "widths": [8]})
    found = measure(model, data.splits["test"], names=["mig", "sap"], factors=data.factors)
    assert found[0].n == 1382 and found[1].n == 691
    for result in found:
        assert all(f"{name} " in result.note for name in data.factors) and "few" not in result.note

"""Log densities of the scikit-learn face: of the example alone, in the unit of the data, and right."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

from fitted import TINY, rows
from sandglass import registry, rng
from sandglass.data.load import load_data
from sandglass.estimator import GenerativeModel, layout


@pytest.mark.parametrize("gaps", [False, True])
def test_a_log_density_depends_on_the_example_alone(gaps: bool) -> None:
    x = rows(600, 30)  # more than one piece
    if gaps:
        x[np.random.default_rng(1).random(x.shape) < 0.2] = np.nan
    estimator = GenerativeModel(**{**TINY, "net": {"name": "mlp", "widths": [64]}}).fit(x)
    scores = estimator.score_samples(x)
    order = np.random.default_rng(2).permutation(len(x))
    assert np.array_equal(estimator.score_samples(x[order]), scores[order])
    assert np.array_equal(estimator.score_samples(x[300:310]), scores[300:310])
    codes = estimator.transform(x)
    for one in (slice(0, 1), slice(299, 300), slice(599, 600)):
        assert np.array_equal(estimator.score_samples(x[one]), scores[one])
        assert np.array_equal(estimator.transform(x[one]), codes[one])
    state = torch.get_rng_state()
    estimator.score_samples(x[:3])
    assert torch.equal(torch.get_rng_state(), state)


def likelihoods() -> list[str]:
    return [n for n in registry.names("likelihood") if n not in ("bce", "cce", "mae", "mse", "mixed", "multinomial")]


@pytest.mark.parametrize("likelihood", likelihoods())
def test_together_or_one_by_one_is_the_same_bound(likelihood: str) -> None:
    x = np.random.default_rng(0).integers(0, 256, (20, 5, 6)).astype(np.uint8)
    options = {"likelihood": likelihood}
    estimator = GenerativeModel(**TINY, model_options=options).fit(x)
    z = estimator._prepared(x).x
    with torch.no_grad(), rng.forked():
        alone = []
        for one in z:
            rng.reseed(rng.key(estimator.seed_, "score"), torch.device("cpu"))
            alone.append(float(estimator.model_.log_prob(one[None], 5)))
    assert np.allclose(estimator.score_samples(x), alone, rtol=2e-5)


def test_a_missing_value_is_left_out_of_the_bound() -> None:
    x = rows()
    x[::3, 1] = np.nan
    estimator = GenerativeModel(**TINY).fit(x)
    examples = estimator._prepared(x)
    assert examples.mask is not None
    alone = []
    with torch.no_grad(), rng.forked():
        for place in range(len(x)):
            rng.reseed(rng.key(estimator.seed_, "score"), torch.device("cpu"))
            alone.append(float(estimator.model_.log_prob(examples.batch(slice(place, place + 1)), 5)))
    unit = np.nansum(np.where(np.isnan(x), np.nan, np.log(np.nanstd(x, 0))), 1)
    assert np.allclose(estimator.score_samples(x), np.array(alone) - unit, atol=1e-4)


def test_what_cannot_be_vectorised_goes_one_by_one(monkeypatch: pytest.MonkeyPatch) -> None:
    x = rows()
    estimator = GenerativeModel(**TINY).fit(x)
    scores = estimator.score_samples(x)

    def refuse(*_: Any, **__: Any) -> Any:
        raise RuntimeError("vmap: data-dependent control flow")

    monkeypatch.setattr(torch.func, "vmap", refuse)
    assert np.allclose(estimator.score_samples(x), scores, rtol=1e-6, atol=1e-6)


def test_the_density_is_in_the_unit_of_the_data() -> None:
    """With X in other units standardised data are the same, and log p moves by the log of the unit alone."""
    x = rows()
    a, b = (GenerativeModel(**TINY).fit(v) for v in (x, x * 8.0 + 5))
    assert np.allclose(b.score_samples(x * 8 + 5), a.score_samples(x) - 4 * np.log(8), atol=1e-4)
    x[0, :3] = np.nan
    a, b = (GenerativeModel(**TINY).fit(v) for v in (x, x * 8.0 + 5))
    assert b.score_samples(x * 8 + 5)[0] == pytest.approx(a.score_samples(x)[0] - np.log(8), abs=1e-4)
    cube = np.random.default_rng(0).normal(size=(30, 4, 5))
    a, b = (GenerativeModel(**TINY).fit(v) for v in (cube, cube * 8.0))
    assert np.allclose(b.score_samples(cube * 8), a.score_samples(cube) - 20 * np.log(8), atol=1e-3)


def test_counts_and_categories_have_a_probability_which_knows_no_unit() -> None:
    random = np.random.default_rng(0)
    frame = pd.DataFrame(
        {"visits": random.negative_binomial(1, 0.1, 200), "size": random.normal(size=200), "kind": list("abcd") * 50}
    )
    few, many = (
        GenerativeModel(**TINY)
        .fit(frame.assign(size=frame["size"] * unit))
        .score_samples(frame.assign(size=frame["size"] * unit))
        for unit in (1.0, 4.0)
    )
    assert np.allclose(many, few - np.log(4), atol=1e-6)
    estimator = GenerativeModel(**TINY).fit(frame)
    visits, size, kind = estimator.input_transform_.spec().columns
    assert (visits.kind, size.kind, kind.kind) == ("count", "numeric", "categorical") and visits.scale != 1
    examples = estimator._prepared(frame)
    unit = layout.log_unit(estimator.input_transform_, examples.x, examples.mask, mixed=True)
    assert np.allclose(unit, np.log(size.scale))


def test_a_positive_value_counts_in_its_own_unit() -> None:
    """A log-normal's density is that of the standardised logarithm, divided by the scale and by the value."""
    frame = pd.DataFrame({"price": np.exp(np.random.default_rng(0).normal(2, 0.5, 50)), "kind": list("ab") * 25})
    data = load_data(frame, types={"price": "positive"}, validation=0, test=0)
    column = data.spec.columns[0]
    found = layout.log_unit(data.transform, data.train.batch(slice(0, 50)).x, None, mixed=True)
    assert np.allclose(found, np.log(column.scale) + np.log(frame["price"]), atol=1e-5)


def test_the_density_integrates_to_one() -> None:
    """Importance weights are unbiased, so the integral of their mean is 1 but for the noise of 500 draws."""
    x = 3 + 2 * rows(400, 1)
    estimator = GenerativeModel(**{**TINY, "score_draws": 500, "latent_dim": 1, "epochs": 20}).fit(x)
    grid = np.linspace(-40, 46, 700)[:, None]
    integral = float(np.trapezoid(np.exp(estimator.score_samples(grid)), grid[:, 0]))
    assert integral == pytest.approx(1, abs=0.1)

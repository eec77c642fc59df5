"""Which of several models is better: the error of a difference, and how often chance alone names a best one."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from sandglass.metrics.compared import (
    Difference,
    Group,
    Headline,
    Ranking,
    difference,
    headline,
    of_likelihood,
    rankings,
)
from sandglass.metrics.measure import mean_result
from sandglass.runs.result import Result, better

Drawn = Callable[..., list[Tensor]]


@pytest.fixture
def drawn() -> Drawn:
    """``(N,)`` values of several models that find the same examples hard: a shared part and one of their own."""
    generator = torch.Generator().manual_seed(0)

    def draw(models: int, n: int = 100, own: float = 0.1) -> list[Tensor]:
        shared = 10 * torch.randn(n, generator=generator, dtype=torch.float64)
        return [shared + own * torch.randn(n, generator=generator, dtype=torch.float64) for _ in range(models)]

    return draw


def ranking(values: list[Tensor], figure: str = "elbo") -> Ranking:
    return Ranking(figure, "", "nats", {f"run {k}": [mean_result(figure, v, "nats")] for k, v in enumerate(values)})


def seeds(**groups: list[float]) -> Ranking:
    """A figure of several configurations, a value a seed."""
    results = {name: [Result("elbo", v, 0.1, 1000, "nats") for v in values] for name, values in groups.items()}
    return Ranking("elbo", "", "nats", results)


def test_a_paired_difference_has_the_error_of_the_mean_of_differences(drawn: Drawn) -> None:
    a, b = drawn(2)
    found = difference(mean_result("elbo", a, "nats"), mean_result("elbo", b, "nats"))
    assert found.paired
    assert found.value == pytest.approx(float((a - b).mean()), rel=1e-12)
    assert found.stderr == pytest.approx(float((a - b).std()) / 10, rel=1e-12)
    assert found.stderr < 0.1 * math.hypot(float(a.std()), float(b.std())) / 10  # far less than of either figure


def test_without_values_the_errors_add_as_if_independent() -> None:
    a, b = Result("fid", 5.0, 3.0, 100, "1"), Result("fid", 1.0, 4.0, 100, "1")
    assert difference(a, b) == Difference(4.0, 5.0, False)
    assert difference(a, Result("fid", 1.0, None, 100, "1")).stderr is None
    other = mean_result("elbo", torch.randn(7).double(), "nats")
    assert not difference(mean_result("elbo", torch.randn(8).double(), "nats"), other).paired


@pytest.mark.parametrize("models", [2, 5])
def test_chance_alone_seldom_names_a_best_one(models: int, drawn: Drawn) -> None:
    """Of equal models one is called best in 5 of 100 cases at most; 5.7 is 5 and two standard errors of 2,000 cases."""
    named = sum(ranking(drawn(models)).best is not None for _ in range(2000))
    assert (0.03 if models == 2 else 0.0) <= named / 2000 <= 0.06


@pytest.mark.parametrize(("figure", "best"), [("elbo", "run 1"), ("mse", "run 0"), ("rate", None)])
def test_a_difference_beyond_the_noise_names_the_best(figure: str, best: str | None, drawn: Drawn) -> None:
    a, b, c = drawn(3)
    assert ranking([a, b + 0.2, c + 0.1], figure).best == best  # 0.2 is 14 standard errors, though either bar is 1 wide
    assert ranking([a, b + 0.2, c + 0.2], figure).best in (None, best if figure == "mse" else None)


def test_more_runs_ask_for_a_larger_distance() -> None:
    """2.2 standard errors are beyond 1.96, of two runs, and short of 2.5, of five."""
    noise = torch.randn(100, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    noise = (noise - noise.mean()) / noise.std() * 10  # the standard error of its mean is 1
    zero = torch.zeros_like(noise)
    assert ranking([zero, noise + 2.2]).best == "run 1"
    assert ranking([zero, noise + 2.2, zero, zero, zero]).best is None
    assert ranking([zero, noise + 2.6, zero, zero, zero]).best == "run 1"


def test_few_examples_name_no_best(drawn: Drawn) -> None:
    a, b = drawn(2, n=29)
    assert ranking([a, b + 5]).best is None and ranking([a, b + 5]).first == "run 1"
    a, b = drawn(2, n=30)
    assert ranking([a, b + 5]).best == "run 1"


def test_a_run_against_itself_is_no_better(drawn: Drawn) -> None:
    [a] = drawn(1)
    assert ranking([a, a]).best is None
    assert ranking([a, a]).difference("run 0", "run 1") == Difference(0.0, 0.0, True)


def test_a_figure_that_is_not_finite_is_never_best(drawn: Drawn) -> None:
    a, b = drawn(2)
    assert ranking([a, b * math.nan]).first == "run 0"
    assert ranking([a, b * math.nan]).best is None  # against nobody
    assert ranking([a * math.nan, b * math.nan]).first is None


def test_seeds_are_judged_by_their_order_alone() -> None:
    """Four and four fall apart by chance in one of 70 orders, three and three in one of 20."""
    low, high = [1.0, 2.0, 3.0, 4.0], [5.0, 6.0, 7.0, 8.0]
    assert seeds(a=low, b=high).best == "b"
    assert seeds(a=low[:3], b=high[:3]).best is None
    assert seeds(a=low, b=[3.5, *high[1:]]).best is None  # they overlap
    assert seeds(a=low, b=high, c=low).best is None  # 1 in 70 is too often against two
    assert seeds(a=[*low, 4.5], b=[*high, 9.0], c=[*low, 4.5]).best == "b"
    assert seeds(a=low, b=high).value("b") == 6.5
    assert seeds(a=low, b=high).difference("b", "a") == Difference(4.0, None, False)


def test_nats_of_different_kinds_are_ranked_apart() -> None:
    def group(name: str, kind: str) -> Group:
        results = [Result("elbo", -1.0, 0.1, 99, "nats"), Result("mse", 0.1, 0.1, 99, "1")]
        return Group(name, {r.name: [r] for r in results}, kind)

    found = rankings([group("a", "mass"), group("b", "density"), group("c", "mass")])
    assert [(c.figure, c.kind, list(c.results)) for c in found] == [
        ("elbo", "mass", ["a", "c"]),
        ("elbo", "density", ["b"]),
        ("mse", "", ["a", "b", "c"]),
    ]
    assert found[1].best is None  # alone


def test_units_of_a_ranked_figure_are_not_mixed() -> None:
    groups = [Group(unit, {"mse": [Result("mse", 1.0, 0.1, 99, unit)]}) for unit in ("m", "km")]
    assert [list(c.results) for c in rankings(groups)] == [["m"], ["km"]]
    groups = [Group(unit, {"active_units": [Result("active_units", 1.0, None, 99, unit)]}) for unit in ("of 2", "of 9")]
    assert [(c.unit, list(c.results)) for c in rankings(groups)] == [("", ["of 2", "of 9"])]


def test_every_measure_says_a_direction_of_its_own_figures_alone() -> None:
    from sandglass import registry

    for name in registry.names("metric"):
        make = registry.entry("metric", name).make
        named = getattr(make, "better", {})
        assert set(named) <= set(make.figures) and set(named.values()) <= {"higher", "lower"}, name
    assert [better(f) for f in ("elbo", "log_prob", "bits_per_dim", "mse", "psnr", "distortion")] == [
        "higher", "higher", "lower", "lower", "higher", None,
    ]  # fmt: skip
    assert [of_likelihood(f) for f in ("elbo", "log_prob", "psnr")] == [True, True, False]


def group(name: str, **figures: tuple[float, float]) -> Group:
    found = {figure: [Result(figure, value, error, 500, "1")] for figure, (value, error) in figures.items()}
    return Group(name, found)


def test_a_checkerboard_wins_by_precision_and_not_by_the_rule() -> None:
    """The figures of the table in docs/evaluating.md: real photographs under a weak checkerboard, and a strong blur."""
    board = group("board", two_sample_auc=(1.0, 0.002), precision=(0.99, 0.01), coverage=(0.93, 0.01),
                  grid=(14.3, 0.5), grid_period=(2, 0))  # fmt: skip
    blurred = group("blurred", two_sample_auc=(0.999, 0.001), precision=(0.7, 0.02), coverage=(0.3, 0.02))
    assert headline(rankings([board, blurred])) == Headline(["blurred"], [], 2, {"board": "a grid"})
    two = [board, Group("other", board.figures)]
    assert headline(rankings(two)) == Headline(["board", "other"], ["two_sample_auc", "coverage"], 2)
    collapsed = group("collapsed", two_sample_auc=(0.9, 0.02), coverage=(0.03, 0.01), spread=(0.05, 0.01))
    assert headline(rankings([collapsed, blurred])) == Headline(["blurred"], [], 2, {"collapsed": "collapsed"})
    better = group("better", two_sample_auc=(0.7, 0.02), precision=(0.5, 0.02), coverage=(0.6, 0.02), fid=(99, 1.0))
    assert headline(rankings([board, blurred, better])) == Headline(
        ["better"], ["two_sample_auc"], 3, {"board": "a grid"}
    )
    blocks = group("blocks", two_sample_auc=(1.0, 0.0), coverage=(0.03, 0.01), precision=(0.09, 0.02))
    left_out = {"blocks": "far from the examples", "collapsed": "collapsed"}
    assert headline(rankings([blocks, collapsed, blurred])) == Headline(["blurred"], [], 3, left_out)
    assert headline(rankings([blocks, collapsed])) == Headline(["collapsed"], ["two_sample_auc"], 2)


def test_a_higher_likelihood_does_not_make_up_for_a_grid() -> None:
    board = group("board", elbo=(-9, 0.1), grid=(14.3, 0.5), grid_period=(2, 0))
    plain = group("plain", elbo=(-10, 0.1), grid=(0.3, 0.5), grid_period=(2, 0))
    assert headline(rankings([board, plain])) == Headline(["plain"], [], 2, {"board": "a grid"})


def test_nearly_every_sample_told_apart_is_a_tie_and_so_is_a_half_or_less() -> None:
    lost = [group("empty", two_sample_auc=(0.985, 0.002), coverage=(0.25, 0.01)),
            group("blurred", two_sample_auc=(0.999, 0.001), coverage=(0.5, 0.02))]  # fmt: skip
    won = headline(rankings(lost))
    assert won is not None and won.best == ["blurred"]
    by_chance = [group("a", two_sample_auc=(0.40, 0.01), coverage=(0.7, 0.01)),
                 group("b", two_sample_auc=(0.50, 0.01), coverage=(0.9, 0.01))]  # fmt: skip
    found = rankings(by_chance)
    assert headline(found) == Headline(["b"], ["two_sample_auc", "coverage"], 2), "below .5 is by chance"
    assert found[0].best is None


def test_equal_ones_are_decided_by_the_next_figure_or_stay_equal() -> None:
    one = {"two_sample_auc": (0.8, 0.02), "coverage": (0.6, 0.02)}
    made = [group("a", **one), group("b", **{**one, "two_sample_auc": (0.78, 0.02)}), group("c", **one)]
    assert headline(rankings(made)) == Headline(["a", "b", "c"], ["two_sample_auc", "coverage"], 3)
    assert headline(rankings(made[:1])) is None
    assert headline(rankings([group("a", precision=(0.9, 0.01)), group("b", precision=(0.1, 0.01))])) is None


def test_a_common_likelihood_decides_alone() -> None:
    one, two = (
        group(n, elbo=(v, 0.1), two_sample_auc=(a, 0.01)).figures for n, v, a in (("a", -9, 0.9), ("b", -10, 0.6))
    )
    assert headline(rankings([Group("a", one, "mass"), Group("b", two, "mass")])) == Headline(["a"], ["elbo"], 2)
    other = [Group("a", one, "mass"), Group("b", two, "density")]
    assert headline(rankings(other)) == Headline(["b"], ["two_sample_auc"], 2), "of another kind it decides nothing"

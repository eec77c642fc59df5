"""Comparison of several models: which figures are comparable, and which differences are significant."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from statistics import NormalDist, median
from typing import Any

from sandglass import registry
from sandglass.core import Model
from sandglass.metrics.evaluation import FEW, Better
from sandglass.metrics.verdicts import unusable
from sandglass.runs.result import Result, better

_ERROR = 0.025
"""Maximum probability of calling a model best when another is as good."""

LIKELIHOODS = ("log_prob", "elbo")
"""Figures that decide between models with a likelihood of one kind, the first that all of them have."""

OTHERWISE = ("two_sample_auc", "coverage", "patches", "fid")
"""Figures that decide between models without one: the first, and where it does not, the next."""

SATURATED = 0.98
"""Areas of the two-sample test above this count as equal: of either model nearly every sample is told apart."""

_LIKELIHOOD = {"bound", "log_prob"}  # a metric that needs one of these is in nats of the likelihood


@dataclass(frozen=True)
class Group:
    """One run, or several runs of the same configuration with different seeds.

    Args:
        name: of the group.
        figures: for each figure's name, one result per run that has it.
        kind: of the likelihood: ``"density"``, ``"mass"``, ``"cross-entropy"``, ``"cost"``, or ``""``
            without one.
    """

    name: str
    figures: Mapping[str, Sequence[Result]]
    kind: str = ""


@dataclass(frozen=True)
class Difference:
    """Difference of one figure between two groups.

    Args:
        value: the difference.
        stderr: its standard error, None where unknown.
        paired: whether it was computed example by example.
    """

    value: float
    stderr: float | None
    paired: bool


@dataclass(frozen=True)
class Ranking:
    """One figure over all groups in which it is comparable.

    Args:
        figure: its name.
        kind: of the likelihood, for a likelihood figure where the groups have different kinds; empty otherwise.
        unit: of the figure; empty where the results have different units.
        results: for each group, one result per run.
    """

    figure: str
    kind: str
    unit: str
    results: Mapping[str, Sequence[Result]]

    @property
    def better(self) -> Better | None:
        """Whether a higher or a lower value is better, None where neither is."""
        return better(self.figure)

    @cached_property
    def first(self) -> str | None:
        """The group with the best value, significant or not; None where the figure has no better direction."""
        finite = [name for name in self.results if math.isfinite(self.value(name))]
        if self.better is None or not finite:
            return None
        return (max if self.better == "higher" else min)(finite, key=self._place)

    @cached_property
    def best(self) -> str | None:
        """The group that is significantly better than every other, None if there is none."""
        others = [name for name in self.results if name != self.first and math.isfinite(self.value(name))]
        if self.first is None or not others:
            return None
        return self.first if all(self._apart(self.first, other, len(others)) for other in others) else None

    def unbeaten(self, names: Sequence[str]) -> list[str]:
        """Those of the groups that are not significantly worse than the first of them."""
        finite = [name for name in names if math.isfinite(self.value(name))]
        if self.better is None or not finite:
            return list(names)
        first = (max if self.better == "higher" else min)(finite, key=self._place)
        if self.figure == "two_sample_auc" and self.value(first) > SATURATED:
            return finite
        return [n for n in finite if n == first or not self._apart(first, n, len(finite) - 1)]

    @property
    def few(self) -> bool:
        """Whether there are too few examples to call any difference significant."""
        return any(len(found) == 1 and found[0].n < FEW for found in self.results.values())

    def value(self, name: str) -> float:
        """The figure of a group: the median over its runs."""
        return median(result.value for result in self.results[name])

    def _place(self, name: str) -> float:
        """The figure of a group, or the best possible value where it is beyond that by chance."""
        best = {"two_sample_auc": 0.5, "two_sample_accuracy": 0.5}.get(self.figure)
        return self.value(name) if best is None else max(best, self.value(name))

    def difference(self, name: str, other: str) -> Difference:
        """The difference of two groups, paired by example where both are means over the same examples."""
        if len(self.results[name]) > 1 or len(self.results[other]) > 1:
            return Difference(self.value(name) - self.value(other), None, False)
        return difference(self.results[name][0], self.results[other][0])

    def _apart(self, first: str, other: str, others: int) -> bool:
        """Whether two groups differ significantly, corrected for ``others`` comparisons."""
        a, b = self.results[first], self.results[other]
        if len(a) > 1 or len(b) > 1:
            # Every run of one beats every run of the other; between equal models the chance of that is 1 / C(a+b, a).
            sign = 1 if self.better == "higher" else -1
            separate = min(sign * r.value for r in a) > max(sign * r.value for r in b)
            return separate and 1 / math.comb(len(a) + len(b), len(a)) <= _ERROR / others
        if min(a[0].n, b[0].n) < FEW:
            return False
        found = difference(a[0], b[0])
        distance = abs(self._place(first) - self._place(other))
        return found.stderr is not None and distance > NormalDist().inv_cdf(1 - _ERROR / others) * found.stderr


def difference(a: Result, b: Result) -> Difference:
    """``a - b`` with its standard error, paired where both results have a value per example.

    Two models find the same examples hard, so paired differences vary far less than either figure. Without values per
    example the errors are combined as if independent, which overestimates rather than underestimates.

    Example:
        >>> import torch
        >>> x, d = torch.tensor([1.0, 5.0, 9.0]).double(), torch.tensor([0.9, 1.0, 1.1]).double()
        >>> one, two = (Result("a", float(v.mean()), 2.3, 3, "1", each=v) for v in (x + d, x))
        >>> found = difference(one, two)
        >>> round(found.value, 6), round(found.stderr, 6), found.paired
        (1.0, 0.057735, True)
    """
    if a.each is not None and b.each is not None and len(a.each) == len(b.each) > 1:
        each = a.each.double() - b.each.double()
        each = each[~each.isnan()] if max(a.n, b.n) < len(each) else each  # some examples have no such value
        return Difference(float(each.mean()), float(each.std()) / math.sqrt(len(each)), True)
    errors = (a.stderr, b.stderr)
    stderr = None if None in errors else math.hypot(*(e for e in errors if e is not None))
    return Difference(a.value - b.value, stderr, False)


def rankings(groups: Sequence[Group]) -> list[Ranking]:
    """Rankings of groups evaluated on the same examples, one for each set of comparable figures.

    Nats of a density, of a probability mass and of a cross-entropy are not comparable with each other.

    Example:
        >>> def group(name, kind):
        ...     return Group(name, {"elbo": [Result("elbo", -1.0, 0.1, 9, "nats")]}, kind)
        >>> [(c.figure, c.kind, list(c.results)) for c in rankings([group("a", "mass"), group("b", "mass")])]
        [('elbo', '', ['a', 'b'])]
        >>> [(c.figure, c.kind, list(c.results)) for c in rankings([group("a", "mass"), group("b", "density")])]
        [('elbo', 'mass', ['a']), ('elbo', 'density', ['b'])]
    """
    found: dict[tuple[str, str, str], dict[str, Sequence[Result]]] = {}
    for figure in dict.fromkeys(figure for group in groups for figure in group.figures):
        having = [group for group in groups if figure in group.figures]
        several = of_likelihood(figure) and len({group.kind for group in having}) > 1
        for group in having:
            results = group.figures[figure]
            unit = results[0].unit if better(figure) else ""  # figures without a better direction may mix units
            found.setdefault((figure, group.kind if several else "", unit), {})[group.name] = results
    return [Ranking(*key[:2], _common(results), results) for key, results in found.items()]


@dataclass(frozen=True)
class Headline:
    """Which model is best by the stated rule.

    Args:
        best: the groups left at the end: one, or several that no figure tells apart.
        figures: the figures that were used, in order.
        groups: the number of groups that were ranked.
        unusable: the groups that were left out, with the reasons.
    """

    best: Sequence[str]
    figures: Sequence[str]
    groups: int
    unusable: Mapping[str, str] = field(default_factory=dict)


def headline(found: Sequence[Ranking]) -> Headline | None:
    """The best of groups evaluated on the same examples, None where there are fewer than two or no figure to use.

    Groups whose samples are not finite, have collapsed or show a grid are left out while another has none of these;
    without a likelihood also those whose samples are far from the examples. With a likelihood of one kind, it is the
    group with the highest log p(x), or else bound; two groups that differ by no more than the noise are equal. Without,
    it is the group whose samples a classifier tells from examples least well; among equal ones, that with the highest
    coverage, then the smallest patch distance, then Fréchet distance. Precision decides nothing, for samples that are
    all alike can have it.

    Args:
        found: the rankings of :func:`rankings`.
    """
    groups = list(dict.fromkeys(name for ranking in found for name in ranking.results))
    if len(groups) < 2:
        return None
    whole = {r.figure: r for r in found if set(r.results) == set(groups) and r.better is not None}
    likelihood = next((name for name in LIKELIHOODS if name in whole), None)
    reasons = {name: _unusable(found, name, far=likelihood is None) for name in groups}
    left, used = [name for name in groups if not reasons[name]] or groups, []
    out = {name: reasons[name] for name in groups if name not in left}
    for name in (likelihood,) if likelihood else OTHERWISE:
        if name not in whole or len(left) < 2:
            continue
        used.append(name)
        left = whole[name].unbeaten(left)
    return Headline(left, used, len(groups), out) if used or (out and len(left) == 1) else None


def _unusable(found: Sequence[Ranking], name: str, *, far: bool) -> str:
    """Why most runs of a group are :func:`~sandglass.metrics.verdicts.unusable`; empty if they are not."""
    own = {ranking.figure: ranking.results[name] for ranking in found if name in ranking.results}
    runs = max(len(results) for results in own.values())
    each = [unusable({f: r[i].to_dict() for f, r in own.items() if i < len(r)}, far=far) for i in range(runs)]
    bad = list(filter(None, each))
    return max(bad, key=bad.count) if 2 * len(bad) > runs else ""


def _common(results: Mapping[str, Sequence[Result]]) -> str:
    units = {result.unit for every in results.values() for result in every}
    return units.pop() if len(units) == 1 else ""


def of_likelihood(figure: str) -> bool:
    """Whether a figure is in nats of the model's likelihood.

    Example:
        >>> of_likelihood("elbo"), of_likelihood("mse")
        (True, False)
    """
    return bool(_LIKELIHOOD & set(_measure(figure).needs))


def kind_of(model: Model) -> str:
    """The kind of a model's likelihood, empty where it has none."""
    return model.kind or ""


def can(model: Model, name: str) -> bool:
    """Whether a model has all the capabilities a metric needs.

    Raises:
        ConfigError: unknown metric.

    Example:
        >>> can(registry.declared("vae"), "bound"), can(registry.declared("gan"), "bound")
        (True, False)
    """
    needs: Sequence[str] = registry.entry("metric", name).make.needs  # type: ignore[attr-defined]
    return all(registry.can(model, need) for need in needs)


def _measure(figure: str) -> Any:
    for name in registry.names("metric"):
        make: Any = registry.entry("metric", name).make
        if figure in make.figures:
            return make
    raise KeyError(figure)

"""What is wrong with a model, in plain sentences, from its figures alone."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from sandglass.core import Spec
from sandglass.metrics.spectrum import CLEAR

_BEYOND = 3.0  # standard errors by which a figure must pass its threshold

COLLAPSED, PARTIAL = 0.2, 0.6
"""Coverage below which samples have collapsed, and below which much is missing; real data has about 0.97."""

FIDELITY = 0.5
"""Precision below which the samples themselves are the fault, rather than how few kinds of them there are."""

DIFFERENT = 0.8
"""Share of samples and examples told apart above which they are different; 0.5 is by chance."""

ALIKE = 0.1
"""Spread of the samples below which they are all alike, whether good or bad; real data has 1."""

VARIED = 0.5
"""Spread below which the samples have little variety, though they are not all alike."""

DETAIL = 0.25
"""Patch distance at the finest scale above which fine detail is wrong; real data has 0.02 to 0.04, noise of 40 levels
in 255 has 0.57."""

BLURRED = 0.75
"""Sharpness relative to the examples; a Gaussian blur of one pixel gives about 0.75, one of two 0.57, at 32x32."""

COPIED, CLOSE = 0.1, 0.5
"""Share of samples as near to a training example as copies, and their distance relative to held-out examples."""

NEGLECTED, SURELY = 0.25, 0.5
"""Share of a class among the samples relative to that among the examples, below which it is missing, if it is below
the second by more than its error: few examples of a class leave a wide one."""

UNUSED = 0.25
"""Share of latent dimensions in use below which most of the code is idle."""

Metrics = Mapping[str, Mapping[str, Any]]


def sentences(metrics: Metrics, spec: Spec | None = None) -> list[str]:
    """One sentence for each figure that is bad beyond its standard error; none for a good model.

    Args:
        metrics: figures by name, as in ``results.json``: ``value``, ``stderr``, ``n``, ``unit``, ``note``.
        spec: of the data, where known; sharpness is only of images.

    Example:
        >>> sentences({"coverage": {"value": 0.03, "stderr": 0.01, "n": 500, "unit": "1"}})
        ['collapsed: 3 % of examples have a sample near them']
        >>> sentences({"coverage": {"value": 0.95, "stderr": 0.01, "n": 500, "unit": "1"}})
        []
    """
    image = spec is None or spec.is_image
    found = [
        _not_finite(metrics),
        _missing(metrics) or _alike(metrics),
        _neglected(metrics),
        _copied(metrics),
        _grid(metrics) if image else "",
        _blurred(metrics) or _rough(metrics) if image else "",
        _units(metrics),
        _different(metrics, image),
    ]
    return [sentence for sentence in found if sentence]


def unusable(metrics: Metrics, *, far: bool = True) -> str:
    """In a few words why the samples are unusable, whatever the other figures; empty if they are not.

    Args:
        metrics: figures by name.
        far: whether varied samples that are far from the examples are unusable, too.

    Example:
        >>> unusable({"coverage": {"value": 0.03, "stderr": 0.01, "n": 500, "unit": "1"}})
        'collapsed'
    """
    if _not_finite(metrics):
        return "not finite"
    missing = _missing(metrics)
    if missing.startswith("collapsed"):
        return "collapsed"
    if _grid(metrics):
        return "a grid"
    return "far from the examples" if far and missing and _below(metrics, "coverage", COLLAPSED) else ""


def _not_finite(metrics: Metrics) -> str:
    names = ("two_sample_auc", "fid", "coverage")
    broken = any(name in metrics and metrics[name]["value"] is None for name in names)
    return "broken: the model generates values that are not finite" if broken else ""


def _missing(metrics: Metrics) -> str:
    if not _below(metrics, "coverage", PARTIAL):
        return ""
    precision, _ = _value(metrics, "precision")
    if _below(metrics, "spread", ALIKE):
        word = "collapsed"
    elif precision is not None and precision < FIDELITY:
        word = "far from the examples"  # varied, and off
    else:
        word = "collapsed" if _below(metrics, "coverage", COLLAPSED) else "much is missing"
    return f"{word}: {_percent(metrics['coverage']['value'])} of examples have a sample near them"


def _alike(metrics: Metrics) -> str:
    if not _below(metrics, "spread", VARIED):
        return ""
    return f"little variety: the samples vary {_percent(metrics['spread']['value'])} as much as the examples"


def _neglected(metrics: Metrics) -> str:
    # Of samples that are like no example, a classifier only guesses the class.
    value, _ = _value(metrics, "least_class")
    if value is None or value >= NEGLECTED or not _below(metrics, "least_class", SURELY):
        return ""
    if _below(metrics, "precision", FIDELITY):
        return ""
    return f"a class is missing: {metrics['least_class']['note'].split(';')[0]}"


def _copied(metrics: Metrics) -> str:
    # Blurred samples are near to training examples, too, but not this near.
    if not (_above(metrics, "copies", COPIED) and _below(metrics, "nearest_ratio", CLOSE)):
        return ""
    return f"copied: {_percent(metrics['copies']['value'])} of samples are as good as copies of training examples"


def _grid(metrics: Metrics) -> str:
    if not _above(metrics, "grid", CLEAR) or "grid_period" not in metrics:
        return ""
    return f"a grid of period {metrics['grid_period']['value']:.0f} in the samples"


def _blurred(metrics: Metrics) -> str:
    if not _below(metrics, "sharpness", BLURRED):
        return ""
    value = metrics["sharpness"]["value"]
    much = "half the sharpness" if 0.45 <= value < 0.55 else f"{_percent(value)} of the sharpness"
    return f"blurred: {much} of the examples"


def _rough(metrics: Metrics) -> str:
    if not _above(metrics, "patches_fine", DETAIL):
        return ""
    return f"wrong in fine detail, by noise or smears: a patch distance of {metrics['patches_fine']['value']:.2f}"


def _units(metrics: Metrics) -> str:
    units = metrics.get("active_units")
    total = re.search(r"\d+", units["unit"]) if units else None
    if units is None or total is None or units["value"] is None or units["n"] < 30:
        return ""
    if not units["value"]:
        return f"posterior collapse: none of {total[0]} units used, the codes carry no information about the examples"
    used = _below(metrics, "active_units", UNUSED * int(total[0]))
    return f"{units['value']:.0f} of {total[0]} units used" if used else ""


def _different(metrics: Metrics, image: bool) -> str:
    if not _above(metrics, "two_sample_accuracy", DIFFERENT):
        return ""
    share = _percent(metrics["two_sample_accuracy"]["value"])
    return f"{'visibly ' if image else ''}different: a small classifier tells {share} of samples from examples"


def _below(metrics: Metrics, name: str, threshold: float) -> bool:
    """Whether a figure is below a threshold by more than its error."""
    value, error = _value(metrics, name)
    return value is not None and value + _BEYOND * error < threshold


def _above(metrics: Metrics, name: str, threshold: float) -> bool:
    value, error = _value(metrics, name)
    return value is not None and value - _BEYOND * error > threshold


def _value(metrics: Metrics, name: str) -> tuple[float | None, float]:
    """A figure and its error; None where it is missing, not finite, or without an error to judge it by."""
    found = metrics.get(name)
    if found is None or found["value"] is None or found["stderr"] is None:
        return None, 0.0
    return float(found["value"]), float(found["stderr"])


def _percent(share: float) -> str:
    return f"{100 * share:.0f} %"

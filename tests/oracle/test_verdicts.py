"""What is said of figures: only where they are bad beyond their error."""

from __future__ import annotations

from typing import Any

import pytest

from sandglass.core import Spec
from sandglass.metrics.spectrum import CLEAR
from sandglass.metrics.verdicts import BLURRED, COLLAPSED, DETAIL, DIFFERENT, PARTIAL, VARIED, sentences

IMAGE = Spec((3, 32, 32), "unit")


def made(unit: str = "1", **figures: tuple[float | None, float | None]) -> dict[str, dict[str, Any]]:
    return {name: {"value": v, "stderr": e, "n": 500, "unit": unit} for name, (v, e) in figures.items()}


@pytest.mark.parametrize(
    ("figures", "said"),
    [
        ({"coverage": (0.03, 0.01)}, "collapsed: 3 % of examples have a sample near them"),
        ({"coverage": (0.03, 0.01), "precision": (0.9, 0.01)}, "collapsed: 3 % of examples have a sample near them"),
        (
            {"coverage": (0.03, 0.01), "precision": (0.1, 0.01)},
            "far from the examples: 3 % of examples have a sample near them",
        ),
        (
            {"coverage": (0.0, 0.005), "precision": (0.0, 0.005), "spread": (0.01, 0.001)},
            "collapsed: 0 % of examples have a sample near them",
        ),
        ({"coverage": (0.4, 0.02)}, "much is missing: 40 % of examples have a sample near them"),
        ({"grid": (14.0, 0.3), "grid_period": (4.0, 0.0)}, "a grid of period 4 in the samples"),
        ({"sharpness": (0.5, 0.01)}, "blurred: half the sharpness of the examples"),
        ({"sharpness": (0.3, 0.01)}, "blurred: 30 % of the sharpness of the examples"),
        (
            {"two_sample_accuracy": (0.97, 0.01)},
            "visibly different: a small classifier tells 97 % of samples from examples",
        ),
        (
            {"copies": (0.4, 0.02), "nearest_ratio": (0.1, 0.01)},
            "copied: 40 % of samples are as good as copies of training examples",
        ),
        ({"spread": (0.32, 0.03)}, "little variety: the samples vary 32 % as much as the examples"),
        ({"patches_fine": (0.69, 0.02)}, "wrong in fine detail, by noise or smears: a patch distance of 0.69"),
        ({"patches_fine": (0.69, 0.02), "sharpness": (0.5, 0.01)}, "blurred: half the sharpness of the examples"),
        ({"coverage": (0.4, 0.02), "spread": (0.3, 0.02)}, "much is missing: 40 % of examples have a sample near them"),
        ({"two_sample_auc": (None, None)}, "broken: the model generates values that are not finite"),
    ],
)
def test_a_bad_figure_has_its_sentence(figures: dict[str, tuple[float | None, float | None]], said: str) -> None:
    assert sentences(made(**figures), IMAGE) == [said]


def test_units() -> None:
    assert sentences(made("of 40 dimensions", active_units=(8.0, 0.0))) == ["8 of 40 units used"]
    (said,) = sentences(made("of 40 dimensions", active_units=(0.0, 0.0)))
    assert said.startswith("posterior collapse: none of 40 units used")
    assert sentences(made("of 40 dimensions", active_units=(12.0, 0.0))) == []


@pytest.mark.parametrize(
    ("name", "threshold", "sign"),
    [
        ("coverage", PARTIAL, -1),
        ("grid", CLEAR, 1),
        ("sharpness", BLURRED, -1),
        ("spread", VARIED, -1),
        ("patches_fine", DETAIL, 1),
        ("two_sample_accuracy", DIFFERENT, 1),
    ],
)
def test_what_is_within_its_error_of_the_threshold_is_not_said(name: str, threshold: float, sign: int) -> None:
    beside = made(grid_period=(4.0, 0.0))
    assert sentences(beside | made(**{name: (threshold + sign * 0.04, 0.01)}))
    assert not sentences(beside | made(**{name: (threshold + sign * 0.04, 0.02)}))
    assert not sentences(beside | made(**{name: (threshold - sign * 0.04, 0.01)}))
    assert not sentences(beside | made(**{name: (threshold + sign * 0.04, None)})), "without an error it is not judged"
    assert COLLAPSED < PARTIAL


def test_rows_are_neither_blurred_nor_visibly_different() -> None:
    said = sentences(made(sharpness=(0.3, 0.01), two_sample_accuracy=(0.97, 0.01)), Spec((5,)))
    assert said == ["different: a small classifier tells 97 % of samples from examples"]


def test_nothing_is_said_of_nothing() -> None:
    assert sentences({}) == []


def class_figure(value: float, error: float) -> dict[str, dict[str, object]]:
    return {
        "least_class": {"value": value, "stderr": error, "n": 500, "unit": "1", "note": "class 'a' is 0 %; by a judge"}
    }


def test_of_samples_like_no_example_no_class_is_said_to_be_missing() -> None:
    figure = class_figure(0.0, 0.01)
    assert sentences(figure | made(precision=(0.9, 0.01))) == ["a class is missing: class 'a' is 0 %"]
    assert sentences(figure | made(precision=(0.1, 0.01))) == []


def test_a_class_is_missing_below_a_quarter_and_surely_below_a_half() -> None:
    missing = ["a class is missing: class 'a' is 0 %"]
    assert sentences(class_figure(0.14, 0.07)) == missing
    assert sentences(class_figure(0.14, 0.14)) == []  # a half is within its error
    assert sentences(class_figure(0.3, 0.01)) == []

"""How a sweep's options are written, and what configuration a trial gets."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest

from sandglass.errors import ConfigError
from sandglass.registry import Option
from sandglass.sweeps.space import Dimension, laid, place, product, space_of

RANGES = {
    ("lr", "1e-4..1e-2"): (1e-4, 1e-2, True, False),
    ("lr", "1e-3..1e-2"): (1e-3, 1e-2, False, False),
    ("lr", "log:1e-3..1e-2"): (1e-3, 1e-2, True, False),
    ("lr", "linear:1e-4..1e-2"): (1e-4, 1e-2, False, False),
    ("lr", (1e-4, 1e-2)): (1e-4, 1e-2, True, False),
    ("latent_dim", "2..32"): (2, 32, False, True),
    ("latent_dim", "1..100"): (1, 100, True, True),
    ("latent_dim", (2, 32)): (2, 32, False, True),
    ("beta", "1..4"): (1, 4, False, False),
    ("weight_decay", "0..1"): (0, 1, False, False),
    ("ema", "0..0.999"): (0, 0.999, False, False),
}
LISTS = {
    ("latent_dim", "2,8,32"): (2, 8, 32),
    ("latent_dim", (2, 8, 33)): (2, 8, 33),
    ("clip", "null,1"): (None, 1),
    ("clip", (None, 1.0)): (None, 1.0),
    ("net", "mlp,conv"): ("mlp", "conv"),
    ("net.widths", "[64],[128,64]"): ([64], [128, 64]),
    ("optimizer", "adam, adamw"): ("adam", "adamw"),
}


@pytest.mark.parametrize(("given", "wanted"), RANGES.items(), ids=str)
def test_a_range(given: tuple[str, Any], wanted: tuple[float, float, bool, bool]) -> None:
    [found] = space_of("vae", dict([given]))
    assert (found.low, found.high, found.log, found.whole) == wanted and not found.choices
    assert type(found.low) is type(found.high)


@pytest.mark.parametrize(("given", "wanted"), LISTS.items(), ids=str)
def test_a_list(given: tuple[str, Any], wanted: tuple[Any, ...]) -> None:
    [found] = space_of("vae", {given[0]: list(given[1]) if isinstance(given[1], tuple) else given[1]})
    assert found.choices == wanted and [type(c) for c in found.choices] == [type(c) for c in wanted]


@pytest.mark.parametrize(
    ("vary", "message"),
    [
        ({}, "options to vary"),
        ({"lrr": "1,2"}, "Did you mean 'lr'"),
        ({"lr": "0.1"}, "two different values"),
        ({"lr": "0.1,0.1"}, "two different values"),
        ({"lr": "1e-2..1e-4"}, "must be increasing"),
        ({"lr": "0.1..0.1"}, "must be increasing"),
        ({"lr": "log:0..1"}, "above 0"),
        ({"lr": "1.."}, "a range a..b"),
        ({"lr": "log:1,2"}, "a range a..b"),
        ({"lr": "a..b"}, "two numbers"),
        ({"lr": True}, "a list of values"),
        ({"latent_dim": "1.5..4"}, "whole number"),
        ({"lr": "1,2", "training.lr": "3,4"}, "twice"),
        ({"seed": "0,1,2"}, "luck"),
        ({"watch": "test,validation"}, "validation split"),
        ({"data.size": "8,16"}, "other examples"),
        ({"limit": "8,16"}, "other examples"),
    ],
    ids=str,
)
def test_a_mistake_is_one_line(vary: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message) as caught:
        space_of("vae", vary)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("key", "name"),
    [
        ("lr", "training.lr"),
        ("training.lr", "training.lr"),
        ("beta", "model.beta"),
        ("model.beta", "model.beta"),
        ("net", "model.net.name"),
        ("model.net", "model.net.name"),
        ("net.name", "model.net.name"),
        ("net.widths", "model.net.widths"),
        ("model.net.widths", "model.net.widths"),
        ("size", "data.size"),
    ],
)
def test_an_option_has_a_short_and_a_dotted_name(key: str, name: str) -> None:
    assert place("vae", key)[0] == name


@pytest.mark.parametrize("key", ["training.beta", "model.lr", "nets.name", ""])
def test_an_option_is_found_in_its_own_section_alone(key: str) -> None:
    with pytest.raises(ConfigError, match="no option"):
        place("vae", key)


def test_a_grid_is_the_product() -> None:
    space = space_of("vae", {"latent_dim": "2..4", "net": "mlp,conv", "lr": [0.1, 0.2]})
    found = [tuple(v.values()) for v in product(space)]
    assert len(found) == len(set(found)) == 12
    assert set(found) == {(d, n, lr) for d in (2, 3, 4) for n in ("mlp", "conv") for lr in (0.1, 0.2)}
    for range_ in ("1e-4..1e-1", "0.1..0.2"):
        with pytest.raises(ConfigError, match="list of values"):
            list(product(space_of("vae", {"lr": range_})))
    with pytest.raises(ConfigError, match="list of values"):
        Dimension("model.a", low=0, high=1000, whole=True).grid()


def test_a_dimension_comes_back_from_its_plain_values() -> None:
    for found in space_of(
        "vae", {"lr": "1e-4..1e-2", "latent_dim": "2,8", "net.widths": "[64],[32,16]", "beta": "1..2"}
    ):
        assert Dimension.of(found.name, found.to_dict()) == found


def test_options_are_laid_over_a_configuration() -> None:
    net = {"name": "mlp", "widths": [512]}
    config = {
        "model": {"name": "vae", "options": {"net": net, "beta": 1.0, "prior": "standard"}},
        "training": {"lr": 1.0},
    }

    def options(**values: Any) -> Any:
        return laid(config, {k.replace("_", "."): v for k, v in values.items()})["model"]["options"]

    assert options(model_net_name="mlp")["net"] == net
    assert options(model_net_name="conv")["net"] == {"name": "conv"}  # it has no widths
    assert options(model_net_widths=[8])["net"] == {"name": "mlp", "widths": [8]}
    assert options(model_net_width=8, model_net_name="conv")["net"] == {"name": "conv", "width": 8}
    assert options(model_prior_name="standard")["prior"] == {"name": "standard"}
    assert laid(config, {"training.lr": 2.0})["training"] == {"lr": 2.0}
    assert config["training"] == {"lr": 1.0} and config["model"]["options"]["net"] == net  # as it was


def test_types_decide_what_is_whole() -> None:
    from sandglass.sweeps.space import ranged

    hints = {int: True, float: False, int | None: True, float | None: False, int | float: False, Sequence[int]: None}
    for hint, whole in hints.items():
        if whole is not None:
            assert ranged(Option("x", hint, None, ""), "model.x", 1, 9).whole is whole, hint

"""Arguments of the wrong type, and empty ones, get one line of ours, in Python and on the command line."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import sandglass
from sandglass.errors import ConfigError, DataError, SandglassError
from sandglass.metrics.measure import listed

Cli = Callable[..., tuple[int, str, str]]
SMALL: dict[str, Any] = {"epochs": 1, "latent_dim": 2, "net": {"name": "mlp", "widths": [8]}, "sheets": 0}


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> sandglass.Run:
    x = np.random.default_rng(0).random((60, 8, 8)).astype(np.float32)
    return sandglass.train("vae", x, out=tmp_path_factory.mktemp("odd") / "run", **SMALL)


@pytest.mark.parametrize("n", [-1, "3", 2.5, True, None, [3]])
def test_a_number_of_samples_is_a_whole_number(n: Any, run: sandglass.Run) -> None:
    with pytest.raises(DataError, match=r"sample\(\) takes a whole number of examples, 0 or more, not"):
        run.load_model().sample(n)


def test_numbers_of_other_types_are_numbers(run: sandglass.Run) -> None:
    assert run.load_model().sample(np.int64(2)).shape == (2, 1, 8, 8) and len(run.load_model().sample(0)) == 0


def test_the_name_of_a_metric_may_be_given_alone(run: sandglass.Run) -> None:
    assert list(sandglass.evaluate(run, metrics="elbo")["metrics"]) == ["elbo"]
    assert list(sandglass.evaluate(run, metrics="mse, elbo")["metrics"]) == ["mse", "elbo"]
    assert listed("") == [] and listed(("fid",)) == ["fid"]


CALLS: dict[str, tuple[Callable[[sandglass.Run], Any], str]] = {
    "options": (lambda run: sandglass.evaluate(run, log_prob=3), "options of the metric 'log_prob' must be a mapping"),
    "no run": (lambda run: sandglass.evaluate(None), "A run is named by its folder, or latest .*, not by None"),
    "empty run": (lambda run: sandglass.evaluate(""), "A run is named by its folder"),
    "empty data": (lambda run: sandglass.evaluate(run, data=""), "empty name"),
    "one run": (lambda run: sandglass.compare(run), "Give two or more runs"),
    "one folder": (lambda run: sandglass.compare(str(run.path)), "Give two or more runs"),
    "minutes": (lambda run: sandglass.resume(run, minutes="1"), "minutes must be a number, not '1'"),
    "true minutes": (lambda run: sandglass.resume(run, minutes=True), "minutes must be a number, not True"),
    "epochs": (lambda run: sandglass.resume(run, epochs="3"), "epochs must be a whole number, not '3'"),
    "half an epoch": (lambda run: sandglass.resume(run, epochs=2.5), "epochs must be a whole number, not 2.5"),
    "patience": (lambda run: sandglass.resume(run, early_stopping="a"), "early_stopping must be a whole number"),
    "stage": (lambda run: sandglass.resume(run, stage="train"), "stage maps stages to options"),
    "its epochs": (lambda run: sandglass.resume(run, stage={"train": 3}), "stage maps stages to options"),
    "their type": (
        lambda run: sandglass.resume(run, stage={"train": {"epochs": "3"}}),
        "epochs must be a whole number",
    ),
    "shape": (lambda run: sandglass.build("vae", (1, 8, 8)), "built for a Spec, .*, not for a tuple"),
    "array": (lambda run: sandglass.build("vae", np.zeros((3, 8, 8))), "not for an ndarray"),
    "number": (lambda run: sandglass.reconstruct(run, number="x"), "must be a whole number of at least 1, not x"),
    "no name": (lambda run: sandglass.load_data(""), "empty name"),
}


@pytest.mark.parametrize("case", CALLS)
def test_a_wrong_argument_is_one_line(case: str, run: sandglass.Run) -> None:
    call, message = CALLS[case]
    before = {f: f.read_bytes() for f in run.path.rglob("*") if f.is_file()}
    with pytest.raises(SandglassError, match=message):
        call(run)
    assert {f: f.read_bytes() for f in run.path.rglob("*") if f.is_file()} == before


@pytest.mark.parametrize(
    "options", [{"epochs": 2.5}, {"epochs": "1"}, {"lr": "0.1"}, {"seed": 0.5}, {"batch_size": True}, {"minutes": [1]}]
)
def test_a_training_option_of_the_wrong_type(options: dict[str, Any], tmp_path: Path) -> None:
    (name,) = options
    with pytest.raises(ConfigError, match=rf"The training option {name} must be a (whole )?number, not "):
        sandglass.train("vae", "digits", out=tmp_path / "run", **options)
    with pytest.raises(ConfigError, match="must be mappings"):
        sandglass.train("vae", "digits", out=tmp_path / "run", model_options=[2])  # type: ignore[arg-type]
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    "words",
    [
        ("evaluate", "RUN", "--data", ""),
        ("evaluate", "RUN", "--each="),
        ("evaluate", ""),
        ("compare", "RUN", ""),
        ("generate", "RUN", "-o", ""),
        ("interpolate", "RUN", "--from", "", "--to", "1"),
        ("inspect", ""),
        ("train", "vae", "--data", ""),
        ("train", "vae", "--data", "digits", "--out="),
        ("train", "--resume", ""),
        ("train", "--data", "digits", "--init-from", ""),
    ],
)
def test_an_empty_value_is_not_the_current_folder(words: tuple[str, ...], run: sandglass.Run, cli: Cli) -> None:
    code, out, err = cli(*(str(run.path) if w == "RUN" else w for w in words))
    assert code == 2 and out == "" and "needs a value" in err and err.count("\n") == 1


def test_an_option_may_be_empty_on_purpose(cli: Cli) -> None:
    assert cli("preview", "--data", "digits", "--corrupt", "", "-n", "1", "-o", "a.png")[0] == 0
    code, out, _ = cli("train", "vae", "--data", "digits", "--condition", "", "--print_config")
    assert code == 0 and "condition: ''" in out


def test_numbers_of_numpy_and_whole_floats_are_plain_numbers(tmp_path: Path) -> None:
    options = {"epochs": np.int64(1), "lr": np.float32(0.5), "seed": 3.0, "stage": {"train": {"clip": np.float64(2)}}}
    run = sandglass.train("vae", np.zeros((20, 8, 8)), out=tmp_path / "run", **{**SMALL, **options})
    found = run.config["training"]
    assert found["epochs"] == 1 and found["lr"] == 0.5 and found["seed"] == 3
    assert [type(found[name]) for name in ("epochs", "lr", "seed")] == [int, float, int]
    assert found["stage"]["train"]["clip"] == 2.0


def test_a_run_with_whole_floats_in_its_configuration_is_resumed(tmp_path: Path) -> None:
    run = sandglass.train("vae", np.zeros((20, 8, 8)), out=tmp_path / "run", **SMALL)
    config = run.path / "config.yaml"
    config.write_text(config.read_text().replace("\n  epochs: 1\n", "\n  epochs: 2.0\n"))
    assert sandglass.resume(run.path, data=np.zeros((20, 8, 8))).steps()[-1] == 4

"""The options of single stages on the command line."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
import yaml
from test_cli_train import SMALL, configuration

import sandglass
from helpers import Cli
from sandglass import registry


@pytest.fixture
def staged() -> Iterator[str]:
    """A model that trains in two stages and is then fitted in closed form."""
    from sandglass.core import Stage
    from sandglass.models.vae import VAE

    class Twice(VAE):
        """A VAE that is trained twice."""

        def stages(self) -> Sequence[Stage]:
            """Twice the same, then a fit."""
            phases = tuple(self.phases())
            fit = Stage("count", fit=lambda train, validation: {"examples": float(sum(len(b) for b in train()))})
            return Stage("first", phases, objective="elbo"), Stage("second", phases, objective="elbo", epochs=2), fit

    registry.register("twice")(Twice)
    yield "twice"
    from sandglass.registry.building import _declared
    from sandglass.registry.names import _entries

    del _entries["model", "twice"]
    _declared.pop("twice", None)


def test_a_stage_has_options_of_its_own(cli: Cli, staged: str, tmp_path: Path) -> None:
    words = ["--data", "digits", *SMALL, "--epochs", "1", "--stage.second.epochs", "3", "--stage.second.lr", "0.01"]
    found = configuration(cli, staged, *words, "--stage.first.batch-size", "50")
    assert found["training"]["stage"] == {"second": {"epochs": 3, "lr": 0.01}, "first": {"batch_size": 50}}
    (tmp_path / "own.yaml").write_text(yaml.safe_dump(found))
    again = configuration(cli, "--config", "own.yaml", "--stage.second.lr", "0.5")["training"]["stage"]
    assert again == {"second": {"epochs": 3, "lr": 0.5}, "first": {"batch_size": 50}}, "a flag over one of a file"
    code, out, err = cli("train", staged, *words, "--out", "run")
    assert code == 0 and "1 epoch of first in batches of 16, then 3 epochs of second in batches of 16" in err
    stages = {r["stage"]: r["epoch"] for r in sandglass.Run(tmp_path / "run").metrics()}
    assert stages["first"] == 1 and stages["second"] == 3 and "count" in stages
    page = (tmp_path / "run" / "report.html").read_text()
    assert "second: objective" in page and "Fitted in closed form: count" in page
    code, out, _ = cli("train", staged, *words, "--dry-run")
    assert code == 0 and "step, second" in out and "(1 + 3 epochs)" in out


def test_help_of_train_names_the_stages(cli: Cli, staged: str) -> None:
    _, out, _ = cli("train", staged, "--help")
    assert "--stage.first.OPTION" in out and "2 epochs by default" in out and "fitted in closed form" in out
    assert "--stage." not in cli("train", "vae", "--help")[1].split("examples:")[0]


@pytest.mark.parametrize(
    ("flag", "says"),
    [
        ("--stage.secnd.epochs", "has no stage 'secnd'. Did you mean 'second'? Its stages: first, second, count."),
        ("--stage.second.epohcs", "A stage has no option 'epohcs'. Did you mean 'epochs'?"),
        ("--stage.count.epochs", "fitted in closed form"),
        ("--stage.second", "A stage has no option ''"),
    ],
)
def test_a_stage_that_is_not_there_is_one_line(cli: Cli, staged: str, flag: str, says: str) -> None:
    code, out, err = cli("train", staged, "--data", "digits", flag, "3")
    assert code == 2 and says in err and err.count("\n") == 1 and out == ""

"""Objectives of one's own: a file that is imported on the person's word, and checks to ship with it."""

from __future__ import annotations

import importlib
import os
import re
import subprocess
import sys
from importlib.metadata import EntryPoint
from pathlib import Path

import pytest
import torch

import sandglass
from sandglass import registry
from sandglass.core import Batch, Clock, Model, Phase, Spec, Terms
from sandglass.engine.gradient import check_terms
from sandglass.errors import ConfigError, NotFoundError
from sandglass.runs.needed import check_needed
from sandglass.testing import check_model

ROOT = Path(__file__).resolve().parents[2]


def example() -> str:
    """The model on the page CONTRIBUTING.md."""
    found = re.search(r"^```python\n(.*?)^```$", (ROOT / "CONTRIBUTING.md").read_text(), re.DOTALL | re.MULTILINE)
    assert found is not None
    return found[1]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("own")
    (made / "my_model.py").write_text(example())
    return made


def command(folder: Path, line: str) -> tuple[int, str, str]:
    """A command in a process of its own, for an import stays."""
    environment = os.environ | {"PYTHONPATH": str(ROOT / "src")}
    words = [sys.executable, "-W", "error", "-m", "sandglass", *line.split()]
    done = subprocess.run(words, cwd=folder, env=environment, capture_output=True, text=True, timeout=240)
    return done.returncode, done.stdout, done.stderr


def test_a_file_of_ones_own_from_training_to_use(folder: Path) -> None:
    options = "--data digits --limit 200 --epochs 1 --latent-dim 4 --net mlp --no-report"
    code, _, err = command(folder, f"train denoiser {options} --out run")
    assert code == 2 and "There is no model 'denoiser'" in err
    code, _, err = command(folder, f"train denoiser {options} --out run --import my_model.py")
    assert code == 0, err
    config = sandglass.Run(folder / "run").config
    assert config["imports"] == ["my_model.py"]
    again = ("train --resume run --epochs 2", "train --config run/config.yaml --out other")
    for line in ("generate run -n 4 -o a.png", "report run", *again):
        code, _, err = command(folder, line)
        assert code == 2 and "Traceback" not in err, err
        assert "needs my_model.py; give --import my_model.py" in err, line
    for line in ("generate run -n 4 -o a.png", "evaluate run --metrics mse", "generate run/model -n 4 -o b.png"):
        code, _, err = command(folder, f"{line} --import my_model.py")
        assert code == 0, err
    with pytest.raises(ConfigError, match=r"needs my_model\.py; .* import it first in Python"):
        sandglass.load(folder / "run")


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("x = 1 +\n", r"wrong\.py cannot be imported, line 1: SyntaxError"),
        ("\n\nraise ValueError('oh')\n", r"wrong\.py cannot be imported, line 3: ValueError: oh\."),
        ("import nothing_of_this_name\n", "ModuleNotFoundError: No module named"),
        ("import sys\nsys.exit(3)\n", r"wrong\.py cannot be imported, line 2: SystemExit: 3\."),
    ],
)
def test_a_file_that_fails_costs_a_line(text: str, says: str, tmp_path: Path) -> None:
    (tmp_path / "wrong.py").write_text(text)
    for _ in range(2):  # the second call does not succeed silently
        with pytest.raises(ConfigError, match=says):
            registry.import_file(tmp_path / "wrong.py")


def test_an_interrupted_file_is_not_half_imported(tmp_path: Path) -> None:
    (tmp_path / "interrupted.py").write_text("raise KeyboardInterrupt")
    for _ in range(2):
        with pytest.raises(KeyboardInterrupt):
            registry.import_file(tmp_path / "interrupted.py")


def test_a_name_of_sandglass_is_not_taken(tmp_path: Path) -> None:
    text = "from sandglass.core import Model\nfrom sandglass.registry import register\n\n"
    (tmp_path / "taken.py").write_text(text + '@register("vae")\nclass VAE(Model):\n    """Mine."""\n')
    for line in ("models", "train vae --data digits --epochs 1"):
        code, _, err = command(tmp_path, f"{line} --import taken.py")
        assert code == 2 and "Two models are registered as 'vae'" in err and "Traceback" not in err, err
    with pytest.raises(ConfigError, match="Two models are registered as 'vae'"):
        registry.import_file(tmp_path / "taken.py")
    assert registry.entry("model", "vae").make.__module__ == "sandglass.models.vae"


def test_a_cell_or_file_may_be_run_again(tmp_path: Path) -> None:
    text = "from sandglass.registry import register\n@register('again_and_again', kind='schedule')\nclass A:\n    ...\n"
    script = f"text = {text!r}\nexec(text)\nexec(text)\nimport twice, importlib\nimportlib.reload(twice)\n"
    (tmp_path / "twice.py").write_text(text.replace("again_and_again", "twice"))
    (tmp_path / "notebook.py").write_text(script)
    environment = os.environ | {"PYTHONPATH": str(ROOT / "src")}
    words = [sys.executable, "notebook.py"]
    done = subprocess.run(words, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stderr


def test_what_is_no_file_of_python_is_refused(tmp_path: Path) -> None:
    with pytest.raises(NotFoundError, match="no file"):
        registry.import_file(tmp_path / "nothing.py")
    for name in ("model.txt", "my-model.py", "json.py", "sandglass.py"):
        (tmp_path / name).write_text("raise SystemExit('it was run')")
        with pytest.raises(ConfigError, match="cannot be imported"):
            registry.import_file(tmp_path / name)


def test_a_configuration_imports_nothing(folder: Path, tmp_path: Path) -> None:
    trap = tmp_path / "trap.py"
    trap.write_text(f"open({str(tmp_path / 'sprung')!r}, 'w')")
    run = sandglass.train("vae", "digits", out=tmp_path / "run", epochs=1, net="mlp", sheets=0)
    text = (run.path / "config.yaml").read_text()
    (run.path / "config.yaml").write_text(
        text.replace("imports: []", f"imports: [{trap}]").replace("name: vae", "name: vea")
    )
    with pytest.raises(ConfigError, match=r"needs the model .vea.; register it first"):
        sandglass.Run(run.path).load_model("last")
    assert not (tmp_path / "sprung").exists()


@pytest.mark.parametrize(
    ("imports", "model", "says"),
    [
        (
            ["__main__"],
            "mine",
            "r needs the model 'mine', which was defined in a notebook or script; register it first",
        ),
        (["a.py; rm -r x", "my.py"], "mine", "r needs my.py; give --import my.py, or import it first in Python."),
        (["x y"], "a; b", "r needs its model; register it first in Python."),
        (["--out.py"], "mine", "r needs the model 'mine'; register it first in Python."),
        (["pkg"], "mine", "r needs pkg; install it for the model 'mine'."),
    ],
)
def test_what_a_model_needs_is_said(imports: list[str], model: str, says: str) -> None:
    with pytest.raises(ConfigError) as error:
        check_needed({"imports": imports, "model": {"name": model, "options": {}}}, {}, "r")
    assert str(error.value).startswith(says)


def test_an_entry_point_that_fails_costs_a_warning(monkeypatch: pytest.MonkeyPatch) -> None:
    registered_names = importlib.import_module("sandglass.registry.names")
    point = EntryPoint("broken", "nothing_of_this_name", "sandglass.schedules")
    monkeypatch.setattr(registered_names, "entry_points", lambda group: [point] if group == point.group else [])
    monkeypatch.setattr(registered_names, "_discovered", set())
    monkeypatch.setattr(registered_names, "_failed", {})
    with pytest.warns(UserWarning, match=r"The schedule 'broken' could not be imported: ModuleNotFoundError"):
        assert "constant" in registry.names("schedule")
    for _ in range(2):
        with pytest.raises(
            ConfigError, match=r"There is no schedule 'broken'\. The schedule 'broken' could not be imported"
        ):
            registry.entry("schedule", "broken")


class Tiny(Model):
    """A model whose loss returns what it is given."""

    provides = ()

    def __init__(self, returns: object) -> None:
        super().__init__()
        self.spec, self.one, self.returns = Spec((3,)), torch.nn.Parameter(torch.ones(3)), returns
        self.config = {"name": "tiny", "options": {}}

    def phases(self) -> tuple[Phase, ...]:
        return (Phase("own", (self.one,), self.loss),)

    def loss(self, batch: Batch, clock: Clock) -> Terms:
        each = (batch.x * self.one).sum(1)
        found: Terms = self.returns(each)  # type: ignore[operator]
        return found

    def sample(self, n: int, given: Batch | None = None, *, noise: bool = False) -> torch.Tensor:
        return self.one.detach().expand(n, 3)


WRONG = [
    (lambda each: each.mean(), "returned a Tensor; it must return Terms"),
    (lambda each: Terms(each, {}), r"its loss is of shape \(\d+,\); it must be a tensor of shape \(\)"),
    (lambda each: Terms(each.mean(), {"a": each}), r"'a' has a gradient; give 'a': a\.detach\(\)"),
    (lambda each: Terms(each.mean(), {"a": each.detach().mean()}), r"the part 'a' is of shape \(\); .* shape \(B,\)"),
    (lambda each: Terms(each.mean(), {}, {"b": 3.0}), "the scalar 'b' is a float"),
    (lambda each: None, "returned a NoneType"),
]


@pytest.mark.parametrize(("returns", "says"), WRONG)
def test_wrong_terms_get_a_line(returns: object, says: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=rf"The loss of the phase 'own' .*{says}"):
        sandglass.train(Tiny(returns), torch.randn(40, 3), out=tmp_path / "run", epochs=1, batch_size=8, device="cpu")
    check_terms(Terms(torch.zeros(()), {"a": torch.zeros(3)}, {"b": torch.zeros(())}), "own")


def test_a_stranger_checks_a_model(folder: Path) -> None:
    script = "import my_model\nfrom sandglass.testing import check_model\ncheck_model('denoiser', latent_dim=4)\n"
    (folder / "check.py").write_text(script)
    environment = os.environ | {"PYTHONPATH": str(ROOT / "src")}
    done = subprocess.run(
        [sys.executable, "check.py"], cwd=folder, env=environment, capture_output=True, text=True, timeout=240
    )
    assert done.returncode == 0, done.stderr
    wrong = example().replace("(self.encoder, self.p)", "(self.encoder,)")
    (folder / "my_wrong_model.py").write_text(wrong)
    (folder / "check.py").write_text(script.replace("my_model", "my_wrong_model"))
    done = subprocess.run(
        [sys.executable, "check.py"], cwd=folder, env=environment, capture_output=True, text=True, timeout=240
    )
    assert done.returncode == 1
    assert "The model 'denoiser' on row data fails the check 'every parameter is trained" in done.stderr


def test_the_check_says_what_is_wrong() -> None:
    with pytest.raises(ConfigError, match="There is no model 'vea'"):
        check_model("vea")
    with pytest.raises(ConfigError, match=r"no kind of data 'gray'\. Did you mean 'grey'\? Known: row, grey"):
        check_model("vae", kinds=["gray"])
    with pytest.raises(ConfigError, match="name other kinds"):
        check_model("pix2pix", kinds="row")
    with pytest.raises(ConfigError, match="Name a kind of data"):
        check_model("vae", kinds=[])
    with pytest.raises(ConfigError, match=r"no option 'latent'.*latent_dim"):
        check_model("vae", kinds="row", latent=3)
    with pytest.raises(AssertionError, match=r"The model .vae. on row data fails the check .*latent_dim"):
        check_model("vae", kinds=["row"], latent_dim=-1)
    check_model("vae", kinds=["row"])

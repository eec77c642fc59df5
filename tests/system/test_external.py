"""Another package adds a model, a net, a metric, a task and a section by entry points, and nothing else is touched."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PACKAGE = ROOT / "tests" / "external" / "sandglass_extra"

# Each command as a person would type it, all in one process: starting one takes longer than most of them.
COMMANDS = {
    "models": "models",
    "model": "models linear-ae",
    "nets": "nets",
    "metrics": "metrics",
    "help": "--help",
    "task help": "average --help",
    "train": "train linear-ae --data digits --net affine --model.net.bias false --limit 200 --epochs 1 --out run",
    "evaluate": "evaluate run --metrics brightness --brightness.samples 40 --json",
    "average": "average run -n 7 -o average.npy",
    "wrong": "average run -n much",
    "verify": "verify run",
}
SCRIPT = """
import contextlib, io, json, sys
from sandglass.app.main import main

found = {}
for name, line in json.load(sys.stdin).items():
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            code = main(line.split())
        except SystemExit as stop:
            code = stop.code
    found[name] = [code or 0, out.getvalue(), err.getvalue()]
with open("found.json", "w") as file:
    json.dump(found, file)
"""


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that the package is installed into, without a network."""
    pytest.importorskip("setuptools")
    folder = tmp_path_factory.mktemp("external")
    source = shutil.copytree(PACKAGE, folder / "source", ignore=shutil.ignore_patterns("__pycache__", "*.egg-info"))
    options = ("-q", "--no-deps", "--no-build-isolation", "--no-index", "--disable-pip-version-check")
    command = [sys.executable, "-m", "pip", "install", *options, "--target", str(folder / "site"), str(source)]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stderr
    return folder / "site"


@pytest.fixture(scope="module")
def used(installed: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, tuple[int, str, str]]]:
    """The folder the commands ran in, and of each its exit code, output and errors."""
    folder = tmp_path_factory.mktemp("used")
    path = os.pathsep.join([str(installed), str(ROOT / "src")])
    environment = os.environ | {"PYTHONPATH": path, "OMP_NUM_THREADS": "1", "SANDGLASS_CACHE": str(folder / "cache")}
    command = [sys.executable, "-W", "error", "-c", SCRIPT]
    text = json.dumps(COMMANDS)
    done = subprocess.run(command, cwd=folder, env=environment, input=text, capture_output=True, text=True, timeout=280)
    assert done.returncode == 0, done.stderr
    found = json.loads((folder / "found.json").read_text())
    failed = {name: err for name, (code, _, err) in found.items() if code and name != "wrong"}
    assert failed == {}
    return folder, {name: tuple(what) for name, what in found.items()}


Used = tuple[Path, dict[str, tuple[int, str, str]]]


def test_what_it_adds_is_listed(used: Used) -> None:
    said = {name: out for name, (_, out, _) in used[1].items()}
    assert re.search(r"^linear-ae +Autoencoder trained on the squared error", said["models"], re.MULTILINE)
    assert "latent_dim" in said["model"] and "affine" in said["model"]
    assert re.search(r"^affine +One affine map each way", said["nets"], re.MULTILINE)
    assert re.search(r"^brightness +Mean value", said["metrics"], re.MULTILINE)
    assert "  average      from the package sandglass-extra\n" in said["help"]
    assert "Draw samples and average them." in said["task help"] and "-n N, --number N" in said["task help"]


def test_its_model_trains_with_its_net(used: Used) -> None:
    folder, _ = used
    import yaml

    model = yaml.safe_load((folder / "run" / "config.yaml").read_text())["model"]
    assert model["name"] == "linear-ae" and model["options"]["net"] == {"name": "affine", "bias": False}
    log = (folder / "run" / "metrics.jsonl").read_text().splitlines()
    assert any(json.loads(line)["split"] == "validation" for line in log)


def test_its_metric_is_taken_by_name_and_of_itself(used: Used) -> None:
    found = used[1]
    figure = json.loads(found["evaluate"][1])["metrics"]["brightness"]
    assert figure["n"] == 40 and 0 < figure["value"] < 1 and figure["stderr"] > 0
    assert "brightness" in found["train"][1], "the figures that a training ends with have it, too"


def test_its_task_is_a_command(used: Used) -> None:
    import numpy as np

    folder, found = used
    assert found["average"][1] == "average.npy: the average of 7 samples\n"
    assert np.load(folder / "average.npy").shape == (1, 8, 8)
    code, _, err = found["wrong"]
    assert code == 2 and re.fullmatch(r"sandglass: --number must be a whole number[^\n]*, not much\.\n", err)


def test_its_section_is_in_the_report(used: Used) -> None:
    page = (used[0] / "run" / "report.html").read_text()
    assert page.count('<section id="weights"') == 1 and "encoder.1.weight" in page


def test_without_the_package_its_model_is_unknown(used: Used) -> None:
    """What is listed comes from the entry points, not from a file that happens to be imported."""
    from sandglass import registry
    from sandglass.errors import SandglassError

    with pytest.raises(SandglassError, match="linear-ae"):
        registry.entry("model", "linear-ae")
    with pytest.raises(SandglassError, match="linear-ae"):
        import sandglass

        sandglass.load(used[0] / "run")


def test_the_page_has_its_entry_points() -> None:
    page = (ROOT / "CONTRIBUTING.md").read_text()
    shown = re.search(r"^```toml\n(.*?)^```$", page, re.DOTALL | re.MULTILINE)
    assert shown is not None
    own = tomllib.loads((PACKAGE / "pyproject.toml").read_text())["project"]["entry-points"]
    assert tomllib.loads(shown[1])["project"]["entry-points"] == own

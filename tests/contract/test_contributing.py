"""The model on the page CONTRIBUTING.md keeps every contract: it joins as a package's does, in a process of its own."""

from __future__ import annotations

import ast
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
CONTRACT = ROOT / "tests" / "contract" / "test_models.py"
EXAMPLE = re.compile(r"^```python\n(?P<code>.*?)^```$", re.DOTALL | re.MULTILINE)


def example() -> str:
    """The first block of Python on the page."""
    found = EXAMPLE.search((ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8"))
    assert found is not None
    return found["code"]


def contract(code: str, folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    """Runs the contract tests of models where ``code`` is installed and registers a model."""
    (folder / "example_model.py").write_text(code, encoding="utf-8")
    about = folder / "example_model-1.0.dist-info"
    about.mkdir()
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: example-model\nVersion: 1.0\n", encoding="utf-8")
    (about / "entry_points.txt").write_text("[sandglass.models]\ndenoiser = example_model\n", encoding="utf-8")
    path = os.pathsep.join([str(folder), str(ROOT / "src"), os.environ.get("PYTHONPATH", "")])
    environment = os.environ | {"PYTHONPATH": path, "OMP_NUM_THREADS": "1", "PYTHONDONTWRITEBYTECODE": "1"}
    # -n 0 and no cache: this runs inside another run of pytest, whose options are not its own.
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-p", "no:xdist", *words, str(CONTRACT)]
    environment.pop("PYTEST_ADDOPTS", None)
    return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=280)


def test_the_model_on_the_page_keeps_every_contract(tmp_path: Path) -> None:
    done = contract(example(), tmp_path, "-k", "denoiser and not strong")
    assert done.returncode == 0, done.stdout[-5000:]
    passed = re.search(r"(\d+) passed", done.stdout)
    tests = [n.name for n in ast.parse(CONTRACT.read_text()).body if isinstance(n, ast.FunctionDef)]
    assert passed is not None and int(passed[1]) > len([n for n in tests if n.startswith("test_")]), done.stdout


@pytest.mark.parametrize(
    ("right", "wrong", "test"),
    [
        ("distortion.detach()", "distortion", "per_example"),
        ("batch.x, batch.mask)\n        return", "batch.x)\n        return", "missing_values"),
        ("(self.encoder, self.p)", "(self.encoder,)", "every_parameter_is_trained"),
        ("        noise: standard deviation of the added noise.\n", "", "option_is_documented"),
    ],
)
def test_a_broken_rule_is_found(right: str, wrong: str, test: str, tmp_path: Path) -> None:
    code = example()
    assert code.count(right) == 1
    done = contract(code.replace(right, wrong), tmp_path, "-x", "-k", f"denoiser and not strong and ({test})")
    assert done.returncode == 1, done.stdout[-3000:]
    assert " failed" in done.stdout

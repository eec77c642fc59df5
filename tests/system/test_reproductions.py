"""Scripts of ``reproductions/`` and ``benchmarks/`` run, on little data; their figures are measured by hand."""

from __future__ import annotations

import json
import math
import runpy
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from sandglass import registry
from sandglass.core import Spec

SCRIPT = Path(__file__).resolve().parents[2] / "reproductions" / "photos.py"


def test_every_family_on_the_same_photos(tmp_path: Path) -> None:
    chance = np.random.default_rng(0)
    for i in range(60):
        file = tmp_path / "photos" / "ab"[i % 2] / f"{i}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(chance.integers(0, 256, (16, 16, 3), np.uint8)).save(file)
    words = [
        *("--data", str(tmp_path / "photos"), "--classes", "a", "--pictures", "20", "--size", "16"),
        *("--minutes", "0.02", "--models", "vae", "--out", str(tmp_path / "out")),
    ]
    for _ in range(2):  # the second time nothing is trained again
        done = subprocess.run([sys.executable, str(SCRIPT), *words], capture_output=True, text=True, cwd=tmp_path)
        assert done.returncode == 0, done.stderr
    rows = json.loads((tmp_path / "out" / "rows.json").read_text())
    names = ["Gaussian of 64 components", "plain DCGAN", "plain VAE", "vae of 0.1", "vae"]
    assert [row["model"] for row in rows.values()] == names
    assert all((tmp_path / "out" / f"{key}.png").exists() for key in rows)
    assert (tmp_path / "out" / "sheets.jpg").exists()
    assert (tmp_path / "out" / "table.md").read_text().count("\n") == 2 + len(names)
    assert len(list((tmp_path / "out").glob("run-*"))) == 2


def test_samplers_of_codes() -> None:
    script = SCRIPT.with_name("samplers.py")
    words = ["--data", "digits", "--epochs", "1", "--seeds", "1", "--kinds", "gaussian-mixture components=2", "maf"]
    done = subprocess.run([sys.executable, str(script), *words], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    names = [line.split("  ")[0] for line in done.stdout.splitlines() if " to " in line and "seed" not in line]
    vae = [f"vae, {name}" for name in ("prior", "codes of training examples", "gaussian-mixture components=2", "maf")]
    assert names == ["ae, gaussian-mixture components=2", "ae, maf", *vae]


def test_priors_and_posteriors() -> None:
    script = SCRIPT.with_name("priors.py")
    words = ["--data", "digits", "--epochs", "1", "--seeds", "0", "--draws", "5", "--widths", "8", "--latents", "3"]
    command = [sys.executable, str(script), *words, "--kinds", "standard", "vamp"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert [line.split()[0] for line in done.stdout.splitlines() if " to " in line] == ["standard", "vamp"]


def test_few_labels(tmp_path: Path) -> None:
    words = ["--data", "digits", "--labels", "20", "--epochs", "1", "--widths", "8", "--latents", "2", "--first", "3"]
    command = [
        sys.executable,
        str(SCRIPT.with_name("semi_supervised.py")),
        *words,
        "--out",
        str(tmp_path / "drawn.png"),
    ]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count(" to ") == 6 and len(list(tmp_path.glob("drawn-*.png"))) == 2


def test_discrete_codes(tmp_path: Path) -> None:
    words = ["--data", "digits", "--epochs", "1", "--prior-epochs", "1", "--size", "8", "--width", "4", "--test", "60"]
    script = [sys.executable, str(SCRIPT.with_name("discrete.py")), *words, "--kinds", "residual", "lfq"]
    done = subprocess.run([*script, "--out", str(tmp_path / "out")], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "| `residual` | 2x2x2 of 8 |" in done.stdout and "| `lfq` | 2x2 of 8 |" in done.stdout
    assert (tmp_path / "out" / "sheet.png").exists()


def test_bits_are_of_probabilities_alone() -> None:
    found = runpy.run_path(str(SCRIPT.with_name("discrete.py")))["bits_per_value"]
    for likelihood, text in (("categorical", "1.0000"), ("gaussian", ""), ("bernoulli", "")):
        spec = Spec((1, 8, 8), "levels", levels=17)
        model = registry.build("vq-vae", spec if text else Spec((1, 8, 8), "unit"), likelihood=likelihood)
        assert found(model, -64 * math.log(2)) == text


ROWS = {
    "decoder_scale": ["a Gaussian of the images", "fixed at 1", "optimal"],
    "dissimilarity": ["mean image", "vae", "ms-ssim-vae"],
    "semi_amortized": ["independent pixels", "weak, vae, refined", "weak, semi-amortized-vae, stopped"],
}


@pytest.mark.slow
@pytest.mark.parametrize("name", ROWS)
def test_quick_benchmarks(name: str) -> None:
    script = SCRIPT.parents[1] / "benchmarks" / f"{name}.py"
    done = subprocess.run([sys.executable, str(script), "--quick"], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert all(f"{row}: " in done.stdout for row in ROWS[name]), done.stdout


@pytest.mark.parametrize(
    ("name", "words", "rows"),
    [
        ("hyperspherical", ["--data", "digits", "--dims", "2"], ["| 2 | gaussian", "| 2 | von-mises-fisher"]),
        ("poincare", ["--depth", "2", "--curvatures", "1"], ["| gaussian", "| wrapped-normal, curvature 1"]),
    ],
)
def test_spaces_of_codes(name: str, words: list[str], rows: list[str]) -> None:
    own = ["--codes", "gaussian", "von-mises-fisher"] if name == "hyperspherical" else []
    words = [*words, *own, "--epochs", "1", "--seeds", "1", "--draws", "5"]
    done = subprocess.run([sys.executable, str(SCRIPT.with_name(f"{name}.py")), *words], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert all(done.stdout.count(row) == 2 for row in rows)  # as they come, and in the table


@pytest.mark.slow
def test_topics() -> None:
    script = SCRIPT.with_name("topics.py")
    words = ["--words", "50", "--topics", "3", "--epochs", "1", "--seeds", "1"]
    done = subprocess.run([sys.executable, str(script), *words], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    kinds = ["frequency", "LDA", "dirichlet-vae", "logistic-normal", "stick-breaking", "gaussian"]
    assert [line.split()[0] for line in done.stdout.splitlines() if " to " in line] == kinds


def test_levels_beside_one_another() -> None:
    names = ("hierarchical-vae", "vd-vae")
    words = ["--data", "digits", "--pictures", "100", "--epochs", "1", "--models", *names]
    script = SCRIPT.with_name("depth.py")
    done = subprocess.run([sys.executable, str(script), *words], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert all(done.stdout.count(f"| `{name}` |") == 2 for name in names)  # as they come, and in the table


def test_joint_models_of_digits_with_labels_and_with_other_digits(tmp_path: Path) -> None:
    words = ["--data", "digits", "--pictures", "200", "--epochs", "1", "--draws", "2", "--width", "8"]
    command = [sys.executable, str(SCRIPT.with_name("several_modalities.py")), *words, "--models", "mvae", "mmvae"]
    done = subprocess.run([*command, "--out", str(tmp_path)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("| `mvae` |") == done.stdout.count("| `mmvae` |") == 2
    assert {file.name for file in tmp_path.glob("*.png")} == {"labels.png", "other.png"}

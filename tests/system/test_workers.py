"""Tasks that several workers share give what one process gives: the same files, to the bit."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import torch

import sandglass
from made import dataset, spec_for
from sandglass import registry, running
from sandglass.core import Spec
from sandglass.data.dataset import Split
from sandglass.errors import ConfigError, MissingPackageError
from sandglass.tasks.spread import Spread, Worker, place_of_data
from sandglass.tasks.trained import Trained, opened

SMALL: dict[str, Any] = {
    "model_options": {"net": {"name": "mlp", "widths": [8]}, "latent_dim": 2},
    "epochs": 1, "device": "cpu", "precision": "fp32", "sheets": 0,
}  # fmt: skip

TASKS: dict[str, dict[str, Any]] = {
    "encode": {},
    "score": {"seed": 3, "number": 1500},
    "generate": {"number": 700, "seed": 5},
}


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run on the digits, whose 1,797 examples are four batches."""
    return sandglass.train("vae", "digits", out=tmp_path_factory.mktemp("workers") / "run", **SMALL).path


def task(name: str, **options: Any) -> Spread:
    made: Spread = registry.resolve("task", {"name": name, **TASKS.get(name, {}), **options})
    return made


@pytest.mark.parametrize("name", TASKS)
def test_pieces_in_any_order_are_the_whole(name: str, run: Path) -> None:
    """By workers of this process, each of which knows what a worker of Ray is told."""
    trained, one = opened(str(run), "cpu"), task(name)
    whole = one.computed(trained)
    pieces = one.work(trained).pieces
    assert pieces >= 3
    made = {"name": one.name, **one.options}
    workers = [Worker(str(run), "cpu", made, os.getcwd(), 1) for _ in range(2)]
    found: dict[int, Any] = {}
    for place in reversed(range(pieces)):
        rows = workers[place % 2]({"place": np.array([place])})
        found |= dict(zip(rows["place"], rows["result"], strict=True))

    together = torch.cat([safetensors.torch.load(found[place])["x"] for place in range(pieces)])
    assert torch.equal(together, whole)


def test_every_class_is_in_pieces_of_its_own(tmp_path: Path) -> None:
    data = dataset(spec_for("cvae", "row"))
    run = sandglass.train("cvae", data, out=tmp_path / "run", **SMALL)
    trained = opened(run, "cpu", data=data)
    one = task("generate", label="each", number=300, workers=1)
    assert one.work(trained).pieces == 6
    assert len(one(trained).x) == 900  # type: ignore[arg-type]


@pytest.mark.parametrize("options", [{"number": 1500, "seed": 5}, {"label": [0, 1, 2] * 500}])
def test_workers_sample_the_classes_of_the_class_column(options: dict[str, Any], tmp_path: Path) -> None:
    """They are drawn once, for a worker does not have the data that they are drawn in proportion to."""
    data = dataset(spec_for("cvae", "row"))
    run = sandglass.train("cvae", data, out=tmp_path / "run", **SMALL)
    trained, one = opened(run, "cpu", data=data), registry.resolve("task", {"name": "generate", **options})
    whole = one(trained)
    places = range(one.work(trained).pieces)
    assert len(places) > 1
    worker = Worker(str(run.path), "cpu", {"name": one.name, **one.settled(trained)}, os.getcwd(), 1)
    rows = worker({"place": np.array(places)})["result"]
    assert torch.equal(torch.cat([safetensors.torch.load(row)["x"] for row in rows]), whole.x)


def test_a_worker_imports_files_and_reads_moved_data(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "imported_by_a_worker.py").write_text("done = True")
    rows = tmp_path / "rows.npy"
    np.save(rows, np.random.default_rng(0).random((60, 4), np.float32))
    own = sandglass.train("vae", str(rows), out=tmp_path / "run", **SMALL)
    moved = rows.rename(tmp_path / "moved.npy")
    trained, one = opened(own.path, "cpu", data=str(moved)), task("encode")
    made = {"name": one.name, **one.options}
    imports = [str(tmp_path / "imported_by_a_worker.py")]
    worker = Worker(str(own.path), "cpu", made, os.getcwd(), 1, imports, place_of_data(one, trained))
    assert "imported_by_a_worker" in sys.modules
    assert torch.equal(safetensors.torch.load(worker({"place": [0]})["result"][0])["x"], one.computed(trained))
    monkeypatch.delitem(sys.modules, "imported_by_a_worker")


def test_custom_parts_and_data_in_memory_of_a_run_are_said(tmp_path: Path) -> None:
    data = sandglass.load_data(np.zeros((40, 1, 8, 8), np.float32))
    run = sandglass.train("vae", data, out=tmp_path / "run", **SMALL)
    with pytest.raises(ConfigError, match="Each worker loads the model and the data by itself"):
        task("encode", workers=2).computed(opened(run, "cpu"))
    trained = opened(run, "cpu")
    trained.model.custom = {"net": torch.nn.Identity()}
    with pytest.raises(ConfigError, match="custom net"):
        task("generate", workers=2).computed(trained)


def test_results_of_a_batch_do_not_depend_on_others() -> None:
    model = registry.build("vae", Spec((2,)), latent_dim=1)
    split = Split(torch.randn(1100, 2))
    whole = running.over(model, split, model.score, key=(1, "score"))
    assert running.batches(split) == 3
    assert (running.over(model, split, model.score, key=(1, "score"), places=[1]) == whole[512:1024]).all()


def test_what_workers_cannot_read_is_said(run: Path) -> None:
    trained = opened(str(run), "cpu")
    with pytest.raises(ConfigError, match="at least 1, not 0"):
        task("encode", workers=0).computed(trained)
    own = sandglass.load_data("digits")
    with pytest.raises(ConfigError, match="Each worker loads the model and the data by itself"):
        task("encode", workers=2, data=own).computed(trained)
    memory = sandglass.load_data(np.zeros((40, 1, 8, 8), np.float32))
    with pytest.raises(ConfigError, match="Each worker loads the model and the data by itself"):
        task("encode", workers=2).computed(replace(trained, data=memory))
    without = Trained(trained.model, trained.reading, None, "mine")
    with pytest.raises(ConfigError, match="Each worker loads the model and the data by itself"):
        task("generate", workers=2).computed(without)


@pytest.mark.skipif(importlib.util.find_spec("ray") is not None, reason="Ray is installed")
def test_without_ray_the_extra_is_named(run: Path) -> None:
    with pytest.raises(MissingPackageError, match=r"pip install 'sandglass-ml\[ray\]'"):
        task("generate", workers=2).computed(opened(str(run), "cpu"))


@pytest.mark.skipif(importlib.util.find_spec("ray") is None, reason="needs Ray: pip install 'sandglass-ml[ray]'")
@pytest.mark.parametrize("name", TASKS)
def test_ray_gives_the_files_of_one_process(name: str, run: Path, tmp_path: Path) -> None:
    words = [w for option, value in TASKS[name].items() for w in (f"--{option}", str(value))]
    out = "x.npy" if name == "generate" else "x.npz"

    def call(folder: str, *more: str) -> tuple[str, Any]:
        (tmp_path / folder).mkdir()
        command = [sys.executable, "-m", "sandglass", name, str(run), *words, "-o", out, *more]
        env = {**os.environ, "OMP_NUM_THREADS": "1"}
        ended = subprocess.run(command, cwd=tmp_path / folder, env=env, capture_output=True, text=True, timeout=280)
        assert ended.returncode == 0, ended.stderr
        return ended.stdout, np.load(tmp_path / folder / out, allow_pickle=False)

    (said, one), (said_too, several) = call("one"), call("several", "--workers", "2")
    assert said == said_too
    for key in one.files if hasattr(one, "files") else [...]:
        assert np.array_equal(one[key], several[key])

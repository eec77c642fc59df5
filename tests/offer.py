"""Offers files to every place that reads one: ``offer.py FOLDER SENTINELS`` does so in a process of its own.

What comes back for each is ``"refused"`` (an error of ours), ``"read"``, or what else was raised.
"""

from __future__ import annotations

import contextlib
import io
import os
import shutil
import sys
import tempfile
import warnings
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import sandglass
from hostile import corpus
from sandglass import api
from sandglass.app.main import main
from sandglass.engine.copying import start_from
from sandglass.errors import SandglassError
from sandglass.runs import storage
from sandglass.runs.run import Run
from sandglass.tasks import code_files

GOLDEN = Path(__file__).parent / "golden" / sandglass.__version__
SUFFIXES = (
    ".npy", ".npz", ".csv", ".tsv", ".png", ".tif", ".pt", ".pth", ".pkl", ".joblib", ".safetensors", ".yaml", ".json",
    ".parquet", ".zip", ".tar", ".tar.gz", ".h5", "",
)  # fmt: skip


def outcome(read: Callable[[], object]) -> str:
    """What came of reading something."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            read()
    except SandglassError:
        return "refused"
    except BaseException as error:
        return f"{type(error).__name__}: {error}"
    return "read"


def command(*words: str) -> None:
    """A command line; an exit code that tells of a failure is an error again."""
    said = io.StringIO()
    with contextlib.redirect_stderr(said), contextlib.redirect_stdout(io.StringIO()):
        code = main(words)
    lines = [line for line in said.getvalue().splitlines() if line]
    if "Traceback" in said.getvalue() or (code and not lines):
        raise AssertionError(f"{words} ended with {code} and: {said.getvalue()}")
    if code:
        raise SandglassError(lines[-1])


def sealed(folder: Path, name: str, data: bytes) -> None:
    """Replaces a file of a folder and writes a manifest that fits, as an attacker would."""
    files: dict[str, storage.Content] = {f.name: f.read_bytes() for f in folder.iterdir() if f.name != storage.MANIFEST}
    about = {k: v for k, v in storage.read_manifest(folder).items() if k not in ("seal", "files", "format")}
    storage.write_folder(folder, {**files, name: data}, about)


def places(file: Path, data: bytes, scratch: Path) -> Iterator[tuple[str, Callable[[], object]]]:
    """Each place that reads files, and what reads this one there."""
    folder = scratch / "folder"
    folder.mkdir()
    for name in ("a.png", "b.jpg", "c.npy", "d.pt", "e.csv"):
        (folder / name).write_bytes(data)
    for suffix in SUFFIXES:
        yield f"data{suffix}", partial(offered_as, sandglass.load_data, scratch / f"as{suffix}", data)
    for suffix in (".npy", ".npz", ".csv", ".parquet", ".pkl"):
        yield f"codes{suffix}", partial(offered_as, partial(code_files.read, dim=2), scratch / f"as{suffix}", data)
    yield "data folder", partial(sandglass.load_data, folder, size=8)
    yield "config", partial(command, "train", "--config", str(file), "--out", str(scratch / "run"))
    for name in ("config.json", "model.safetensors", "README.md", storage.MANIFEST):
        yield f"model {name}", partial(in_model, scratch / "model", name, data)
    yield "init-from", partial(in_model, scratch / "model", "model.safetensors", data, start=True)
    for name in ("config.yaml", "metrics.jsonl", "results.json", *(f"checkpoints/{n}" for n in PARTS)):
        yield f"run {name}", partial(in_run, scratch / "golden", name, data)


def offered_as(read: Callable[[Path], object], path: Path, data: bytes) -> object:
    """Reads bytes under a name."""
    path.write_bytes(data)
    return read(path)


def in_model(model: Path, name: str, data: bytes, start: bool = False) -> None:
    """Loads a model folder with one file replaced."""
    shutil.rmtree(model, ignore_errors=True)
    shutil.copytree(GOLDEN / "ae" / "model", model)
    if name == storage.MANIFEST:
        (model / name).write_bytes(data)
    else:
        sealed(model, name, data)
    if start:
        start_from(sandglass.build("ae", api.transform_of(model).spec(), **OPTIONS), model)
    else:
        sandglass.load(model)


def in_run(path: Path, name: str, data: bytes) -> None:
    """Reads everything there is in a run with one file replaced."""
    shutil.rmtree(path, ignore_errors=True)
    shutil.copytree(GOLDEN / "ae", path)
    if name.startswith("checkpoints"):
        sealed(path / "checkpoints" / "step-00000011", name.split("/")[1], data)
    else:
        (path / name).write_bytes(data)
    run = Run(path)
    run.metrics(), run.events(), run.results()
    run.load_model("last")
    command("verify", str(path))


OPTIONS = {"latent_dim": 2, "net": {"name": "mlp", "widths": [16]}}
PARTS = ("model.safetensors", "optim.safetensors", "meter.safetensors", "state.json", "extra.pkl")


def offer(folder: Path, sentinels: Path, every: int) -> list[tuple[str, str, str]]:
    """Hostile files at every place: name, place, and what came of it.

    With ``every`` above 1 a file goes to each of that many places only, another share for the next file.
    """
    found = []
    for number, hostile in enumerate(corpus(sentinels)):
        file = folder / hostile.name
        file.write_bytes(hostile.data)
        with tempfile.TemporaryDirectory(dir=folder) as scratch:
            offers = enumerate(places(file, hostile.data, Path(scratch)), number)
            found += [(hostile.name, place, outcome(read)) for turn, (place, read) in offers if turn % every == 0]
    return found


if __name__ == "__main__":
    os.fsync = lambda descriptor: None  # what is written here need not outlive a power cut, and waits for no disk
    for line in offer(Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3])):
        print(*line, sep="\t")

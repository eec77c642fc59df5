"""Whole commands, each in a process of its own: start-up, and a lab exercise from data to report."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks.speed.contenders import CONTENDERS, Setting
from benchmarks.speed.data import Pictures, pictures, stored
from benchmarks.speed.session import ROOT, AbsentError, in_turns, last_line, path_for

EPOCHS = 10
"""Of the lab exercise."""


def start_up(rounds: int, peers: bool) -> dict[str, Any]:
    """Seconds of ``--help``, and of imports beside those of others."""
    own = Path(sys.executable)
    items: dict[str, tuple[Path, Sequence[str]]] = {
        "sandglass --help": (own, ("-m", "sandglass", "--help")),
        "import sandglass": (own, ("-c", "import sandglass")),
        "import torch": (own, ("-c", "import torch")),
    }
    absent = {}
    for name, line in (("pythae", "import pythae.models"), ("keras", "import keras")) if peers else ():
        try:
            items[line] = CONTENDERS[name].python, ("-c", line)
        except AbsentError as error:
            absent[name] = str(error)
    found = timed(items, rounds)
    return {"seconds": found["seconds"], "absent": absent | found["absent"]}


def lab(setting: Setting, rounds: int) -> dict[str, Any]:
    """Seconds of the recipe ``mnist-512-2`` with its report, and of a script with pythae that trains and samples."""
    train, test = (str(stored(setting.folder, f"lab-{s}", mnist(n, s))) for s, n in SIZES)
    items: dict[str, tuple[Path, Sequence[str]]] = {}
    absent = {}
    words = ("train", "--recipe", "mnist-512-2", "--epochs", str(EPOCHS), "--threads", str(setting.threads))
    items["sandglass"] = Path(sys.executable), ("-m", "sandglass", *words, "--out", "{out}/run")
    try:
        script = ("-m", "benchmarks.speed.workers.pythae_lab", train, test, "{out}", str(EPOCHS), str(setting.threads))
        items["pythae"] = CONTENDERS["pythae"].python, script
    except AbsentError as error:
        absent["pythae"] = str(error)
    found = timed(items, rounds, dropped=0)
    return {"seconds": found["seconds"], "absent": absent | found["absent"], "epochs": EPOCHS}


SIZES = (("train", 60_000), ("test", 10_000))


def mnist(n: int, split: str) -> Pictures:
    """The pictures of MNIST.

    Raises:
        AbsentError: they are not at hand; those of the recipe would be others.
    """
    name, found = pictures(n, split)
    if name != "MNIST":
        raise AbsentError("the recipe is of MNIST, and SANDGLASS_DATA names no folder that has it")
    return found


def timed(items: dict[str, tuple[Path, Sequence[str]]], rounds: int, dropped: int = 1) -> dict[str, Any]:
    """The seconds of commands in turns, and which of them failed and why."""
    actions = {name: partial(run, python, words) for name, (python, words) in items.items()}
    seconds, _, absent = in_turns(actions, rounds, dropped=dropped)
    return {"seconds": seconds, "absent": absent}


def run(python: Path, words: Sequence[str]) -> float:
    """The seconds of one command; ``{out}`` in its words is a folder that is then removed.

    Raises:
        AbsentError: it failed.
    """
    environment = os.environ | {"PYTHONPATH": path_for(python)}
    with tempfile.TemporaryDirectory() as out:
        command = [str(python), *(word.replace("{out}", out) for word in words)]
        since = time.perf_counter()
        done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
        seconds = time.perf_counter() - since
    if done.returncode:
        raise AbsentError(f"`{' '.join(words)}` failed: {last_line(done.stderr)}")
    return seconds

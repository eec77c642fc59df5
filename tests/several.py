"""Starts a training in several processes, as ``torchrun`` does, and reads what it made."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

from safetensors.torch import load_file
from torch import Tensor

STEPS = 20


def port() -> int:
    """A free one."""
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return int(s.getsockname()[1])


def variables(rank: int, count: int, where: int) -> dict[str, str]:
    """The environment that ``torchrun`` gives to a process."""
    ranks = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": count, "LOCAL_WORLD_SIZE": count, "MASTER_PORT": where}
    return {**os.environ, "MASTER_ADDR": "127.0.0.1", "OMP_NUM_THREADS": "1"} | {k: str(v) for k, v in ranks.items()}


def start(script: str, count: int, *words: str) -> list[subprocess.Popen[str]]:
    """Processes of a Python script, or of the command line where it is empty."""
    where, code = port(), ["-c", script] if script else ["-m", "sandglass"]
    return [
        subprocess.Popen(
            [sys.executable, *code, *words],
            env=variables(rank, count, where),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        for rank in range(count)
    ]


def end(processes: list[subprocess.Popen[str]], seconds: float = 300) -> list[tuple[int, str, str]]:
    """Exit code, output and messages of each; none may hang."""
    try:
        found = [p.communicate(timeout=seconds) for p in processes]
    finally:
        for p in processes:
            if p.poll() is None:
                p.send_signal(signal.SIGKILL)
    return [(p.returncode, out, err) for p, (out, err) in zip(processes, found, strict=True)]


def run(script: str, count: int, *words: str) -> list[tuple[int, str, str]]:
    """Starts the processes and waits for them; all must succeed."""
    ended = end(start(script, count, *words))
    assert all(code == 0 for code, _, _ in ended), "\n".join(err for _, _, err in ended)
    return ended


TRAIN = """
import json, os, sys, sandglass
sys.path.insert(0, {tests!r})
from several import trained
for settings in json.loads(sys.argv[1]):
    trained(settings)
sys.stdout.flush()
os._exit(0)  # threads of torch.distributed may abort a process that ends in the usual way
"""


def train(count: int, *settings: dict[str, Any]) -> list[tuple[int, str, str]]:
    """Trainings by some processes, one after the other; see :func:`trained`."""
    return run(TRAIN.format(tests=str(Path(__file__).parent)), count, json.dumps(settings))


def trained(settings: dict[str, Any]) -> None:
    """A training or, where there is a run, its continuation, in one of the processes.

    Args:
        settings: ``path``, ``model``, ``data`` and the options of training; ``epochs`` of a continuation.
    """
    import sandglass

    options = {"batch_size": 32, "device": "cpu", "precision": "fp32", "threads": 1, "sheets": 0} | settings
    path, model, data = options.pop("path"), options.pop("model", ""), options.pop("data", "digits")
    if not model:
        sandglass.resume(path, **settings["resume"])
        return
    made = sandglass.train(model, data, out=path, **options)
    assert str(made.path) == path and made.config["model"]["name"] == model


def weights(path: Path) -> dict[str, Tensor]:
    """All tensors of the newest checkpoint, buffers, optimisers and average included."""
    folder = sorted((path / "checkpoints").glob("step-*"))[-1]
    return {f"{f.stem}/{k}": v for f in folder.glob("*.safetensors") for k, v in load_file(f).items()}


def far(a: dict[str, Tensor], b: dict[str, Tensor]) -> tuple[float, str]:
    """The largest relative difference between tensors of two checkpoints, and of which."""
    assert a.keys() == b.keys()
    apart = {
        name: float((a[name].double() - b[name].double()).norm() / max(float(b[name].double().norm()), 1e-6))
        for name in a
    }
    name = max(apart, key=lambda k: apart[k])
    return apart[name], name

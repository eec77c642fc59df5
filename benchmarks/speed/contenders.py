"""Who is compared: how each is started, or why it is absent."""

from __future__ import annotations

import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmarks.speed.session import ROOT, AbsentError, Worker
from benchmarks.speed.workloads import Workload, shared

PEERS = ROOT / "build" / "peers"
"""Where ``make bench`` has the environments of the peers."""


@dataclass(frozen=True)
class Contender:
    """One line of the tables.

    Args:
        title: in tables.
        module: of its worker.
        environment: name of its environment; Sandglass's own where empty.
        options: of its worker.
        lacks: what it has no function for.
    """

    title: str
    module: str
    environment: str = ""
    options: dict[str, Any] = field(default_factory=dict)
    lacks: tuple[str, ...] = ()

    @property
    def python(self) -> Path:
        """The interpreter.

        Raises:
            AbsentError: its environment was not installed.
        """
        if not self.environment:
            return Path(sys.executable)
        python = PEERS / self.environment / "bin" / "python"
        if not (PEERS / self.environment / "installed").exists():
            raise AbsentError(f"it is not installed in {python.parents[1].relative_to(ROOT)}; `make bench` does that")
        return python


CONTENDERS = {
    "sandglass": Contender("Sandglass", "ours", options={"precision": "auto"}),
    "sandglass-fp32": Contender("Sandglass, fp32", "ours", options={"precision": "fp32"}),
    "torch": Contender("PyTorch, least loop", "torch_loop", options={"loader": False}),
    "torch-loader": Contender("PyTorch, DataLoader", "torch_loop", options={"loader": True}),
    "keras": Contender("Keras", "keras_fit", "keras", {"jit": "auto"}),
    "keras-xla": Contender("Keras, XLA", "keras_fit", "keras", {"jit": True}),
    "pythae": Contender("pythae", "pythae_pipeline", "pythae", lacks=("score",)),
}


@dataclass(frozen=True)
class Setting:
    """What holds for all contenders of a run.

    Args:
        folder: for logs and what workers write.
        device: ``cpu`` or ``cuda``.
        threads: of the processor.
    """

    folder: Path
    device: str
    threads: int

    def start(self, name: str, workload: Workload, data: Path, epochs: int) -> Worker:
        """The worker of a contender.

        Raises:
            AbsentError: it does not run here.
        """
        contender = CONTENDERS[name]
        options = dict(contender.options)
        if name == "pythae":
            options["name"] = shared([workload.model])[workload.model]
        if self.device != "cpu" and contender.environment == "keras":
            raise AbsentError("tensorflow-cpu has no GPU")
        job = {
            "data": str(data),
            "folder": str(self.folder),
            "device": self.device,
            "threads": self.threads,
            "epochs": epochs,
            "workload": workload.job(),
            "options": options,
        }
        log = self.folder / "logs" / f"{workload.name}-{name}.log"
        return Worker(contender.module, contender.python, job, log, self.threads)

"""Precision, threads and memory: of a forward pass, and the global settings of a run, restored afterwards."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext

import torch

from sandglass.engine.memory import keep_freed
from sandglass.engine.options import Training


@contextmanager
def settings(options: Training, among: int = 1) -> Iterator[None]:
    """Threads and matrix precision as the run says; memory is kept from step to step, from then on.

    Args:
        options: of the training.
        among: number of processes on this machine that share the threads.
    """
    keep_freed()
    threads, matmul = torch.get_num_threads(), torch.get_float32_matmul_precision()
    if options.threads is not None and (own := max(1, options.threads // among)) != threads:
        torch.set_num_threads(own)
    torch.set_float32_matmul_precision("high" if options.precision in ("tf32", "bf16") else "highest")
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(matmul)
        if torch.get_num_threads() != threads:
            torch.set_num_threads(threads)


def autocast(options: Training, device: torch.device) -> AbstractContextManager[object]:
    """The precision of a forward pass."""
    return torch.autocast(device.type, torch.bfloat16) if options.precision == "bf16" else nullcontext()

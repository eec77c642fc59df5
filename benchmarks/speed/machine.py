"""What the times depend on."""

from __future__ import annotations

import os
import platform
from pathlib import Path
from typing import Any

import torch

WANTED = ("avx2", "avx512f", "avx512_bf16", "amx_bf16")


def about(device: str) -> dict[str, Any]:
    """The machine in plain values."""
    info = _info()
    flags = info.get("flags", "").split()
    found = {
        "processor": info.get("model name") or platform.processor() or platform.machine(),
        "instructions": ", ".join(flag for flag in WANTED if flag in flags) or platform.machine(),
        "cores": os.cpu_count(),
        "memory": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
        "system": platform.system(),
        "load": os.getloadavg()[0],
        "python": platform.python_version(),
    }
    return found | ({"gpu": torch.cuda.get_device_name()} if device != "cpu" else {})


def _info() -> dict[str, str]:
    """The first processor of ``/proc/cpuinfo``; empty on other systems."""
    path = Path("/proc/cpuinfo")
    if not path.exists():
        return {}
    lines = path.read_text().split("\n\n")[0].splitlines()
    return {key.strip(): value.strip() for key, _, value in (line.partition(":") for line in lines)}

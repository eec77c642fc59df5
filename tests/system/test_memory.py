"""What a step frees is there for the next one, without a page of it being cleared by the system again."""

from __future__ import annotations

import subprocess
import sys

import pytest

STEPS = """
import resource, sys, torch
from sandglass.engine.memory import keep_freed

if sys.argv[1] == "kept":
    assert keep_freed()
def faults():
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(10):
    torch.ones(2**24)
before = faults()
for _ in range(10):
    torch.ones(2**24)
print(faults() - before)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="of the allocator of Linux")
def test_memory_is_kept_from_step_to_step() -> None:
    """Ten times 64 MiB are 160,000 pages of 4 KiB, or 320 of 2 MiB."""
    kept, given_back = (
        int(subprocess.run([sys.executable, "-c", STEPS, how], capture_output=True, text=True, check=True).stdout)
        for how in ("kept", "given back")
    )
    assert kept < given_back / 5

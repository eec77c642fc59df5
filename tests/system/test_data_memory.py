"""A folder that is larger than memory: read, split and trained on under a limit that memory cannot pass."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
from PIL import Image

import sandglass

SOURCE = str(Path(sandglass.__file__).parents[1])

LIMITED = """
    import resource, torch
    from sandglass.core import Batch
    from sandglass.data.load import load_data
    from sandglass.data.loading import Loader, in_order
    from sandglass.data.sources import decoding
    decoding._WORKERS = 2  # each has a stack of its own
    torch.set_num_threads(1)
    weight = torch.zeros(3 * 300 * 300, requires_grad=True)

    def step(batch):
        loss = (batch.x.flatten(1) @ weight - 1).square().mean()
        loss.backward()
        with torch.no_grad():
            weight.sub_(1e-6 * weight.grad)
        weight.grad = None
        return float(loss)

    step(Batch(torch.zeros(8, 3, 300, 300)))
    used = int(next(l for l in open("/proc/self/status") if l.startswith("{counted}")).split()[1]) * 1024
    resource.setrlimit(resource.{limit}, (used + {more} * 2**20,) * 2)
    options = {{"validation": 0.1, "test": 0.0, "size": 300, "channels": 3}}
    data = load_data({folder!r}, cache=True, **options)
    print(sum(s.x.nbytes for s in data.splits.values()) // 2**20)
    loader = Loader(data.train, 8, seed=0)
    losses = [step(loader.batch(n)) for n in range(loader.steps_per_epoch)]
    print(sum(step(make()) for make in in_order(data.splits["validation"], 8)) / 10 < losses[0])
    try:
        load_data({folder!r}, cache=False, **options)
    except (MemoryError, RuntimeError):
        print("no memory")
"""


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux counts what a process has of its own")
@pytest.mark.parametrize(
    ("limit", "counted", "more"),
    [
        ("RLIMIT_DATA", "VmData", 80),  # what is the process's own
        ("RLIMIT_AS", "VmSize", 80 + 206),  # addresses, of which the mapped file takes as many as it has bytes
    ],
)
def test_more_than_memory_holds(limit: str, counted: str, more: int, tmp_path: Path) -> None:
    """205 MiB of pixels train within 80; the control, into memory under the same limit, does not go."""
    (tmp_path / "pictures").mkdir()
    for number in range(800):
        Image.new("RGB", (8, 8), (number % 256, number // 256, 77)).save(tmp_path / f"pictures/{number:03}.png")
    script = textwrap.dedent(LIMITED.format(folder=str(tmp_path / "pictures"), limit=limit, counted=counted, more=more))
    own = {"PYTHONPATH": SOURCE, "OMP_NUM_THREADS": "1", "SANDGLASS_CACHE": str(tmp_path / "cache")}
    own["MALLOC_ARENA_MAX"] = "1"  # or every thread sets 64 MiB of addresses aside
    words = [sys.executable, "-c", script]
    done = subprocess.run(words, env=os.environ | own, capture_output=True, text=True, timeout=250)
    assert done.stdout.split() == ["205", "True", "no", "memory"], done.stdout + done.stderr

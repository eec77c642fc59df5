"""Small files that ask for much: ``bombs.py FILE ...`` reads each in this process and prints what came of it.

For each: its size, what came of it, how much memory the reading took at its peak and how long, in bytes and seconds.
"""

from __future__ import annotations

import io
import json
import os
import resource
import shutil
import sys
import time
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
from PIL import Image
from safetensors.torch import load_file

import sandglass
from offer import GOLDEN, outcome, sealed
from sandglass.runs.plain import read_yaml
from sandglass.tasks import code_files
from sandglass.tasks.trained import opened

Bombs = Iterator[tuple[str, Callable[[], bytes]]]
"""Names, and what makes the bytes."""

LIMIT = 6 * 2**30  # of address space: PyTorch alone maps some gigabytes


def safetensors(header: bytes, body: int = 0) -> bytes:
    return len(header).to_bytes(8, "little") + header + bytes(body)


def entry(shape: list[int], end: int, dtype: str = "F32") -> dict[str, object]:
    return {"dtype": dtype, "shape": shape, "data_offsets": [0, end]}


def npy(shape: str, dtype: str = "<f8") -> bytes:
    """The header of an array that claims a shape, and nothing after it."""
    text = f"{{'descr': '{dtype}', 'fortran_order': False, 'shape': {shape}, }}".ljust(117) + "\n"
    return b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text.encode()


def zipped(name: str, member: bytes, times: int = 1) -> bytes:
    buffer = io.BytesIO()
    with (
        zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive,
        archive.open(name, "w", force_zip64=True) as file,
    ):
        for _ in range(times):
            file.write(member)
    return buffer.getvalue()


def png(width: int, height: int) -> bytes:
    buffer = io.BytesIO()
    Image.new("1", (width, height)).save(buffer, "PNG")
    return buffer.getvalue()


def many(count: int) -> bytes:
    """A header of so many empty tensors."""
    one = b'"%d":{"dtype":"F32","shape":[0],"data_offsets":[0,0]}'
    return b"{" + b",".join(one % i for i in range(count)) + b"}"


def weights() -> Bombs:
    """Files of tensors."""
    names = list(load_file(GOLDEN / "ae" / "model" / "model.safetensors"))
    yield "header-67-MB", lambda: safetensors(many(1_100_000))
    yield "tensors-150000", lambda: safetensors(many(150_000))
    yield "header-of-brackets", lambda: safetensors(b'{"a":' + b"[" * 9_000_000 + b"}")
    yield "header-of-lists", lambda: safetensors(b'{"a":[' + b"[]," * 3_000_000 + b"1]}")
    yield "header-of-objects", lambda: safetensors(b'{"a":[' + b"{}," * 3_000_000 + b"1]}")
    yield "header-of-numbers", lambda: safetensors(b'{"a":[' + b"1000," * 1_900_000 + b"1]}")
    yield "length-2-63", lambda: (2**63).to_bytes(8, "little") + b"{}"
    yield "shape-2-60", lambda: safetensors(json.dumps({n: entry([2**30, 2**30], 2**62) for n in names}).encode())
    yield "shape-that-wraps", lambda: safetensors(json.dumps({n: entry([2**32, 2**32], 0) for n in names}).encode())
    yield "shape-10-12", lambda: safetensors(json.dumps({n: entry([10**12], 4 * 10**12) for n in names}).encode())
    yield "shape-of-a-million-axes", lambda: safetensors(json.dumps({names[0]: entry([1] * 10**6, 4)}).encode(), 4)
    yield "negative-shape", lambda: safetensors(json.dumps({n: entry([-1], 4) for n in names}).encode(), 4)
    yield (
        "metadata",
        lambda: safetensors(b'{"__metadata__":{' + b",".join(b'"%d":"x"' % i for i in range(700_000)) + b"}}"),
    )


def configurations() -> Bombs:
    """``config.json`` of a model folder."""
    config = json.loads((GOLDEN / "ae" / "model" / "config.json").read_text())
    yield "json-of-lists", lambda: b'{"a":[' + b"[]," * 2_700_000 + b"1]}"
    yield "json-of-100-MB", lambda: b'{"a":"' + b"x" * 100_000_000 + b'"}'
    yield "json-deep", lambda: b'{"a":' * 1_000_000 + b"1" + b"}" * 1_000_000
    yield "json-digits", lambda: b'{"step":' + b"9" * 7_000_000 + b"}"
    for name, options in {
        "widths": {"latent_dim": 2, "net": {"name": "mlp", "widths": [10**6, 10**6]}},
        "latent": {"latent_dim": 10**12, "net": {"name": "mlp", "widths": [16]}},
        "stages": {"latent_dim": 2, "net": {"name": "conv", "stages": 10**9}},
        "tensors": {"latent_dim": 2, "net": {"name": "mlp", "widths": [1] * 10**5}},
    }.items():
        changed = {**config, "model": {"name": "ae", "options": options}}
        yield f"config-{name}", json.dumps(changed).encode
    for shape in ([10**6, 10**6, 10**6], [1, 2**31, 2**31], [1, 10**12, 1]):
        changed = {**config, "spec": {**config["spec"], "shape": shape}}
        yield f"spec-{'x'.join(map(str, shape))}", json.dumps(changed).encode
    yield "classes", lambda: json.dumps({**config, "spec": {**config["spec"], "classes": 10**15}}).encode()


def data() -> Bombs:
    """Sources by their ending."""
    yield "pixels.png", lambda: png(12_000, 12_000)
    yield "shape.npy", lambda: npy("(1000000000000, 8, 8)")
    yield "wide.npy", lambda: npy(f"({10**15},)")
    yield "strings.npy", lambda: npy("(1000000,)", "<U100000000")
    yield "shape.npz", lambda: zipped("x.npy", npy("(1000000000000, 8, 8)"))
    yield "zeros.npz", lambda: zipped("x.npy", bytes(2**24), 24)  # 400 MB in 400 kB


def yamls() -> Bombs:
    """Configuration files."""
    yield "deep.yaml", lambda: b"a: " + b"[" * 4_000_000
    yield "long.yaml", lambda: b"a: " + b"x" * 4_000_000
    yield "large.yaml", lambda: b"# " + b"x" * 100_000_000


def readers(folder: Path) -> dict[str, Callable[[Path], object]]:
    model = folder / "model"

    def part(name: str) -> Callable[[Path], object]:
        def read(file: Path) -> object:
            sealed(model, name, file.read_bytes())
            return opened(str(model), "cpu")

        return read

    return {
        "weights": part("model.safetensors"), "configurations": part("config.json"), "yamls": read_yaml,
        "data": lambda file: sandglass.load_data(file, size=8 if file.suffix == ".png" else None),
        "codes": lambda file: code_files.read(file, 2),
    }  # fmt: skip


KINDS = {"weights": weights, "configurations": configurations, "yamls": yamls, "data": data}


def peak() -> int:
    """The most memory this process has had, in bytes; set back by writing to clear_refs."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM"))


def measured(name: str, file: Path, read: Callable[[Path], object]) -> None:
    """Reads a file and prints what it took."""
    Path("/proc/self/clear_refs").write_text("5")
    before, begun, size = peak(), time.perf_counter(), file.stat().st_size
    came = outcome(lambda: read(file))
    print(name, size, came, peak() - before, round(time.perf_counter() - begun, 2), sep="\t", flush=True)


def main(folder: Path, wanted: set[str]) -> None:
    """Every bomb, or those of the names that are wanted; at the end one is read as a careless program would."""
    shutil.copytree(GOLDEN / "ae" / "model", folder / "model")
    read_all = readers(folder)
    outcome(lambda: opened(str(folder / "model"), "cpu"))  # what is imported once is not the file's doing
    resource.setrlimit(resource.RLIMIT_AS, (LIMIT, LIMIT))
    for kind, make in KINDS.items():
        for name, content in make():
            if wanted and name not in wanted:
                continue
            file = folder / name
            file.write_bytes(content())
            for how in (kind, "codes") if kind == "data" else (kind,):
                measured(f"{how} {name}", file, read_all[how])
    measured("careless", folder / "zeros.npz", lambda file: np.load(file)["x"])


if __name__ == "__main__":
    os.fsync = lambda descriptor: None
    main(Path(sys.argv[1]), set(sys.argv[2:]))

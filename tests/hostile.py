"""Files that would run code if a careless reader opened them: each makes the folder ``sentinel`` or a file in it.

For each there is a careless reader, so that a test can show that the file is live.
"""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import pickle
import struct
import sys
import tarfile
import zipfile
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import joblib
import numpy as np
import torch
import yaml


@dataclass(frozen=True)
class Hostile:
    """One file: its name, bytes, and how a careless program would read it."""

    name: str
    data: bytes
    careless: Callable[[Path], object]


class Call:
    """Pickled as a call of ``function(*arguments)``."""

    def __init__(self, function: Any, *arguments: Any) -> None:
        self.how = (function, arguments)

    def __reduce__(self) -> Any:
        return self.how


def unpickle(path: Path) -> object:
    with path.open("rb") as file:
        return pickle.load(file)


def by(opener: Any) -> Callable[[Path], object]:
    return lambda path: pickle.loads(opener(path.read_bytes()))


def torch_load(path: Path) -> object:
    return torch.load(path, weights_only=False)


def numpy_load(path: Path) -> object:
    found = np.load(path, allow_pickle=True)
    return {k: found[k] for k in found.files} if hasattr(found, "files") else found


def yaml_load(path: Path) -> object:
    return yaml.unsafe_load(path.read_text())


def nested(path: Path) -> object:
    with zipfile.ZipFile(path) as outer:
        return torch.load(io.BytesIO(outer.read("inner.pt")), weights_only=False)


def tarred(path: Path) -> object:
    with tarfile.open(path) as archive:
        return pickle.loads(archive.extractfile("pickle").read())  # type: ignore[union-attr]


def evaluated(path: Path) -> object:
    length = struct.unpack("<H", path.read_bytes()[8:10])[0]
    return eval(path.read_bytes()[10 : 10 + length])


def metadata(path: Path) -> object:
    length = int.from_bytes(path.read_bytes()[:8], "little")
    import json

    return pickle.loads(bytes.fromhex(json.loads(path.read_bytes()[8 : 8 + length])["__metadata__"]["pickle"]))


def raw(make: str, words: str) -> bytes:
    """Opcodes by hand: ``make`` is a module and a name, as GLOBAL wants them."""
    return f"c{make}\n{words}".encode("latin-1")


def pickles(mark: Callable[[str], str]) -> dict[str, bytes]:
    """Pickles by the opcode that does the harm."""
    import os

    found = {
        f"reduce-{protocol}": pickle.dumps(Call(os.mkdir, mark(f"reduce-{protocol}")), protocol)
        for protocol in range(6)
    }
    found["exec"] = pickle.dumps(Call(exec, f"import os; os.mkdir({mark('exec')!r})"))
    found["eval"] = pickle.dumps(Call(eval, f"__import__('os').mkdir({mark('eval')!r})"))
    found["open"] = pickle.dumps(Call(open, mark("open"), "w"))
    found["in-list"] = pickle.dumps([1, [Call(os.mkdir, mark("in-list"))]])
    found["system"] = pickle.dumps(Call(os.system, f"mkdir '{mark('system')}'"))
    found["inst"] = f"(S'{mark('inst')}'\nios\nmkdir\n.".encode()
    found["obj"] = f"(cos\nmkdir\nS'{mark('obj')}'\no.".encode()
    found["global"] = raw("os\nmkdir", f"(S'{mark('global')}'\ntR.")
    stack = b"\x80\x04\x8c\x02os\x8c\x05mkdir\x93"
    text = mark("stack-global").encode()
    found["stack-global"] = stack + b"\x8c" + bytes([len(text)]) + text + b"\x85R."
    space = "types\nSimpleNamespace"
    found["build"] = raw(space, f"(tR}}S'__setstate__'\ncos\nmkdir\nsbS'{mark('build')}'\nb.")
    found["newobj"] = (
        b"\x80\x02"
        + raw("pathlib\nPath", f"(S'{mark('newobj')}'\nt\x81")
        + (b"0cos\nmkdir\n(S'" + mark("newobj").encode() + b"'\ntR.")
    )
    found["memo"] = raw("os\nmkdir", f"p0\n0g0\n(S'{mark('memo')}'\ntR.")
    found["after-stop"] = b"N0" + raw("os\nmkdir", f"(S'{mark('after-stop')}'\ntR.")
    found["in-dict"] = pickle.dumps({"model": {"weight": Call(os.mkdir, mark("in-dict"))}})
    return found


def corpus(folder: Path) -> list[Hostile]:
    """Every file; each would make something of its own name in ``folder``."""
    import os

    def mark(name: str) -> str:
        return str(folder / name)

    found = [Hostile(f"{name}.pkl", data, unpickle) for name, data in pickles(mark).items()]

    def pickled(name: str) -> bytes:
        return pickle.dumps(Call(os.mkdir, mark(name)))

    def call(name: str) -> Call:
        return Call(os.mkdir, mark(name))

    def add(name: str, data: bytes, careless: Callable[[Path], object]) -> None:
        found.append(Hostile(name, data, careless))

    add("gzip.pkl.gz", gzip.compress(pickled("gzip.pkl.gz")), by(gzip.decompress))
    add("bz2.pkl.bz2", bz2.compress(pickled("bz2.pkl.bz2")), by(bz2.decompress))
    add("xz.pkl.xz", lzma.compress(pickled("xz.pkl.xz")), by(lzma.decompress))
    add("zlib.z", zlib.compress(pickled("zlib.z")), by(zlib.decompress))
    buffer = io.BytesIO()
    joblib.dump({"x": call("joblib.joblib")}, buffer)
    add("joblib.joblib", buffer.getvalue(), joblib.load)
    for name, modern in (("torch.pt", True), ("legacy.pt", False)):
        buffer = io.BytesIO()
        torch.save({"w": call(name)}, buffer, _use_new_zipfile_serialization=modern)
        add(name, buffer.getvalue(), torch_load)
    buffer = io.BytesIO()
    inner = io.BytesIO()
    torch.save(call("nested.zip"), inner)
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("inner.pt", inner.getvalue())
        archive.writestr("x.npy", inner.getvalue())
    add("nested.zip", buffer.getvalue(), nested)
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:  # the oldest form of a .pt file
        for member in ("sys_info", "pickle", "tensors", "storages"):
            info = tarfile.TarInfo(member)
            content = pickled("tar.pt")
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    add("tar.pt", buffer.getvalue(), tarred)
    objects = {"x": np.array([call("object.npy")], dtype=object)}
    buffer = io.BytesIO()
    np.save(buffer, objects["x"], allow_pickle=True)
    add("object.npy", buffer.getvalue(), numpy_load)
    for key in ("x", "codes", "y"):
        buffer = io.BytesIO()
        arrays = {"x": np.zeros((4, 2)), key: np.array([call(f"object-{key}.npz")] * 4, dtype=object)}
        np.savez(buffer, allow_pickle=True, **arrays)
        add(f"object-{key}.npz", buffer.getvalue(), numpy_load)
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("x.npy", pickled("bare.npz"))  # no .npy at all: a bare pickle under the name of one
    add("bare.npz", buffer.getvalue(), lambda p: pickle.loads(zipfile.ZipFile(p).read("x.npy")))
    header = f"__import__('os').mkdir({mark('header.npy')!r})".encode().ljust(118) + b"\n"
    add("header.npy", b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header, evaluated)
    text = f"model: !!python/object/apply:os.mkdir ['{mark('apply.yaml')}']\n"
    add("apply.yaml", text.encode(), yaml_load)
    text = f"model: {{name: !!python/object/new:os.mkdir ['{mark('new.yaml')}']}}\n"
    add("new.yaml", text.encode(), yaml_load)
    text = f"? !!python/object/apply:eval [\"__import__('os').mkdir('{mark('key.yaml')}')\"]\n: 1\n"
    add("key.yaml", text.encode(), yaml_load)
    header = b'{"__metadata__":{"pickle":"' + pickled("metadata.safetensors").hex().encode() + b'"}}'
    add("metadata.safetensors", len(header).to_bytes(8, "little") + header, metadata)
    return found


if __name__ == "__main__":  # the control: read each file as a careless program would
    place, sentinels = Path(sys.argv[1]), Path(sys.argv[2])
    for hostile in corpus(sentinels):
        try:
            hostile.careless(place / hostile.name)
        except Exception as error:
            print(hostile.name, type(error).__name__, error)

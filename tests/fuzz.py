"""Damages files at random and reads them: ``fuzz.py FOLDER COUNT SEED`` prints every end that is not ours.

One process reads them all; that it lives to the end and says so is part of the test.
"""

from __future__ import annotations

import faulthandler
import gzip
import io
import json
import os
import random
import shutil
import sys
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image

import sandglass
from offer import GOLDEN, command, outcome, sealed
from sandglass import api
from sandglass.runs import storage
from sandglass.runs.plain import read_yaml
from sandglass.runs.run import Run
from sandglass.runs.verify import verify
from sandglass.tasks import code_files

TOKENS = (
    b"{", b"}", b"[", b"]", b"null", b"NaN", b"-1", b"1e999", b"99999999999999999999", b'""', b"true", b"\x00", b"\xff",
    b"\n", b",", b":", b'"', b"-", b"\\u0000", b"\xf0\x9f\x98\x80", b"0", b"\x7f\xff\xff\xff", b"\xff" * 8, b"IHDR",
)  # fmt: skip
Read = Callable[[Path, bytes], object]


def damaged(data: bytes, chance: random.Random) -> bytes:
    """One to four of: bits flipped, bytes cut, repeated, replaced, or a token put in."""
    changed = bytearray(data)
    for _ in range(chance.randint(1, 4)):
        start = chance.randrange(len(changed) + 1)
        length = min(len(changed) - start, chance.choice((1, 2, 4, 8, 64, 1000)))
        how = chance.randrange(6)
        if how == 0 and start < len(changed):
            changed[start] ^= 1 << chance.randrange(8)
        elif how == 1:
            del changed[start : start + length]
        elif how == 2:
            changed[start:start] = changed[start : start + length] * chance.choice((1, 3, 100))
        elif how == 3:
            changed[start : start + length] = chance.randbytes(length)
        elif how == 4:
            changed[start:start] = chance.choice(TOKENS)
        else:
            token = chance.choice(TOKENS)
            changed[start : start + len(token)] = token
        if chance.random() < 0.05:
            del changed[start:]
    return bytes(changed)


def retyped(data: bytes, chance: random.Random) -> bytes:
    """JSON in which one value has become another of some type; it stays well formed."""
    values = json.loads(data)
    place = values
    while True:
        key = chance.choice(list(place)) if isinstance(place, dict) else chance.randrange(len(place))
        if isinstance(place[key], dict | list) and place[key] and chance.random() < 0.75:
            place = place[key]
            continue
        place[key] = chance.choice((None, True, -1, 0, 1.5, 10**18, "x", "", [], {}, [[]], {"name": "vae"}, -0.0))
        return json.dumps(values).encode()


def picture(kind: str, mode: str = "RGB") -> bytes:
    buffer = io.BytesIO()
    image = Image.fromarray(np.random.default_rng(0).integers(0, 256, (9, 11, 3), np.uint8)).convert(mode)
    image.save(buffer, kind)
    return buffer.getvalue()


def archive(kind: str) -> bytes:
    buffer = io.BytesIO()
    if kind == "zip":
        with zipfile.ZipFile(buffer, "w") as file:
            for i in range(3):
                file.writestr(f"{i}.png", picture("PNG"))
    else:
        with tarfile.open(fileobj=buffer, mode="w:gz" if kind == "tar.gz" else "w") as tar:
            info = tarfile.TarInfo("a.png")
            info.size = len(picture("PNG"))
            tar.addfile(info, io.BytesIO(picture("PNG")))
    return buffer.getvalue()


def arrays(save: Callable[..., None], **more: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    values = np.random.default_rng(0).integers(0, 256, (6, 8, 8), np.uint8)
    save(buffer, **({"x": values, **more} if more else {"arr": values}))
    return buffer.getvalue()


def seeds() -> dict[str, bytes]:
    """Sound files that are data, by their ending."""
    table = "a,b,c\n" + "".join(f"{i},{i * i % 7}.5,{'xy'[i % 2]}\n" for i in range(30))
    found = {
        "png": picture("PNG"), "jpg": picture("JPEG"), "tif": picture("TIFF"), "gif": picture("GIF"),
        "webp": picture("WEBP"), "bmp": picture("BMP"), "ppm": picture("PPM"), "palette.png": picture("PNG", "P"),
        "npy": arrays(np.save), "npz": arrays(np.savez, y=np.arange(6) % 2), "packed.npz": arrays(np.savez_compressed),
        "csv": table.encode(), "tsv": table.replace(",", "\t").encode(), "zip": archive("zip"), "tar": archive("tar"),
        "tar.gz": archive("tar.gz"), "json": json.dumps([{"a": i, "b": "x"} for i in range(9)]).encode(),
        "jsonl": "".join(json.dumps({"a": i, "b": i * 0.5}) + "\n" for i in range(9)).encode(),
        "csv.gz": gzip.compress(table.encode()),
    }  # fmt: skip
    try:
        import pandas

        buffer = io.BytesIO()
        pandas.DataFrame({"z0": [0.5, 1.5], "z1": [1.0, 2.0]}).to_parquet(buffer)
        found["parquet"] = buffer.getvalue()
    except ImportError:
        pass
    return found


def as_data(ending: str) -> Read:
    pictures = ending.split(".")[-1] in ("png", "jpg", "tif", "gif", "webp", "bmp", "ppm", "zip", "tar", "gz")

    def read(folder: Path, data: bytes) -> None:
        file = folder / f"x.{ending}"
        file.write_bytes(data)
        size = 8 if pictures and ending != "csv.gz" else None
        sandglass.load_data(file, size=size, limit=50)

    return read


def as_codes(ending: str) -> Read:
    def read(folder: Path, data: bytes) -> None:
        (folder / f"c.{ending}").write_bytes(data)
        code_files.read(folder / f"c.{ending}", 2)

    return read


def in_model(name: str) -> Read:
    def read(folder: Path, data: bytes) -> None:
        model = folder / "model"
        if name == storage.MANIFEST:
            (model / name).write_bytes(data)
        else:
            sealed(model, name, data)
        sandglass.load(model)
        api.transform_of(model)

    return read


def in_checkpoint(name: str) -> Read:
    def read(folder: Path, data: bytes) -> None:
        sealed(folder / "run" / "checkpoints" / "step-00000011", name, data)
        run = Run(folder / "run")
        run.load_model("last")
        list(verify(run))

    return read


def in_run(name: str) -> Read:
    def read(folder: Path, data: bytes) -> None:
        (folder / "run" / name).write_bytes(data)
        run = Run(folder / "run")
        list(verify(run))
        run.metrics(), run.events(), run.results(), command("runs", str(folder))
        api.transform_of(run)
        run.load_model()

    return read


def as_config(folder: Path, data: bytes) -> None:
    from sandglass.app.configure import complete, normal

    (folder / "x.yaml").write_bytes(data)
    complete(normal(read_yaml(folder / "x.yaml"), "x.yaml"))


def targets() -> list[tuple[str, bytes, Read, Callable[[bytes, random.Random], bytes]]]:
    """What is damaged, where it is read, and how it is damaged."""
    found: list[tuple[str, bytes, Read, Callable[[bytes, random.Random], bytes]]] = []
    for ending, data in seeds().items():
        found.append((f"data {ending}", data, as_data(ending), damaged))
        if ending in ("npy", "npz", "csv", "parquet"):
            found.append((f"codes {ending}", data, as_codes(ending), damaged))
    run = GOLDEN / "vae"
    for name in ("config.json", "model.safetensors", "README.md", storage.MANIFEST):
        found.append((f"model {name}", (run / "model" / name).read_bytes(), in_model(name), damaged))
    for name in ("model.safetensors", "optim.safetensors", "state.json"):
        data = (run / "checkpoints" / "step-00000011" / name).read_bytes()
        found.append((f"checkpoint {name}", data, in_checkpoint(name), damaged))
    results = json.dumps(
        {"test": {"step": 11, "metrics": {"elbo": {"value": 1.5, "stderr": 0.1, "n": 9, "unit": "nats"}}}}
    )
    for name in ("config.yaml", "metrics.jsonl", "events.jsonl", "results.json", "checkpoints/BEST"):
        data = results.encode() if name == "results.json" else (run / name).read_bytes()
        found.append((f"run {name}", data, in_run(name), damaged))
    config = (run / "model" / "config.json").read_bytes()
    found.append(("retyped config.json", config, in_model("config.json"), retyped))
    found.append(("retyped results.json", results.encode(), in_run("results.json"), retyped))
    found.append(
        ("retyped config.yaml", json.dumps(read_yaml(run / "config.yaml")).encode(), in_run("config.yaml"), retyped)
    )
    found.append(("retyped --config", json.dumps(read_yaml(run / "config.yaml")).encode(), as_config, retyped))
    found.append(("--config", (run / "config.yaml").read_bytes(), as_config, damaged))
    return found


def main(folder: Path, count: int, seed: int) -> None:
    """So many damaged files, each kind in its turn."""
    chance, kinds = random.Random(seed), targets()
    ends = {"read": 0, "refused": 0}
    place = folder / "place"
    for number in range(count):
        name, data, read, harm = kinds[number % len(kinds)]
        shutil.rmtree(place, ignore_errors=True)
        place.mkdir()
        if name.split()[0] in ("run", "checkpoint", "retyped"):
            shutil.copytree(GOLDEN / "vae", place / "run")
        if name.split()[0] in ("model", "retyped"):
            shutil.copytree(GOLDEN / "vae" / "model", place / "model")
        harmed = harm(data, chance)
        faulthandler.dump_traceback_later(50, exit=True)  # a hang ends the process, and the test
        end = outcome(lambda read=read, harmed=harmed: read(place, harmed))  # type: ignore[misc]
        faulthandler.cancel_dump_traceback_later()
        if end in ends:
            ends[end] += 1
        else:
            (folder / f"bad-{number}").write_bytes(harmed)
            print(name, number, end[:300].replace("\n", " "), sep="\t")
    print("all", json.dumps(ends), sep="\t")


if __name__ == "__main__":
    os.fsync = lambda descriptor: None
    main(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]))

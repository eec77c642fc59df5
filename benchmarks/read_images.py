"""Reading 10,000 small JPEGs into the cache, compared with a plain Pillow loop in as many processes, alternately.

The plain loop is ``multiprocessing.Pool`` over ``np.asarray(Image.open(f).convert("RGB"))``, stacked to an array; it
does not check for damage, orientation or duplicates, and writes nothing to disk. If torchvision is installed, its
``ImageFolder`` in a ``DataLoader`` is timed as well. Run it as
``python benchmarks/read_images.py [--zip pictures.zip]``.
"""

from __future__ import annotations

import argparse
import importlib.util
import os
import resource
import statistics
import tempfile
import time
import zipfile
from collections.abc import Callable
from multiprocessing import Pool
from pathlib import Path

import numpy as np
from PIL import Image

import sandglass
from sandglass.data.sources.decoding import workers


def make(folder: Path, count: int, side: int) -> None:
    """Creates pictures of smooth random colours."""
    random = np.random.default_rng(0)
    for number in range(count):
        coarse = random.integers(0, 256, (side // 4 or 1, side // 4 or 1, 3), np.uint8)
        path = folder / f"{number % 10}" / f"{number:05}.jpg"
        path.parent.mkdir(exist_ok=True)
        Image.fromarray(coarse).resize((side, side), Image.Resampling.BICUBIC).save(path, quality=90)


def unpack(folder: Path, archive: str, count: int) -> None:
    """Unpacks the first JPEGs of a zip file, with numbers as names."""
    with zipfile.ZipFile(archive) as packed:
        names = [n for n in packed.namelist() if n.lower().endswith((".jpg", ".jpeg"))]
        for number, name in enumerate(names[:count]):
            path = folder / f"{number % 10}" / f"{number:05}.jpg"
            path.parent.mkdir(exist_ok=True)
            path.write_bytes(packed.read(name))


def plain_picture(path: str) -> np.ndarray:
    return np.asarray(Image.open(path).convert("RGB"))


def plain(folder: Path) -> int:
    files = sorted(map(str, folder.rglob("*.jpg")))
    with Pool(workers()) as pool:
        return len(np.stack(pool.map(plain_picture, files)))


def ours(folder: Path) -> int:
    with tempfile.TemporaryDirectory() as cache:
        os.environ["SANDGLASS_CACHE"] = cache
        return len(sandglass.load_data(folder, cache=True, validation=0, test=0).train)


def torchvision(folder: Path) -> int:
    from torch.utils.data import DataLoader
    from torchvision.datasets import ImageFolder
    from torchvision.transforms.functional import pil_to_tensor

    loader = DataLoader(ImageFolder(str(folder), pil_to_tensor), 64, num_workers=workers())
    return sum(len(x) for x, _ in loader)


def cpu() -> float:
    """Seconds of CPU time of this process and its terminated children."""
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(u.ru_utime + u.ru_stime for u in used)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--zip", help="use the JPEGs of this archive, unpacked first, instead of generated ones")
    parser.add_argument("--pictures", type=int, default=10_000)
    parser.add_argument("--side", type=int, default=32, help="side of generated pictures, in pixels")
    parser.add_argument("--rounds", type=int, default=7)
    args = parser.parse_args()
    ways: dict[str, Callable[[Path], int]] = {"plain": plain, "ours": ours}
    if importlib.util.find_spec("torchvision"):
        ways["torchvision"] = torchvision
    times: dict[str, list[tuple[float, float]]] = {name: [] for name in ways}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name, "pictures")
        folder.mkdir()
        unpack(folder, args.zip, args.pictures) if args.zip else make(folder, args.pictures, args.side)
        for number in range(args.rounds + 1):
            for way, read in ways.items():
                start, used = time.perf_counter(), cpu()
                count = read(folder)
                if number:  # the first round warms the disk's cache
                    times[way].append((time.perf_counter() - start, cpu() - used))
    print(f"{count:,} pictures, {workers()} processes, median of {args.rounds} (wall; processor)")
    for way, pairs in times.items():
        wall, processor = (statistics.median(column) for column in zip(*pairs, strict=True))
        print(f"{way:12} {wall:6.2f} s {processor:6.2f} s")
    for other in (way for way in ways if way != "ours"):
        for column, what in enumerate(("wall", "processor")):
            pairs = zip(times[other], times["ours"], strict=True)
            print(f"ours / {other}, {what}: {statistics.median(b[column] / a[column] for a, b in pairs):.2f}")


if __name__ == "__main__":
    main()

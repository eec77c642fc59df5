"""Pictures to bytes, some at a time: here, in threads, or in processes that do nothing else.

Pillow lets go of the interpreter's lock while it decodes, so that threads share large pictures well. Of small ones most
of the time goes by in Python, which threads cannot share; there processes are worth starting. They are plain
``python -m`` processes with pipes: a forked one could inherit a lock that is held, and one that multiprocessing spawns
would run the caller's own script again.

This file and what it imports stay free of PyTorch, so that a process is ready in a tenth of a second.
"""

from __future__ import annotations

import gc
import hashlib
import json
import os
import signal
import subprocess
import sys
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from queue import SimpleQueue
from types import SimpleNamespace
from typing import Any, Protocol, TypeVar

import numpy as np

from sandglass.data.sources import framing, images
from sandglass.errors import DataError

T = TypeVar("T")
R = TypeVar("R")

_AT_ONCE = 128
_BYTES_AT_ONCE = 2 * 2**20
_MANY = 5000  # pictures from which processes are worth starting: each takes as long as a thousand small ones
_WORKERS = 8


@dataclass(frozen=True)
class Decoded:
    """Some pictures, decoded.

    Args:
        pixels: ``(n, C, H, W)``, those that could be read, in order.
        digests: 16 bytes for each of them: BLAKE2b of its pixels.
        bad: for each that could not be read its place among all, and why.
        remarks: what was done to how many.
        seen: for those that could be read the different heights and widths before, and whether they were grey.
    """

    pixels: np.ndarray[Any, Any]
    digests: bytes
    bad: dict[int, str] = field(default_factory=dict)
    remarks: dict[str, int] = field(default_factory=dict)
    seen: frozenset[tuple[int, int, bool]] = frozenset()


class Worker(Protocol):
    """Decodes some pictures at a time."""

    def __call__(self, contents: Sequence[Any]) -> Decoded:
        """Those pictures, in order."""
        ...

    def close(self) -> None:
        """Frees what it holds."""
        ...


class Here:
    """Decodes in the thread that asks.

    Args:
        frame: what the pictures are brought to; see :class:`sandglass.data.sources.framing.Frame`.
    """

    def __init__(self, frame: framing.Frame) -> None:
        self.frame = frame

    def __call__(self, contents: Sequence[Any]) -> Decoded:
        """Decodes files (paths) or Pillow pictures."""
        frame = self.frame
        pixels = np.empty((len(contents), frame.channels, *frame.size), dtype_of(frame))
        bad: dict[int, str] = {}
        remarks: Counter[str] = Counter()
        seen: set[tuple[int, int, bool]] = set()
        n = 0
        for place, content in enumerate(contents):
            image, done = load(content, frame.value_range)
            if image is None:
                bad[place] = done
                continue
            seen.add((image.height, image.width, image.mode in ("L", "LA")))
            array, done = framing.framed(image, done, frame)
            pixels[n] = framing.quantised(array, frame)
            if done:
                remarks.update(done)
            n += 1
        digests = b"".join(hashlib.blake2b(octets(row), digest_size=16).digest() for row in pixels[:n])
        return Decoded(pixels[:n], digests, bad, dict(remarks), frozenset(seen))

    def close(self) -> None:
        """Nothing to free."""


class Apart:
    """Decodes files in a process of its own; should that die, what it was asked for is decoded here."""

    def __init__(self, frame: framing.Frame) -> None:
        self.frame = frame
        root = str(Path(__file__).resolve().parents[3])
        path = os.pathsep.join([root, *filter(None, [os.environ.get("PYTHONPATH")])])
        # -P: what lies in the current folder is not to be imported.
        self.process: subprocess.Popen[bytes] | None = subprocess.Popen(
            [sys.executable, "-P", "-m", "sandglass.data.sources.decoding"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env=os.environ | {"PYTHONPATH": path},
        )
        _widen(self.process)
        values = ("size", "channels", "fit", "levels", "background", "continuous", "value_range")
        self.hello = _line({name: getattr(frame, name) for name in values})

    def __call__(self, contents: Sequence[Any]) -> Decoded:
        """Decodes files (paths)."""
        if self.process is not None:
            try:
                return self._ask(self.process, [os.fspath(path) for path in contents])
            except (OSError, ValueError, KeyError):
                self.close()
        return Here(self.frame)(contents)

    def _ask(self, process: subprocess.Popen[bytes], paths: list[str]) -> Decoded:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(self.hello + _line(paths))
        process.stdin.flush()
        self.hello = b""
        found = json.loads(process.stdout.readline())
        n = int(found["n"])
        pixels = np.empty((n, self.frame.channels, *self.frame.size), dtype_of(self.frame))
        digests = bytearray(16 * n)
        for buffer in (octets(pixels), memoryview(digests)):
            if process.stdout.readinto(buffer) != len(buffer):  # type: ignore[attr-defined]
                raise OSError("the process ended")
        bad = {int(place): str(why) for place, why in found["bad"].items()}
        seen = frozenset((int(h), int(w), bool(grey)) for h, w, grey in found["seen"])
        return Decoded(pixels, bytes(digests), bad, found["remarks"], seen)

    def close(self) -> None:
        """Ends the process."""
        if self.process is not None:
            self.process.kill()
            self.process.communicate()
            self.process = None


def decode(contents: Sequence[Any], frame: framing.Frame, *, processes: bool | None = None) -> Iterator[Decoded]:
    """Pictures to bytes, in order, by as many workers as there are cores; only some pictures are held at a time.

    Args:
        contents: paths, or Pillow pictures.
        frame: what they are brought to.
        processes: whether to start processes; None where there are many files.

    Yields:
        Parts, each of neighbours.
    """
    row = frame.channels * frame.size[0] * frame.size[1] * dtype_of(frame).itemsize
    step = max(1, min(_AT_ONCE, _BYTES_AT_ONCE // row))
    parts = (contents[i : i + step] for i in range(0, len(contents), step))
    if processes is None:
        processes = len(contents) >= _MANY and all(isinstance(c, str | Path) for c in contents)
    crew = min(workers(), -(-len(contents) // step))
    if crew < 2:
        yield from map(Here(frame), parts)
        return
    free: SimpleQueue[Worker] = SimpleQueue()
    crowd: list[Worker] = [Here(frame)]
    try:
        # One of them works here, for the others take a moment to start.
        for _ in range(crew - 1):
            crowd.append(_apart(frame) if processes else Here(frame))
        for worker in crowd:
            free.put(worker)

        def one(part: Sequence[Any]) -> Decoded:
            worker = free.get()
            try:
                return worker(part)
            finally:
                free.put(worker)

        yield from ahead(one, parts, crew)
    finally:
        for worker in crowd:
            worker.close()


def ahead(f: Callable[[T], R], things: Iterable[T], crew: int) -> Iterator[R]:
    """``map`` in ``crew`` threads, in order, that runs a few things ahead of the caller and no more."""
    pending: deque[Future[R]] = deque()
    with ThreadPoolExecutor(crew) as pool:
        try:
            for thing in things:
                pending.append(pool.submit(f, thing))
                if len(pending) > 2 * crew:
                    yield pending.popleft().result()
            while pending:
                yield pending.popleft().result()
        finally:
            for future in pending:
                future.cancel()


def load(content: Any, value_range: tuple[float, float] | None) -> tuple[Any, Any]:
    """The normal picture of a path or Pillow picture and remarks on it, or None and why it cannot be had."""
    try:
        if isinstance(content, str | Path):
            return images.load(content, value_range)
        return images.normal(content, value_range=value_range)
    except DataError as error:
        reason = str(error)
        if isinstance(content, str | Path):
            reason = reason.removeprefix(images.shown(content) + ": ")
        return None, reason


def dtype_of(frame: framing.Frame) -> np.dtype[Any]:
    """What pixels are kept as."""
    return np.dtype(np.float32 if frame.continuous else np.uint8)


def octets(array: np.ndarray[Any, Any]) -> memoryview:
    """The bytes of an array in row-major order, as a view."""
    flat: Any = array.reshape(-1).view(np.uint8)
    return memoryview(flat)


def workers() -> int:
    """How many pictures to decode at once: the cores that this process may use, and no more than eight."""
    there = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, min(_WORKERS, there))


def main() -> None:
    """The process of :class:`Apart`: reads lists of paths, writes what it decoded, and ends with its input."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the process that asked
    gc.freeze()
    gc.set_threshold(100_000)  # pictures are freed without it; looking for rings takes a tenth of the time
    out = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    values = json.loads(sys.stdin.buffer.readline())
    pairs = {k: tuple(values[k]) if values[k] else None for k in ("size", "background", "value_range")}
    here = Here(SimpleNamespace(**values | pairs))
    with images.quiet():
        for line in sys.stdin.buffer:
            found = here(json.loads(line))
            about = {"bad": found.bad, "remarks": found.remarks, "seen": sorted(found.seen)}
            out.write(_line({"n": len(found.pixels)} | about))
            out.write(octets(found.pixels))
            out.write(found.digests)
            out.flush()


def _apart(frame: framing.Frame) -> Worker:
    try:
        return Apart(frame)
    except OSError:  # no such program, or no room for another
        return Here(frame)


def _widen(process: subprocess.Popen[bytes]) -> None:
    """Gives its answers room, so that it goes on decoding while the last ones are still being read."""
    with suppress(ImportError, AttributeError, OSError):  # where there is no such thing, they wait for each other
        import fcntl

        fcntl.fcntl(process.stdout or 0, fcntl.F_SETPIPE_SZ, 2**20)


def _line(values: Any) -> bytes:
    return (json.dumps(values) + "\n").encode()


if __name__ == "__main__":
    main()

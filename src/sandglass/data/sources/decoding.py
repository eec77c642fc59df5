"""Pictures to bytes, some at a time: here, in threads, or in processes that do nothing else.

Pillow lets go of the interpreter's lock while it decodes, so that threads share large pictures well. Of small ones most
of the time goes by in Python, which threads cannot share; there processes are worth starting. They are plain
``python -m`` processes with pipes: a forked one could inherit a lock that is held, and one that multiprocessing spawns
would run the caller's own script again.

This file and what it imports stay free of PyTorch and NumPy, so that a process is ready in well under a tenth of a
second.
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
from typing import Any, Protocol, Self, TypeVar

from sandglass.data.sources import framing, images
from sandglass.errors import DataError

T = TypeVar("T")
R = TypeVar("R")

_AT_ONCE = 128
_BYTES_AT_ONCE = 2 * 2**20
_MANY = 5000  # pictures from which processes are worth starting: each takes as long as a thousand small ones
_WORKERS = 8
_FRAME = ("size", "channels", "fit", "levels", "background", "continuous", "value_range")


@dataclass(frozen=True)
class Decoded:
    """Some pictures, decoded.

    Args:
        count: how many could be read.
        data: their numbers ``(count, C, H, W)`` in row-major order: uint8, or float32 where the frame is continuous.
        digests: 16 bytes for each of them: BLAKE2b of its numbers.
        bad: for each that could not be read its place among all, and why.
        remarks: what was done to how many.
        seen: for those that could be read the different heights and widths before, and whether they were grey.
    """

    count: int
    data: bytes | bytearray
    digests: bytes
    bad: dict[int, str] = field(default_factory=dict)
    remarks: dict[str, int] = field(default_factory=dict)
    seen: frozenset[tuple[int, int, bool]] = frozenset()


class Worker(Protocol):
    """Decodes some pictures at a time."""

    def __call__(self, contents: Sequence[Any], frame: framing.Frame, half: str = "") -> Decoded:
        """Those pictures, or one half of each, in order, as ``frame`` has them."""
        ...

    def close(self) -> None:
        """Frees what it holds."""
        ...


class Here:
    """Decodes in the thread that asks."""

    def __call__(self, contents: Sequence[Any], frame: framing.Frame, half: str = "") -> Decoded:
        """Decodes files (paths) or Pillow pictures."""
        rows: list[bytes] = []
        bad: dict[int, str] = {}
        remarks: Counter[str] = Counter()
        seen: set[tuple[int, int, bool]] = set()
        for place, content in enumerate(contents):
            image, done = load(content, frame.value_range, half)
            if image is None:
                bad[place] = done
                continue
            seen.add((image.height, image.width, image.mode in ("L", "LA")))
            image, done = framing.framed(image, done, frame)
            rows.append(framing.kept(image, frame))
            if done:
                remarks.update(done)
        digests = b"".join([hashlib.blake2b(row, digest_size=16).digest() for row in rows])
        return Decoded(len(rows), b"".join(rows), digests, bad, dict(remarks), frozenset(seen))

    def close(self) -> None:
        """Nothing to free."""


class Apart:
    """Decodes files in a process of its own; should that die, what it was asked for is decoded here."""

    def __init__(self) -> None:
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

    def __call__(self, contents: Sequence[Any], frame: framing.Frame, half: str = "") -> Decoded:
        """Decodes files (paths)."""
        if self.process is not None:
            try:
                return self._ask(self.process, [os.fspath(path) for path in contents], frame, half)
            except (OSError, ValueError, KeyError):
                self.close()
        return Here()(contents, frame, half)

    @staticmethod
    def _ask(process: subprocess.Popen[bytes], paths: list[str], frame: framing.Frame, half: str) -> Decoded:
        assert process.stdin is not None
        assert process.stdout is not None
        values = {name: getattr(frame, name) for name in _FRAME}
        process.stdin.write(_line({"paths": paths, "frame": values, "half": half}))
        process.stdin.flush()
        found = json.loads(process.stdout.readline())
        data, digests = bytearray(int(found["bytes"])), bytearray(16 * int(found["count"]))
        for buffer in (data, digests):
            if process.stdout.readinto(buffer) != len(buffer):  # type: ignore[attr-defined]
                raise OSError("the process ended")
        bad = {int(place): str(why) for place, why in found["bad"].items()}
        seen = frozenset((int(h), int(w), bool(grey)) for h, w, grey in found["seen"])
        return Decoded(int(found["count"]), data, bytes(digests), bad, found["remarks"], seen)

    def close(self) -> None:
        """Ends the process."""
        if self.process is not None:
            self.process.kill()
            self.process.communicate()
            self.process = None


class Crew:
    """As many workers as there are cores, to be closed, as by ``with``.

    One of them works in this process. The others are processes where that is worth it; they take a moment to start, so
    that whoever knows early that there is much to decode calls :meth:`start` early.

    Args:
        contents: what is to be decoded: paths, or Pillow pictures.
        processes: whether to start processes; None where there are many files.
    """

    def __init__(self, contents: Sequence[Any], *, processes: bool | None = None) -> None:
        if processes is None:
            processes = len(contents) >= _MANY and all(isinstance(c, str | Path) for c in contents)
        self.contents, self.processes = contents, processes
        self.workers: list[Worker] = []

    def start(self) -> None:
        """Starts the workers, if they are not yet."""
        if not self.workers:
            others = [_apart() if self.processes else Here() for _ in range(workers() - 1)]
            self.workers = [Here(), *others]

    def decode(self, frame: framing.Frame, half: str = "") -> Iterator[Decoded]:
        """The pictures as bytes, in order; only some are held at a time.

        Args:
            frame: what they are brought to.
            half: of pictures that hold two side by side: which one, see :data:`sandglass.data.sources.framing.HALVES`.

        Yields:
            Parts, each of neighbours.
        """
        self.start()
        row = frame.channels * frame.size[0] * frame.size[1] * (4 if frame.continuous else 1)
        step = max(1, min(_AT_ONCE, _BYTES_AT_ONCE // row))
        parts = (self.contents[i : i + step] for i in range(0, len(self.contents), step))
        if len(self.workers) < 2:
            yield from (self.workers[0](part, frame, half) for part in parts)
            return
        free: SimpleQueue[Worker] = SimpleQueue()
        for worker in self.workers:
            free.put(worker)

        def one(part: Sequence[Any]) -> Decoded:
            worker = free.get()
            try:
                return worker(part, frame, half)
            finally:
                free.put(worker)

        yield from ahead(one, parts, len(self.workers))

    def close(self) -> None:
        """Ends the workers."""
        for worker in self.workers:
            worker.close()
        self.workers = []

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


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


def load(content: Any, value_range: tuple[float, float] | None, half: str = "") -> tuple[Any, Any]:
    """The normal picture, or half, of a path or Pillow picture and remarks on it, or None and why it cannot be had."""
    try:
        if isinstance(content, str | Path):
            image, done = images.load(content, value_range)
        else:
            image, done = images.normal(content, value_range=value_range)
        if half:
            image, remarks = framing.halved(image, half)
            done |= remarks
        return image, done
    except DataError as error:
        reason = str(error)
        if isinstance(content, str | Path):
            reason = reason.removeprefix(images.shown(content) + ": ")
        return None, reason


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
    here = Here()
    images.pillow()  # while whoever started it is still busy with something else
    with images.quiet():
        for line in sys.stdin.buffer:
            asked = json.loads(line)
            values = {k: tuple(v) if isinstance(v, list) else v for k, v in asked["frame"].items()}
            found = here(asked["paths"], SimpleNamespace(**values), asked["half"])
            about = {"bad": found.bad, "remarks": found.remarks, "seen": sorted(found.seen)}
            out.write(_line({"count": found.count, "bytes": len(found.data)} | about))
            out.write(found.data)
            out.write(found.digests)
            out.flush()


def _apart() -> Worker:
    try:
        return Apart()
    except OSError:  # no such program, or no room for another
        return Here()


def _widen(process: subprocess.Popen[bytes]) -> None:
    """Gives its answers room, so that it goes on decoding while the last ones are still being read."""
    with suppress(ImportError, AttributeError, OSError):  # where there is no such thing, they wait for each other
        import fcntl

        fcntl.fcntl(process.stdout or 0, fcntl.F_SETPIPE_SZ, 2**20)


def _line(values: Any) -> bytes:
    return (json.dumps(values) + "\n").encode()


if __name__ == "__main__":
    main()

"""Decodes pictures to bytes in batches: in the calling thread, in threads, or in worker processes.

Pillow releases the GIL while decoding, so threads work well for large pictures. For small ones most of the time is
spent in Python, and processes are worth starting. They are plain ``python -m`` processes with pipes: a forked process
could inherit a locked lock, and one spawned by multiprocessing would run the caller's script again.

This file and its imports do not use PyTorch or NumPy, so that a process starts in well under a tenth of a second.
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
from sandglass.errors import DataError, named_type

T = TypeVar("T")
R = TypeVar("R")

_AT_ONCE = 128
_BYTES_AT_ONCE = 2 * 2**20
_MANY = 5000  # pictures from which processes are started: starting one takes as long as decoding a thousand small ones
_WORKERS = 8
_WAITING = 16  # pictures left for later that are fetched ahead of decoding, as each may be large
_FRAME = ("size", "channels", "fit", "levels", "background", "continuous", "value_range")


@dataclass(frozen=True)
class Decoded:
    """A batch of decoded pictures.

    Args:
        count: number of pictures that could be read.
        data: their values ``(count, C, H, W)`` in row-major order: uint8, or float32 if the frame is continuous.
        digests: the BLAKE2b digest of each (16 bytes).
        bad: reason by position for pictures that could not be read.
        remarks: number of pictures by conversion applied.
        seen: distinct original sizes (height, width), each with whether the picture was grey.
    """

    count: int
    data: bytes | bytearray
    digests: bytes
    bad: dict[int, str] = field(default_factory=dict)
    remarks: dict[str, int] = field(default_factory=dict)
    seen: frozenset[tuple[int, int, bool]] = frozenset()


@dataclass(frozen=True)
class Later:
    """A picture that is fetched only to be decoded, so that few are in memory at a time.

    Args:
        fetch: returns a Pillow picture; is called in the thread that reads the data, perhaps more than once.
    """

    fetch: Callable[[], Any]


class Worker(Protocol):
    """Decodes batches of pictures."""

    def __call__(self, contents: Sequence[Any], frame: framing.Frame, half: str = "") -> Decoded:
        """Decodes pictures, or one half of each, in order, to the format of ``frame``."""
        ...

    def close(self) -> None:
        """Releases its resources."""
        ...


class Here:
    """Decodes in the calling thread."""

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
        """Does nothing."""


class Apart:
    """Decodes files in a worker process; if the process dies, in the calling thread."""

    def __init__(self) -> None:
        root = str(Path(__file__).resolve().parents[3])
        path = os.pathsep.join([root, *filter(None, [os.environ.get("PYTHONPATH")])])
        # -P: do not import from the current folder.
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
    """A pool with as many workers as cores; a context manager.

    One worker decodes in this process. The others are processes if there are many files; as they take a moment to
    start, call :meth:`start` early.

    Args:
        contents: what to decode: paths, Pillow pictures, or how to fetch those.
        processes: whether to start processes; None to start them if there are many files.
    """

    def __init__(self, contents: Sequence[Any], *, processes: bool | None = None) -> None:
        if processes is None:
            processes = len(contents) >= _MANY and all(isinstance(c, str | Path) for c in contents)
        self.contents, self.processes = contents, processes
        self.workers: list[Worker] = []

    def start(self) -> None:
        """Starts the workers, unless they are running."""
        if not self.workers:
            others = [_apart() if self.processes else Here() for _ in range(workers() - 1)]
            self.workers = [Here(), *others]

    def decode(self, frame: framing.Frame, half: str = "") -> Iterator[Decoded]:
        """Decodes the pictures in order, with a bounded number in memory.

        Args:
            frame: the target format.
            half: for files with two pictures side by side, which one; see
                :data:`sandglass.data.sources.framing.HALVES`.

        Yields:
            Batches of consecutive pictures.
        """
        self.start()
        row = frame.channels * frame.size[0] * frame.size[1] * (4 if frame.continuous else 1)
        step = max(1, min(_AT_ONCE, _BYTES_AT_ONCE // row))
        parts = batches(self.contents, step, len(self.workers))
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


def batches(contents: Sequence[Any], step: int, crew: int) -> Iterator[Sequence[Any]]:
    """Parts of the contents for ``crew`` threads, in order; what was left for later is fetched here, not in those.

    The code of a dataset may run in one thread only, as may a connection to a database.

    Yields:
        Up to ``step`` paths or pictures, or the error for one that cannot be fetched. Few, if some were left for later.
    """
    if any(isinstance(content, Later) for content in contents):
        step = min(step, max(1, _WAITING // (2 * crew + 1)))
    for i in range(0, len(contents), step):
        yield [_here(content) for content in contents[i : i + step]]


def _here(content: Any) -> Any:
    try:
        return fetched(content)
    except DataError as error:
        return error


def ahead(f: Callable[[T], R], things: Iterable[T], crew: int) -> Iterator[R]:
    """``map`` in ``crew`` threads, in order, that runs a bounded number of items ahead of the caller."""
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
    """The normalised picture, or half of it, with remarks; None and the reason if it cannot be read."""
    try:
        content = fetched(content)
        if isinstance(content, str | Path):
            image, done = images.load(content, value_range)
        else:
            image, done = images.normal_object(content, value_range)
        if half:
            image, remarks = framing.halved(image, half)
            done |= remarks
        return image, done
    except DataError as error:
        reason = str(error)
        if isinstance(content, str | Path):
            reason = reason.removeprefix(images.shown(content) + ": ")
        return None, reason


def fetched(content: Any) -> Any:
    """A path or a Pillow picture; fetched, if it was left for later.

    Raises:
        DataError: it cannot be fetched.
    """
    if isinstance(content, DataError):
        raise content
    if not isinstance(content, Later):
        return content
    try:
        found = content.fetch()
    except DataError:
        raise
    except Exception as error:  # the code of the dataset may raise anything
        raise DataError(f"cannot be fetched again: {type(error).__name__}: {' '.join(str(error).split())}") from error
    if not hasattr(found, "getexif"):
        raise DataError(f"was a picture at first, and then {named_type(found)}")
    return found


def workers() -> int:
    """Number of pictures to decode at once: the cores available to this process, at most eight."""
    there = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, min(_WORKERS, there))


def main() -> None:
    """The worker process of :class:`Apart`: reads lists of paths from stdin and writes decoded pictures to stdout."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent process handles Ctrl-C
    gc.freeze()
    gc.set_threshold(100_000)  # reference counting frees pictures; collecting cycles would take a tenth of the time
    out = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    here = Here()
    images.pillow()  # import it before the first request
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
    except OSError:  # the process could not be started
        return Here()


def _widen(process: subprocess.Popen[bytes]) -> None:
    """Enlarges the pipe, so that the worker continues decoding while its last results are being read."""
    with suppress(ImportError, AttributeError, OSError):  # not supported on every system; then it is only slower
        import fcntl

        fcntl.fcntl(process.stdout or 0, fcntl.F_SETPIPE_SZ, 2**20)


def _line(values: Any) -> bytes:
    return (json.dumps(values) + "\n").encode()


if __name__ == "__main__":
    main()

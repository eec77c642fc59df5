"""The lock of a run folder: one process trains in it."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from filelock import FileLock, Timeout

from sandglass.errors import LockedError, SaveError
from sandglass.runs import storage

LOCK_FILES = ("run.lock", "run.owner")


@contextmanager
def hold(path: Path) -> Iterator[None]:
    """Locks a run folder for this process, creating it if needed, and removes files left by crashes.

    The system releases the lock if the process dies.

    Raises:
        LockedError: another process holds the lock.
        SaveError: the folder cannot be written.
    """
    try:
        path.mkdir(parents=True, exist_ok=True)
        lock = FileLock(path / "run.lock")
        lock.acquire(timeout=0)
    except Timeout as error:
        owner = path / "run.owner"
        who = owner.read_text().strip() if owner.is_file() else ""
        raise LockedError(f"{path} is locked by {who or 'another process'}, which is training in it.") from error
    except (OSError, ValueError) as error:  # ValueError for an invalid file name
        reason = getattr(error, "strerror", None) or error
        raise SaveError(f"The folder {path} cannot be written: {reason}.") from error
    try:
        with storage.saving(path):
            (path / "run.owner").write_text(f"process {os.getpid()} on {socket.gethostname()}\n")
            for folder in (path, path / "checkpoints", path / "figures", path / "figures" / "progress"):
                storage.sweep(folder)
        yield
    finally:
        with suppress(OSError):
            (path / "run.owner").unlink(missing_ok=True)
        lock.release()

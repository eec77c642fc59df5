"""A process that runs trials of a sweep until none are left: ``python -m sandglass.sweeps.worker FOLDER [FILE ...]``.

If its parent process dies, it stops after a checkpoint.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Sequence
from contextlib import closing
from pathlib import Path

from sandglass.data.dataset import Dataset
from sandglass.errors import DataError, SandglassError
from sandglass.registry import import_file
from sandglass.sweeps.folds import again
from sandglass.sweeps.study import Study
from sandglass.sweeps.trial import run_trial


def work(
    study: Study, folds: Sequence[Dataset], *, parent: int | None = None, after: Callable[[], None] = lambda: None
) -> None:
    """Runs trials until none are left.

    Args:
        study: the sweep folder.
        folds: the data of the sweep; see :func:`~sandglass.sweeps.folds.folds_of`.
        parent: process id of the parent; None for none.
        after: called after every trial.

    Raises:
        DataError: the data differs from that of the sweep.
    """
    if folds[0].fingerprint != study.plan.fingerprint:
        raise DataError(f"The data has changed since {study.folder} was started. Restore it, or start a new sweep.")
    while (claim := study.claim()) is not None:
        try:
            run_trial(study, claim, folds, parent)
        finally:
            claim.lock.release()
        after()


def main(folder: str, *imports: str) -> int:
    """Runs trials of a sweep folder, after these Python files that register models; returns the exit code."""
    parent = os.getppid()
    try:
        for file in imports:
            import_file(file)
        with closing(Study(Path(folder))) as study:
            work(study, again(study.plan.data or {}, study.plan.folds), parent=parent)
    except KeyboardInterrupt:
        return 130
    except SandglassError as error:
        print(f"sandglass: {' '.join(str(error).split())}", file=sys.stderr)
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))

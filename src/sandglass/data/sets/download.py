"""Files known in advance: found in a person's own folder or in the cache, or downloaded once; always checked."""

from __future__ import annotations

import gzip
import hashlib
import os
import sys
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sandglass.errors import DataError, MissingPackageError, NotFoundError
from sandglass.runs.storage import cache_folder

_TIMEOUT = 60  # seconds without a byte


@dataclass(frozen=True)
class File:
    """A file of a data set.

    Args:
        name: its name, in a folder and at the mirrors.
        size: bytes; no mirror may send more.
        sha256: of the file as the mirrors have it.
        mirrors: https addresses of folders that hold it, each with a slash at the end.
        content: SHA-256 of what is inside a ``.gz``. Where it is known, a copy that was compressed again will do.
    """

    name: str
    size: int
    sha256: str
    mirrors: tuple[str, ...]
    content: str | None = None


def locate(dataset: str, file: File) -> Path:
    """Where the file is, its SHA-256 checked: below $SANDGLASS_DATA, in the cache, or in the cache after a download.

    Args:
        dataset: name of the folder it belongs into.
        file: the file.

    Raises:
        NotFoundError: neither at hand nor to be downloaded.
        DataError: a file of that name with other bytes.
        MissingPackageError: a download needs a package that is not installed.
    """
    path = _find(dataset, file)
    try:
        with path.open("rb") as source:
            _same(path, hashlib.file_digest(source, "sha256").hexdigest(), file.sha256)
    except OSError as error:
        raise DataError(f"{path} cannot be read ({error.strerror}); make it readable, or delete it.") from error
    return path


def unpack(dataset: str, file: File, size: int) -> bytes:
    """What is inside a ``.gz`` file, checked; see :func:`locate`.

    Args:
        dataset: name of the folder it belongs into.
        file: the file.
        size: bytes that have to be inside; no more are ever unpacked.
    """
    path = locate(dataset, file) if file.content is None else _find(dataset, file)
    try:
        with gzip.open(path) as source:
            content = source.read(size + 1)
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(f"{path} cannot be unpacked ({error}); delete it and download it again.") from error
    if file.content is not None:
        _same(path, hashlib.sha256(content).hexdigest(), file.content)
    if len(content) != size:
        raise DataError(f"{path} does not unpack to {size:,} bytes; delete it and download it again.")
    return content


def _same(path: Path, found: str, known: str) -> None:
    if found != known:
        raise DataError(
            f"{path} is not the file it is named after: its SHA-256 differs; delete it and download it again."
        )


def _find(dataset: str, file: File) -> Path:
    own = os.environ.get("SANDGLASS_DATA")
    if own and os.path.isfile(path := Path(own, dataset, file.name)):
        return path
    try:
        import pooch
    except ImportError as error:
        raise MissingPackageError(f"Downloading '{dataset}' needs pooch: `pip install pooch`.") from error
    cache = cache_folder(dataset)
    if os.path.isfile(path := cache / file.name):
        return path
    pooch.get_logger().setLevel("WARNING")
    reason = "no mirror is known"
    for mirror in file.mirrors:
        try:  # into a temporary file beside it, which is renamed when its SHA-256 is right
            return Path(
                pooch.retrieve(
                    mirror + file.name, f"sha256:{file.sha256}", file.name, cache, downloader=_transfer(file)
                )
            )
        except OSError as error:
            reason = " ".join(str(error).split())[:160]
        except ValueError:
            reason = f"what {mirror} sends has another SHA-256"
    raise NotFoundError(
        f"'{dataset}' is not at hand and {file.name} cannot be downloaded ({reason}); "
        f"set SANDGLASS_DATA to a folder that holds {dataset}/{file.name}."
    )


def _transfer(file: File) -> Callable[[str, str, Any], None]:
    """Fetches an address into a file, over https alone and no more than the file's size."""

    def transfer(address: str, target: str, _pooch: Any) -> None:
        with (
            _session() as session,
            session.get(address, stream=True, timeout=_TIMEOUT) as answer,
            open(target, "wb") as sink,
            _bar(file) as advance,
        ):
            answer.raise_for_status()
            taken = 0
            for chunk in answer.iter_content(2**20):
                taken += len(chunk)
                if taken > file.size:
                    raise OSError(f"{address} sends more than {file.size:,} bytes")
                sink.write(chunk)
                advance(len(chunk))

    return transfer


def _session() -> Any:
    """What asks for addresses. It cannot speak plain http, so no redirect can lead there."""
    import requests

    session = requests.Session()
    del session.adapters["http://"]
    return session


@contextmanager
def _bar(file: File) -> Iterator[Callable[[int], None]]:
    """A bar in a terminal, nothing in a pipe; takes the number of bytes that came."""
    if not sys.stderr.isatty():
        yield lambda n: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True)) as bar:
        task = bar.add_task(file.name, total=file.size)
        yield lambda n: bar.advance(task, n)

"""Files of registered datasets: found in $SANDGLASS_DATA or in the cache, or downloaded once; always verified."""

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
    """A file of a dataset.

    Args:
        name: file name, both local and at the mirrors.
        size: size in bytes; larger downloads are aborted.
        sha256: SHA-256 of the file at the mirrors.
        mirrors: https URLs of folders with the file, each ending in a slash.
        content: SHA-256 of the uncompressed content of a ``.gz``. If given, a recompressed copy is accepted.
    """

    name: str
    size: int
    sha256: str
    mirrors: tuple[str, ...]
    content: str | None = None


def locate(dataset: str, file: File) -> Path:
    """Finds a file below $SANDGLASS_DATA or in the cache, or downloads it into the cache; verifies its SHA-256.

    Args:
        dataset: name of its folder.
        file: the file.

    Raises:
        NotFoundError: there is no local copy, and the download failed.
        DataError: a file of that name with other content.
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
    """The verified content of a ``.gz`` file; see :func:`locate`.

    Args:
        dataset: name of its folder.
        file: the file.
        size: size of the content in bytes; no more is ever decompressed.
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
        raise DataError(f"{path} is not the expected file: its SHA-256 differs; delete it and download it again.")


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
        try:  # into a temporary file in the same folder, renamed once its SHA-256 is verified
            return Path(
                pooch.retrieve(
                    mirror + file.name, f"sha256:{file.sha256}", file.name, cache, downloader=_transfer(file)
                )
            )
        except OSError as error:
            reason = " ".join(str(error).split())[:160]
        except ValueError:
            reason = f"the file from {mirror} has another SHA-256"
    raise NotFoundError(
        f"There is no local copy of '{dataset}', and {file.name} cannot be downloaded ({reason}); "
        f"set SANDGLASS_DATA to a folder that contains {dataset}/{file.name}."
    )


def _transfer(file: File) -> Callable[[str, str, Any], None]:
    """Downloads a URL to a file, over https only and at most the file's size."""

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
                    raise OSError(f"{address} sent more than {file.size:,} bytes")
                sink.write(chunk)
                advance(len(chunk))

    return transfer


def _session() -> Any:
    """A session without plain http, so that redirects to it fail."""
    import requests

    session = requests.Session()
    del session.adapters["http://"]
    return session


@contextmanager
def _bar(file: File) -> Iterator[Callable[[int], None]]:
    """A progress bar if stderr is a terminal; yields a function that takes the number of bytes received."""
    if not sys.stderr.isatty():
        yield lambda n: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True)) as bar:
        task = bar.add_task(file.name, total=file.size)
        yield lambda n: bar.advance(task, n)

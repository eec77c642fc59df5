"""Reads members of a tar archive as a stream; nothing is unpacked to disk."""

from __future__ import annotations

import tarfile
import zlib
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from sandglass.errors import DataError


def read_tar(path: Path, sizes: Mapping[str, int]) -> dict[str, Tensor]:
    """Reads members of a ``.tar.gz`` by name.

    Only regular files of exactly these names and sizes are read; other members are skipped.

    Args:
        path: the archive.
        sizes: the size of each member in bytes, by name.

    Returns:
        Each member as ``(size,)`` uint8, in the order of ``sizes``.

    Raises:
        DataError: a member is missing, not a regular file or of another size, or the archive is damaged.
    """
    found: dict[str, Tensor] = {}
    try:
        with tarfile.open(path, "r|gz") as archive:
            for member in archive:
                name = member.name.removeprefix("./")
                if name in sizes:
                    found[name] = _read(archive, member, sizes[name], path)
                if len(found) == len(sizes):
                    break
    except (tarfile.TarError, OSError, EOFError, zlib.error) as error:
        raise DataError(f"{path} cannot be unpacked ({error}); delete it and download it again.") from error
    missing = [name for name in sizes if name not in found]
    if missing:
        raise DataError(f"{path} lacks {', '.join(missing)}; delete it and download it again.")
    return {name: found[name] for name in sizes}


def _read(archive: tarfile.TarFile, member: tarfile.TarInfo, size: int, path: Path) -> Tensor:
    source = archive.extractfile(member) if member.isreg() else None
    if source is None or member.size != size:
        raise DataError(
            f"{path}: {member.name} is not a file of {size:,} bytes; delete the archive and download it again."
        )
    values = torch.empty(size, dtype=torch.uint8)
    if source.readinto(values.numpy().data) != size:  # type: ignore[attr-defined]
        raise EOFError(f"{member.name} ends early")
    return values

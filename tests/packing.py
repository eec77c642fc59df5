"""Archives of pictures, made for tests."""

from __future__ import annotations

import io
import tarfile
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from sandglass.data.load import load_data
from sandglass.errors import DataError

TRUSTING: dict[str, Any] = {"filter": "fully_trusted"} if hasattr(tarfile, "fully_trusted_filter") else {}
"""What lets tarfile do all that an archive asks for; the first Pythons 3.11 know no other way."""


def picture(value: int = 0) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(np.full((6, 5), value, np.uint8)).save(buffer, "PNG")
    return buffer.getvalue()


def pack(path: Path, members: dict[str, bytes]) -> Path:
    """A zip or tar file, as its name ends."""
    if path.suffix == ".zip":
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
            for name, content in members.items():
                archive.writestr(name, content)
        return path
    mode = {".gz": "w:gz", ".tgz": "w:gz", ".bz2": "w:bz2", ".xz": "w:xz"}.get(path.suffix, "w")
    with tarfile.open(path, mode) as archive:
        for name, content in members.items():
            archive.addfile(entry(name, len(content)), io.BytesIO(content))
    return path


def entry(name: str, size: int = 0, kind: bytes = tarfile.REGTYPE, link: str = "", mode: int = 0o644):
    info = tarfile.TarInfo(name)
    info.size, info.type, info.linkname, info.mode = size, kind, link, mode
    return info


def refused(path: Path, cache: Path, match: str) -> None:
    with pytest.raises(DataError, match=match) as caught:
        load_data(path)
    assert "\n" not in str(caught.value)
    assert not [p for p in cache.iterdir() if not p.name.endswith(".lock")]

"""Pictures from the training, from the first to the last."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np

from sandglass.data.pixels import Pixels
from sandglass.engine.sheets import FOLDER, columns_of, cut
from sandglass.reports.mosaic import mosaic
from sandglass.reports.section import FULL, Material, Section, Strip, section

_STRIPS = 6
"""Sheets shown of each kind."""

_PICTURES = 16
"""Pictures of a sheet in its strip."""

_LARGEST = 2**26
"""Pixels of a sheet that is read."""

_HOW = {
    "samples": "samples from the same noise",
    "reconstructions": "reconstructions of the same examples",
    "translations": "translations of the same examples",
}


@section("progress", place=15)
def progress(m: Material) -> Section | None:
    """Strips of pictures that were drawn while the model trained, oldest first."""
    if not m.model.spec.is_image:
        return None
    strips: list[Strip] = []
    kinds = []
    for kind, sheets in found(m.run.path / FOLDER).items():
        chosen = evenly(sheets, _STRIPS)
        rows = [(step, pictures(path, kind, m)) for step, path in chosen]
        rows = [(step, some) for step, some in rows if len(some)]
        for step, some in rows:
            alt = f"{len(some)} {kind} after {step} steps"
            strips.append(
                Strip(
                    mosaic(f"progress-{kind}-{step}", alt, some, _PICTURES, width=FULL, pad=6),
                    f"{kind.capitalize()} after {step:,} step{'s' * (step != 1)}",
                )
            )
        kinds += [_HOW[kind]] if rows else []
    if not strips:
        return None
    how = (
        f"Drawn while the model trained, oldest first: {', then '.join(kinds)}. The pictures of a column belong "
        f"together. Where they still change at the end, longer training may help. All sheets are in {FOLDER}."
    )
    return Section("progress", "Progress", how, strips=strips)


def found(folder: Path) -> dict[str, list[tuple[int, Path]]]:
    """The sheets of a run by kind, each with its step, in order; kinds in the order of their first."""
    kinds: dict[str, list[tuple[int, Path]]] = {}
    for path in folder.iterdir() if folder.is_dir() else ():
        match = re.fullmatch(r"([a-z]+)-(\d{8,})\.png", path.name)
        if match and match[1] in _HOW:
            kinds.setdefault(match[1], []).append((int(match[2]), path))
    ordered = {kind: sorted(sheets) for kind, sheets in kinds.items()}
    return dict(sorted(ordered.items(), key=lambda item: item[1][0][0]))


def evenly(sheets: list[tuple[int, Path]], n: int) -> list[tuple[int, Path]]:
    """At most ``n`` of them, the first and the last always.

    Example:
        >>> [step for step, _ in evenly([(k, Path()) for k in range(1, 21)], 6)]
        [1, 5, 9, 12, 16, 20]
    """
    if len(sheets) <= n:
        return sheets
    return [sheets[round(k * (len(sheets) - 1) / (n - 1))] for k in range(n)]


def pictures(path: Path, kind: str, m: Material) -> Pixels:
    """The first pictures of a sheet ``(N, H, W, C)``, without the originals above them; none if it cannot be read."""
    from PIL import Image

    others = list(m.model.spec.beside.values()) if kind == "translations" else []
    height, width = (others or [m.model.spec])[0].shape[1:]
    try:
        with Image.open(path) as image:
            if image.width * image.height > _LARGEST:
                raise ValueError("Sandglass wrote no such sheet.")
            sheet = np.asarray(image)
        tiles = cut(sheet if sheet.ndim == 3 else sheet[..., None], height, width)
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError, Image.DecompressionBombWarning):
        return np.empty((0, height, width, 1), np.uint8)
    if kind != "samples" and len(tiles) > (columns := columns_of(height, width)):
        rows = tiles.reshape(-1, columns, *tiles.shape[1:])
        tiles = rows[1::2].reshape(-1, *tiles.shape[1:])
    return tiles[:_PICTURES]

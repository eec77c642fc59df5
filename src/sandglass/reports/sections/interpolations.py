"""Interpolations between examples."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from sandglass.core import Batch
from sandglass.data.pixels import Pixels, enlarge, grid, to_images
from sandglass.reports.mosaic import Mosaic, fitting, with_alpha
from sandglass.reports.section import FULL, Material, Section, Strip, section
from sandglass.running import observing

_STEPS = 8


@section("interpolations", place=50)
def interpolations(m: Material) -> Section | None:
    """Decoded paths between the codes of pairs of examples, framed by the originals."""
    if not m.model.spec.is_image or m.examples is None or "interpolate" not in m.model.provides or len(m.examples) < 2:
        return None
    x, y = m.examples.x, m.examples.y
    half = len(x) // 2
    pairs = [(k, k + half) for k in range(half) if y is None or y[k] < 0 or y[k] != y[k + half]]
    if not pairs:
        return None
    first, last = (torch.tensor(index, device=x.device) for index in zip(*pairs, strict=True))
    a, b = (m.placed(_at(m.examples, index)) for index in (first, last))
    with observing(m.model, m.seed, "report", "interpolate"):
        between = m.model.interpolate(a, b, _STEPS).cpu()
    rows = [to_images(part, m.transform) for part in (x[first], between.flatten(0, 1), x[last])]
    image, ends = _paths(rows[0], rows[1].reshape(len(pairs), _STEPS, *rows[1].shape[1:]), rows[2])
    of = "examples of different classes" if y is not None and bool((y >= 0).all()) else "examples"
    how = (
        f"Each row interpolates between the codes of two {of}. The framed ends are the real images; "
        "everything between is decoded. In a good latent space all steps look realistic."
    )
    return Section("interpolations", "Interpolations", how, strips=[Strip(image, ends=ends)])


def _at(batch: Batch, index: Tensor) -> Batch:
    return batch.map(lambda t: t[index])


def _paths(first: Pixels, between: Pixels, last: Pixels) -> tuple[Mosaic, str]:
    """Rows of original, decoded steps ``(R, S, H, W, C)`` and original, and the CSS widths of the three parts."""
    rows, steps = between.shape[:2]
    frame, gap, pad = 6, 24, 6
    times = fitting(between.shape[3], steps + 2, FULL, 2 * pad)
    tiles = [with_alpha(enlarge(part, times)) for part in (first, between.reshape(-1, *between.shape[2:]), last)]
    left, right = (grid(_frame(part, frame), 1, pad, 0) for part in (tiles[0], tiles[2]))
    centre = grid(np.pad(tiles[1], ((0, 0), (frame, frame), (0, 0), (0, 0))), steps, pad, 0)
    if left.shape[-1] != centre.shape[-1]:
        centre = np.concatenate([np.repeat(centre[..., :1], 3, -1), centre[..., 1:]], -1)
    space = np.zeros((len(centre), gap, centre.shape[-1]), np.uint8)
    pixels = np.concatenate([left, space, centre, space, right], axis=1)
    ends = f"{left.shape[1] + gap}fr {centre.shape[1]}fr {right.shape[1] + gap}fr"
    return Mosaic("interpolations", f"{rows} interpolations between pairs of examples", pixels, FULL), ends


def _frame(images: Pixels, width: int) -> Pixels:
    """``(N, H, W, C)`` with alpha, as RGBA with an amber frame that is visible on light and dark backgrounds."""
    if images.shape[-1] == 2:
        images = np.concatenate([np.repeat(images[..., :1], 3, -1), images[..., 1:]], -1)
    n, height, across, _ = images.shape
    framed = np.empty((n, height + 2 * width, across + 2 * width, 4), np.uint8)
    framed[:] = (217, 130, 43, 255)
    framed[:, width:-width, width:-width] = images
    return framed

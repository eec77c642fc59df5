"""What the model makes, in pictures: reconstructions, samples, a plane of its latent space, walks between examples."""

from __future__ import annotations

import numpy as np
import torch

from sandglass.reports import latent
from sandglass.reports.latent import observing
from sandglass.reports.mosaic import Mosaic, Pixels, enlarge, fitting, grid, mosaic, to_images, with_alpha
from sandglass.reports.section import Framed, Material, Section, Strip

_STEPS = 8
_FULL, _SAMPLES, _PLANE = 1020, 440, 520
"""Widths on the page, in CSS pixels."""


def reconstructions(m: Material) -> Section | None:
    """Originals over reconstructions."""
    if m.examples is None or "reconstruct" not in m.model.provides:
        return None
    with observing(m.model, m.seed, "report", "reconstruct"):
        rebuilt = m.model.reconstruct(m.ready(m.examples.x)).cpu()
    n = len(rebuilt)
    strips = []
    for name, label, x in (("originals", "Originals", m.examples.x), ("reconstructions", "Reconstructions", rebuilt)):
        alt = (
            f"{n} {'examples of the ' + m.split_name + ' split' if name == 'originals' else 'reconstructions of them'}"
        )
        strips.append(Strip(mosaic(name, alt, to_images(x, m.transform), n, width=_FULL, pad=8), label))
    how = (
        f"{n} fixed examples of the {m.split_name} split, the same in every report on this data, and below each what "
        "the "
        "model rebuilds from its code. What is lost here, such as thin strokes or texture, did not fit through the "
        "code."
    )
    return Section("reconstructions", "Reconstructions", how, strips=strips)


def samples(m: Material) -> Section:
    """Draws from the model."""
    height, width = m.model.spec.shape[1:]
    side = 8 if max(height, width) <= 96 else 4
    with observing(m.model, m.seed, "report", "samples"):
        drawn = m.model.sample(side * side).cpu()
    picture = mosaic("samples", f"{side * side} samples", to_images(drawn, m.transform), side, width=_SAMPLES, pad=6)
    source = (
        "codes drawn from the prior" if "prior" in m.model.provides else "codes drawn like those of the training data"
    )
    how = (
        f"{side * side} pictures decoded from {source}: none was chosen by hand. Look for variety as much as for "
        "sharpness; near-copies of one picture mean that parts of the data were dropped."
    )
    return Section("samples", "Samples", how, half=True, strips=[Strip(picture)])


def plane_section(m: Material) -> Section | None:
    """What is decoded on a plane through the latent space."""
    if not latent.has_plane(m.model):
        return None
    height, width = m.model.spec.shape[1:]
    side = max(6, min(20, 960 // max(height, width)))
    found = latent.plane(m.model, side, codes=m.codes)
    images = to_images(latent.decode(m.model, found.z), m.transform)
    # Bare tiles read as one landscape; the gutter of a frame would hide how smoothly it changes.
    picture = mosaic(
        "manifold", f"{side} by {side} pictures decoded on a grid of latents", images, side, width=_PLANE, pad=0
    )
    marks = [[(round(100 * place, 2), _tick(value)) for place, value in axis] for axis in found.marks]
    if m.model.latent_dim == 2:
        whose = "the prior" if "prior" in m.model.provides else "a normal through the codes"
        where = f"The whole latent space, in steps of equal probability under {whose}."
    elif m.codes is not None:
        where = (
            f"The two directions in which the codes of the {m.split_name} split vary most, to 2.5 standard deviations "
            "either side of their mean."
        )
    else:
        where = "The first two latent dimensions at quantiles of the prior, all others at their mean."
    how = (
        f"{where} Neighbours should change into each other smoothly; abrupt or broken patches are codes it rarely saw."
    )
    framed = Framed(picture, found.across, found.up, marks[0], marks[1])
    return Section("manifold", "Latent plane", how, half=True, framed=framed)


def interpolations(m: Material) -> Section | None:
    """Straight lines between the codes of pairs of examples, between the originals themselves."""
    if m.examples is None or "interpolate" not in m.model.provides or len(m.examples) < 2:
        return None
    x, y = m.examples.x, m.examples.y
    half = len(x) // 2
    pairs = [(k, k + half) for k in range(half) if y is None or y[k] != y[k + half]]
    if not pairs:
        return None
    a, b = (x[torch.tensor(index, device=x.device)] for index in zip(*pairs, strict=True))
    with observing(m.model, m.seed, "report", "interpolate"):
        between = m.model.interpolate(m.ready(a), m.ready(b), _STEPS).cpu()
    rows = [to_images(part, m.transform) for part in (a, between.flatten(0, 1), b)]
    picture, ends = _walks(rows[0], rows[1].reshape(len(pairs), _STEPS, *rows[1].shape[1:]), rows[2])
    of = "examples of different classes" if y is not None else "examples"
    how = (
        f"Each row walks in a straight line from the code of one example to that of another, between {of}. The framed "
        "ends are the real pictures; everything between them is decoded. A good space passes through believable "
        "pictures."
    )
    return Section("interpolations", "Interpolations", how, strips=[Strip(picture, ends=ends)])


def _walks(first: Pixels, between: Pixels, last: Pixels) -> tuple[Mosaic, str]:
    """Rows of original, decoded steps and original ``(R, S, H, W, C)``, and the widths of the three as CSS."""
    rows, steps = between.shape[:2]
    frame, gap, pad = 6, 24, 6
    times = fitting(between.shape[3], steps + 2, _FULL, 2 * pad)
    tiles = [with_alpha(enlarge(part, times)) for part in (first, between.reshape(-1, *between.shape[2:]), last)]
    left, right = (grid(_frame(part, frame), 1, pad, 0) for part in (tiles[0], tiles[2]))
    centre = grid(np.pad(tiles[1], ((0, 0), (frame, frame), (0, 0), (0, 0))), steps, pad, 0)
    if left.shape[-1] != centre.shape[-1]:
        centre = np.concatenate([np.repeat(centre[..., :1], 3, -1), centre[..., 1:]], -1)
    space = np.zeros((len(centre), gap, centre.shape[-1]), np.uint8)
    pixels = np.concatenate([left, space, centre, space, right], axis=1)
    ends = f"{left.shape[1] + gap}fr {centre.shape[1]}fr {right.shape[1] + gap}fr"
    return Mosaic("interpolations", f"{rows} walks between pairs of examples", pixels, _FULL), ends


def _frame(images: Pixels, width: int) -> Pixels:
    """``(N, H, W, C)`` with alpha, as RGBA in an amber frame that shows on light and dark paper."""
    if images.shape[-1] == 2:
        images = np.concatenate([np.repeat(images[..., :1], 3, -1), images[..., 1:]], -1)
    n, height, across, _ = images.shape
    framed = np.empty((n, height + 2 * width, across + 2 * width, 4), np.uint8)
    framed[:] = (217, 130, 43, 255)
    framed[:, width:-width, width:-width] = images
    return framed


def _tick(value: float) -> str:
    return f"{value + 0.0:.1f}".replace("-0.0", "0.0").replace("-", "\N{MINUS SIGN}")


def picture_sections(m: Material) -> list[Section]:
    """All of them that the model can give."""
    made = [reconstructions(m), samples(m), plane_section(m), interpolations(m)]
    return [s for s in made if s is not None]

"""Latent traversals."""

from __future__ import annotations

import torch

from sandglass import running
from sandglass.core import Batch
from sandglass.data.pixels import to_images
from sandglass.reports.mosaic import mosaic
from sandglass.reports.section import FULL, Material, Section, Strip, section
from sandglass.tasks.latent_space import REACH, principal

_STEPS, _MOST = 10, 8
_WIDEST = 1024  # maximum size of a latent for its principal direction to be computed


@section("traversals", place=55)
def traversals(m: Material) -> Section | None:
    """Traversal of each latent with the others fixed, for a model with several latents."""
    model = m.model
    able = {"encode", "decode"} <= set(model.provides)
    if not model.spec.is_image or not able or len(model.latents) < 2 or m.codes is None or m.split is None:
        return None
    start = m.codes[:1]
    first = running.placed(model, m.split.batch(slice(0, 1)))
    given = None if first is None else Batch(y=first.y, given=first.given).map(lambda t: t.expand(_STEPS, *t.shape[1:]))
    strips: list[Strip] = []
    place = 0
    for latent in model.latents:
        own = slice(place, place + latent.size)
        place += latent.size
        if latent.size > _WIDEST or len(strips) == _MOST:
            continue
        found = principal(m.codes[:, own], 1)
        steps = torch.linspace(-REACH, REACH, _STEPS, dtype=torch.float64)[:, None]
        z = start.repeat(_STEPS, 1)
        z[:, own] = found.mean + steps * found.scale[0] * found.directions[0]
        images = to_images(running.decode(model, z, given), m.transform)
        alt = f"{_STEPS} images along the latent {latent.name}"
        label = f"{latent.name}, {latent.size} dimension{'s' * (latent.size > 1)}"
        strips.append(Strip(mosaic(f"traversal-{latent.name}", alt, images, _STEPS, width=FULL, pad=8), label))
    how = (
        f"The code of one example of the {m.split_name} split. In each row one latent varies along its first principal "
        "direction, up to 2.5 standard deviations from its mean, while all others are fixed: what changes along a row "
        "is what this latent encodes."
    )
    return Section("traversals", "What each latent changes", how, strips=strips) if strips else None

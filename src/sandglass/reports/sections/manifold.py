"""A decoded plane through the latent space."""

from __future__ import annotations

from sandglass import registry, running
from sandglass.data.pixels import to_images
from sandglass.reports.mosaic import mosaic
from sandglass.reports.section import Framed, Material, Section, section
from sandglass.tasks import latent_space

_WIDTH = 520
"""On the page, in CSS pixels."""


@section("manifold", place=40)
def manifold(m: Material) -> Section | None:
    """Examples decoded on a plane through the latent space."""
    able = m.drawable and latent_space.has_plane(m.model) and registry.can(m.model, "codes")
    if not m.model.spec.is_image or not able:
        return None
    height, width = m.model.spec.shape[1:]
    side = max(6, min(20, 960 // max(height, width)))
    found = latent_space.plane(m.model, side, codes=m.codes)
    one = m.conditions(1, "manifold")
    given = None if one is None else one.map(lambda t: t.expand(side * side, *t.shape[1:]))
    images = to_images(running.decode(m.model, found.z, given), m.transform)
    # No gaps between tiles, so that smooth changes are visible.
    image = mosaic(
        "manifold", f"{side} by {side} images decoded on a grid of latents", images, side, width=_WIDTH, pad=0
    )
    marks = [[(round(100 * place, 2), _tick(value)) for place, value in axis] for axis in found.marks]
    if m.model.code_size == 2:
        whose = "the prior" if "prior" in m.model.provides else "a normal fitted to the codes"
        where = f"The whole latent space, in steps of equal probability under {whose}."
    elif m.codes is not None:
        where = (
            f"The first two principal directions of the codes of the {m.split_name} split, up to 2.5 standard "
            "deviations from their mean."
        )
    else:
        where = "The first two latent dimensions at quantiles of the prior, all others at their mean."
    what = running.conditioned_on(m.model)
    where += f" All conditioned on the {what} of one example." if what else ""
    how = f"{where} Neighbours should change smoothly; abrupt or broken regions are codes rarely seen in training."
    framed = Framed(image, found.across, found.up, marks[0], marks[1])
    return Section("manifold", "Latent plane", how, half=True, framed=framed)


def _tick(value: float) -> str:
    return f"{value + 0.0:.1f}".replace("-0.0", "0.0").replace("-", "\N{MINUS SIGN}")

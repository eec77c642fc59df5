"""Samples from the model."""

from __future__ import annotations

from sandglass import running
from sandglass.data.pixels import to_images
from sandglass.reports.mosaic import mosaic
from sandglass.reports.section import Material, Section, Strip, section

_WIDTH = 440
"""On the page, in CSS pixels."""


@section("samples", place=30)
def samples(m: Material) -> Section | None:
    """Samples from the model."""
    if not m.model.spec.is_image or not m.drawable or not m.model.latents:
        return None
    height, width = m.model.spec.shape[1:]
    side = 8 if max(height, width) <= 96 else 4
    given = m.conditions(side * side, "samples")
    drawn = running.sample(m.model, side * side, key=(m.seed, "report", "samples"), given=given)
    image = mosaic("samples", f"{side * side} samples", to_images(drawn, m.transform), side, width=_WIDTH, pad=6)
    source = "the prior" if "prior" in m.model.provides else "the distribution fitted to the training codes"
    what = running.conditioned_on(m.model)
    condition = f", each conditioned on the {what} of an example of the {m.split_name} split" if what else ""
    how = (
        f"{side * side} uncurated samples from {source}{condition}. Check variety and sharpness; near-duplicates "
        "of one image indicate mode collapse."
    )
    return Section("samples", "Samples", how, half=True, strips=[Strip(image)])

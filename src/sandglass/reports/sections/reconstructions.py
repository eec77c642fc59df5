"""Originals and reconstructions."""

from __future__ import annotations

from sandglass.data.pixels import to_images
from sandglass.reports.mosaic import mosaic
from sandglass.reports.section import FULL, Material, Section, Strip, section
from sandglass.running import observing


@section("reconstructions", place=20)
def reconstructions(m: Material) -> Section | None:
    """Original examples above their reconstructions."""
    if not m.model.spec.is_image or m.examples is None or "reconstruct" not in m.model.provides or not m.model.latents:
        return None
    with observing(m.model, m.seed, "report", "reconstruct"):
        rebuilt = m.model.reconstruct(m.placed(m.examples)).cpu()
    n = len(rebuilt)
    strips = []
    for name, label, x in (("originals", "Originals", m.examples.x), ("reconstructions", "Reconstructions", rebuilt)):
        alt = (
            f"{n} {'examples of the ' + m.split_name + ' split' if name == 'originals' else 'reconstructions of them'}"
        )
        strips.append(Strip(mosaic(name, alt, to_images(x, m.transform), n, width=FULL, pad=8), label))
    how = (
        f"{n} fixed examples of the {m.split_name} split, the same in every report on this data, above their "
        "reconstructions. Lost detail, such as thin strokes or texture, is not encoded."
    )
    return Section("reconstructions", "Reconstructions", how, strips=strips)

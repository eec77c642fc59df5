"""Sources and translations."""

from __future__ import annotations

from dataclasses import replace

from torch import Tensor

from sandglass.data.pixels import to_images
from sandglass.data.transform import Transform
from sandglass.reports.mosaic import mosaic
from sandglass.reports.section import EXAMPLES, FULL, Material, Section, Strip, section
from sandglass.running import observing, placed


@section("translations", place=25)
def translations(m: Material) -> Section | None:
    """Sources above their translations, and the true or returned image below."""
    model = m.model
    if not model.spec.is_image or m.examples is None or "translate" not in model.provides or model.latents:
        return None
    others = [need.removeprefix("beside:") for need in model.needs if need.startswith("beside:")]
    rows: list[tuple[str, Tensor, Transform]] = []
    with observing(model, m.seed, "report", "translate"):
        if not others:
            source = next(name for name in model.conditions if name in model.spec.given)
            made = model.translate(m.placed(m.examples)).cpu()
            rows = [
                ("Sources", m.examples.given[source], m.transform.given.get(source, m.transform)),
                ("Translations", made, m.transform),
                ("True images", m.examples.x, m.transform),
            ]
        else:
            other = others[0]
            there = m.transform.beside.get(other, m.transform)
            batch = m.placed(replace(m.examples, beside={}))
            made = model.translate(batch, other)
            returned = model.translate(replace(batch, x=made), "x")
            rows = [("Examples", batch.x, m.transform), (f"Translated to {other}", made, there)]
            rows += [("Translated back", returned, m.transform)]
            assert m.data is not None
            split = m.data.splits[m.split_name].beside[other]
            start = placed(model, split.batch(slice(0, EXAMPLES)))
            made = model.translate(start, "x")
            returned = model.translate(replace(start, x=made), other)
            rows += [(f"Examples of {other}", start.x, there), ("Translated", made, m.transform)]
            rows += [("Translated back", returned, there)]
    strips = []
    for number, (label, x, transform) in enumerate(rows):
        alt = f"{label}, {len(x)} of the {m.split_name} split"
        strips.append(
            Strip(
                mosaic(f"translations-{number}", alt, to_images(x.cpu(), transform), len(x), width=FULL, pad=8), label
            )
        )
    how = (
        f"Fixed examples of the {m.split_name} split, the same in every report on this data. Compare each translation "
        "with the image above it, for what it keeps, and with the one below, for what it adds."
    )
    return Section("translations", "Translations", how, strips=strips)

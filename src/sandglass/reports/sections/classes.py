"""Class-conditional samples."""

from __future__ import annotations

import torch

from sandglass import running
from sandglass.core import Batch
from sandglass.data.pixels import to_images
from sandglass.reports.mosaic import mosaic
from sandglass.reports.section import Framed, Material, Section, section
from sandglass.tasks.sheet import short

_COLUMNS, _ROWS = 10, 20
_WIDTH = 700
"""On the page, in CSS pixels."""


@section("classes", place=45)
def classes(m: Material) -> Section | None:
    """One row of samples per class, for a class-conditional model."""
    spec = m.model.spec
    if not spec.is_image or "labels" not in m.model.needs or set(m.model.conditions) - {"labels"}:
        return None
    shown = min(spec.classes, _ROWS)
    key = (m.seed, "report", "classes")
    drawn = [
        running.sample(m.model, _COLUMNS, key=key, given=Batch(y=torch.full((_COLUMNS,), k))) for k in range(shown)
    ]
    images = to_images(torch.cat(drawn), m.transform)
    alt = f"{_COLUMNS} samples of each of {shown} classes"
    image = mosaic("classes", alt, images, _COLUMNS, width=_WIDTH, pad=6)
    names = [m.classes[k] if k < len(m.classes) else str(k) for k in range(shown)]
    # The first row is at the top; positions are measured from the bottom.
    ticks = [(round(100 * (1 - (k + 0.5) / shown), 2), short(name, 12)) for k, name in enumerate(names)]
    how = (
        "One row per class. All images of a column share the same noise, so differences within a column are due to the "
        "class, and what stays the same is independent of it."
    )
    note = f"The first {shown} of {spec.classes} classes." if spec.classes > shown else ""
    framed = Framed(image, "samples", "class", [], ticks)
    return Section("classes", "Samples of each class", how, framed=framed, note=note)

"""The data of a run: splits, classes and preprocessing notes."""

from __future__ import annotations

from collections.abc import Mapping

from sandglass.census.census import sentence
from sandglass.reports.counts import class_chart
from sandglass.reports.section import Material, Section, Table, section


@section("data", place=100)
def data_section(m: Material) -> Section:
    """Splits, classes and notes of the data.

    Sizes and notes are stored in the run folder, so they are shown even if the data is not available.
    """
    data = m.run.config["data"]
    classes = class_counts(m)
    rows = []
    for name, count in data["examples"].items():
        sizes = classes.get(name, {}).values()
        each = f"{min(sizes):,} to {max(sizes):,}" if sizes else ""
        rows.append([name, f"{count:,}", each])
    head = ["split", "examples", "per class"]
    table = Table(rows, head, numbers=(1, 2)) if classes else Table([r[:2] for r in rows], head[:2], numbers=(1,))
    notes = [[sentence(note)] for note in data.get("notes") or []]
    tables = [table, *([Table(notes, title="Notes")] if notes else [])]
    how = "The data the model was trained and evaluated on. The command inspect shows the source in more detail."
    charts = [class_chart(classes, "data-classes")] if classes else []
    return Section("data", "Data", how, charts=charts, tables=tables)


def class_counts(m: Material) -> Mapping[str, Mapping[str, int]]:
    """Number of examples per class and split; empty without classes or data."""
    if m.data is None:
        return {}
    counted = {}
    for name, split in m.data.splits.items():
        if split.y is None or not len(split):
            continue
        counts = split.y.cpu().bincount(minlength=len(m.classes)).tolist()
        counted[name] = {m.classes[k] if k < len(m.classes) else str(k): n for k, n in enumerate(counts)}
    return counted

"""What a run was trained on: its splits, its classes, and what was done to it."""

from __future__ import annotations

from collections.abc import Mapping

from sandglass.census.census import sentence
from sandglass.reports.counts import class_chart
from sandglass.reports.section import Material, Section, Table, section


@section("data", place=100)
def data_section(m: Material) -> Section:
    """The data in figures and words.

    Without the data at hand the sizes and remarks are still there, for the run folder keeps them.
    """
    data = m.run.config["data"]
    classes = class_counts(m)
    rows = []
    for name, count in data["examples"].items():
        sizes = classes.get(name, {}).values()
        each = f"{min(sizes):,} to {max(sizes):,}" if sizes else ""
        rows.append([name, f"{count:,}", each])
    head = ["split", "examples", "in a class"]
    table = Table(rows, head, numbers=(1, 2)) if classes else Table([r[:2] for r in rows], head[:2], numbers=(1,))
    notes = [[sentence(note)] for note in data.get("notes") or []]
    tables = [table, *([Table(notes, title="What was found and done")] if notes else [])]
    how = (
        "What the model learned from and was measured on. The command inspect looks at the source itself, more closely."
    )
    charts = [class_chart(classes, "data-classes")] if classes else []
    return Section("data", "Data", how, charts=charts, tables=tables)


def class_counts(m: Material) -> Mapping[str, Mapping[str, int]]:
    """Examples of each class in each split; empty where there are no classes or the data is not at hand."""
    if m.data is None:
        return {}
    counted = {}
    for name, split in m.data.splits.items():
        if split.y is None or not len(split):
            continue
        counts = split.y.cpu().bincount(minlength=len(m.classes)).tolist()
        counted[name] = {m.classes[k] if k < len(m.classes) else str(k): n for k, n in enumerate(counts)}
    return counted

"""The data of a run: splits, classes and preprocessing notes."""

from __future__ import annotations

from collections.abc import Mapping

from sandglass.census.census import sentence
from sandglass.reports.counts import class_chart
from sandglass.reports.section import Material, Section, Table, section


@section("data", place=100)
def data_section(m: Material) -> Section:
    """Splits, classes and notes of the data, and how many examples have no label where labels are few.

    Sizes and notes are stored in the run folder, so they are shown even if the data is not available.
    """
    data = m.run.config["data"]
    classes, unknown = class_counts(m), unlabelled(m)
    rows = []
    for name, count in data["examples"].items():
        sizes = classes.get(name, {}).values()
        each = f"{min(sizes):,} to {max(sizes):,}" if sizes else ""
        rows.append([name, f"{count:,}", each, f"{unknown.get(name, 0):,}"])
    head = ["split", "examples", "per class", "without a label"]
    width = 4 if any(unknown.values()) else 3 if classes else 2
    table = Table([row[:width] for row in rows], head[:width], numbers=tuple(range(1, width)))
    notes = [[sentence(note)] for note in data.get("notes") or []]
    tables = [table, *([Table(notes, title="Notes")] if notes else [])]
    how = "The data the model was trained and evaluated on. The command inspect shows the source in more detail."
    charts = [class_chart(classes, "data-classes")] if classes else []
    return Section("data", "Data", how, charts=charts, tables=tables)


def class_counts(m: Material) -> Mapping[str, Mapping[str, int]]:
    """Number of examples per class and split, of those with a label; empty without classes or data."""
    if m.data is None:
        return {}
    counted = {}
    for name, split in m.data.splits.items():
        if split.y is None or not bool((split.y >= 0).any()):
            continue
        counts = split.y[split.y >= 0].cpu().bincount(minlength=len(m.classes)).tolist()
        counted[name] = {m.classes[k] if k < len(m.classes) else str(k): n for k, n in enumerate(counts)}
    return counted


def unlabelled(m: Material) -> Mapping[str, int]:
    """Number of examples without a label, of splits where examples have labels or could have; empty without data."""
    splits = m.data.splits if m.data is not None else {}
    return {name: int((split.y < 0).sum()) for name, split in splits.items() if split.y is not None}

"""Training time and model size."""

from __future__ import annotations

from sandglass.reports.facts import duration, parameters
from sandglass.reports.section import Material, Section, Table, section
from sandglass.runs.history import stage_of


@section("timings", place=110)
def timings(m: Material) -> Section:
    """Training time, throughput and number of parameters."""
    stops = [e for e in m.events if e["event"] == "stop"]
    seconds = sum(e.get("seconds", 0.0) for e in stops)
    steps = sum(e.get("steps", 0) for e in stops)
    seen = examples_seen(m)
    last = max((r["step"] for r in m.records), default=0)
    training = m.run.config["training"]
    environment = m.run.config["environment"]
    rows = [["wall time", duration(seconds)], ["updates", f"{last:,}"]]
    if seconds > 0 and steps:
        rows.append(["updates per second", f"{steps / seconds:,.1f}"])
        rows.append(["examples per second, overall", f"{seen * min(1.0, steps / max(last, 1)) / seconds:,.0f}"])
    threads = f"{training['threads']} thread{'s' * (training['threads'] != 1)}"
    rows += [
        ["device", f"{environment.get('gpu') or training['device']}, {training['precision']}, {threads}"],
        ["parameters", f"{parameters(m):,}"],
    ]
    for name, child in m.model.named_children():
        count = sum(p.numel() for p in child.parameters())
        if count:
            rows.append([f"· {name}", f"{count:,}"])
    return Section("timings", "Time and size", half=True, tables=[Table(rows, numbers=(1,))])


def examples_seen(m: Material) -> int:
    """Number of training examples processed, with repetition."""
    losses = [r for r in m.records if r["split"] == "train" and r["term"] == "loss"]
    first: dict[str, str] = {}  # all players of a stage process the same examples
    for r in losses:
        first.setdefault(stage_of(r), r["phase"])
    return sum(r["n"] for r in losses if r["phase"] == first[stage_of(r)])

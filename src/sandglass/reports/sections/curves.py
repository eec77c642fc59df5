"""How training went."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from sandglass.metrics.bound import kind_of_bound
from sandglass.reports import history
from sandglass.reports.chart import Chart
from sandglass.reports.facts import figure
from sandglass.reports.plots import curve_chart
from sandglass.reports.section import Material, Section, Table, section

_GAME = (
    "Each player's loss, mean over an epoch. In a game neither should run away: a critic near zero has won, and the "
    "generator learns little from it. These curves do not say how good the samples are."
)
_LOSS = (
    "Lower is better. The training curve is the mean over an epoch while the weights change; the other is measured "
    "after it, with the objective at its final weights. Where they part, the model begins to learn examples by heart."
)


@section("curves", place=10)
def curves(m: Material) -> Section | None:
    """The objective and its parts over the epochs of every stage, and what each fit in closed form found."""
    stages = history.by_stage(m.model, m.records)
    several = sum(bool(stage.phases) for stage, _ in stages) > 1
    charts: list[Chart] = []
    tables: list[Table] = []
    games: list[bool] = []
    for stage, records in stages:
        if stage.fit is not None:
            tables += fitted(stage.name, [r for r in records if r["phase"] == stage.name])
        found = history.curves(r for r in records if r["phase"] != stage.name or not stage.fit)
        shown = history.panels(stage, found)
        if not shown:
            continue
        best = history.best_epoch(m.run, records)
        upkeep = history.upkeep(found)
        if several:
            shown, upkeep = ([history.of_stage(panel, stage.name) for panel in some] for some in (shown, upkeep))
        charts += [curve_chart(panel, best if k == 0 else None) for k, panel in enumerate(shown)]
        charts += [curve_chart(panel) for panel in upkeep]
        games.append(stage.objective is None)
    if not charts:
        return None
    how = " ".join([*([] if all(games) else [_LOSS]), *([_GAME] if any(games) else [])])
    if several:
        how += " The stages followed each other, each from the best weights of the one before; epochs count anew."
    kind = "" if all(games) else kind_of_bound(m.model, m.split)
    how += f" The nats are those of {kind}." if kind else ""
    return Section("curves", "Training", how, charts=charts, tables=tables)


def fitted(stage: str, records: Sequence[Mapping[str, Any]]) -> list[Table]:
    """What a fit in closed form found."""
    rows = [[str(r["term"]).replace("_", " "), figure(r["value"])] for r in records]
    return [Table(rows, title=f"Fitted in closed form: {stage}", numbers=(1,))] if rows else []

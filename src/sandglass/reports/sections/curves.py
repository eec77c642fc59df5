"""Training curves."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from sandglass.metrics.bound import kind_of_bound
from sandglass.reports import history
from sandglass.reports.chart import Chart
from sandglass.reports.facts import figure
from sandglass.reports.plots import curve_chart
from sandglass.reports.section import Material, Section, Table, section
from sandglass.runs.history import curves as epoch_curves

_GAME = (
    "Each player's loss, averaged over an epoch. Neither player should dominate: if the critic's loss is near zero, "
    "the generator gets little gradient. These curves do not show sample quality."
)
_LOSS = (
    "Lower is better. The training curve is the mean over an epoch while the weights change; the other is evaluated "
    "after the epoch, with all schedules at their final values. Where the curves diverge, the model starts to overfit."
)

_CRITIC = "The critic's loss is of its own task, to tell two kinds of codes apart, and may go either way."


@section("curves", place=10)
def curves(m: Material) -> Section | None:
    """The objective and its parts over the epochs of every stage, and the results of closed-form fits."""
    stages = history.by_stage(m.model, m.records)
    several = sum(bool(stage.phases) for stage, _ in stages) > 1
    charts: list[Chart] = []
    tables: list[Table] = []
    games: list[bool] = []
    for stage, records in stages:
        if stage.fit is not None:
            tables += fitted(stage.name, [r for r in records if r["phase"] == stage.name])
        found = epoch_curves(r for r in records if r["phase"] != stage.name or not stage.fit)
        shown = history.panels(stage, found)
        if not shown:
            continue
        best = history.best_epoch(m.run, records)
        upkeep = history.upkeep(found)
        if several:
            shown, upkeep = ([history.of_stage(panel, stage.name) for panel in some] for some in (shown, upkeep))
        charts += [curve_chart(panel, best if k == 0 else None) for k, panel in enumerate(shown)]
        charts += [curve_chart(panel) for panel in upkeep]
        games.append(history.is_game(stage, found))
    if not charts:
        return None
    critics = any(phase.name == "critic" for stage, _ in stages for phase in stage.phases) and not any(games)
    how = " ".join(
        [*([] if all(games) else [_LOSS]), *([_GAME] if any(games) else []), *([_CRITIC] if critics else [])]
    )
    if several:
        how += " Stages are trained in sequence, each from the best weights of the previous one; epochs restart at 1."
    if m.run.config["training"].get("watch") == "test":
        how += (
            " Here the other is that of the test examples, which exercises often call validation; it chooses nothing."
        )
    kind = "" if all(games) else kind_of_bound(m.model, m.split)
    how += f" Nats are of {kind}." if kind else ""
    return Section("curves", "Training", how, charts=charts, tables=tables)


def fitted(stage: str, records: Sequence[Mapping[str, Any]]) -> list[Table]:
    """The results of a closed-form fit."""
    rows = [[str(r["term"]).replace("_", " "), figure(r["value"])] for r in records]
    return [Table(rows, title=f"Fitted in closed form: {stage}", numbers=(1,))] if rows else []

"""The page of a sweep: which settings did best on the validation split, and which options mattered."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sandglass import __version__
from sandglass.metrics.held import Better
from sandglass.report import facts
from sandglass.report.chart import COLOURS, Chart
from sandglass.report.page import paired, template
from sandglass.report.plots import share_chart, slice_chart
from sandglass.report.section import Section, Table


@dataclass(frozen=True)
class Trial:
    """One run of a sweep.

    Args:
        number: from 0, in the order in which they were begun.
        folder: its run.
        state: ``"finished"``, ``"pruned"``, ``"failed"`` or ``"unfinished"``.
        values: of the options that are varied, by dotted name.
        value: the figure on the validation split, None where it did not finish.
        stderr: its standard error, None where it has none.
        epochs: trained.
        seconds: of training.
        reason: why it failed or was pruned.
    """

    number: int
    folder: Path
    state: str
    values: Mapping[str, Any]
    value: float | None = None
    stderr: float | None = None
    epochs: float = 0.0
    seconds: float = 0.0
    reason: str = ""


@dataclass(frozen=True)
class Swept:
    """What a sweep found.

    Args:
        folder: of the sweep.
        model: its name.
        metric: the figure that was chosen by.
        better: whether a higher or a lower one is better.
        vary: the dotted options that were varied, each with its scale: ``"log"`` or ``"linear"`` for a range, or
            ``"list"``.
        trials: the best first, then those without a figure.
        importances: by option, the share of the spread it explains; empty where there are too few trials to say.
        planned: how many trials there are to be.
        epochs: of a whole trial.
        sampler: how settings were drawn.
        prune: how hopeless ones were stopped.
        ends: the options whose best value is at an end of what was searched, each with ``"lower"`` or ``"upper"``.
    """

    folder: Path
    model: str
    metric: str
    better: Better
    vary: Mapping[str, str]
    trials: Sequence[Trial]
    importances: Mapping[str, float]
    planned: int
    epochs: int
    sampler: str
    prune: str
    ends: Mapping[str, str]

    @property
    def best(self) -> Trial | None:
        """The best trial, None where none finished."""
        return next((t for t in self.trials if t.value is not None), None)

    @property
    def again(self) -> str:
        """The command that trains the best settings for longer."""
        assert self.best is not None
        epochs = 2 * max(1, round(self.best.epochs))
        return f"sandglass train --config {self.best.folder / 'config.yaml'} --epochs {epochs}"

    def count(self, state: str) -> int:
        """How many trials ended so."""
        return sum(t.state == state for t in self.trials)

    def to_dict(self) -> dict[str, Any]:
        """Plain values."""
        trials = [{**vars(t), "folder": str(t.folder), "values": dict(t.values)} for t in self.trials]
        return {
            "folder": str(self.folder),
            "metric": self.metric,
            "better": self.better,
            "planned": self.planned,
            "best": None if self.best is None else self.best.number,
            "trials": trials,
            "importances": dict(self.importances),
        }


def page(s: Swept) -> str:
    """The page as text. Everything but the charts goes through Jinja's escaping."""
    sections = [_slices(s), _importance(s), _progress(s), _table(s)]
    best = s.best
    href = "" if best is None else f"{best.folder.name}/"
    if best is not None and (best.folder / "report.html").is_file():
        href += "report.html"
    return template("sweep.html").render(
        version=__version__,
        title=f"{s.model}: {len(s.trials)} trials",
        verdict=verdict(s),
        facts=_facts(s),
        tiles=[],
        warnings=warnings(s),
        best=best,
        href=href,
        again="" if best is None else s.again,
        sections=paired([section for section in sections if section is not None]),
        colours=COLOURS,
    )


def short(name: str) -> str:
    """An option without its section.

    Example:
        >>> short("training.lr"), short("model.net.name")
        ('lr', 'net')
    """
    return name.split(".", 1)[1].removesuffix(".name")


def shown(value: Any) -> str:
    """A value of an option, to four digits.

    Example:
        >>> shown(0.00123456), shown(8), shown([64, 32]), shown(None)
        ('0.001235', '8', '64,32', 'none')
    """
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, list | tuple):
        return ",".join(map(shown, value))
    return "none" if value is None else str(value)


def settings(trial: Trial) -> str:
    """What was varied, in words."""
    return ", ".join(f"{short(name)} {shown(value)}" for name, value in trial.values.items())


def verdict(s: Swept) -> str:
    """The best settings."""
    name = facts.called(s.metric)
    if s.best is None:
        return "No trial has finished yet."
    figure = facts.figure(s.best.value, s.best.stderr)
    return f"Trial {s.best.number} is best, with a validation {name} of {figure}: {settings(s.best)}."


def _facts(s: Swept) -> str:
    counted = [
        f"{s.count(state)} {state}" for state in ("finished", "pruned", "failed", "unfinished") if s.count(state)
    ]
    seconds = facts.duration(sum(t.seconds for t in s.trials))
    how = {"tpe": "settings proposed by what was good before (TPE)", "random": "settings drawn at random",
           "grid": "every combination"}[s.sampler]  # fmt: skip
    ended = ", ".join(counted) or "none yet"
    return f"{len(s.trials)} of {s.planned} trials ({ended}): {how}. {seconds} of training in all."


def warnings(s: Swept) -> list[str]:
    """What a reader must know before believing the rest."""
    said = []
    failed = [t for t in s.trials if t.state == "failed"]
    if failed:
        said.append(
            f"{len(failed)} trial{'s' * (len(failed) > 1)} failed; first {failed[0].number}: {failed[0].reason}"
        )
    if s.best is None:
        return said
    for name, end in s.ends.items():
        said.append(
            f"The best {short(name)} is at the {end} end of what was searched: a wider range may hold a better one."
        )
    finished = s.count("finished")
    if finished > 1:
        said.append(
            f"The best of {finished} by a validation figure looks better there than it is. Measure it on the test "
            f"split, which no trial has seen: sandglass evaluate {s.best.folder}"
        )
    return said


def _slices(s: Swept) -> Section | None:
    """The figure against every option."""
    done = [t for t in s.trials if t.value is not None]
    if not done or s.best is None:
        return None
    charts: list[Chart] = []
    unit = f"validation {facts.called(s.metric)}"
    for k, (name, scale) in enumerate(s.vary.items()):
        ordered = sorted(done, key=lambda t: _order(t.values[name]))
        points = [(t.values[name] if scale != "list" else shown(t.values[name]), t.value, t is s.best) for t in ordered]
        charts.append(slice_chart(f"slice-{k}-{short(name)}", short(name), points, unit, scale))
    how = (
        f"A dot for every finished trial; the best stands out. {s.better.capitalize()} is better. All options were "
        "varied together, so the dots of one chart differ in the other options as well."
    )
    return Section("options", "Options", how, charts=charts)


def _importance(s: Swept) -> Section | None:
    """Which options mattered."""
    if not s.importances:
        return None
    ordered = sorted(s.importances.items(), key=lambda item: -item[1])
    chart = share_chart("importance", "Share of the spread explained", [(short(n), v) for n, v in ordered])
    how = (
        f"How much of the spread of the figure over {s.count('finished')} finished trials each option explains "
        "(functional ANOVA over a random forest), over the ranges that were tried: a wide range makes an option look "
        "important."
    )
    return Section("importance", "What mattered", how, half=True, charts=[chart])


def _progress(s: Swept) -> Section | None:
    """The figure in the order of the trials."""
    points = sorted((t.number, t.value, t is s.best) for t in s.trials if t.value is not None)
    if len(points) < 2:
        return None
    unit = f"validation {facts.called(s.metric)}"
    chart = slice_chart("progress", "trial", points, unit, "linear")
    how = "Finished trials in the order of their beginning. Where nothing better came for long, more would help little."
    return Section("progress", "Progress", how, half=True, charts=[chart])


def _table(s: Swept) -> Section:
    """Every trial."""
    name = facts.called(s.metric)
    head = ["trial", name, *map(short, s.vary), "epochs", "time", "state"]
    rows = [
        [
            str(t.number),
            "" if t.value is None else facts.figure(t.value, t.stderr),
            *(shown(t.values[n]) if n in t.values else "" for n in s.vary),
            f"{t.epochs:g}",
            facts.duration(t.seconds),
            t.state + (f": {t.reason}" if t.reason else ""),
        ]
        for t in s.trials
    ]
    how = f"The best first. Each is a run of its own in {s.folder}; report, compare and verify take it."
    marked = [(0, 1)] if s.best is not None else []
    table = Table(rows, head, numbers=tuple(range(1, len(head) - 1)), marked=marked)
    return Section("trials", "Trials", how, tables=[table])


def _order(value: Any) -> tuple[bool, float, str]:
    """Numbers by size, then texts."""
    return (False, value, "") if _number(value) else (True, 0.0, shown(value))


def _number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)

"""The HTML page of a sweep: the best settings, and the importance of the options."""

from __future__ import annotations

from typing import Any

from sandglass import __version__
from sandglass.reports import facts
from sandglass.reports.chart import COLOURS, Chart
from sandglass.reports.page import paired, template
from sandglass.reports.plots import share_chart, slice_chart
from sandglass.reports.section import Section, Table
from sandglass.sweeps.trials import Swept, Trial


def page(s: Swept) -> str:
    """The page as HTML. Everything except the charts is escaped by Jinja."""
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
    """The name of an option without its section.

    Example:
        >>> short("training.lr"), short("model.net.name")
        ('lr', 'net')
    """
    return name.split(".", 1)[1].removesuffix(".name")


def shown(value: Any) -> str:
    """The value of an option as text, with four significant digits.

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
    """The values of the varied options as text."""
    return ", ".join(f"{short(name)} {shown(value)}" for name, value in trial.values.items())


def verdict(s: Swept) -> str:
    """A sentence with the best settings."""
    name = facts.called(s.metric)
    if s.best is None:
        return "No trial has finished yet."
    figure = facts.figure(s.best.value, s.best.stderr)
    return f"Trial {s.best.number} is best, with a validation {name} of {figure}: {settings(s.best)}."


def within_noise(s: Swept) -> str:
    """A sentence on the trials that the folds cannot tell from the best; empty if there are none."""
    if not s.ties:
        return ""
    names = ", ".join(str(t.number) for t in s.ties)
    if len(s.ties) == 1:
        return f"Trial {names} is within two standard errors of the best, paired fold by fold."
    return f"Trials {names} are within two standard errors of the best, paired fold by fold."


def _facts(s: Swept) -> str:
    counted = [
        f"{s.count(state)} {state}" for state in ("finished", "pruned", "failed", "unfinished") if s.count(state)
    ]
    seconds = facts.duration(sum(t.seconds for t in s.trials))
    how = {"tpe": "settings proposed by TPE", "random": "random settings",
           "grid": "every combination"}[s.sampler]  # fmt: skip
    ended = ", ".join(counted) or "none yet"
    folds = f", each on {s.folds} folds" if s.folds else ""
    return f"{len(s.trials)} of {s.planned} trials ({ended}){folds}: {how}. {seconds} of training in all."


def warnings(s: Swept) -> list[str]:
    """Warnings about the result."""
    said = []
    failed = [t for t in s.trials if t.state == "failed"]
    if failed:
        said.append(
            f"{len(failed)} trial{'s' * (len(failed) > 1)} failed; first {failed[0].number}: {failed[0].reason}"
        )
    if s.best is None:
        return said
    for name, end in s.ends.items():
        said.append(f"The best {short(name)} is at the {end} end of its range: a wider range may contain a better one.")
    if tied := within_noise(s):
        said.append(tied)
    finished = s.count("finished")
    if finished > 1 and s.folds:
        said.append(
            f"The best of {finished} trials looks better by cross-validation than it is. Train it again, and evaluate "
            "it on the test split, which no trial has used."
        )
    elif finished > 1:
        said.append(
            f"The best of {finished} trials looks better on the validation split than it is. Evaluate it on the test "
            f"split, which no trial has used: sandglass evaluate {s.best.folder}"
        )
    return said


def _slices(s: Swept) -> Section | None:
    """The figure plotted against each option."""
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
        f"A dot for every finished trial; the best is highlighted. {s.better.capitalize()} is better. All options were "
        "varied together, so the dots of one chart differ in the other options as well."
    )
    return Section("options", "Options", how, charts=charts)


def _importance(s: Swept) -> Section | None:
    """The importance of the options."""
    if not s.importances:
        return None
    ordered = sorted(s.importances.items(), key=lambda item: -item[1])
    chart = share_chart("importance", "Fraction of variance explained", [(short(n), v) for n, v in ordered])
    how = (
        f"The fraction of the variance of the figure over {s.count('finished')} finished trials that each option "
        "explains (functional ANOVA with a random forest). It depends on the ranges: a wide range makes an option look "
        "important."
    )
    return Section("importance", "Importance of options", how, half=True, charts=[chart])


def _progress(s: Swept) -> Section | None:
    """The figure by trial number."""
    points = sorted((t.number, t.value, t is s.best) for t in s.trials if t.value is not None)
    if len(points) < 2:
        return None
    unit = f"validation {facts.called(s.metric)}"
    chart = slice_chart("progress", "trial", points, unit, "linear")
    how = "Finished trials in the order of their start. If the best has not improved for long, more trials help little."
    return Section("progress", "Progress", how, half=True, charts=[chart])


def _table(s: Swept) -> Section:
    """A table of all trials."""
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
    if s.folds:
        how = f"The best first: means over {s.folds} folds, each a run in a folder of the trial in {s.folder}."
    else:
        how = f"The best first. Each is a run in {s.folder}, which works with report, compare and verify."
    marked = [(0, 1)] if s.best is not None else []
    table = Table(rows, head, numbers=tuple(range(1, len(head) - 1)), marked=marked)
    return Section("trials", "Trials", how, tables=[table])


def _order(value: Any) -> tuple[bool, float, str]:
    """A sort key: numbers by size, then other values as text."""
    return (False, value, "") if _number(value) else (True, 0.0, shown(value))


def _number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)

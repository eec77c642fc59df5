"""The HTML page of a comparison of runs."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

from sandglass import __version__, registry
from sandglass.comparing.sides import Block, Comparison, Side
from sandglass.data.pixels import to_images
from sandglass.metrics.compared import SATURATED, Ranking, headline
from sandglass.reports import facts, history
from sandglass.reports.chart import COLOURS, Chart
from sandglass.reports.mosaic import mosaic
from sandglass.reports.page import paired, template
from sandglass.reports.plots import dot_chart, overlay_chart
from sandglass.reports.section import Section, Strip, Table
from sandglass.running import conditions, observing, placed, sample
from sandglass.runs.history import Curve, curves

SHADES = ("train", "held", "c3", "c8", "c5", "c0", "c6", "c2", "c7", "c4")
"""Colours of the runs, used cyclically."""

KINDS = {"density": "density", "mass": "probability", "cross-entropy": "cross-entropy", "cost": "cost"}
_WEIGHTS = {"model", "beta"}  # settings that change the objective
_FULL, _SAMPLES, _SHOWN = 1020, 16, 8  # width on the page; samples a run; runs whose pictures are shown


def page(c: Comparison) -> str:
    """The page as HTML. Everything except the charts is escaped by Jinja."""
    sections = [s for block in c.blocks for s in _block_sections(c, block)]
    sections += [_differences(c), _sizes(c)]
    return template("compare.html").render(
        version=__version__,
        title=f"{len(c.sides)} runs compared",
        verdict=verdict(c),
        facts=_facts(c),
        tiles=[],
        warnings=c.warnings,
        sections=paired([s for s in sections if s is not None]),
        colours=COLOURS,
    )


def verdict(c: Comparison) -> str:
    """A summary of which run is best by which figures."""
    said = []
    for block in c.blocks:
        where = f" on {block.data}" if len(c.blocks) > 1 else ""
        said += [first + where + "." for first in [leading(block)] if first]
        wins: dict[str, list[str]] = {}
        close = []
        for ranking in block.rankings:
            if ranking.first is None or len(ranking.results) < 2:
                continue
            if ranking.best is None:
                close.append(title(ranking))
            else:
                wins.setdefault(ranking.best, []).append(title(ranking))
        said += [f"{name} is best by {_listed(figures)}{where}." for name, figures in wins.items()]
        if close:
            said.append(f"By {_listed(close)}, no run is better than all others by more than the noise{where}.")
    return " ".join(said) or "These runs have no common figure to rank them by."


def leading(block: Block, titled: Callable[[Ranking], str] | None = None) -> str:
    """Which run is best by the rule of :func:`~sandglass.metrics.compared.headline`; empty where it cannot say.

    Args:
        block: the runs.
        titled: names a figure; :func:`title` by default.
    """
    found = headline(block.rankings)
    if found is None:
        return ""
    titles = {ranking.figure: (titled or title)(ranking) for ranking in block.rankings}
    by = f" by {_listed([titles[name] for name in found.figures])}" if found.figures else ""
    left_out = [f"{name} ({why})" for name, why in found.unusable.items()]
    out = f", leaving out {_listed(left_out)}" if left_out else ""
    if len(found.best) == 1:
        return f"Best of all{by}{out}: {found.best[0]}"
    equal = (
        "no run is better than all others" if len(found.best) == found.groups else f"{_listed(found.best)} are equal"
    )
    return f"By{by[3:]}, in this order{out}, {equal}"


RULE = (
    "Runs whose samples are not finite, have collapsed or show a grid are left out while another has none of these; "
    "where not all have a likelihood also those whose samples are far from the examples. "
    "Best of all is the run with the highest log p(x), or else bound, where all have a likelihood of one kind. "
    "Otherwise it is the one whose samples a small classifier tells from examples least well (areas above "
    f"{SATURATED:g} count as equal); runs that are equal within the noise are decided by coverage, then by the patch "
    "distance, then by FID. Precision decides nothing."
)
"""The rule, for the page."""


def title(ranking: Ranking) -> str:
    """The title of a ranking."""
    name = facts.headline(ranking.figure, next(iter(ranking.results.values()))[0].note)
    return f"{name} ({KINDS[ranking.kind]})" if ranking.kind else name


def heading(ranking: Ranking, titled: Callable[[Ranking], str] | None = None) -> str:
    """The title of a ranking, with its unit if that is short; see :func:`leading`."""
    named, unit = (titled or title)(ranking), ranking.unit
    said = unit in named or unit in title(ranking)
    return f"{named}, {unit}" if 1 < len(unit) < 10 and unit != "squared" and not said else named


def by_name(ranking: Ranking) -> str:
    """The name of a figure, as ``--metrics`` takes it, with what it is measured by."""
    called = facts.called(ranking.figure)
    return title(ranking).replace(called, ranking.figure, 1)


def cell(ranking: Ranking, name: str) -> str:
    """The value and error of a run in a ranking, or the median and range of a group."""
    results = ranking.results.get(name)
    if not results:
        return "-"
    own = "" if ranking.unit else f" {results[0].unit}"
    if len(results) == 1:
        return facts.figure(results[0].value, results[0].stderr) + own
    values = [r.value for r in results]
    low, high, middle = (
        _rounded(v, max(values) - min(values)) for v in (min(values), max(values), ranking.value(name))
    )
    return f"{middle} ({low} to {high}){own}"


def behind(ranking: Ranking, name: str) -> str:
    """The difference of a run from the first of a ranking."""
    if ranking.first is None or name not in ranking.results or len(ranking.results) < 2:
        return ""
    if name == ranking.first:
        return "best" if ranking.best else "first, too few examples" if ranking.few else "first, within noise"
    found = ranking.difference(name, ranking.first)
    if not math.isfinite(found.value):
        return "not finite"
    sign = "+" if found.value > 0 else ""
    return sign + facts.figure(found.value, found.stderr)


def _rounded(value: float, spread: float) -> str:
    """A value rounded to a tenth of the range of the values."""
    if not math.isfinite(value):
        return "not finite"
    digits = max(0, 1 - math.floor(math.log10(spread))) if spread > 0 and math.isfinite(spread) else 3
    return f"{value:,.{min(digits, 9)}f}".replace("-", facts.MINUS)


def _listed(words: Sequence[str]) -> str:
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} and {words[-1]}"


def _facts(c: Comparison) -> str:
    parts = [f"{block.about} of {block.data}" for block in c.blocks]
    return (
        f"Evaluated on {'; '.join(parts)}, every run with the same noise (seed {c.seed}). "
        "The weights are those that each run kept, by its validation split where it has one. " + RULE
    )


def _block_sections(c: Comparison, block: Block) -> list[Section | None]:
    """The sections for a group of comparable runs."""
    many = len(c.blocks) > 1
    number = c.blocks.index(block) + 1
    suffix, after = (f"-{number}", f": {', '.join(s.name for s in block.sides)}") if many else ("", "")
    made = [_wrong(block, suffix, after), _figures(block, suffix, after), _curves(block, suffix, after)]
    if block.sides[0].material.model.spec.is_image:
        pictures = (_samples(c, block, suffix, after), _reconstructions(block, suffix, after))
        made += [p.showing(block.sides[0].material.transform) for p in pictures if p is not None]
    return made


def _wrong(block: Block, suffix: str, after: str) -> Section | None:
    """What is wrong with each run by its figures; nothing where no figure is bad."""
    rows = [[side.name, "; ".join(side.wrong)] for side in block.sides if side.wrong]
    if not rows:
        return None
    how = "Figures that are bad beyond their standard error, each by its threshold; real examples have none."
    return Section("wrong" + suffix, "What is wrong" + after, how, tables=[Table(rows, ["run", "what is wrong"])])


def _figures(block: Block, suffix: str, after: str) -> Section | None:
    """A dot plot for each figure, then tables of the figures and their differences."""
    found = block.rankings
    if not found:
        return None
    names = list(block.groups)
    shades = {name: SHADES[k % len(SHADES)] for k, name in enumerate(names)}
    charts = [
        dot_chart(f"figure-{c.figure}-{c.kind}{suffix}", title(c), [n for n in names if n in c.results],
                  [[(r.value, r.stderr) for r in c.results[n]] for n in names if n in c.results],
                  [shades[n] for n in names if n in c.results], _axis(c))
        for c in found if any(math.isfinite(r.value) for rs in c.results.values() for r in rs)
    ]  # fmt: skip
    ranked = [c for c in found if c.first is not None and len(c.results) > 1]
    head, numbers = ["figure", "better", *names], tuple(range(2, len(names) + 2))
    marked = [(r, k) for r, c in enumerate(found) for k, name in enumerate(names, 2) if c.best == name]
    tables = [
        Table(
            [[heading(c), c.better or "", *(cell(c, n) for n in names)] for c in found],
            head,
            numbers=numbers,
            marked=marked,
        )
    ]
    if ranked:
        rows = [[heading(c), c.better or "", *(behind(c, n) for n in names)] for c in ranked]
        tables.append(Table(rows, head, numbers=numbers, title="Difference from the best"))
    notes = [[title(c), "; ".join(_notes(c))] for c in found if _notes(c)]
    if notes:
        tables.append(Table(notes, ["figure", "note"], title="Notes on the figures", folded=True))
    grouped = any(len(sides) > 1 for sides in block.groups.values())
    return Section("figures" + suffix, "Figures" + after, _how(grouped), charts=charts, tables=tables)


def _notes(c: Ranking) -> list[str]:
    return list(dict.fromkeys(r.note for rs in c.results.values() for r in rs if r.note))


def _how(grouped: bool) -> str:
    if grouped:
        return (
            "Runs that differ only in their seed are grouped: median and range over seeds. A group is marked best if "
            "each of its runs beats every run of every other group, and there are enough seeds that this would happen "
            "by chance with a probability below 1/40 (four each, for two groups)."
        )
    return (
        "Dots are means over the examples, with error bars of two standard errors. A figure is marked best only if its "
        "difference from every other run is larger than the noise. Differences are paired by example: all runs find "
        "the same examples hard, so runs with overlapping bars may still differ significantly, as the second table "
        "shows. The errors are for these weights on other examples; the variation between training runs is only "
        "known from several seeds."
    )


def _axis(c: Ranking) -> str:
    unit = "" if c.unit == "1" else c.unit
    direction = {"higher": "higher is better", "lower": "lower is better", None: ""}[c.better]
    return ", ".join(part for part in (unit, direction) if part)


def _curves(block: Block, suffix: str, after: str) -> Section | None:
    """The validation objectives of all runs, in one chart for each stage and kind of objective."""
    sorts: dict[tuple[str, str, str], list[tuple[str, str, Curve]]] = {}
    for k, side in enumerate(block.sides):
        watched = side.run.config["training"]["watch"]
        for stage, records in history.by_stage(side.material.model, side.material.records):
            curve = curves(records).get((watched, stage.objective or "", "objective"))
            if curve is not None:
                sort = (stage.name, stage.objective or "", side.kind)
                sorts.setdefault(sort, []).append((side.name, SHADES[k % len(SHADES)], curve))
    if not sorts:
        return None
    charts: list[Chart] = []
    for (stage_name, phase, kind), lines in sorts.items():
        of = f"{stage_name}: " if len({stage for stage, _, _ in sorts}) > 1 else ""
        name = f"{of}{phase} objective" + (f" ({KINDS[kind]})" if kind and len(sorts) > 1 else "")
        key = f"objective-{stage_name}-{phase}-{kind}{suffix}"
        charts.append(overlay_chart(key, name, lines, "validation, per example"))
    how = (
        "The validation objective after every epoch, by which the best weights are selected; lower is better. A curve "
        "that rises again shows overfitting; one that still falls at its end would gain from more epochs."
    )
    if _WEIGHTS & {name for name, _ in Comparison([block], block.split, 0).differences}:
        how += " These runs have different loss weights, so compare only the shapes of the curves, not their values."
    return Section("curves" + suffix, "Learning curves" + after, how, charts=charts)


def _samples(c: Comparison, block: Block, suffix: str, after: str) -> Section:
    """Samples of every model from the same seed, with the same conditions for conditional models."""
    strips, conditional = [], False
    for k, side in enumerate(block.sides[:_SHOWN]):
        model, key = side.material.model, (c.seed, "compare", "samples")
        given = conditions(model, block.examples, _SAMPLES, *key)
        conditional |= given is not None
        images = to_images(sample(model, _SAMPLES, key=key, given=given), side.material.transform)
        alt = f"{_SAMPLES} samples of {side.name}"
        strips.append(Strip(mosaic(f"samples-{k}{suffix}", alt, images, _SAMPLES, width=_FULL, pad=8), side.name))
    how = (
        f"{_SAMPLES} random samples of each model, from the same seed, so models with a latent of the same size decode "
        "the same codes."
    )
    if conditional:
        how += " Conditional models use the labels and companions of the same examples."
    return Section("samples" + suffix, "Samples" + after, how + _left_out(block), strips=strips)


def _reconstructions(block: Block, suffix: str, after: str) -> Section | None:
    """Reconstructions of the same examples by every model that can reconstruct."""
    able = [side for side in block.sides if "reconstruct" in side.material.model.provides][:_SHOWN]
    if not able or able[0].material.examples is None:
        return None
    batch = able[0].material.examples
    strips = []
    images = to_images(batch.x, able[0].material.transform)
    strips.append(Strip(mosaic(f"originals{suffix}", f"{len(batch)} examples{block.place}", images,
                               len(batch), width=_FULL, pad=8), "originals"))  # fmt: skip
    for k, side in enumerate(able):
        m = side.material
        with observing(m.model, 0, "compare", "reconstruct"):
            rebuilt = m.model.reconstruct(placed(m.model, batch)).cpu()
        alt = f"reconstructions by {side.name}"
        strips.append(Strip(mosaic(f"rebuilt-{k}{suffix}", alt, to_images(rebuilt, m.transform), len(batch),
                                   width=_FULL, pad=8), side.name))  # fmt: skip
    how = f"{len(batch)} fixed examples{block.place}, and the reconstructions of each model below."
    return Section("reconstructions" + suffix, "Reconstructions" + after, how + _left_out(block), strips=strips)


def _left_out(block: Block) -> str:
    left = len(block.sides) - _SHOWN
    return f" The pictures of {left} more run{'s' * (left > 1)} are left out." if left > 0 else ""


def _differences(c: Comparison) -> Section:
    """The settings that differ between runs."""
    rows = [[name, *values] for name, values in c.differences]
    head = ["setting", *(side.name for side in c.sides)]
    tables = [Table(rows, head, numbers=tuple(range(1, len(head))))] if rows else []
    how = (
        "All settings that differ between runs; those that only some models have are shown if not at their default."
        if rows
        else "None: all settings are equal."
    )
    return Section("differences", "Configuration differences", how, tables=tables)


def _sizes(c: Comparison) -> Section:
    """Model sizes and training times."""
    head = ["run", "model", "parameters", "epochs", "best epoch", "updates", "training time", "device"]
    rows = [_size(side) for side in c.sides]
    how = "Times are comparable only if the runs had the same machine to themselves."
    return Section("sizes", "Size and time", how, tables=[Table(rows, head, numbers=(2, 3, 4, 5, 6))])


def _size(side: Side) -> list[str]:
    m, training = side.material, side.run.config["training"]
    stops = [e for e in m.events if e["event"] == "stop"]
    done = max((r["epoch"] for r in m.records), default=0)
    best = history.best_epoch(side.run, m.records)
    epochs = f"{done:g}" if done >= training["epochs"] else f"{done:g} of {training['epochs']}"
    return [
        side.name,
        registry.present("model", side.run.config["model"]["name"]),
        f"{facts.parameters(m):,}",
        epochs,
        f"{best:g}" if best is not None else "last",
        f"{max((r['step'] for r in m.records), default=0):,}",
        facts.duration(sum(e.get("seconds", 0.0) for e in stops)),
        f"{side.run.config['environment'].get('gpu') or training['device']}, "
        f"{training['threads']} thread{'s' * (training['threads'] != 1)}",
    ]

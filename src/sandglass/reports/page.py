"""The report: one page that holds everything it shows."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from sandglass import __version__
from sandglass.core import Model
from sandglass.data.dataset import Dataset
from sandglass.metrics.bound import kind_of_bound
from sandglass.reports import facts, history
from sandglass.reports.chart import COLOURS
from sandglass.reports.columns import column_sections
from sandglass.reports.data import data_section
from sandglass.reports.mosaic import make_folder
from sandglass.reports.pictures import picture_sections
from sandglass.reports.plots import curve_chart
from sandglass.reports.section import Material, Section
from sandglass.reports.structure import structure_sections
from sandglass.runs import storage
from sandglass.runs.run import Run


def write_report(run: Run, model: Model, data: Dataset | None = None, results: Mapping[str, Any] | None = None) -> Path:
    """Writes ``report.html`` into the run folder, and its figures into ``figures/``.

    The page needs nothing outside itself and runs no script; text, colours and charts follow the reader's light or dark
    setting. It is the same bytes for the same run. The model's weights and mode, and the global generators, are as
    before.

    Args:
        run: the run folder.
        model: its trained model.
        data: the data it was trained on; without it everything that needs real examples is left out.
        results: what :func:`sandglass.evaluate` returned, or a mapping of split names to such; the run's own
            ``results.json`` when not given.

    Returns:
        The path of the page.

    Raises:
        SaveError: it could not be written.
    """
    material = Material(run, model, data, reports(run.results() if results is None else results))
    sections = gather(material)
    folder = run.path / "figures"
    make_folder(folder)
    for section in sections:
        for mosaic in section.mosaics():
            storage.write_file(folder / f"{mosaic.name}.png", mosaic.file)
        for chart in section.charts:
            storage.write_file(folder / f"{chart.name}.svg", chart.file.encode())
    path = run.path / "report.html"
    storage.write_file(path, render(material, sections).encode())
    return path


def reports(results: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """Measured splits, the test split first, from the result of one evaluation or from several by split."""
    found = [results] if "metrics" in results else list(results.values())
    order = {"test": 0, "validation": 1}
    return sorted((r for r in found if r.get("metrics")), key=lambda r: order.get(r["split"], 2))


def gather(m: Material) -> list[Section]:
    """The sections that this model and its data allow, in the order of the page."""
    own = picture_sections(m) if m.model.spec.is_image else column_sections(m)
    sections = [curve_section(m), *own, *structure_sections(m), facts.metrics_section(m)]
    found = [s for s in sections if s is not None]
    found += [data_section(m), facts.timing_section(m), facts.configuration_section(m)]
    return paired(found)


def paired(sections: list[Section]) -> list[Section]:
    """Sections of half width only in twos, so that none leaves a hole beside it.

    Example:
        >>> [s.half for s in paired([Section("a", "A", half=True), Section("b", "B"), Section("c", "C", half=True)])]
        [False, False, False]
    """
    made: list[Section] = []
    waiting = False  # whether the last one stands alone on its line so far
    for section in [*sections, Section("", "")]:
        if waiting and not section.half:
            made[-1] = dataclasses.replace(made[-1], half=False)
        waiting = section.half and not waiting
        made.append(section)
    return made[:-1]


def curve_section(m: Material) -> Section | None:
    """How training went."""
    found = history.curves(m.records)
    best = history.best_epoch(m.run, m.records)
    shown = history.panels(m.model, found)
    if not shown:
        return None
    charts = [curve_chart(panel, best if k == 0 else None) for k, panel in enumerate(shown)]
    charts += [curve_chart(panel) for panel in history.upkeep(found)]
    if m.model.objective is None:
        how = (
            "Each player's loss, mean over an epoch. In a game neither should run away: a critic near zero has won, "
            "and the "
            "generator learns little from it. These curves do not say how good the samples are."
        )
    else:
        how = (
            "Lower is better. The training curve is the mean over an epoch while the weights change; the other is "
            "measured "
            "after it, with the objective at its final weights. Where they part, the model begins to learn examples "
            "by heart."
        )
        kind = kind_of_bound(m.model, m.split)
        how += f" The nats are those of {kind}." if kind else ""
    return Section("curves", "Training", how, charts=charts)


def render(m: Material, sections: list[Section]) -> str:
    """The page as text. Everything but the charts goes through Jinja's escaping."""
    name, data_name = m.run.config["model"]["name"], m.run.config["data"]["name"]
    return template("page.html").render(
        version=__version__,
        title=f"{name} on {data_name}",
        model_name=name,
        data_name=data_name,
        verdict=facts.verdict(m),
        facts=facts.facts(m),
        tiles=facts.tiles(m),
        warnings=facts.warnings(m),
        sections=sections,
        colours=COLOURS,
    )


def template(name: str) -> Any:
    """A page of this folder, ready to be filled."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    return environment.get_template(name)

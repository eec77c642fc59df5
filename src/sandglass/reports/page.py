"""The report: one self-contained page."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from sandglass import __version__
from sandglass.core import Model
from sandglass.data.dataset import Dataset
from sandglass.registry import entries
from sandglass.reports import facts
from sandglass.reports.chart import COLOURS
from sandglass.reports.section import Material, Section
from sandglass.runs import storage
from sandglass.runs.run import Run
from sandglass.runs.storage import make_folder


def write_report(run: Run, model: Model, data: Dataset | None = None, results: Mapping[str, Any] | None = None) -> Path:
    """Writes ``report.html`` into the run folder, and its figures into ``figures/``.

    The page is self-contained and runs no script; text, colours and charts follow the reader's light or dark setting.
    Its bytes are the same for the same run. The model's weights and mode and the global random generators are not
    changed.

    Args:
        run: the run folder.
        model: its trained model.
        data: the data it was trained on; without it, sections that need real examples are omitted.
        results: the result of :func:`sandglass.evaluate`, or a mapping of split names to results; by default the run's
            ``results.json``.

    Returns:
        The path of the page.

    Raises:
        SaveError: the page could not be written.
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
    """Results of the evaluated splits, the test split first, from one result or from several by split."""
    found = [results] if "metrics" in results else list(results.values())
    order = {"test": 0, "validation": 1}
    return sorted((r for r in found if r.get("metrics")), key=lambda r: order.get(r["split"], 2))


def gather(m: Material) -> list[Section]:
    """The sections that the model and its data support, in page order."""
    draws = [entry.make for entry in entries("section")]
    with torch.no_grad():
        found = [draw(m) for draw in sorted(draws, key=lambda draw: draw.place)]  # type: ignore[attr-defined]
    return paired([section.showing(m.transform) for section in found if section is not None])


def figures(m: Material) -> dict[str, Any]:
    """The charts and pictures of the sections as figures of matplotlib, by name."""
    sections = gather(m)
    mosaics = {mosaic.name: mosaic.figure for section in sections for mosaic in section.mosaics()}
    return mosaics | {chart.name: chart.figure for section in sections for chart in section.charts}


def paired(sections: list[Section]) -> list[Section]:
    """Keeps half-width sections only in pairs, so that none leaves an empty half.

    Example:
        >>> [s.half for s in paired([Section("a", "A", half=True), Section("b", "B"), Section("c", "C", half=True)])]
        [False, False, False]
    """
    made: list[Section] = []
    waiting = False  # whether the last section is alone on its line
    for section in [*sections, Section("", "")]:
        if waiting and not section.half:
            made[-1] = dataclasses.replace(made[-1], half=False)
        waiting = section.half and not waiting
        made.append(section)
    return made[:-1]


def render(m: Material, sections: list[Section]) -> str:
    """The page as text. Everything but the charts is escaped by Jinja."""
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
    """A page template of this folder."""
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

"""The page written by ``sandglass inspect DATA -o page.html``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from sandglass import __version__
from sandglass.census.census import Census, Sheet
from sandglass.census.overview import column_rows, headline, overview
from sandglass.reports.chart import COLOURS, Chart
from sandglass.reports.counts import bar_list, bins_chart, class_chart, scatter_sizes
from sandglass.reports.mosaic import mosaic
from sandglass.reports.page import paired, template
from sandglass.reports.section import Section, Strip, Table
from sandglass.runs import storage
from sandglass.runs.storage import make_folder

Facts = Mapping[str, Any]

_FULL, _MEAN = 840, 160
_HISTOGRAMS = 24
_LONG = 40
_ROW = 12
_ODD = {
    "exact": "Exact duplicates, in pairs",
    "near": "Near duplicates, in pairs",
    "constant": "Constant",
    "black": "Nearly black",
    "white": "Nearly white",
    "saturated": "Half or more of the pixels saturated",
    "blurred": "Much less sharp than the others",
}


def write_census(census: Census, path: str | Path) -> Path:
    """Writes a self-contained page without scripts.

    Args:
        census: the result of the inspection.
        path: of the page.

    Returns:
        The path.

    Raises:
        SaveError: the page could not be written.

    Example:
        >>> import tempfile
        >>> from sandglass.census.take import inspect
        >>> page = write_census(inspect("digits"), tempfile.mkdtemp() + "/digits.html")
        >>> "1,797 pictures" in page.read_text()
        True
    """
    path = Path(path)
    make_folder(path.parent)
    storage.write_file(path, render_census(census).encode())
    return path


def render_census(census: Census) -> str:
    """The page as text; all names are escaped by Jinja."""
    text: str = template("census.html").render(
        version=__version__,
        title=census.name,
        verdict=f"{headline(census)[:1].upper()}{headline(census)[1:]}.",
        facts="",
        tiles=_tiles(census),
        findings=census.findings,
        sections=paired(sections(census)),
        colours=COLOURS,
    )
    return text


def _tiles(census: Census) -> list[tuple[str, str]]:
    """The counts at the top of the page."""
    levels = [f.level for f in census.findings]
    made = [(f"{n['examples']:,}", name) for name, n in census.facts.get("splits", {}).items()]
    if len(made) == 1:
        made = [(made[0][0], "examples")]
    classes = census.facts.get("splits", {}).get("train", {}).get("classes", {})
    made += [(f"{len(classes):,}", "classes")] if classes else []
    for level in ("problem", "warning"):
        if n := levels.count(level):
            made.append((str(n), level if n == 1 else f"{level}s"))
    return made


def sections(census: Census) -> list[Section]:
    """The sections for this kind of data."""
    facts = census.facts
    rows = [[topic, text] for topic, text in overview(census)]
    made = [Section("overview", "Overview", half=True, tables=[Table(rows)])] if rows else []
    made += [s for s in (class_section(facts),) if s is not None]
    if census.kind == "pictures":
        made += picture_sections(census)
    if census.kind == "table":
        made += table_sections(facts)
    return made + file_sections(facts)


def class_section(facts: Facts) -> Section | None:
    """Number of examples per class."""
    splits = {name: s["classes"] for name, s in facts.get("splits", {}).items() if s["classes"]}
    if not splits:
        return None
    how = "A class with far fewer examples than the others is learnt poorly."
    return Section("classes", "Classes", how, half=True, charts=[class_chart(splits)])


def picture_sections(census: Census) -> list[Section]:
    """Sizes, examples, duplicates and outliers."""
    facts = census.facts
    made = []
    sizes = [(s["height"], s["width"], s["count"]) for s in facts["sizes"]]
    if len(sizes) > 1:
        how = "Pictures of different sizes are resized before training: --size, and --fit crop, pad or stretch."
        chart = (
            bar_list("sizes", "Height x width", [(f"{h}x{w}", n) for h, w, n in sizes], "pictures")
            if len(sizes) <= 12
            else scatter_sizes("sizes", sizes)
        )
        made.append(Section("sizes", "Sizes", how, half=True, charts=[chart]))
    sheets = {key: [s for s in census.sheets if s.key == key] for key in ("examples", "mean", *_ODD)}
    strips = [_strip(s, k) for k, s in enumerate(sheets["examples"])]
    strips += [_strip(s, 0, _MEAN) for s in sheets["mean"]]
    made.append(Section("examples", "Examples", "A few of each class, and the mean of all pictures.", strips=strips))
    if strips := [_strip(s, 0) for key in ("exact", "near") for s in sheets[key]]:
        how = "Each picture next to its duplicate. Duplicates in both train and test make test figures too optimistic."
        made.append(Section("copies", "Duplicates", how, strips=strips, tables=_copies(facts["copies"])))
    if strips := [_strip(s, 0) for key in _ODD if key not in ("exact", "near") for s in sheets[key]]:
        how = "Unusual pictures, which are not necessarily wrong."
        names = [[what, name] for what, found in facts["odd"].items() for name in found["files"]]
        table = Table(names, ["reason", "picture"], title="Names", folded=True)
        made.append(Section("odd", "Outliers", how, strips=strips, tables=[table]))
    return made


def _strip(sheet: Sheet, number: int, width: int = 0) -> Strip:
    """A sheet as a grid, with tiles of a fixed size on the page."""
    tiles = np.stack(sheet.pictures)
    columns = min(len(tiles), _ROW)
    width = width or round(_FULL * columns / _ROW)
    alt = f"{sheet.title or 'examples'}: {', '.join(sheet.names[:8])}"
    return Strip(mosaic(f"{sheet.key}-{number}", alt, tiles, columns, width=width), _ODD.get(sheet.key, sheet.title))


def _copies(facts: Facts) -> list[Table]:
    exact = [[" = ".join(names)] for names in facts["exact"]["files"]]
    near = [[f["a"], f["b"], f"{f['similarity']:.4f}"] for f in facts["near"]["files"]]
    tables = [
        Table(exact, title="Exact duplicates", folded=True),
        Table(near, ["picture", "near duplicate", "correlation"], (2,), "Near duplicates", folded=True),
    ]
    return [t for t in tables if t.rows]


def table_sections(facts: Facts) -> list[Section]:
    """Statistics and a small chart of every column."""
    head, rows = column_rows(facts)
    made = []
    charts = [c for k, column in enumerate(facts["columns"][:_HISTOGRAMS]) if (c := _column_chart(k, column))]
    if charts:
        how = "Values below the 1st and above the 99th percentile are counted in the outer bins."
        more = len(facts["columns"]) - _HISTOGRAMS
        note = f"The first {_HISTOGRAMS} of {len(facts['columns']):,} columns." if more > 0 else ""
        made.append(Section("values", "Values, column by column", how, charts=charts, note=note))
    long = len(rows) > _LONG
    table = Table(rows, head, (2, 3), f"All {len(rows):,} columns" if long else "", folded=long)
    return [*made, Section("columns", "Columns", tables=[table])]


def _column_chart(k: int, column: Facts) -> Chart | None:
    name = f"column-{k + 1}"
    if column.get("histogram", {}).get("counts"):
        return bins_chart(name, column["name"], column["histogram"]["edges"], column["histogram"]["counts"])
    if column["kind"] == "categorical" and column["categories"]:
        counts: Sequence[tuple[str, int]] = [(c["value"], c["count"]) for c in column["categories"][:8]]
        return bar_list(name, column["name"], counts, "rows")
    return None


def file_sections(facts: Facts) -> list[Section]:
    """Unreadable and ignored files."""
    bad, passed = facts.get("unreadable", {"count": 0}), facts.get("ignored", {"count": 0})
    tables = [
        Table([[f["name"], f["reason"]] for f in found["files"]], ["file", "reason"], title=title)
        for found, title in ((bad, "Cannot be decoded"), (passed, "Ignored"))
        if found["count"]
    ]
    if not tables:
        return []
    cut = [f"{found['count']:,}" for found in (bad, passed) if found["count"] > len(found.get("files", ()))]
    note = f"The first 100 of {' and '.join(cut)}." if cut else ""
    return [Section("files", "Files that were not read", tables=tables, note=note)]

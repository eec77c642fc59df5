"""The page of the documentation, made from results and from what is written by hand in ``notes.md``."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from benchmarks.speed.charts import ratio_chart
from benchmarks.speed.session import ROOT
from benchmarks.speed.tables import tables, versions

RESULTS = Path(__file__).with_name("results.json")
"""The results that the page shows."""

NOTES = Path(__file__).with_name("notes.md")
PAGE, CHART = ROOT / "docs" / "speed.md", ROOT / "docs" / "images" / "speed.svg"


def page(results: Mapping[str, Any]) -> str:
    """The text of the page."""
    machine, found = results["machine"], results.get("training", {})
    seen: dict[str, str] = {}
    for each in found.values():
        for about in each["contenders"].values():
            seen |= about["versions"]
    head = [
        "# Speed",
        "",
        "`make bench` times Sandglass beside others on the machine it runs on: the same networks, data, batch size and",
        "optimiser, an epoch of each in turns while the others sleep. This page is made from one such run by",
        "`python -m benchmarks.speed --page`.",
        "",
        f"The machine: {machine['processor']}, {machine['cores']} cores, {machine['memory'] / 2**30:.0f} GiB, "
        f"{machine['instructions']}; {results['device']}, {results['threads']} "
        f"thread{'s' * (results['threads'] > 1)}; its load before the run was {machine['load']:.1f}. Versions: "
        f"{versions({'versions': seen})}, Python {machine['python']}.",
        "",
        "*PyTorch, DataLoader* is the loop that people write: a `TensorDataset` of floats in a `DataLoader`, Adam, no "
        "logging. *PyTorch, least loop* takes batches by index from bytes in memory and has nothing that could be left "
        "out. Sandglass logs, checks every update, draws a sheet of pictures every epoch and writes a checkpoint at "
        "most every ten seconds; like the others it validates nothing here. *Sandglass, fp32* is the same run where "
        "the automatic precision is fp32, and then shows the noise of the measurement.",
        "",
    ]
    if found:
        head += [f"![{ratio_chart(found).alt}](images/speed.svg)", ""]
    body = [f"{table.markdown()}\n" for table in tables(results)]
    return "\n".join([*head, *body, NOTES.read_text(encoding="utf-8").strip(), ""])


def write(results: Mapping[str, Any]) -> None:
    """Writes the page and its chart."""
    PAGE.write_text(page(results), encoding="utf-8")
    CHART.write_text(ratio_chart(results["training"]).file, encoding="utf-8")

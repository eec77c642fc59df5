"""The ratios as a chart."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from benchmarks.speed.figures import ratios
from benchmarks.speed.tables import title_of
from benchmarks.speed.training import REFERENCE
from sandglass.reports.chart import CLASS_COLOURS, Chart, colour, draw

SHADES = {"torch": "c1", "torch-loader": "c0", "keras": "c6", "keras-xla": "c7", "pythae": "c4"}


def ratio_chart(training: Mapping[str, Any]) -> Chart:
    """The time of an epoch of each library over Sandglass's, by workload, with quartiles, on a logarithmic axis."""
    names = list(training)
    shown = [c for c in SHADES if any(c in each["contenders"] for each in training.values())]

    def paint(axes: Any) -> None:
        for k, contender in enumerate(shown):
            label: str | None = title_of(contender)
            for place, each in enumerate(training.values()):
                if contender not in each["contenders"]:
                    continue
                times = {c: about["seconds"] for c, about in each["contenders"].items()}
                spread = ratios(times, REFERENCE)[contender]
                error = [[spread.median - spread.low], [spread.high - spread.median]]
                at = place + 0.5 * ((k + 0.5) / len(shown) - 0.5)
                axes.errorbar(spread.median, at, xerr=error, fmt="o", color=colour(SHADES[contender]), markersize=6,
                              elinewidth=2, label=label)  # fmt: skip
                label = None
        axes.axvline(1, color=colour("held"), linewidth=1.4, label="Sandglass")
        axes.set_xscale("log")
        low, high = axes.get_xlim()
        ticks = [t for t in (0.25, 0.5, 0.75, 1, 1.5, 2, 3, 4, 6, 8, 12, 16, 32) if low <= t <= high]
        axes.set_xticks(ticks, [f"{t:g}" for t in ticks])
        axes.xaxis.minorticks_off()
        axes.set_yticks(range(len(names)), names)
        axes.set_ylim(len(names) - 0.5, -0.5)
        axes.grid(axis="y", visible=False)
        axes.set(title="Time of an epoch, Sandglass being 1", xlabel="below 1 is faster than Sandglass")
        axes.figure.legend(loc="outside lower center", ncols=2)

    assert set(SHADES.values()) <= set(CLASS_COLOURS)
    alt = f"Time of an epoch relative to Sandglass: {', '.join(map(title_of, shown))} on {', '.join(names)}"
    return draw("speed", alt, paint, width=460, height=140 + 46 * len(names))

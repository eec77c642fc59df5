"""Charts of counts: classes, sizes, values of a column."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from sandglass.reports.chart import Chart, colour, draw
from sandglass.tasks.sheet import short

MOST = 24
"""Maximum number of classes in a chart."""

SHADES = {"train": "train", "validation": "c5", "test": "held"}
"""Colours of splits; others are grey."""


def class_chart(splits: Mapping[str, Mapping[str, int]], name: str = "classes") -> Chart:
    """Horizontal bars, one per class and stacked by split; the largest classes first.

    Args:
        splits: class counts by split.
        name: file name of the chart.
    """
    totals: dict[str, int] = {}
    for classes in splits.values():
        for label, n in classes.items():
            totals[label] = totals.get(label, 0) + n
    labels = sorted(totals, key=lambda label: -totals[label])[:MOST]

    def paint(axes: Any) -> None:
        start = np.zeros(len(labels))
        for split, classes in splits.items():
            widths = np.array([classes.get(label, 0) for label in labels], float)
            axes.barh(range(len(labels)), widths, left=start, height=0.72, color=colour(SHADES.get(split, "c9")),
                      label=split)  # fmt: skip
            start += widths
        _bars(axes, [short(label, 22) for label in labels])
        if len(totals) > MOST:
            axes.set(title=f"The largest {MOST} of {len(totals):,} classes")
        if len(splits) > 1:
            axes.figure.legend(loc="outside lower right", ncols=3)

    return draw(name, "Examples of each class", paint, height=110 + 20 * len(labels))


def bar_list(name: str, title: str, counts: Sequence[tuple[str, int]], unit: str) -> Chart:
    """Horizontal bars in the given order."""

    def paint(axes: Any) -> None:
        axes.barh(range(len(counts)), [n for _, n in counts], height=0.72, color=colour("train"))
        _bars(axes, [short(label, 22) for label, _ in counts], unit)
        axes.set(title=short(title, 26))

    return draw(name, title, paint, height=100 + 20 * len(counts))


def _bars(axes: Any, labels: Sequence[str], unit: str = "examples") -> None:
    from matplotlib.ticker import MaxNLocator

    axes.set_yticks(range(len(labels)), labels)
    axes.set_ylim(len(labels) - 0.4, -0.6)
    axes.xaxis.set_major_locator(MaxNLocator(nbins=5, integer=True))
    axes.grid(axis="y", visible=False)
    axes.set(xlabel=unit)


def bins_chart(name: str, title: str, edges: Sequence[float], counts: Sequence[int]) -> Chart:
    """A histogram from precomputed counts."""

    def paint(axes: Any) -> None:
        from matplotlib.ticker import MaxNLocator

        axes.stairs(counts, edges, fill=True, color=colour("train"), alpha=0.6)
        axes.xaxis.set_major_locator(MaxNLocator(nbins=4))
        axes.yaxis.set_major_locator(MaxNLocator(nbins=3, integer=True))
        axes.set(title=short(title, 26))

    return draw(name, f"Histogram of {title}", paint, height=150)


def scatter_sizes(name: str, sizes: Sequence[tuple[int, int, int]]) -> Chart:
    """Scatter plot of image sizes ``(height, width, count)``, with dot areas proportional to counts."""

    def paint(axes: Any) -> None:
        heights, widths, counts = np.array(sizes, float).T
        area = 12 + 300 * counts / counts.max()
        axes.scatter(widths, heights, s=area, color=colour("train"), alpha=0.5, linewidth=0)
        axes.set(xlabel="width in pixels", ylabel="height in pixels")
        axes.set_xlim(0, widths.max() * 1.08)
        axes.set_ylim(0, heights.max() * 1.08)

    return draw(name, "Sizes of the pictures", paint, height=260)

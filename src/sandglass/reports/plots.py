"""The charts of a report: curves, bars, scatters and histograms."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from torch import Tensor

from sandglass.reports.chart import CLASS_COLOURS, HALO, Chart, colour, dots, draw
from sandglass.reports.history import Panel
from sandglass.reports.placing import placed as placed_apart
from sandglass.runs.history import Curve
from sandglass.tasks.sheet import short

Values = npt.NDArray[Any]

_NAME = 12  # size of class names in a scatter plot, in points
_SPACE = (290.0, 270.0)  # the axes of a scatter plot, in points


def curve_chart(panel: Panel, best: float | None = None) -> Chart:
    """Curves over epochs, with a vertical line at the best epoch."""

    def paint(axes: Any) -> None:
        from matplotlib.ticker import MaxNLocator

        for line in panel.lines:
            dots = "o" if len(line.curve.epochs) < 4 else None
            style = "-" if line.colour == "train" else (0, (5, 1.5))  # distinguishable without colour
            axes.plot(line.curve.epochs, line.curve.values, color=colour(line.colour), linestyle=style, marker=dots,
                      markersize=5, label=line.label)  # fmt: skip
        last = max((e for line in panel.lines for e in line.curve.epochs), default=1.0)
        if best is not None:
            axes.axvline(best, color=colour("muted"), linewidth=1.4, linestyle=(0, (1, 1.5)),
                         label=f"best epoch: {round(best, 1):g}")  # fmt: skip
        axes.set_xlim(*((0.5, 1.5) if last <= 1 else (1 - 0.02 * last, last * 1.02)))
        axes.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=6, min_n_ticks=1))
        axes.yaxis.set_major_locator(MaxNLocator(nbins=5))
        if panel.name.endswith("-lr"):
            axes.set_ylim(bottom=0)  # otherwise the axis of a constant would show rounding errors
        axes.set(title=panel.title, xlabel="epoch", ylabel=panel.unit)
        if len(panel.lines) > 1 or best is not None:
            axes.legend()

    return draw(panel.name, f"{panel.title} by epoch", paint)


def bar_chart(
    name: str, title: str, values: Values, active: Values, labels: Sequence[str], threshold: float, unit: str,
    note: str, log: bool = False,
) -> Chart:  # fmt: skip
    """Bars in the given order; active ones are highlighted, and a line marks the threshold."""

    def paint(axes: Any) -> None:
        from matplotlib.ticker import MaxNLocator

        colours = [colour("train") if a else colour("c9") for a in active]
        axes.bar(range(len(values)), values, width=0.8, color=colours)
        axes.axhline(threshold, color=colour("held"), linewidth=1.2, linestyle=(0, (4, 2)), label=note)
        if log:
            axes.set_yscale("log")
            axes.yaxis.set_major_formatter(lambda value, _: f"{value:g}")
            axes.yaxis.set_minor_formatter(lambda value, _: "")
            axes.set_ylim(bottom=min(threshold / 30, max(1e-9, float(np.min(values, initial=1.0)) / 2)))
        else:
            axes.yaxis.set_major_locator(MaxNLocator(nbins=5))
        if len(labels) <= 20:
            crowded = sum(map(len, labels)) > 36
            axes.set_xticks(range(len(labels)), labels, rotation=90 if crowded else 0)
        else:
            axes.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=6))
        axes.grid(axis="x", visible=False)
        ordered = "latent dimension, by decreasing KL" if len(labels) <= 20 else "rank of the latent dimension by KL"
        axes.set(title=title, xlabel=ordered, ylabel=unit)
        axes.set_xlim(-0.6, max(len(values), 6) - 0.4)  # avoid very wide bars
        axes.figure.legend(loc="outside lower right")

    return draw(name, title, paint, height=240 if len(values) > 2 else 190)


def colour_of_classes(y: Tensor | None, classes: Sequence[str]) -> list[tuple[int | None, str, str]]:
    """Legend entries ``(class, name, colour)``: the ten most frequent classes, ``None`` for others, -1 for no label.

    Example:
        >>> import torch
        >>> colour_of_classes(torch.tensor([1, 1, 0, -1]), ["cat", "dog"])
        [(0, 'cat', 'c0'), (1, 'dog', 'c1'), (-1, 'no label', 'muted')]
    """
    if y is None:
        return [(None, "examples", "train")]
    known = y[y >= 0]
    counts = known.bincount(minlength=len(classes)).tolist()
    names = [classes[k] if k < len(classes) else str(k) for k in range(len(counts))]
    top = sorted(sorted(range(len(counts)), key=lambda k: -counts[k])[: len(CLASS_COLOURS)])
    top = [k for k in top if counts[k]]
    entries: list[tuple[int | None, str, str]] = [(k, names[k], CLASS_COLOURS[place]) for place, k in enumerate(top)]
    others = sum(1 for k, n in enumerate(counts) if n and k not in top)
    entries += [(None, f"{others} other classes", "line")] if others else []
    return entries + ([(-1, "no label", "muted")] if len(known) < len(y) else [])


def scatter_chart(
    name: str, title: str, points: Tensor, y: Tensor | None, legend: Sequence[tuple[int | None, str, str]],
    axes_names: tuple[str, str], ticks: bool = True,
) -> Chart:  # fmt: skip
    """Scatter plot of points ``(N, 2)`` by class, with the class names near the medians, apart from each other."""
    xy = points.numpy()
    known = [k for k, _, _ in legend if k is not None]
    others = -2  # -1 has no label
    group = np.full(len(xy), others) if y is None else np.where(np.isin(y.numpy(), known), y.numpy(), others)

    def paint(axes: Any) -> None:
        from matplotlib.ticker import MaxNLocator

        # Classes are drawn in turns, so that the last one does not cover the others.
        diameter = 3.6 if len(xy) > 600 else 4.6
        for turn in range(8 if y is not None else 1):
            for k, _, shade in sorted(legend, key=lambda entry: others if entry[0] is None else entry[0]):
                mine = xy[group == (others if k is None else k)][turn :: 8 if y is not None else 1]
                if len(mine):
                    dots(axes, mine, shade, diameter)
        low, high = xy.min(0), xy.max(0)
        margin = np.maximum((high - low) * 0.04, 1e-6)
        axes.set_xlim(low[0] - margin[0], high[0] + margin[0])
        axes.set_ylim(low[1] - margin[1], high[1] + margin[1])
        named = [(k, short(label, 12)) for k, label, _ in legend if k is not None and k >= 0]
        if named:
            medians = np.stack([np.median(xy[group == k], axis=0) for k, _ in named])
            edges = np.stack([low - margin, high + margin])
            for at, (_, label) in zip(
                placed_apart(medians, [label for _, label in named], edges, _SPACE, _NAME), named, strict=True
            ):
                axes.text(*at, label, ha="center", va="center", weight="bold", size=_NAME, gid=HALO)
        axes.set(title=title, xlabel=axes_names[0], ylabel=axes_names[1])
        axes.xaxis.set_major_locator(MaxNLocator(nbins=6))
        axes.yaxis.set_major_locator(MaxNLocator(nbins=6))
        if not ticks:
            axes.set(xticks=[], yticks=[])

    return draw(name, title, paint, height=330)


def histogram_chart(name: str, column: str, data: Values, samples: Values) -> Chart:
    """Histogram of a numeric column: data filled, samples as a line, both as shares over the same bins."""

    def paint(axes: Any) -> None:
        from matplotlib.ticker import MaxNLocator

        both = np.concatenate([data, samples])
        # Clip outliers among the samples, which would squeeze everything else into one bin.
        low, high = np.quantile(both, [0.002, 0.998])
        low, high = min(low, data.min()), max(high, data.max())
        bins = int(np.clip(np.sqrt(len(data)), 8, 24))
        whole = np.allclose(data, np.round(data)) and high - low < 25
        edges = np.arange(np.floor(low) - 0.5, np.ceil(high) + 1) if whole else np.linspace(low, high + 1e-12, bins + 1)
        for values, filled in ((data, True), (samples, False)):
            weight = np.full(len(values), 1 / max(1, len(values)))
            share, _ = np.histogram(values, edges, weights=weight)
            axes.stairs(share, edges, fill=filled, color=colour("train" if filled else "held"), linewidth=2,
                        alpha=0.45 if filled else 1, label="data" if filled else "samples")  # fmt: skip
        axes.xaxis.set_major_locator(MaxNLocator(nbins=5))
        axes.yaxis.set_major_locator(MaxNLocator(nbins=4))
        axes.set(title=short(column, 22), xlabel="value", ylabel="share per bin")
        axes.legend(loc="lower right", bbox_to_anchor=(1.02, 0.99), ncols=2, columnspacing=1)

    return draw(name, f"Histogram of {column}, data and samples", paint, height=200)


def category_chart(name: str, column: str, labels: Sequence[str], data: Values, samples: Values) -> Chart:
    """Bars of a categorical column: the share of every category in data and samples."""

    def paint(axes: Any) -> None:
        place = np.arange(len(labels))
        axes.bar(place - 0.2, data, 0.38, color=colour("train"), alpha=0.6, label="data")
        axes.bar(place + 0.2, samples, 0.38, color=colour("held"), label="samples")
        longest = max((len(short(v, 12)) for v in labels), default=0)
        tilt = 45 if longest * len(labels) > 40 else 0
        axes.set_xticks(place, [short(v, 12) for v in labels], rotation=tilt, ha="right" if tilt else "center")
        axes.grid(axis="x", visible=False)
        axes.set(title=short(column, 22), ylabel="share")
        axes.legend(loc="lower right", bbox_to_anchor=(1.02, 0.99), ncols=2, columnspacing=1)

    return draw(name, f"Categories of {column}, data and samples", paint, height=200)


def error_chart(
    name: str, title: str, labels: Sequence[str], values: Values, unit: str, worst: float, note: str
) -> Chart:
    """Horizontal bars, one per table column; a line marks the trivial baseline."""

    def paint(axes: Any) -> None:
        from matplotlib.ticker import MaxNLocator

        axes.barh(range(len(values)), values, height=0.7, color=colour("train"))
        axes.axvline(worst, color=colour("held"), linewidth=1.2, linestyle=(0, (4, 2)), label=note)
        axes.set_yticks(range(len(labels)), [short(v, 22) for v in labels])
        axes.invert_yaxis()
        axes.xaxis.set_major_locator(MaxNLocator(nbins=5))
        axes.grid(axis="y", visible=False)
        axes.set(title=title, xlabel=unit)
        axes.set_ylim(len(values) - 0.4, -0.6)
        axes.figure.legend(loc="outside lower right")

    return draw(name, title, paint, height=100 + 18 * len(values))


def heat_chart(name: str, title: str, shares: Values, rows: Sequence[str], columns: Sequence[str], side: str) -> Chart:
    """Heat map of ``(R, C)`` values in [0, 1]; ``side`` labels the vertical axis."""

    def paint(axes: Any) -> None:
        from matplotlib.patches import Rectangle

        for (i, j), share in np.ndenumerate(shares):
            axes.add_patch(
                Rectangle((j - 0.5, i - 0.5), 1, 1, facecolor=colour("train"), alpha=float(share), edgecolor="none")
            )
            axes.text(j, i, f"{share:.2f}", ha="center", va="center", size=11, gid=HALO)
        axes.set_xticks(range(len(columns)), [short(v, 12) for v in columns])
        axes.set_yticks(range(len(rows)), rows)
        axes.grid(visible=False)
        axes.set(title=title, ylabel=side, xlim=(-0.5, len(columns) - 0.5), ylim=(len(rows) - 0.5, -0.5))

    return draw(name, title, paint, height=80 + 20 * len(rows))


def dot_chart(
    name: str, title: str, labels: Sequence[str], values: Sequence[Sequence[tuple[float, float | None]]],
    shades: Sequence[str], unit: str,
) -> Chart:  # fmt: skip
    """One figure of several runs: one dot per run with error bars of two standard errors, one line per label.

    Args:
        name: file name.
        title: of the figure.
        labels: of the lines.
        values: for each line, (value, standard error) of its runs; values that are not finite are omitted.
        shades: colours of the lines.
        unit: of the axis.
    """

    def paint(axes: Any) -> None:
        from matplotlib.ticker import MaxNLocator

        for place, (runs, shade) in enumerate(zip(values, shades, strict=True)):
            for value, stderr in runs:
                if np.isfinite(value):
                    axes.errorbar(value, place, xerr=2 * (stderr or 0.0), fmt="o", color=colour(shade), markersize=6,
                                  elinewidth=2, alpha=1 if len(runs) == 1 else 0.7)  # fmt: skip
        axes.set_yticks(range(len(labels)), [short(label, 18) for label in labels])
        axes.set_ylim(len(labels) - 0.5, -0.5)
        axes.margins(x=0.08)
        axes.xaxis.set_major_locator(MaxNLocator(nbins=4))
        axes.grid(axis="y", visible=False)
        axes.set(title=title, xlabel=unit)

    return draw(name, f"{title} of {', '.join(labels)}", paint, height=96 + 22 * len(labels))


def overlay_chart(name: str, title: str, curves: Sequence[tuple[str, str, Curve]], unit: str) -> Chart:
    """Curves (label, colour, curve) of several runs over epochs; extreme first epochs may be cut off."""
    styles: Sequence[Any] = ("-", (0, (5, 1.5)), (0, (1, 1.2)), (0, (5, 1.5, 1, 1.5)))

    def paint(axes: Any) -> None:
        from matplotlib.ticker import MaxNLocator

        for k, (label, shade, curve) in enumerate(curves):
            axes.plot(curve.epochs, curve.values, color=colour(shade), linestyle=styles[k % len(styles)],
                      marker="o" if len(curve.epochs) < 4 else None, markersize=5, label=short(label, 18))  # fmt: skip
        every = np.concatenate([c.values for _, _, c in curves])
        ends = np.concatenate([c.values[len(c.values) // 8 :] for _, _, c in curves])
        # An extreme first epoch would compress the rest of the curves.
        if len(every) > 16 and every.max() - ends.min() > 3 * (ends.max() - ends.min()) > 0:
            axes.set_ylim(ends.min() - 0.05 * (ends.max() - ends.min()), ends.max() + 0.15 * (ends.max() - ends.min()))
        axes.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=6, min_n_ticks=1))
        axes.yaxis.set_major_locator(MaxNLocator(nbins=5))
        axes.set(title=title, xlabel="epoch", ylabel=unit)
        axes.legend()

    return draw(name, f"{title} of {', '.join(label for label, _, _ in curves)} by epoch", paint, width=460, height=280)


def slice_chart(
    name: str, along: str, points: Sequence[tuple[Any, float | None, bool]], unit: str, scale: str
) -> Chart:
    """A figure against one option, one dot per trial.

    Args:
        name: file name.
        along: the option.
        points: (value of the option, figure, whether it is the best).
        unit: of the figure.
        scale: ``"log"`` or ``"linear"`` for numeric ranges, ``"list"`` for categorical values.
    """
    labels = list(dict.fromkeys(value for value, _, _ in points)) if scale == "list" else []

    def paint(axes: Any) -> None:
        from matplotlib.ticker import LogLocator, MaxNLocator

        for value, figure, best in sorted(points, key=lambda p: p[2]):
            axes.plot(labels.index(value) if labels else value, figure, "o", color=colour("held" if best else "train"),
                      markersize=9 if best else 6, alpha=1 if best else 0.75)  # fmt: skip
        if labels:
            axes.set_xticks(range(len(labels)), [short(label, 12) for label in labels])
            axes.set_xlim(-0.6, len(labels) - 0.4)
        elif scale == "log":
            axes.set_xscale("log")
            axes.xaxis.set_major_formatter(lambda value, _: f"{value:g}")
            ends = [value for value, _, _ in points]
            narrow = max(ends) < 30 * min(ends)  # powers of ten would give at most one tick label
            axes.xaxis.set_minor_locator(LogLocator(subs=(2, 5)))
            axes.xaxis.set_minor_formatter(lambda value, _: f"{value:g}" if narrow else "")
        else:
            whole = all(isinstance(value, int) for value, _, _ in points)
            axes.xaxis.set_major_locator(MaxNLocator(nbins=6, integer=whole))
        axes.yaxis.set_major_locator(MaxNLocator(nbins=5))
        axes.set(xlabel=short(along, 30), ylabel=unit)

    return draw(name, f"{unit} against {along}", paint, height=220)


def share_chart(name: str, title: str, shares: Sequence[tuple[str, float]]) -> Chart:
    """Horizontal bars of shares between 0 and 1, by name."""

    def paint(axes: Any) -> None:
        from matplotlib.ticker import PercentFormatter

        axes.barh(range(len(shares)), [share for _, share in shares], height=0.7, color=colour("train"))
        axes.set_yticks(range(len(shares)), [short(label, 22) for label, _ in shares])
        axes.set_ylim(len(shares) - 0.4, -0.6)
        axes.set_xlim(0, 1)
        axes.xaxis.set_major_formatter(PercentFormatter(1))
        axes.grid(axis="y", visible=False)
        axes.set(title=title)

    return draw(name, title, paint, height=90 + 24 * len(shares))


def amount_chart(name: str, title: str, amounts: Sequence[tuple[str, float]], unit: str) -> Chart:
    """Horizontal bars of amounts, by name, in the given order."""

    def paint(axes: Any) -> None:
        from matplotlib.ticker import MaxNLocator

        axes.barh(range(len(amounts)), [amount for _, amount in amounts], height=0.7, color=colour("train"))
        axes.set_yticks(range(len(amounts)), [short(label, 22) for label, _ in amounts])
        axes.set_ylim(len(amounts) - 0.4, -0.6)
        axes.xaxis.set_major_locator(MaxNLocator(nbins=5))
        axes.grid(axis="y", visible=False)
        axes.set(title=title, xlabel=unit)

    return draw(name, title, paint, height=96 + 24 * len(amounts))

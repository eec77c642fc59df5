"""Charts: as SVG whose text and colours follow the light or dark theme of the page, and as figures of matplotlib.

A chart is drawn in placeholder colours. In the page they become CSS variables; in a separate file they become the light
palette. Neither pyplot nor global matplotlib settings are changed, and the bytes depend on the data only.
"""

from __future__ import annotations

import io
import re
import warnings
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any

WIDTH = 360
"""Width of a chart in pixels of a phone screen, so that its text is legible there."""

COLOURS: dict[str, tuple[str, str]] = {
    "ink": ("#24211d", "#ece7df"),
    "muted": ("#6b655c", "#a8a196"),
    "line": ("#ddd7cc", "#3a3731"),
    "surface": ("#ffffff", "#201e1b"),
    "train": ("#2b6cb0", "#7ab8f5"),
    "held": ("#c2570c", "#ff9f5a"),
    # Ten classes: Paul Tol's colour-blind safe "muted" scheme and a grey, adapted to light and dark backgrounds.
    "c0": ("#332288", "#9d92ff"),
    "c1": ("#4aa8d8", "#88ccee"),
    "c2": ("#2f9c8b", "#44c2ac"),
    "c3": ("#117733", "#57b56f"),
    "c4": ("#8a8a22", "#bcbc4e"),
    "c5": ("#c9a22c", "#e6d68a"),
    "c6": ("#cc6677", "#f08c9b"),
    "c7": ("#882255", "#d9639a"),
    "c8": ("#aa4499", "#d783ca"),
    "c9": ("#77716a", "#c4beb5"),
}
"""Colours by name, for light and dark backgrounds."""

CLASS_COLOURS = tuple(f"c{k}" for k in range(10))

HALO = "halo"
"""Mark (``gid``) of a text that is drawn with a halo."""

_HOLD = {name: f"#0102{k:02x}" for k, name in enumerate(COLOURS)}
_palette: ContextVar[Mapping[str, str]] = ContextVar("palette", default=_HOLD)
_FONT = "system-ui, -apple-system, 'Segoe UI', Roboto, 'Helvetica Neue', Arial, sans-serif"
_OWN = (
    "axes",
    "xtick",
    "ytick",
    "font",
    "lines",
    "legend",
    "grid",
    "svg",
    "text",
    "figure",
    "path",
    "patch",
    "savefig",
)


@dataclass(frozen=True)
class Chart:
    """A finished chart.

    Args:
        name: file name without ``.svg``, unique within a page.
        alt: alternative text.
        svg: the chart in placeholder colours.
        paint: draws it on matplotlib axes.
        size: width and height in inches.
    """

    name: str
    alt: str
    svg: str
    paint: Callable[[Any], None] = field(repr=False, compare=False)
    size: tuple[float, float]

    @property
    def inline(self) -> str:
        """The ``<svg>`` element, for a page with a CSS variable for each of :data:`COLOURS`."""
        svg = self.svg
        for name, held in _HOLD.items():
            svg = svg.replace(held, "currentColor" if name == "ink" else f"var(--{name})")
        return svg

    @property
    def file(self) -> str:
        """A standalone file in the light palette."""
        svg = self.svg
        for name, held in _HOLD.items():
            svg = svg.replace(held, COLOURS[name][0])
        return '<?xml version="1.0" encoding="utf-8"?>\n' + svg

    @property
    def figure(self) -> Any:
        """The chart as a figure of matplotlib, in the light palette."""
        from matplotlib.patheffects import withStroke
        from matplotlib.text import Text

        before = _palette.set({name: light for name, (light, _) in COLOURS.items()})
        try:
            with _styled():
                figure = _drawn(self.paint, self.size)
        finally:
            _palette.reset(before)
        for text in figure.findobj(lambda part: isinstance(part, Text) and part.get_gid() == HALO):
            text.set_path_effects([withStroke(linewidth=3.5, foreground=COLOURS["surface"][0])])
        return figure


def colour(name: str) -> str:
    """One of :data:`COLOURS`: its placeholder, or its light one in a figure of matplotlib."""
    return _palette.get()[name]


def dots(axes: Any, points: Any, name: str, diameter: float) -> None:
    """Draws round dots.

    Args:
        axes: of matplotlib.
        points: ``(N, 2)``.
        name: one of :data:`COLOURS`.
        diameter: in units of 1/72 inch.
    """
    if _palette.get() is not _HOLD:
        axes.scatter(*points.T, s=diameter**2, color=colour(name), alpha=0.8, linewidths=0, clip_on=False)
        return
    from matplotlib.patches import PathPatch
    from matplotlib.path import Path

    # Zero-length segments in one path need a twentieth of the bytes of markers; only SVG draws them.
    path = Path(points.repeat(2, axis=0), [Path.MOVETO, Path.LINETO] * len(points))
    patch = PathPatch(path, fill=False, edgecolor=colour(name), linewidth=diameter, capstyle="round")
    patch.set(alpha=0.8, clip_on=False)
    axes.add_patch(patch)


def draw(name: str, alt: str, paint: Callable[[Any], None], *, width: int = WIDTH, height: int = 240) -> Chart:
    """A chart drawn by ``paint`` on matplotlib axes.

    Args:
        name: file name; letters, digits and hyphens.
        alt: alternative text.
        paint: draws on the axes, with colours from :func:`colour`.
        width: in units of 1/72 inch.
        height: in units of 1/72 inch.
    """
    name, size = re.sub(r"[^A-Za-z0-9-]+", "-", name), (width / 72, height / 72)
    buffer = io.StringIO()
    with _styled(), warnings.catch_warnings():
        # Browsers have glyphs that matplotlib's font may lack.
        warnings.filterwarnings("ignore", message="Glyph", category=UserWarning)
        _drawn(paint, size).savefig(buffer, format="svg", transparent=True, metadata={"Date": None})
    return Chart(name, alt, _clean(buffer.getvalue(), name, alt), paint, size)


def _drawn(paint: Callable[[Any], None], size: tuple[float, float]) -> Any:
    from matplotlib.figure import Figure

    figure = Figure(figsize=size, layout="constrained")
    paint(figure.add_subplot())
    return figure


def _styled() -> AbstractContextManager[None]:
    """The style of charts, from matplotlib's defaults, so that a user's style file cannot break the placeholders."""
    import matplotlib

    style: Any = {k: v for k, v in matplotlib.rcParamsDefault.items() if k.split(".")[0] in _OWN}
    return matplotlib.rc_context(style | _style())


def _style() -> dict[str, Any]:
    ink, muted, line = colour("ink"), colour("muted"), colour("line")
    return {
        "svg.fonttype": "none",
        "svg.hashsalt": "sandglass",
        "path.simplify": False,
        "font.size": 12,
        "text.parse_math": False,  # a class may be named $x$
        "text.color": ink,
        "axes.edgecolor": muted,
        "axes.labelcolor": ink,
        "axes.labelsize": 12,
        "axes.titlesize": 13,
        "axes.titleweight": "bold",
        "axes.titlelocation": "left",
        "axes.titlecolor": ink,
        "axes.titlepad": 8,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.linewidth": 0.8,
        "axes.grid": True,
        "axes.axisbelow": True,
        "axes.formatter.use_mathtext": False,
        "axes.formatter.useoffset": False,
        "grid.color": line,
        "grid.linewidth": 0.8,
        "xtick.color": muted,
        "ytick.color": muted,
        "xtick.labelcolor": ink,
        "ytick.labelcolor": ink,
        "xtick.labelsize": 11,
        "ytick.labelsize": 11,
        "xtick.major.size": 3,
        "ytick.major.size": 0,
        "lines.linewidth": 2.0,
        "legend.frameon": False,
        "legend.fontsize": 11,
        "legend.handlelength": 1.4,
    }


def _clean(svg: str, name: str, alt: str) -> str:
    """The ``<svg>`` element without metadata, with system fonts and with ids unique to this chart."""
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
    svg = re.sub(r"<!--.*?-->\s*", "", svg, flags=re.DOTALL)
    svg = re.sub(r"font: ([^\"]*?)([\d.]+px) [^;\"]*", rf"font: \1\2 {_FONT}", svg)
    halo = f'style="stroke: {colour("surface")}; stroke-width: 3.5; stroke-linejoin: round; paint-order: stroke"'
    svg = svg.replace(f'id="{HALO}"', halo)
    used = set(re.findall(r"(?:href=\"#|url\(#)([^\")]+)", svg))

    def rename(match: re.Match[str]) -> str:
        return f' id="{name}-{match[1]}"' if match[1] in used else ""

    svg = re.sub(r'\sid="([^"]*)"', rename, svg)
    svg = re.sub(r'(href="#|url\(#)', rf"\1{name}-", svg)
    head = re.match(r'<svg[^>]*?viewBox="([^"]+)"[^>]*>', svg)
    assert head is not None
    label = alt.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;").replace('"', "&quot;")
    spaces = 'xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink"'
    return f'<svg {spaces} viewBox="{head[1]}" role="img" aria-label="{label}">' + svg[head.end() :]

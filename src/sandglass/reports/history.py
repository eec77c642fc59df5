"""Which logged values are shown, as panels of curves over epochs."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from sandglass.core import Model, Stage
from sandglass.runs.history import Curve, stage_of
from sandglass.runs.run import Run

_UPKEEP = {
    "grad_norm": ("Gradient norm", "mean over updates"),
    "lr": ("Learning rate", "per update"),
    "beta": ("Weight of the rate (beta)", "factor"),
    "capacity": ("Capacity", "nats per example"),
    "r1_weight": ("Weight of the gradient penalty (r1)", "factor"),
}

BOOKKEEPING = ("skipped", *_UPKEEP)
"""Logged terms about training that are no part of an objective."""

TITLES = {
    "loss": "Objective",
    "distortion": "Reconstruction (distortion)",
    "rate": "KL divergence (rate)",
    "bound": "Importance-weighted bound",
    "encoder_bound": "Importance-weighted bound of the encoder",
    "information": "Mutual information of example and code",
    "total_correlation": "Total correlation of the code",
    "dimension_kl": "KL divergence of the marginals",
    "r1": "Gradient penalty",
    "real": "Score of what is real",
    "fake": "Score of what is made",
    "joint": "Score of codes",
    "product": "Score of codes with permuted dimensions",
    "misled": "Loss of what misleads the critic",
}

_NATS = {"distortion", "rate", "bound", "encoder_bound", "information", "total_correlation", "dimension_kl"}


@dataclass(frozen=True)
class Line:
    """A curve with its legend entry and the name of its colour."""

    label: str
    colour: str
    curve: Curve


@dataclass(frozen=True)
class Panel:
    """Curves that share axes.

    Args:
        name: file name.
        title: of the panel.
        unit: of the vertical axis.
        lines: the curves.
    """

    name: str
    title: str
    unit: str
    lines: tuple[Line, ...]


def by_stage(model: Model, records: Iterable[Mapping[str, Any]]) -> list[tuple[Stage, list[Mapping[str, Any]]]]:
    """The stages of a model, each with its records."""
    stages = list(model.stages())
    found: dict[str, list[Mapping[str, Any]]] = {stage.name: [] for stage in stages}
    for record in records:
        found.get(stage_of(record), found[stages[0].name]).append(record)
    return [(stage, found[stage.name]) for stage in stages]


def panels(stage: Stage, found: Mapping[tuple[str, str, str], Curve]) -> list[Panel]:
    """The loss curves of a stage: the objective and its parts, or all players of an adversarial game.

    Args:
        stage: the stage.
        found: its :func:`curves`.
    """
    own = [phase.name for phase in stage.phases]
    phases = [phase for phase in dict.fromkeys(phase for _, phase, _ in found) if phase in own]
    if is_game(stage, found) and len(phases) > 1:
        return _game(phases, found)
    return [panel for phase in phases for panel in _objective(phase, found, len(phases) > 1)]


def is_game(stage: Stage, found: Iterable[tuple[str, str, str]]) -> bool:
    """Whether a stage is a game of players alone: no loss chooses its weights, and none has a distortion."""
    return stage.objective is None and not any(term == "distortion" for _, _, term in found)


def of_stage(panel: Panel, name: str) -> Panel:
    """The panel with the name of its stage in its title, for a model with several stages."""
    title = after(name, panel.title)
    return replace(panel, name=panel.name.replace("curve-", f"curve-{name}-", 1), title=title)


def after(name: str, title: str) -> str:
    """A title with a name before it.

    Example:
        >>> after("elbo", "Reconstruction (distortion)"), after("elbo", "KL divergence (rate)")
        ('elbo: reconstruction (distortion)', 'elbo: KL divergence (rate)')
    """
    return f"{name}: {title if title[:2].isupper() else title[:1].lower() + title[1:]}"


def _objective(phase: str, found: Mapping[tuple[str, str, str], Curve], several: bool) -> list[Panel]:
    """Training and held-out curves of the loss, then of its parts if there are several."""
    own = {(split, term): c for (split, p, term), c in found.items() if p == phase and term not in BOOKKEEPING}
    splits = list(dict.fromkeys(split for split, _ in own))
    parts = [t for t in dict.fromkeys(term for _, term in own) if t not in ("loss", "objective", phase)]
    nats = set(parts) <= _NATS
    made = []
    for term in ["loss", *(parts if len(parts) > 1 else [])]:
        lines = []
        for split in splits:
            # The held-out curve is the objective at its final schedule values, which selects the best epoch.
            curve = own.get((split, "objective")) if term == "loss" and split != "train" else None
            curve = curve or own.get((split, term))
            if curve:
                lines.append(Line(_label(split), "train" if split == "train" else "held", curve))
        title = TITLES.get(term, term.replace("_", " ").capitalize())
        title = after(phase, title) if several else title
        unit = "nats per example" if nats or term in _NATS else "per example"
        if lines:
            made.append(Panel(f"curve-{phase}-{term}", title, unit, tuple(lines)))
    return made


def _label(split: str) -> str:
    """The legend of a curve: what was measured after every epoch is a validation, whatever split it is of."""
    return split if split in ("train", "validation") else f"validation ({split} split)"


def _game(phases: list[str], found: Mapping[tuple[str, str, str], Curve]) -> list[Panel]:
    """The players' losses in one panel, the critic's scores in another, and one panel for every other term."""
    colours = ("train", "held", "c3", "c4", "c8")
    train = {(phase, term): c for (split, phase, term), c in found.items() if split == "train"}
    losses = [Line(p, colours[k % 5], train[p, "loss"]) for k, p in enumerate(phases) if (p, "loss") in train]
    made = [Panel("curve-players", "Losses of the players", "loss per example", tuple(losses))]
    scores = [Line(f"{t} examples", c, train["critic", t])
              for t, c in (("real", "train"), ("fake", "held")) if ("critic", t) in train]  # fmt: skip
    if scores:
        made.append(Panel("curve-scores", "The critic's score", "score (logit)", tuple(scores)))
    shown = {"loss", "real", "fake", *phases, *BOOKKEEPING}
    for (phase, term), curve in train.items():
        if term not in shown:
            title = TITLES.get(term, term.replace("_", " ").capitalize())
            made.append(Panel(f"curve-{phase}-{term}", title, "per example", (Line("train", "train", curve),)))
    return made


def upkeep(found: Mapping[tuple[str, str, str], Curve]) -> list[Panel]:
    """Gradient norm and learning rate of every phase, and scheduled loss weights."""
    colours = ("train", "held", "c3", "c4", "c8")
    made = []
    for term, (title, unit) in _UPKEEP.items():
        chosen = [(phase, c) for (split, phase, t), c in found.items() if split == "train" and t == term]
        lines = tuple(Line(phase, colours[k % 5], c) for k, (phase, c) in enumerate(chosen))
        if lines:
            made.append(Panel(f"curve-{term.replace('_', '-')}", title, unit, lines))
    return made


def best_epoch(run: Run, records: Iterable[Mapping[str, Any]]) -> float | None:
    """The epoch of the best weights, None without a best checkpoint."""
    step = run.pointed("BEST")
    return next((float(r["epoch"]) for r in records if r["step"] == step), None)

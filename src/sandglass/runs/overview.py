"""What a run is, in a few words: how far it came, its objective, and its figures."""

from __future__ import annotations

import contextlib
import html
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from sandglass.errors import CheckpointError
from sandglass.runs.history import stage_of
from sandglass.runs.result import Results, figure


class Recorded(Protocol):
    """What is read of a run."""

    @property
    def path(self) -> Path: ...  # noqa: D102
    @property
    def config(self) -> Mapping[str, Any]: ...  # noqa: D102
    def metrics(self) -> Sequence[Mapping[str, Any]]: ...  # noqa: D102
    def last_metrics(self) -> Sequence[Mapping[str, Any]]: ...  # noqa: D102
    def results(self) -> Mapping[str, Any]: ...  # noqa: D102


@dataclass(frozen=True)
class Best:
    """The objective that chose the weights of a run.

    Args:
        loss: what it is, with the likelihood where there is one, since those of different kinds cannot be compared.
        value: its lowest value, or the last one where the last weights are kept; None if it was not finite.
    """

    loss: str
    value: float | None


def best(run: Recorded, records: Iterable[Mapping[str, Any]]) -> Best | None:
    """The objective of the last stage that has one; None where no loss can choose weights, as for a GAN."""
    training = run.config["training"]
    watched = [r for r in records if r["split"] == training.get("watch") and r["term"] == "objective"]
    if not watched:
        return None
    last = watched[-1]
    own = [r["value"] for r in watched if (stage_of(r), r["phase"]) == (stage_of(last), last["phase"])]
    value = own[-1] if training.get("select") == "last" else min((v for v in own if v is not None), default=None)
    likelihood = run.config["model"]["options"].get("likelihood")
    kind = likelihood.get("name") if isinstance(likelihood, Mapping) else None
    several = len({stage_of(r) for r in watched}) > 1
    return Best(", ".join([last["phase"], *([kind] if kind and not several else [])]), value)


def epochs(run: Recorded, records: Iterable[Mapping[str, Any]]) -> str:
    """Epochs trained, of those planned.

    Example:
        >>> from types import SimpleNamespace
        >>> epochs(SimpleNamespace(config={"training": {"epochs": 5}}), [{"epoch": 2.5}])
        '2.5/5'
    """
    planned = run.config["training"].get("epochs")
    if planned == 0:
        return "fitted"
    done = max((r["epoch"] for r in records), default=0)
    return f"{done:g}/{planned}" if done == int(done) else f"{done:.1f}/{planned}"


def progress(run: Recorded) -> str:
    """Epochs of the newest stage that was trained in steps, of those planned, by the end of the log."""
    training = run.config["training"]
    last = next((r for r in reversed(run.last_metrics()) if r["epoch"] > 0), {"epoch": 0.0})
    stages, name = training.get("stage", {}), stage_of(last)
    own = {"epochs": training.get("epochs")} | stages.get(name, {})
    done = last["epoch"]
    if own["epochs"] == 0:
        return "fitted"
    of = f" of {name}" if "epochs" in stages.get(name, {}) and len(stages) else ""
    return f"{done:g}/{own['epochs']} epochs{of}" if done == int(done) else f"{done:.1f}/{own['epochs']} epochs{of}"


def shown(run: Recorded) -> list[tuple[str, str]]:
    """What a run is: model, data, epochs, and its objective."""
    data, records = run.config.get("data", {}), run.metrics()
    examples = ", ".join(f"{n:,} {split}" for split, n in (data.get("examples") or {}).items())
    rows = [("model", str(run.config["model"].get("name"))), ("data", f"{data.get('name')}: {examples} examples")]
    rows.append(("epochs", epochs(run, records)))
    found = best(run, records)
    return [*rows, (f"best {found.loss}", figure(found.value))] if found else rows


def evaluated(run: Recorded) -> list[Results]:
    """The results of the evaluated splits; none where the file is damaged."""
    try:
        return [Results(found) for found in run.results().values()]
    except CheckpointError:
        return []


def line(run: Recorded) -> str:
    """A run in a line; its path alone where its files are damaged."""
    about: list[str] = []
    with contextlib.suppress(Exception):  # what a debugger or notebook shows must not fail
        about = _about(run)
    return f"Run('{run.path}'{': ' if about else ''}{', '.join(about)})"


def page(run: Recorded) -> str:
    """A run as a notebook shows it; its path alone where its files are damaged."""
    body = ""
    with contextlib.suppress(Exception):
        cells = "".join(f"<tr><td>{html.escape(k)}</td><td>{html.escape(v)}</td></tr>" for k, v in shown(run))
        body = f"<table>{cells}</table>" + "".join(results._repr_html_() for results in evaluated(run))
    return f"<p><b>{html.escape(str(run.path))}</b></p>{body}"


def _about(run: Recorded) -> list[str]:
    """In words, from the end of the log alone, which may be long."""
    about = [f"{run.config['model'].get('name')} on {run.config.get('data', {}).get('name')}", progress(run)]
    for results in evaluated(run)[:1]:
        name, value, _, _, unit, _ = next(iter(results.rows()), [""] * 6)
        about += [f"{results['split']} {name} {value} {unit}".strip()] if name else []
    return about

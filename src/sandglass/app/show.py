"""The figures of a recipe, at the end of training."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from sandglass import registry
from sandglass.errors import ConfigError
from sandglass.tasks.outcome import Outcome, write
from sandglass.tasks.task import perform
from sandglass.tasks.trained import Trained


def figures(trained: Trained, show: Mapping[str, Any]) -> list[Path]:
    """Writes the figures listed in ``show`` to ``figures/``.

    Args:
        trained: the model of a finished run.
        show: ``samples: [rows, columns]``, ``manifold: side``, ``reconstructions: n`` and ``tsne: examples``.

    Raises:
        ConfigError: unknown figure.
    """
    assert trained.run is not None
    for key in show:
        if key not in _DRAWN:
            raise ConfigError(f"A recipe cannot show '{key}'.{registry.nearest(key, list(_DRAWN))}")
    folder = trained.run.path / "figures"
    return [_DRAWN[key](trained, value, folder / f"{key}-{_size(value)}.png") for key, value in show.items()]


def _size(value: Any) -> str:
    """Part of a file name that distinguishes it from the report's figures."""
    return "x".join(map(str, value)) if isinstance(value, list) else str(value)


def samples(trained: Trained, value: Any, path: Path) -> Path:
    """A grid of samples."""
    rows, columns = value
    outcome = _done("generate", trained, number=rows * columns)
    return write(replace(outcome, width=columns), path)


def manifold(trained: Trained, value: Any, path: Path) -> Path:
    """The decoded latent plane."""
    return _written("manifold", trained, path, side=value)


def reconstructions(trained: Trained, value: Any, path: Path) -> Path:
    """Originals and their reconstructions."""
    return _written("reconstruct", trained, path, number=value)


def _done(task: str, trained: Trained, **options: Any) -> Outcome:
    return perform(registry.resolve("task", {"name": task, **options}), trained)


def _written(task: str, trained: Trained, path: Path, **options: Any) -> Path:
    return write(_done(task, trained, **options), path)


def tsne(trained: Trained, value: Any, path: Path) -> Path:
    """t-SNE of the codes of a number of test examples, coloured by class.

    van der Maaten and Hinton 2008, "Visualizing Data using t-SNE" (JMLR 9).
    """
    from matplotlib.figure import Figure

    from sandglass import running
    from sandglass.data.selecting import chosen, joined
    from sandglass.runs.storage import make_folder
    from sandglass.tasks.latent_space import embed
    from sandglass.tasks.trained import positions

    every = joined(chosen(trained.own, None, "test"))
    split = every.take(positions(len(every), value))
    embedding = embed(running.encode(trained.model, split), seed=0, limit=value)
    if embedding is None:
        raise ConfigError(f"There are too few distinct codes ({len(split)}) for a t-SNE figure.")
    x, y = embedding.numpy().T
    figure = Figure(figsize=(6, 5), layout="constrained")
    axes = figure.add_subplot()
    if split.y is None:
        axes.scatter(x, y, s=4)
    else:
        for number, name in enumerate(trained.classes):
            own = split.y.cpu().numpy() == number
            axes.scatter(x[own], y[own], s=4, label=name, color=f"C{number % 10}")
        axes.legend(markerscale=3, fontsize=8, ncols=2)
    axes.set_title(f"t-SNE of the codes of {len(split):,} examples")
    axes.set_xticks([])
    axes.set_yticks([])
    make_folder(path.parent)
    figure.savefig(path, dpi=120, metadata={"Software": None})
    return path


_DRAWN: dict[str, Any] = {"samples": samples, "manifold": manifold, "reconstructions": reconstructions, "tsne": tsne}

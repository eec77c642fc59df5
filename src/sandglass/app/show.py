"""What is drawn at the end of training: the report, and the figures that a recipe asks for."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from sandglass import registry
from sandglass.app.trained import Trained, opened, own_codes
from sandglass.data.dataset import Dataset
from sandglass.errors import ConfigError
from sandglass.runs.run import Run


def write_page(run: Run, data: Dataset) -> Path:
    """Writes ``report.html`` of a run."""
    from sandglass.reports.page import write_report

    device = run.config["training"]["device"]
    write_report(run, run.load_model(device=device), data, run.results())
    return run.path / "report.html"


def figures(run: Run, show: Mapping[str, Any]) -> list[Path]:
    """Writes the pictures that ``show`` names into ``figures/``.

    Args:
        run: finished.
        show: ``samples: [rows, columns]``, ``manifold: side``, ``reconstructions: n`` and ``tsne: examples``.

    Raises:
        ConfigError: something unknown.
    """
    for key in show:
        if key not in _DRAWN:
            raise ConfigError(f"A recipe cannot show '{key}'.{registry.nearest(key, list(_DRAWN))}")
    trained = opened(str(run.path), run.config["training"]["device"]) if show else None
    folder = run.path / "figures"
    return [_DRAWN[key](trained, value, folder / f"{key}-{_size(value)}.png") for key, value in show.items()]


def _size(value: Any) -> str:
    """Part of a file's name, so that the report's own figures of that kind stay apart."""
    return "x".join(map(str, value)) if isinstance(value, list) else str(value)


def samples(trained: Trained, value: Any, path: Path) -> Path:
    """A grid of samples."""
    from sandglass.app.files import sheet
    from sandglass.app.use import draw

    rows, columns = value
    return sheet(path, trained.transform, draw(trained, rows * columns, 0), columns)


def manifold(trained: Trained, value: Any, path: Path) -> Path:
    """The decoded latent plane."""
    from sandglass.app.files import sheet
    from sandglass.reports.latent import manifold as decoded

    return sheet(path, trained.transform, decoded(trained.model, value, codes=own_codes(trained)), value)


def reconstructions(trained: Trained, value: Any, path: Path) -> Path:
    """Originals over their reconstructions."""
    import torch

    from sandglass.app.files import sheet
    from sandglass.app.trained import dataset, examples, joined, spread

    split = spread(joined(examples(dataset(trained, None), None, "test")), value)
    x = torch.cat(list(trained.batches(split))).cpu()
    return sheet(path, trained.transform, torch.cat([x, trained.decode(trained.encode(split))]), len(x))


def tsne(trained: Trained, value: Any, path: Path) -> Path:
    """The codes of so many test examples in two dimensions, coloured by class.

    van der Maaten and Hinton 2008, "Visualizing Data using t-SNE" (JMLR 9).
    """
    from matplotlib.figure import Figure

    from sandglass.app.trained import dataset, examples, joined, spread
    from sandglass.reports.latent import embed
    from sandglass.reports.mosaic import make_folder

    data = dataset(trained, None)
    split = spread(joined(examples(data, None, "test")), value)
    embedding = embed(trained.encode(split), seed=0, limit=value)
    if embedding is None:
        raise ConfigError(f"There are too few different codes ({len(split)}) for a t-SNE figure.")
    x, y = embedding.numpy().T
    figure = Figure(figsize=(6, 5), layout="constrained")
    axes = figure.add_subplot()
    if split.y is None:
        axes.scatter(x, y, s=4)
    else:
        for number, name in enumerate(data.classes):
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

"""Sheets of pictures while training: from fixed noise, of averaged weights, and without a trace in the training."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import made
from helpers import Quiet, digest, fresh, make_loop, pictures, rows, stop_at
from sandglass import registry
from sandglass.data.dataset import Dataset
from sandglass.data.pixels import to_images
from sandglass.engine.sheets import FOLDER, columns_of, cut

NET = {"name": "conv", "width": 4, "hidden": 8}
DROPPING = {"name": "vit", "width": 8, "depth": 1, "heads": 2, "dropout": 0.2}
QUANTISED = {"net": NET, "codebook_size": 8, "code_dim": 2, "prior_width": 8, "prior_depth": 1}


class Drawn(Quiet):
    """Keeps the paths of the sheets."""

    def __init__(self) -> None:
        super().__init__()
        self.paths: list[Path] = []

    def drawn(self, path: Path) -> None:
        self.paths.append(path)


def train(path: Path, name: str = "vae", data: Dataset | None = None, **options: Any) -> tuple[list[Path], str]:
    """The sheets of a small run, and its digest; a clock that stands still leaves none out."""
    data = data or pictures()
    model_options = options.pop("model_options", {"latent_dim": 2, "net": {**NET, "norm": "batch"}})
    loop, run = make_loop(
        fresh(name, data, **model_options), data, path, progress=Drawn(), clock=lambda: 0.0,
        **{"epochs": 5, "batch_size": 16, "log_every": 3, "sheets": 4, **options},
    )  # fmt: skip
    loop.fit()
    assert not [text for text in loop.progress.said if "no more sheets" in text]  # type: ignore[attr-defined]
    return loop.progress.paths, digest(loop.model, run)  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("vae", {"ema": 0.9}),
        ("vae", {"model_options": {"latent_dim": 2, "net": DROPPING}}),
        ("gan", {}),
        ("cvae", {}),
        ("vq-vae", {"model_options": QUANTISED, "stage": {"prior": {"epochs": 3}}}),
    ],
)  # fmt: skip
def test_the_training_has_the_same_bits_with_and_without(name: str, options: dict[str, Any], tmp_path: Path) -> None:
    paths, with_sheets = train(tmp_path / "with", name, sheets=20, **options)
    none, without = train(tmp_path / "without", name, sheets=0, **options)
    assert with_sheets == without and len(paths) >= 20 and none == []
    assert not (tmp_path / "without" / FOLDER).exists()


def test_one_at_each_part_of_a_run_and_at_its_end(tmp_path: Path) -> None:
    paths, _ = train(tmp_path / "run")
    assert [path.name for path in paths] == [f"samples-{step:08d}.png" for step in (5, 10, 15, 20)]
    sheet = np.asarray(Image.open(paths[0]))
    assert len(cut(sheet[..., None], 8, 8)) == 64


@pytest.mark.parametrize("name", ["vae", "cvae", "gan"])
def test_all_are_drawn_from_the_same_noise(name: str, tmp_path: Path) -> None:
    """With a learning rate that moves nothing, two sheets are the same bytes; else they are not."""
    still, _ = train(tmp_path / "still", name, lr=1e-30, model_options={"latent_dim": 2, "net": NET})
    assert len({path.read_bytes() for path in still}) == 1
    moving, _ = train(tmp_path / "moving", name, lr=0.05)
    assert len({path.read_bytes() for path in moving}) == 4


def test_the_average_of_the_weights_is_shown(tmp_path: Path) -> None:
    """It changes no training: where the sheets of two runs differ, they are those of the average."""
    sheets = [train(tmp_path / str(ema), ema=ema, lr=0.05)[0] for ema in (0.0, 0.9)]
    assert all(a.read_bytes() != b.read_bytes() for a, b in zip(*sheets, strict=True))


def test_the_last_sheet_of_costly_samples_has_them_all(tmp_path: Path) -> None:
    """The earlier ones have 16 of the same: with a learning rate that moves nothing, the same pictures."""
    small = {"net": {"name": "conv", "width": 4}, "steps": 2}
    paths, _ = train(tmp_path / "run", "flow-matching", lr=1e-30, model_options=small)
    tiles = [cut(np.asarray(Image.open(path))[..., None], 8, 8) for path in paths]
    assert [len(t) for t in tiles] == [16, 16, 16, 64]
    assert all((t == tiles[-1][:16]).all() for t in tiles[:3])


def test_a_run_that_stops_early_has_a_last_sheet(tmp_path: Path) -> None:
    paths, _ = train(tmp_path / "run", epochs=50, sheets=2, lr=1e-30, early_stopping=3)
    assert len(paths) == 1 and int(paths[0].stem.split("-")[1]) < 100


def test_every_class_has_a_column(tmp_path: Path) -> None:
    paths, _ = train(tmp_path / "run", "cvae")
    sheet = np.asarray(Image.open(paths[-1]))
    assert sheet.shape[1] == 3 * 34 + 2, "three classes"


def test_stages_before_the_last_show_reconstructions(tmp_path: Path) -> None:
    data = pictures()
    paths, _ = train(
        tmp_path / "run", "vq-vae", data, model_options=QUANTISED, sheets=2, stage={"prior": {"epochs": 2}}
    )
    assert [path.name.split("-")[0] for path in paths] == ["reconstructions"] * 2 + ["samples"] * 2
    tiles = cut(np.asarray(Image.open(paths[0]))[..., None], 8, 8)
    columns = columns_of(8, 8)
    originals = to_images(data.splits["validation"].batch(torch.arange(8)).x, data.transform)
    assert (tiles[:columns, 2::4, 2::4] == originals).all()


@pytest.mark.parametrize("name", made.MODELS)
def test_every_model_shows_something_or_says_so(name: str, tmp_path: Path) -> None:
    spec = made.spec_for(name, "grey")
    data = made.dataset(spec)
    net = {"net": {"name": "conv", **made.NETS["conv"]}} if "net" in registry.declared(name).config["options"] else {}
    options = {**made.small(name), **net}
    paths, _ = train(tmp_path / "run", name, data, model_options=options, epochs=1, batch_size=8, sheets=1)
    assert paths and all(path.is_file() for path in paths)


def test_tables_have_none(tmp_path: Path) -> None:
    data = rows(torch.randn(40, 3), torch.randn(10, 3))
    paths, _ = train(tmp_path / "run", data=data, model_options={"latent_dim": 2, "net": "mlp"})
    assert paths == [] and not (tmp_path / "run" / "figures").exists()


def test_a_resumed_run_repeats_none(tmp_path: Path) -> None:
    data = pictures()
    found = []
    for resumed in (False, True):
        options = {"epochs": 5, "batch_size": 16, "sheets": 4, "progress": Drawn(), "clock": lambda: 0.0}
        loop, run = make_loop(fresh("vae", data, latent_dim=2, net=NET), data, tmp_path / "run", **options)
        if resumed:
            loop.fit(run.latest_checkpoint()[0])
        else:
            stop_at(loop, 11, lambda loop=loop: setattr(loop.signals, "stop", 15))
            with pytest.raises(SystemExit):
                loop.fit()
        found.append([int(path.stem.split("-")[1]) for path in loop.progress.paths])  # type: ignore[attr-defined]
    assert found == [[5, 10], [15, 20]]
    assert len(list((tmp_path / "run" / FOLDER).iterdir())) == 4


def test_a_sheet_that_fails_does_not_end_the_training(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = pictures()
    model = fresh("vae", data, latent_dim=2, net=NET)
    monkeypatch.setattr(type(model), "sample", lambda *a, **k: (_ for _ in ()).throw(ValueError("No sample.")))
    loop, _ = make_loop(model, data, tmp_path / "run", epochs=2, batch_size=16, clock=lambda: 0.0)
    loop.fit()
    said = [text for text in loop.progress.said if "no more sheets" in text]  # type: ignore[attr-defined]
    assert said == ["There will be no more sheets of samples: No sample."] and loop.now.step == 8


def test_slow_sheets_are_fewer(tmp_path: Path) -> None:
    """A clock that moves with every reading: sheets then take as long as steps, far above their share."""
    ticks: Iterator[int] = iter(range(10**6))
    data = pictures()
    loop, _ = make_loop(
        fresh("vae", data, latent_dim=2, net=NET), data, tmp_path / "run", epochs=25, batch_size=16, sheets=100,
        progress=Drawn(), clock=lambda: float(next(ticks)),
    )  # fmt: skip
    loop.fit()
    assert 2 <= len(loop.progress.paths) < 20  # type: ignore[attr-defined]


def test_other_shapes_and_channels(tmp_path: Path) -> None:
    for number, shape in enumerate([(3, 9, 14), (4, 8, 8), (1, 100, 40)]):
        data = pictures(40, shape)
        paths, _ = train(tmp_path / str(number), data=data, epochs=1, sheets=1)
        sheet = np.asarray(Image.open(paths[0]))
        columns = columns_of(*shape[1:])
        tiles = cut(sheet.reshape(*sheet.shape[:2], -1), *shape[1:])
        assert len(tiles) == columns**2

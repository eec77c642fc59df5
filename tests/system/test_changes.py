"""Augmentation and corruption in use: what a model is shown, exact resume, previews, and what is said of mistakes."""

from __future__ import annotations

import contextlib
import csv
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image

from helpers import digest, fresh, make_loop, pictures, rows, stop_at
from made import batch, dataset, small, spec_for
from sandglass import api, registry
from sandglass.app.main import main
from sandglass.core import Batch, Clock, Model
from sandglass.data.augment import AUGMENTATIONS, make_augmentation
from sandglass.data.corrupt import CORRUPTIONS, make_corruption
from sandglass.data.loading import Loader
from sandglass.engine.gradient import batch_shards
from sandglass.engine.options import Training
from sandglass.engine.train import spec_of
from sandglass.errors import ConfigError
from sandglass.reports.facts import facts
from sandglass.runs.run import Run

SMALL = {"net": {"name": "mlp", "widths": [16]}}
CHANGES = {
    "augment": ["flip", "rotate=20", "crop", "mixup=1"],
    "corrupt": ["gaussian", "mask", "salt-pepper@2", "jpeg"],
}


# what a model is shown


def test_unpaired_sets_are_cut_by_their_own_lengths() -> None:
    x, b = torch.arange(6.0)[:, None], torch.arange(4.0)[:, None]
    shards = batch_shards(Batch(x, beside={"b": Batch(b)}), 3)
    assert [len(s) for s in shards] == [2, 2, 2] and [len(s.beside["b"]) for s in shards] == [1, 1, 2]
    assert torch.equal(torch.cat([s.beside["b"].x for s in shards]), b)
    assert [len(s) for s in batch_shards(Batch(x, beside={"b": Batch(b[:2])}), 3)] == [3, 3]


def test_a_batch_is_damaged_and_has_what_it_was() -> None:
    data = pictures()
    augment, corrupt = make_augmentation("flip,rotate"), make_corruption("gaussian,mask")
    plain = Loader(data.train, 16, seed=3, augment=augment)
    loader = Loader(data.train, 16, seed=3, augment=augment, corrupt=corrupt)
    for step in (0, 3, 5):
        drawn, clean = loader.batch(step), plain.batch(step)
        assert "damaged" not in clean.given
        assert torch.equal(drawn.x, clean.x) and torch.equal(drawn.y, clean.y)
        damaged = corrupt(clean.x, drawn.index, 3, step // loader.steps_per_epoch)
        assert torch.equal(drawn.given["damaged"], damaged) and not torch.equal(damaged, clean.x)
        shards = batch_shards(drawn, 3)
        assert torch.equal(torch.cat([s.given["damaged"] for s in shards]), damaged)


SEEING = [name for name in registry.names("model") if registry.declared(name).config["options"].get("sees") == "auto"]


def denoiser(name: str) -> Model:
    data = dataset(spec_for(name, "grey"))
    known = registry.declared(name).config["options"]
    net = {k: v for k, v in SMALL.items() if k in known}
    return fresh(name, replace(data, spec=spec_of(data, Training(corrupt="gaussian"))), **small(name), **net)


@pytest.mark.parametrize("name", SEEING)
def test_a_model_that_denoises_sees_the_damaged_copy_and_is_compared_with_the_example(name: str) -> None:
    model = denoiser(name).eval()
    clean = batch(model.spec, 8)
    plain = {k: v for k, v in clean.given.items() if k != "damaged"}
    losses = []
    for damaged in (None, clean.x, 1 - clean.x, 9 * clean.x):
        torch.manual_seed(0)
        given = plain if damaged is None else {**plain, "damaged": damaged}
        phase = model.stages()[0].phases[0]
        losses.append(float(phase.loss(replace(clean, given=given), Clock()).loss.detach()))
    assert losses[0] == losses[1] and losses[2:] != 2 * losses[:1]


def test_the_likelihood_is_asked_for_the_clean_example() -> None:
    data = pictures()
    model = denoiser("vae")
    data = dataset(model.spec)
    clean = data.train.batch(slice(0, 8)).x
    damaged = make_corruption("gaussian")(clean, torch.arange(8), 0, 0)
    torch.manual_seed(0)
    parts = model.elbo(Batch(clean, given={"damaged": damaged}), Clock()).parts
    torch.manual_seed(0)
    q = model.posterior(damaged)
    expected = -model.p(q.rsample()).log_prob(clean)
    assert torch.equal(parts["distortion"], expected.detach())


# exact resume


@pytest.mark.parametrize("kind", ["pictures", "rows"])
def test_a_run_with_changes_resumes_exactly(kind: str, tmp_path: Path) -> None:
    x = torch.randn(40, 6, generator=torch.Generator().manual_seed(0))
    data = pictures(shape=(3, 8, 8)) if kind == "pictures" else rows(x, x[:10])
    changes = CHANGES if kind == "pictures" else {"corrupt": {"gaussian": 0.5, "mask": 0.2}}

    def loop_in(folder: str, **options: object):  # type: ignore[no-untyped-def]
        options = {"epochs": 3, "batch_size": 16, "accumulate": 2, **changes, **options}
        seen = replace(data, spec=spec_of(data, Training.of(options)))
        return make_loop(fresh("vae", seen, latent_dim=2, **SMALL), data, tmp_path / folder, **options)

    loop, run = loop_in("straight")
    loop.fit()
    expected = digest(loop.model, run)
    for k in (2, 5):
        loop, _ = loop_in(f"stop{k}")
        stop_at(loop, k, lambda loop=loop: setattr(loop.signals, "stop", 15))
        with pytest.raises(SystemExit):
            loop.fit()
        loop, run = loop_in(f"stop{k}")
        loop.fit(run.latest_checkpoint()[0])
        assert digest(loop.model, run) == expected, k
    for name in changes:  # each of them does something
        loop, run = loop_in(f"without {name}", **{name: ()})
        loop.fit()
        assert digest(loop.model, run) != expected


def test_a_run_keeps_every_strength(tmp_path: Path) -> None:
    data = pictures()
    asked = {"augment": "flip", "corrupt": {"mask": "@2"}}
    run = api.train("ae", data, out=tmp_path / "run", epochs=1, threads=1, model_options=SMALL, **asked)
    training = run.config["training"]
    assert training["augment"] == ["flip=0.5"] and training["corrupt"] == ["mask=0.2"]
    assert Training.of(training) == Training.of({**training, "augment": ("flip",), "corrupt": ["mask=0.2"]})


# mistakes are found before anything is written


@pytest.mark.parametrize(
    ("model", "changes", "message"),
    [
        ("gan", {"corrupt": "gaussian"}, "Models that can: aae, ae, .*vae"),
        ("vae", {"corrupt": "blur"}, "not for rows"),
        ("vae", {"augment": "flip"}, "rows"),
        ("vae", {"corrupt": "gausian"}, "Did you mean 'gaussian'"),
    ],
)
def test_what_cannot_be_is_refused(model: str, changes: dict[str, str], message: str, tmp_path: Path) -> None:
    data = rows(torch.randn(30, 4))
    with pytest.raises(ConfigError, match=message):
        api.train(model, data, out=tmp_path / "run", epochs=1, model_options=SMALL, **changes)
    assert main(["train", "gan", "--data", "digits", "--corrupt", "gaussian", "--dry-run"]) == 2
    assert not (tmp_path / "run").exists()


def test_help_names_every_change(capsys: pytest.CaptureFixture[str]) -> None:
    for command, known in (("train", [*AUGMENTATIONS, *CORRUPTIONS]), ("reconstruct", [*CORRUPTIONS])):
        with contextlib.suppress(SystemExit):
            main([command, "--help"])
        out = capsys.readouterr().out
        words = out.replace(",", " ").replace(";", " ").replace(":", " ").split()
        assert [name for name in known if name not in words] == [], command


# the preview


def preview(tmp_path: Path, *words: str, out: str = "sheet.png") -> np.ndarray:
    assert main(["preview", *words, "-o", str(tmp_path / out)]) == 0
    return np.asarray(Image.open(tmp_path / out))


def test_a_preview_shows_what_training_will_see(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The last column is the first example as the loader makes it in the third epoch."""
    words = ("--data", "digits", "-n", "2", "--augment", "rotate=20,flip", "--corrupt", "gaussian=0.3", "--seed", "4")
    picture = preview(tmp_path, *words)
    assert "2 examples, 3 changes" in capsys.readouterr().out
    assert np.array_equal(preview(tmp_path, *words, out="again.png"), picture)
    assert not np.array_equal(preview(tmp_path, *words[:-1], "5", out="other.png"), picture)
    data = api.load_data("digits")
    augment, corrupt = make_augmentation("rotate=20,flip"), make_corruption("gaussian=0.3")
    batch = Loader(data.train, len(data.train), seed=4, augment=augment, corrupt=corrupt, stream="train").batch(2)
    seen = (batch.given["damaged"] * 255).round().to(torch.uint8).numpy()
    size = 8 * 12
    last = picture[-16 - size : -16 : 12, -16 - size : -16 : 12, 0]  # one in twelve: the tiles are enlarged
    assert any(np.array_equal(last, one) for one in seen[:, 0])


def test_a_preview_of_everything(tmp_path: Path, photos: Path, capsys: pytest.CaptureFixture[str]) -> None:
    picture = preview(tmp_path, "--data", str(photos), "--size", "20x30", "-n", "3")
    assert f"{len(AUGMENTATIONS) + len(CORRUPTIONS)} changes" in capsys.readouterr().out
    assert picture.shape[-1] == 3 and picture.shape[1] > 90 * 14


@pytest.mark.parametrize("mode", ["RGBA", "L"])
def test_a_preview_of_large_and_transparent_pictures(mode: str, tmp_path: Path) -> None:
    folder = tmp_path / "pictures"
    folder.mkdir()
    for i in range(12):
        colour = (200, 10 * i, 0, 128) if mode == "RGBA" else 10 * i
        Image.new(mode, (420, 210), colour).save(folder / f"{i}.png")
    words = ("--data", str(folder), "-n", "1", "--augment", "flip,mixup")
    picture = preview(tmp_path, *words, out="sheet.jpg")
    assert picture.shape[1] < 7 * 192 + 100  # two changes, three epochs and the original


def test_a_preview_refuses(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    table = tmp_path / "table.csv"
    table.write_text("a,b\n" + "\n".join(f"{i},{i * i % 7}" for i in range(60)) + "\n")
    for words, code, message in (
        (["--data", str(table)], 2, "is a table"),
        (["--data", "digits", "-o", "x.pdf"], 2, ".png"),
        (["--data", "digits", "--augment", "rotat"], 2, "Did you mean 'rotate'"),
        (["--data", "nowhere"], 66, "nowhere"),
        ([], 2, "--data"),
    ):
        assert main(["preview", *words]) == code
        assert message in capsys.readouterr().err


# reconstructions of damaged examples, and the report


def test_reconstructing_damaged_pictures(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = str(tmp_path / "run")
    words = ["--net", "mlp", "--latent-dim", "3", "--limit", "100", "--threads", "1", "--epochs", "1"]
    assert (
        main(["train", "ae", "--data", "digits", "--corrupt", "gaussian=0.3", *words, "--out", run, "--no-report"]) == 0
    )
    told = facts(SimpleNamespace(run=Run(run), events=[]))
    assert "Training inputs were corrupted (gaussian=0.3)" in told
    capsys.readouterr()
    made = str(tmp_path / "r.png")
    assert main(["reconstruct", run, "-n", "5", "--corrupt", "gaussian=0.3", "-o", made]) == 0
    assert "squared error: corrupted 0.0" in capsys.readouterr().out
    plain, damaged = str(tmp_path / "p.npz"), str(tmp_path / "d.npz")
    assert main(["reconstruct", run, "-n", "5", "-o", plain]) == 0
    assert main(["reconstruct", run, "-n", "5", "--corrupt", "gaussian=0.3", "-o", damaged]) == 0
    before, after = np.load(plain), np.load(damaged)
    assert set(before) == {"original", "reconstruction"} and set(after) == {"corrupted", "denoised", "original"}
    assert np.array_equal(before["original"], after["original"])
    assert not np.array_equal(after["corrupted"], after["original"])
    assert main(["reconstruct", run, "--corrupt", "gausian"]) == 2


def test_reconstructing_damaged_rows(tmp_path: Path) -> None:
    table = tmp_path / "table.csv"
    table.write_text("a,b\n" + "\n".join(f"{i},{'xyz'[i % 3]}" for i in range(60)) + "\n")
    run, out = str(tmp_path / "run"), tmp_path / "rows.csv"
    words = ["--corrupt", "mask=0.5", "--epochs", "1", "--threads", "1", "--out", run, "--no-report"]
    assert main(["train", "vae", "--data", str(table), *words]) == 0
    assert main(["reconstruct", run, "-n", "4", "--corrupt", "mask=0.5", "-o", str(out)]) == 0
    with out.open(newline="") as file:
        found = list(csv.DictReader(file))
    assert [r["which"] for r in found[:3]] == ["corrupted", "denoised", "original"] and len(found) == 12

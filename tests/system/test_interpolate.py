"""Walks between two chosen examples, and between two draws of a model without an encoder."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

import sandglass
from sandglass import running
from sandglass.app.main import main
from sandglass.data.dataset import Split
from sandglass.errors import CapabilityError, ConfigError, DataError, NotFoundError
from sandglass.tasks.interpolate import circle

SMALL = {"epochs": 1, "net": {"name": "conv", "width": 4, "hidden": 8}, "sheets": 0}


@pytest.fixture
def run(photos: Path, tmp_path: Path) -> sandglass.Run:
    return sandglass.train("vae", photos, out=tmp_path / "run", data_options={"size": 8}, latent_dim=2, **SMALL)


def test_the_ends_are_files_names_or_numbers(run: sandglass.Run, photos: Path, tmp_path: Path) -> None:
    split = run_split(run)
    name = split.names[1]
    file = photos / name if (photos / name).exists() else Path(name)
    ways = [("0", name), ("0", Path(name).stem), ("0", str(file)), ("0", "1")]
    found = [
        sandglass.use("interpolate", run, from_=a, to=b, steps=5, split="train", out=tmp_path / f"{k}.png").x
        for k, (a, b) in enumerate(ways)
    ]
    assert all(x.shape == (5, 3, 8, 8) for x in found)
    assert all(torch.allclose(x, found[0], atol=1e-6) for x in found)
    model = sandglass.load(run)
    with torch.no_grad():
        for place, k in ((0, 0), (-1, 1)):
            assert torch.allclose(found[0][place], model.reconstruct(split.batch(slice(k, k + 1)))[0], atol=1e-5)
    assert main(["interpolate", str(run.path), "--from", str(file), "--to", "2", "-o", str(tmp_path / "walk.png")]) == 0


def run_split(run: sandglass.Run) -> Split:
    return sandglass.api.run_data(run).train


def test_a_name_is_looked_for_in_all_splits(run: sandglass.Run) -> None:
    splits = sandglass.api.run_data(run).splits
    ends = [splits[split].names[0] for split in ("train", "validation")]
    assert sandglass.use("interpolate", run, from_=ends[0], to=ends[1], steps=5).x.shape == (5, 3, 8, 8)
    with pytest.raises(NotFoundError, match="no example of that name"):
        sandglass.use("interpolate", run, from_=ends[0], to=ends[1], split="test")


def test_ends_that_are_not_there(run: sandglass.Run, photos: Path) -> None:
    def walk(**options: str) -> None:
        sandglass.use("interpolate", run, split="train", **options)

    with pytest.raises(ConfigError, match="--from and --to belong together"):
        walk(from_="1")
    with pytest.raises(NotFoundError, match="numbered from 0 to"):
        walk(from_="1", to="999")
    with pytest.raises(NotFoundError, match=r"no file nothing\.png, and no example of that name"):
        walk(from_="1", to="nothing.png")
    with pytest.raises(DataError, match="has 40 examples; name a file with one"):
        walk(from_="1", to=str(photos))
    with pytest.raises(ConfigError, match="an empty name was given"):
        walk(from_="", to="1")
    with pytest.raises(ConfigError, match="one pair; leave the number"):
        sandglass.use("interpolate", run, from_="1", to="2", number=3)


@pytest.mark.parametrize("name", ["gan", "conditional-gan"])
def test_a_gan_walks_between_draws(name: str, tmp_path: Path) -> None:
    run = sandglass.train(name, "digits", out=tmp_path / "run", latent_dim=4, **SMALL)
    walk = sandglass.use("interpolate", run, number=3, steps=4)
    assert walk.x.shape == (12, 1, 8, 8) and "between draws" in walk.said
    assert torch.equal(walk.x, sandglass.use("interpolate", run, number=3, steps=4).x)
    assert not torch.equal(walk.x, sandglass.use("interpolate", run, number=3, steps=4, seed=1).x)
    for options in ({"from_": "0", "to": "1"}, {"split": "train"}, {"data": "digits"}):
        with pytest.raises(CapabilityError, match="has no encoder and interpolates between draws from its prior"):
            sandglass.use("interpolate", run, **options)


def test_points_of_a_walk_are_distributed_as_the_prior() -> None:
    model = sandglass.build("gan", sandglass.Spec((2,)), latent_dim=50)
    with running.observing(model, 0, "walk"):
        codes = circle(model, 400, 5)
    assert codes.shape == (400, 5, 50)
    assert torch.allclose(codes.var((0, 2)), torch.ones(5), atol=0.05) and codes.mean((0, 2)).abs().max() < 0.05


def test_a_file_has_the_class_of_its_folder(photos: Path, tmp_path: Path) -> None:
    import shutil

    run = sandglass.train("cvae", photos, out=tmp_path / "run", data_options={"size": 8}, latent_dim=2, **SMALL)
    ends = {"from_": str(photos / "round" / "01.png"), "to": str(photos / "square" / "02.png")}
    assert sandglass.use("interpolate", run, **ends, steps=3).x.shape == (3, 3, 8, 8)
    shutil.copy(ends["to"], tmp_path / "new.png")
    with pytest.raises(
        DataError, match=r"needs the class of .*new\.png: put it into a folder of that name, one of round, square"
    ):
        sandglass.use("interpolate", run, from_="1", to=str(tmp_path / "new.png"))


def test_labels_of_the_data_are_not_looked_for_beside_a_single_picture(
    photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    names = sorted(str(path.relative_to(photos)) for path in photos.rglob("*.png"))
    table = tmp_path / "m.csv"
    table.write_text("file,kind\n" + "".join(f"{name},{'ab'[i % 2]}\n" for i, name in enumerate(names)))
    options = {"size": 8, "labels": f"{table}:kind"}
    run = sandglass.train("vae", photos, out=tmp_path / "run", data_options=options, latent_dim=2, **SMALL)
    one, two = (str(photos / name) for name in (names[0], names[-1]))
    words = ["--data", str(photos), "--labels", f"{table}:kind", "--from", one, "--to", two]
    assert main(["interpolate", str(run.path), *words, "-o", str(tmp_path / "walk.png")]) == 0, capsys.readouterr().err
    capsys.readouterr()
    for command in (["evaluate", "--metrics", "mse"], ["score", "-o", str(tmp_path / "s.csv")]):
        assert main([command[0], str(run.path), "--data", one, *command[1:]]) == 0
        said = " ".join("".join(capsys.readouterr()).split())
        assert "labels=" not in said and "it has 1 example, the run had 40" in said, said
    assert main(["evaluate", str(run.path), "--data", one, "--labels", "m.csv:kind"]) != 0
    said = " ".join("".join(capsys.readouterr()).split())
    assert "labels='m.csv:kind' names a column, a key or a table of file names" in said, said
    pattern = {"size": 8, "labels_from_names": "{label}/*.png"}
    run = sandglass.train("vae", photos, out=tmp_path / "other", data_options=pattern, latent_dim=2, **SMALL)
    assert main(["evaluate", str(run.path), "--data", one, "--metrics", "mse"]) == 0
    said = " ".join("".join(capsys.readouterr()).split())
    assert "labels_from_names" not in said and "it has 1 example," in said, said

"""What comes with examples and stands beside them: read, matched, split, stored, and drawn by the step."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

from companions import CHANCE, noise, save
from people import whole
from sandglass.core import Spec
from sandglass.data import derived
from sandglass.data.augment import make_augmentation
from sandglass.data.dataset import Dataset, Split
from sandglass.data.fingerprint import fingerprint
from sandglass.data.load import load_data
from sandglass.data.loading import Loader
from sandglass.data.transform import TableTransform, Transform
from sandglass.errors import ConfigError, DataError, NotFoundError


def planes(array: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(array if array.ndim == 3 else array[..., None]).movedim(-1, 0)


@pytest.fixture
def pair(tmp_path: Path) -> tuple[Path, dict[str, np.ndarray], dict[str, np.ndarray]]:
    """Photos and edges by name; the edges are grey, of another format, and of one there is none."""
    photos = {f"{i:02}": save(tmp_path / "photos" / "k" / f"{i:02}.png", 12, 10, 3) for i in range(20)}
    edges = {f"{i:02}": save(tmp_path / "edges" / "k" / f"{i:02}.bmp", 12, 10) for i in range(20) if i != 3}
    return tmp_path, photos, edges


def check_pairs(data: Dataset, photos: dict[str, np.ndarray], edges: dict[str, np.ndarray]) -> set[str]:
    """Every example of every split has its own companion."""
    seen = set()
    for split in data.splits.values():
        batch = split.batch(torch.arange(len(split)))
        gone = batch.absent.get("source", torch.zeros(len(split), dtype=torch.bool))
        for name, x, source, lacks in zip(split.names, batch.x, batch.given["source"], gone.tolist(), strict=True):
            key = Path(name).stem
            seen.add(key)
            assert torch.equal((x * 255).round().byte(), planes(photos[key]))
            assert lacks == (key not in edges)
            assert torch.equal(
                (source * 255).round().byte(), planes(edges[key]) * 1 if not lacks else source.byte() * 0
            )
    return seen


@pytest.mark.parametrize("cached", [False, True])
def test_pictures_of_equal_names_stay_together(pair: Any, cached: bool) -> None:
    folder, photos, edges = pair
    data = load_data(folder / "photos", given={"source": folder / "edges"}, cache=cached)
    assert data.spec.given == {"source": Spec((1, 12, 10), "unit")} and not data.spec.beside
    assert {s: len(part) for s, part in data.splits.items()} == {"train": 16, "validation": 2, "test": 2}
    assert len(check_pairs(data, photos, edges)) == 20
    assert sum(int(split.absent["source"].sum()) for split in data.splits.values() if split.absent) == 1
    assert any(note == "companion 'source': absent for 1 of the 20 pictures, such as k/03.png" for note in data.notes)
    again = load_data(**json.loads(json.dumps(data.source)))
    assert again.fingerprint == data.fingerprint and again.spec == data.spec
    alone = load_data(folder / "photos", cache=cached)
    assert alone.train.names == data.train.names and alone.fingerprint != data.fingerprint


def test_the_fingerprint_knows_every_part(pair: Any) -> None:
    folder, _, _ = pair
    options = {"given": {"source": folder / "edges"}}
    found = {load_data(folder / "photos", **options).fingerprint, load_data(folder / "photos").fingerprint}
    found.add(load_data(folder / "photos", given="source=" + str(folder / "edges"), cache=True).fingerprint)
    assert len(found) == 2  # in memory or in a file is the same
    save(folder / "edges" / "k" / "07.bmp", 12, 10)
    changed = {load_data(folder / "photos", **options, cache=c).fingerprint for c in (False, True)}
    assert len(changed) == 1
    found |= changed
    assert len(found) == 3  # one companion is another, also where the digest of the pictures is remembered
    (folder / "edges" / "k" / "08.bmp").unlink()
    found.add(load_data(folder / "photos", **options).fingerprint)
    found.add(load_data(folder / "photos", given="grey").fingerprint)
    found.add(load_data(folder / "photos", given="small=small=2").fingerprint)
    found.add(load_data(folder / "photos", beside={"b": folder / "edges"}).fingerprint)
    assert len(found) == 7


def test_a_fingerprint_without_companions_is_what_it_was() -> None:
    """That of the digits in a run of version 0.1.0."""
    assert load_data("digits").fingerprint == "15e12fa0aec1ff970f60d6d519c5978a99bf811d7d4a038b880864c6035eb51a"
    split = Split(torch.zeros(2, 3), given={"a": torch.zeros(2, 1)}, absent={"a": torch.tensor([False, True])})
    spec = Spec((3,), given={"a": Spec((1,))})
    other = {"train": Split(split.x, given=split.given)}
    assert fingerprint(spec, {"train": split}) != fingerprint(spec, other)


def test_what_cannot_be_matched_is_said(pair: Any) -> None:
    folder, _, _ = pair
    save(folder / "other" / "a.png", 12, 10)
    expected = r"'source': no picture in .*other has the same name as one in .*photos.*k/00\.png"
    with pytest.raises(DataError, match=expected):
        load_data(folder / "photos", given={"source": folder / "other"})
    with pytest.raises(NotFoundError, match=r"'source': there is no file or folder 'nowhere'"):
        load_data(folder / "photos", given="source=nowhere")
    with pytest.raises(DataError, match="pictures of the same names in another folder"):
        load_data(folder / "photos", given={"source": np.zeros((20, 12, 10), np.uint8)})
    save(folder / "edges" / "k" / "05.png", 12, 10)
    with pytest.raises(DataError, match=r"has 2 pictures for 05\.webp: k/05\.bmp, k/05\.png; keep one"):
        (folder / "photos" / "k" / "05.png").rename(folder / "photos" / "k" / "05.webp")
        load_data(folder / "photos", given={"source": folder / "edges"})
    (folder / "edges" / "k" / "05.png").unlink()
    save(folder / "edges" / "k" / "06.bmp", 9, 9)
    with pytest.raises(DataError, match=r"The companion 'source': The pictures have 2 sizes"):
        load_data(folder / "photos", given={"source": folder / "edges"})
    assert load_data(folder / "photos", given={"source": folder / "edges"}, size=8).spec.given["source"].shape[1:] == (
        8,
        8,
    )


def test_a_companion_that_cannot_be_read_is_absent(pair: Any) -> None:
    folder, photos, edges = pair
    (folder / "edges" / "k" / "11.bmp").write_bytes(b"nothing")
    (folder / "photos" / "k" / "12.png").write_bytes(b"nothing")
    data = load_data(folder / "photos", given={"source": folder / "edges"})
    del photos["12"], edges["11"]
    assert check_pairs(data, photos, edges) == set(photos)
    assert data.bad == (("k/12.png", "not a picture of a known format"),
                        ("source: k/11.bmp", "not a picture of a known format"))  # fmt: skip
    with pytest.raises(DataError, match="cannot be read"):
        load_data(folder / "photos", given={"source": folder / "edges"}, on_bad="stop")


def test_splits_and_classes_of_both_folders(tmp_path: Path) -> None:
    for split, n in (("train", 12), ("test", 4)):
        for label in "ab":
            for i in range(n):
                save(tmp_path / "x" / split / label / f"{i}.png", 6, 6, 3)
                save(tmp_path / "y" / split / label / f"{i}.png", 6, 6)
    data = load_data(tmp_path / "x", given={"source": tmp_path / "y"})
    assert data.classes == ("a", "b") and not data.train.absent and len(data.splits["test"]) == 8
    for name, source in zip(data.splits["test"].names, data.splits["test"].given["source"], strict=True):
        assert torch.equal(source, planes(np.array(Image.open(tmp_path / "y" / name))))


@pytest.mark.parametrize(
    ("half", "size", "own"),
    [("left", (8, 20, 3), np.s_[:, :10]), ("right", (8, 20, 3), np.s_[:, 10:]), ("top", (20, 8), np.s_[:10]),
     ("bottom", (21, 8), np.s_[11:])],
)  # fmt: skip
def test_two_pictures_in_one_file(tmp_path: Path, half: Any, size: tuple[int, ...], own: Any) -> None:
    files = [save(tmp_path / "p" / f"{i:02}.png", *size) for i in range(12)]
    data = whole(tmp_path / "p", pairs=half)
    other = {"left": np.s_[:, 10:], "right": np.s_[:, :10], "top": np.s_[10:], "bottom": np.s_[:10]}[half]
    assert torch.equal(data.train.x, torch.stack([planes(a[own]) for a in files]))
    assert torch.equal(data.train.given["source"], torch.stack([planes(a[other]) for a in files]))
    assert any("the middle line was dropped" in note for note in data.notes) == (half == "bottom")
    kept = whole(tmp_path / "p", pairs=half, cache=True)
    assert torch.equal(kept.train.x[:], data.train.x) and torch.equal(
        kept.train.given["source"][:], data.train.given["source"]
    )
    assert kept.fingerprint == data.fingerprint == load_data(**data.source).fingerprint
    one = whole(tmp_path / "p" / "03.png", pairs=half)
    assert torch.equal(one.train.given["source"][0], data.train.given["source"][3])
    assert whole(tmp_path / "p", pairs=half, size=4).spec.given["source"].shape[1:] == (4, 4)


def test_halves_in_processes_are_those_of_threads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from sandglass.data.sources import decoding

    for i in range(24):
        save(tmp_path / f"{i}.png", 8, 20, 3)
    here = whole(tmp_path, pairs="right")
    monkeypatch.setattr(decoding, "_MANY", 1)
    monkeypatch.setattr(decoding, "_AT_ONCE", 1)
    monkeypatch.setattr(decoding, "workers", lambda: 2)
    assert whole(tmp_path, pairs="right").fingerprint == here.fingerprint


def test_a_picture_without_halves_is_left_out(tmp_path: Path) -> None:
    for i in range(5):
        save(tmp_path / f"{i}.png", 8, 20)
    save(tmp_path / "thin.png", 8, 1)
    data = whole(tmp_path, pairs="left")
    assert data.bad[0] == ("thin.png", "a picture of 8x1 cannot be halved")
    with pytest.raises(ConfigError, match="pairs must be one of left, right, top, bottom or names, not 'up'"):
        load_data(tmp_path, pairs="up")  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="pairs needs picture files"):
        load_data(noise(9, 8, 8), pairs="left")
    with pytest.raises(ConfigError, match="already gives the companion 'source'"):
        load_data(tmp_path, pairs="left", given={"source": "grey"})
    with pytest.raises(ConfigError, match="is for a folder with trainA and trainB"):
        load_data(tmp_path, pairs="names")


@pytest.fixture
def domains(tmp_path: Path) -> Path:
    """As CycleGAN's data lies: 20 of A and 14 of B to train on, 5 and 4 to test; equal names are pairs."""
    for split, counts in (("train", {"A": 20, "B": 14}), ("test", {"A": 5, "B": 4})):
        for domain, n in counts.items():
            for i in range(n):
                save(tmp_path / "two" / f"{split}{domain}" / f"{i}.png", 6, 6, 3)
    return tmp_path / "two"


def test_a_folder_of_two_domains(domains: Path) -> None:
    data = load_data(domains)
    assert not data.spec.classes and data.spec.beside == {"b": Spec((3, 6, 6), "levels")}
    sizes = {s: (len(part), len(part.beside["b"])) for s, part in data.splits.items()}
    assert sizes == {"train": (18, 13), "validation": (2, 1), "test": (5, 4)}
    assert all(name.startswith("testB/") for name in data.splits["test"].beside["b"].names)
    assert load_data(**data.source).fingerprint == data.fingerprint
    assert load_data(domains, cache=True).fingerprint == data.fingerprint
    pairs = load_data(domains, pairs="names")
    assert not pairs.spec.beside and list(pairs.spec.given) == ["source"] and not pairs.train.absent
    for split in pairs.splits.values():
        for name, x, source in zip(split.names, split.x[:], split.given["source"][:], strict=True):
            assert torch.equal(x, planes(np.array(Image.open(domains / name))))
            assert torch.equal(source, planes(np.array(Image.open(domains / name.replace("B/", "A/")))))
    assert load_data(**pairs.source).fingerprint == pairs.fingerprint


def test_domains_need_both(domains: Path) -> None:
    for file in (domains / "trainB").iterdir():
        file.unlink()
    with pytest.raises(DataError, match=r"The unpaired set 'b': .* holds no picture"):
        load_data(domains)
    (domains / "trainB").rmdir()
    assert load_data(domains).classes == ("testA", "testB", "trainA")  # no such layout


def test_splits_of_a_source_have_companions_of_their_own() -> None:
    x = {"train": noise(20, 8, 8), "test": noise(6, 8, 8)}
    data = load_data(x, given={"source": {s: 255 - v for s, v in x.items()}}, validation=0)
    for split in data.splits.values():
        assert torch.equal(split.given["source"], 255 - split.x)
    with pytest.raises(DataError, match=r"it has 20 \(train\) rows for 20 \(train\), 6 \(test\) examples"):
        load_data(x, given={"source": x["train"]})


def test_columns_of_the_table(tmp_path: Path) -> None:
    people = pd.DataFrame({"age": CHANCE.integers(18, 90, 60), "size": CHANCE.normal(size=60)})
    people["town"] = CHANCE.choice(["Ulm", "Bern"], 60)
    people.loc[7, ["town", "size"]] = None
    people.to_csv(tmp_path / "people.csv", index=False)
    data = load_data(tmp_path / "people.csv", given="where=town+size", types="age=numeric,size=numeric")
    assert [c.name for c in data.spec.columns] == ["age"]
    assert [c.name for c in data.spec.given["where"].columns] == ["town", "size"]
    assert sum(int(p.absent["where"].sum()) for p in data.splits.values() if p.absent) == 1
    assert load_data(**data.source).fingerprint == data.fingerprint
    new = whole(people.iloc[:9], transform=data.transform)  # the model knows which columns they are
    assert new.spec.given.keys() == {"where"} and not any("left out" in note for note in new.notes)
    assert isinstance(data.transform.given["where"], TableTransform)
    back = data.transform.given["where"].inverse(new.train.given["where"])
    assert back["town"].tolist()[:7] == people["town"].tolist()[:7]
    with pytest.raises(DataError, match="'where': the table has no column 'twon'"):
        load_data(tmp_path / "people.csv", given={"where": ["town", "twon"]})


def test_derived_companions_follow_their_pictures() -> None:
    colours = torch.from_numpy(noise(40, 3, 16, 12))
    data = load_data(colours, given="grey,edges,small=small=4")
    shapes = {name: (s.shape, s.support) for name, s in data.spec.given.items()}
    assert shapes == {
        "grey": ((1, 16, 12), "levels"),
        "edges": ((1, 16, 12), "binary"),
        "small": ((3, 4, 3), "levels"),
    }
    batch = data.train.batch(torch.arange(5))
    for x, grey in zip(data.train.x, batch.given["grey"], strict=False):
        pillow = Image.fromarray(x.movedim(0, -1).numpy()).convert("L")
        assert torch.equal((grey[0] * 255).round().byte(), torch.from_numpy(np.array(pillow)))
    blocks = data.train.x[:5].double().unflatten(3, (3, 4)).unflatten(2, (4, 4)).mean((3, 5))
    assert (batch.given["small"] * 255 - blocks).abs().max() <= 0.5 + 1e-4
    assert set(batch.given["edges"].unique().tolist()) == {0.0, 1.0}
    loader = Loader(data.train, 8, seed=0, augment=make_augmentation("flip=1,shift=0.3,brightness=0.5"))
    changed = loader.batch(1)
    assert all(torch.equal(t, derived.make(data.train.made[n], changed.x)) for n, t in changed.given.items())
    assert not torch.equal(changed.given["small"], data.train.batch(changed.index).given["small"])
    new = whole(colours[:3], transform=Transform.from_dict(data.transform.to_dict()))
    assert new.train.made == data.train.made
    assert torch.equal(data.transform.given["grey"].apply(colours[0]), (batch_of(new)[0] * 255).byte())


def test_a_derivation_and_a_folder_of_its_name(pair: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    folder, photos, edges = pair
    monkeypatch.chdir(folder)
    with pytest.raises(DataError, match=r"write '\./edges' for the file or folder, 'edges=' for the derivation"):
        load_data("photos", given={"source": "edges"})
    for name in ("./edges", "edges/", Path("edges")):
        check_pairs(load_data("photos", given={"source": name}), photos, edges)
    made = load_data("photos", given={"source": "edges="})
    assert made.spec.given["source"].support == "binary"
    assert load_data(**made.source).fingerprint == made.fingerprint
    assert whole("photos", transform=made.transform).train.made == {"source": "edges"}
    with pytest.raises(DataError, match="derived by 'edges'; it cannot be derived by 'grey'"):
        whole("photos", transform=made.transform, given={"source": "grey"})


def test_every_derivation_is_documented() -> None:
    page = (Path(__file__).parents[2] / "docs" / "data.md").read_text()
    for name, kind in derived.DERIVED.items():
        usual = f"{kind.usual:g}" if kind.strength else ""
        assert f"| `{name}` | {' | '.join((kind.about, kind.strength, usual))} |".replace("  ", " ") in page.replace(
            "  ", " "
        )


def batch_of(data: Dataset) -> torch.Tensor:
    return data.train.batch(slice(0, len(data.train))).given["grey"]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"given": "grey"}, "'grey' leaves these pictures unchanged"),
        ({"given": "a=small=1"}, "must be a whole number from 2 to 64"),
        ({"given": "a=small=9"}, "are too small for 'small=9'"),
        ({"given": "a=grey=2"}, "takes no number"),
        ({"given": "source"}, "must be NAME=SOURCE"),
        ({"given": "a=edges,a=grey"}, "names 'a' twice"),
        ({"given": {"labels": "grey"}}, "cannot have the name 'labels'"),
        ({"given": {"x": "grey"}}, "cannot have the name 'x'"),
        ({"given": {"damaged": "grey"}}, "cannot have the name 'damaged'"),
        ({"beside": {"a b": "digits"}}, "cannot have the name 'a b'"),
        ({"given": 3}, "must be a mapping of names to sources, not an int"),
        ({"absent": {"tag": [True]}}, "names 'tag', which is not a companion"),
        ({"given": {"tag": np.ones((9, 2))}, "absent": {"tag": [True]}}, r"absent must be true or false for every"),
        ({"given": {"tag": np.ones((8, 2))}}, r"it has 8 \(train\) rows for 9 \(train\) examples"),
        ({"beside": "b=nowhere/"}, "The unpaired set 'b': There is no file"),
    ],
)
def test_bad_options_are_named(options: dict[str, Any], words: str) -> None:
    with pytest.raises((ConfigError, DataError, NotFoundError), match=words):
        whole(torch.from_numpy(noise(9, 1, 8, 8)), **options)


def test_rows_have_nothing_derived() -> None:
    with pytest.raises(DataError, match="'grey' needs pictures, which these examples are not"):
        load_data(np.random.default_rng(0).normal(size=(9, 3)), given="grey")


def test_a_model_folder_alone_reads_a_companion(pair: Any, tmp_path: Path) -> None:
    folder, _, edges = pair
    data = load_data(folder / "photos", given={"source": folder / "edges", "grey": "grey"}, size=8)
    held = Transform.from_dict(json.loads(json.dumps(data.transform.to_dict())))
    assert held == data.transform and held.spec() == data.spec
    source = held.given["source"]
    assert source.apply(Image.fromarray(edges["00"])).shape == (1, 8, 8)
    assert source.inverse(torch.rand(2, 1, 8, 8)).shape == (2, 8, 8)
    new = whole(folder / "edges", transform=source)
    assert new.spec == Spec((1, 8, 8), "unit")
    for name, place in (("source", folder / "edges"), ("grey", folder / "edges")):
        new = whole(folder / "photos", transform=held, given={name: place})
        assert list(new.spec.given) == [name, *(n for n in ["grey"] if n != name)] and new.spec.given[name].shape == (
            1,
            8,
            8,
        )
        assert new.transform == held
    new = whole(folder / "photos", transform=held)
    assert list(new.spec.given) == ["grey"]
    assert "the model was trained with a companion 'source', which was not given" in new.notes
    with pytest.raises(DataError, match=r"has no companion 'other'\. It has: source, grey"):
        load_data(folder / "photos", transform=held, given={"other": folder / "edges"})
    with pytest.raises(DataError, match=r"has no unpaired set 'b'\. It has: none"):
        load_data(folder / "photos", transform=held, beside={"b": folder / "edges"})

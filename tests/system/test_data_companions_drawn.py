"""Companions and unpaired sets in batches: loaded, augmented, taken, stored with a model."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from jsonargparse import ArgumentParser

from companions import arrays, noise, save
from people import whole
from sandglass import registry, rng
from sandglass.data import trained_on
from sandglass.data.augment import make_augmentation
from sandglass.data.companions import read_named
from sandglass.data.corrupt import make_corruption
from sandglass.data.dataset import Split
from sandglass.data.load import load_data
from sandglass.data.loading import Loader, in_order
from sandglass.data.transform import ImageTransform, Transform
from sandglass.errors import CheckpointError, ConfigError, DataError
from sandglass.runs.specification import to_plain


def test_companions_move_with_their_pictures() -> None:
    x = torch.from_numpy(noise(40, 3, 16, 16))
    split = Split(x, given={"same": x[:, :1].clone(), "tag": torch.rand(40, 2)}, absent={"same": torch.arange(40) < 5})
    for words in ("flip,vflip,shift=0.3", "rotate,scale,shift", "crop=0.5", "mixup=1"):
        batch = Loader(split, 16, seed=3, augment=make_augmentation(words)).batch(1)
        there = ~batch.absent["same"]
        assert torch.allclose(batch.given["same"][there], batch.x[there, :1], atol=1e-5), words
        assert not batch.given["same"][~there].any() and there.any()
        assert torch.equal(batch.given["tag"], split.given["tag"][batch.index])
        alone = Loader(Split(x), 16, seed=3, augment=make_augmentation(words)).batch(1)
        assert torch.equal(alone.x, batch.x)  # companions change no picture
    bright = Loader(split, 16, seed=3, augment=make_augmentation("brightness,contrast")).batch(0)
    assert torch.equal(bright.given["same"], split.batch(bright.index).given["same"])
    assert not torch.equal(bright.x, split.batch(bright.index).x)


def test_a_picture_mixed_with_one_that_lacks_a_companion_lacks_it() -> None:
    x = torch.from_numpy(noise(40, 1, 8, 8))
    split = Split(x, given={"same": x.clone()}, absent={"same": torch.arange(40) % 2 == 0})
    batch = Loader(split, 40, seed=0, augment=make_augmentation("mixup=1")).batch(0)
    assert 20 < int(batch.absent["same"].sum()) < 40


def test_companions_of_another_size_are_not_left_behind() -> None:
    split = Split(torch.rand(9, 1, 8, 8), given={"small": torch.rand(9, 1, 4, 4)})
    with pytest.raises(ConfigError, match="cannot move their companions 'small' of 4x4"):
        Loader(split, 4, seed=0, augment=make_augmentation("flip"))
    assert len(Loader(split, 4, seed=0, augment=make_augmentation("brightness")).batch(0)) == 4


def test_sets_beside_are_drawn_by_the_step() -> None:
    """Every own epoch is a permutation, they follow without a break, and a step alone decides."""
    for n, own, size in ((50, 30, 16), (50, 120, 16), (10, 3, 8)):
        split = Split(torch.arange(n).float()[:, None], beside={"b": Split(torch.arange(own).float()[:, None])})
        loader = Loader(split, size, seed=5)
        steps = range(4 * loader.steps_per_epoch)
        drawn = [loader.batch(step).beside["b"] for step in steps]
        assert [len(b) for b in drawn] == [len(loader.indices(step)) for step in steps]
        every = torch.cat([b.index for b in drawn])
        for epoch in range(len(every) // own):
            order = rng.permutation(own, 5, "order", "beside", "b", epoch)
            assert torch.equal(every[epoch * own : (epoch + 1) * own], order)
        assert torch.equal(torch.cat([b.x for b in drawn])[:, 0], every.float())
        for step in reversed(steps):  # as a run would that begins there
            assert torch.equal(Loader(split, size, seed=5).batch(step).beside["b"].index, drawn[step].index)


def test_order_and_draws_without_a_stream_are_what_they_were() -> None:
    x = torch.from_numpy(noise(30, 1, 8, 8))
    changes = {"augment": make_augmentation("flip,crop,mixup"), "corrupt": make_corruption("gaussian")}
    plain = Loader(Split(x, beside={"b": Split(x)}), 8, seed=2, **changes)
    named = Loader(Split(x, beside={"b": Split(x)}), 8, seed=2, **changes, stream="prior")
    for step, epoch in ((0, 0), (5, 1)):
        start = step % 4 * 8
        assert torch.equal(plain.indices(step), rng.permutation(30, 2, "order", epoch)[start : start + 8])
        assert torch.equal(named.indices(step), rng.permutation(30, 2, "order", "prior", epoch)[start : start + 8])
        index = plain.indices(step)
        clean = changes["augment"](x[index] / 255, index, 2, epoch)
        assert torch.equal(plain.batch(step).x, clean)
        assert torch.equal(plain.batch(step).given["damaged"], changes["corrupt"](clean, index, 2, epoch))
        mine = changes["augment"](x[named.indices(step)] / 255, named.indices(step), 2, epoch, "prior")
        assert torch.equal(named.batch(step).x, mine)
        damaged = changes["corrupt"](mine, named.indices(step), 2, epoch, "prior")
        assert torch.equal(named.batch(step).given["damaged"], damaged)
        other = changes["augment"](x[named.indices(step)] / 255, named.indices(step), 2, epoch)
        assert not torch.equal(other, mine)
    first = rng.permutation(30, 2, "order", "prior", "beside", "b", 0)[:8]
    assert torch.equal(named.batch(0).beside["b"].index, first)


def test_pictures_beside_are_changed_too() -> None:
    x = torch.from_numpy(noise(30, 1, 8, 8))
    split = Split(x, beside={"b": Split(x), "row": Split(torch.rand(7, 2))})
    augment = make_augmentation("flip=1")
    batch = Loader(split, 8, seed=0, augment=augment).batch(5)
    assert torch.equal(batch.beside["b"].x, (x[batch.beside["b"].index] / 255).flip(-1))
    assert torch.equal(batch.beside["row"].x, split.beside["row"].x[batch.beside["row"].index])
    half = Loader(split, 30, seed=0, augment=make_augmentation("flip"), dtype=torch.float64).batch(0)
    own, beside = ((b.x - x[b.index] / 255).abs().amax((1, 2, 3)) < 1e-6 for b in (half, half.beside["b"]))
    same = own[half.index.argsort()] == beside[half.beside["b"].index.argsort()]
    assert half.beside["b"].x.dtype == torch.float64 and not same.all()  # by draws of their own


def test_what_is_measured_comes_with_everything() -> None:
    data = arrays()
    found = [make() for make in in_order(data.splits["train"], 16, dtype=torch.float64)]
    assert [len(b) for b in found] == [16, 16, 8]
    positions = torch.cat([b.beside["b"].index for b in found])
    assert torch.equal(positions, torch.arange(40) % 24)
    assert torch.equal(torch.cat([b.given["tag"] for b in found]), data.train.given["tag"].double())
    assert torch.equal(torch.cat([b.absent["tag"] for b in found]), data.train.absent["tag"])
    assert all(b.given["source"].dtype == b.beside["b"].x.dtype == torch.float64 for b in found)


def test_a_split_is_taken_and_moved_whole() -> None:
    train = arrays().train
    index = torch.tensor([3, 1])
    some = train.take(index).to("cpu")
    assert len(some) == 2 and len(some.beside["b"]) == 24
    assert torch.equal(some.given["source"], train.given["source"][index])
    assert torch.equal(some.absent["tag"], train.absent["tag"][index])
    assert train.nbytes > train.x.nbytes + train.given["source"].nbytes


def test_limit_is_of_every_set() -> None:
    data = arrays(limit=9)
    assert (len(data.train), len(data.train.beside["b"])) == (9, 9)
    assert torch.equal(data.train.batch(slice(0, 9)).given["source"][:, :1], data.train.batch(slice(0, 9)).x)


def test_a_model_folder_whose_companion_does_not_fit_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = arrays()
    config = {"transform": data.transform.to_dict(), "spec": to_plain(data.spec), "classes": []}
    monkeypatch.setattr(trained_on, "config_of", lambda source: json.loads(json.dumps(config)))
    reading = trained_on.reading_of(tmp_path)
    assert reading["transform"] == data.transform
    new = whole(noise(9, 8, 8), given={"source": noise(9, 8, 8, 3)}, beside={"b": noise(7, 8, 8)}, **reading)
    assert list(new.spec.given) == ["source"] and new.spec.beside == data.spec.beside
    config["spec"]["given"]["damaged"] = config["spec"]["given"]["source"]  # training added it
    assert trained_on.transform_of(tmp_path) == data.transform
    for kind, name in (("given", "tag"), ("beside", "b")):
        good = config["spec"][kind][name]["shape"]
        config["spec"][kind][name]["shape"] = [*good[:-1], 7]
        with pytest.raises(CheckpointError, match=f"the transform of '{name}' makes"):
            trained_on.transform_of(tmp_path)
        config["spec"][kind][name]["shape"] = good


def test_pairs_for_a_model_of_one_of_them(tmp_path: Path) -> None:
    for i in range(12):
        save(tmp_path / "p" / f"{i}.png", 8, 16, 3)
    one = load_data(noise(20, 8, 8, 3)).transform
    new = whole(tmp_path / "p", pairs="left", transform=one)
    assert not new.spec.given and new.spec.shape == (3, 8, 8)
    paired = whole(tmp_path / "p", pairs="left")
    assert whole(tmp_path / "p", pairs="left", transform=paired.transform).fingerprint == paired.fingerprint


def test_arrays_by_position() -> None:
    data = arrays()
    assert data.source is None and data.spec.given["source"].shape == (3, 8, 8) and data.spec.given["tag"].shape == (2,)
    assert {s: (len(p), len(p.beside["b"])) for s, p in data.splits.items()} == {
        "train": (40, 24), "validation": (5, 3), "test": (5, 3),
    }  # fmt: skip
    assert sum(int(p.absent["tag"].sum()) for p in data.splits.values() if "tag" in p.absent) == 10
    tag = data.transform.given["tag"]
    for split in data.splits.values():
        batch = split.batch(slice(0, len(split)))
        assert torch.equal(batch.given["source"], batch.x.expand(-1, 3, -1, -1))
        there = ~batch.absent["tag"] if "tag" in batch.absent else torch.ones(len(split), dtype=torch.bool)
        back = torch.from_numpy(tag.inverse(batch.given["tag"]))
        assert torch.allclose(back[there], batch.x[there, 0, 0, :2].double() * 255, atol=1e-3)
        assert not batch.given["tag"][~there].any()
    train = data.train
    there = ~train.absent["tag"]
    assert train.given["tag"][there].mean(0).abs().max() < 1e-5  # by the training examples that have it


def test_gaps_make_companions_absent() -> None:
    x = torch.from_numpy(noise(30, 1, 8, 8))
    rows, maps = torch.randn(30, 3), torch.rand(30, 2, 8, 8)
    rows[4], maps[5] = float("nan"), float("nan")
    data = whole(x, given={"rows": rows, "maps": maps, "one": np.arange(30.0)})
    assert data.train.absent["rows"].nonzero().tolist() == [[4]] and data.train.absent["maps"].nonzero().tolist() == [
        [5]
    ]
    assert "one" not in data.train.absent and data.spec.given["one"].shape == (1,)
    assert torch.isfinite(data.train.batch(slice(0, 30)).given["maps"]).all()
    rows[6, 1] = float("nan")
    with pytest.raises(DataError, match=r"companion 'rows': 1 of its rows in train are partly missing"):
        whole(x, given={"rows": rows})


def test_a_flag_a_list_and_a_mapping_say_the_same() -> None:
    text = "source=edges/,grey,small=small=4"
    assert (
        read_named("given", text)
        == read_named("given", text.split(","))
        == read_named("given", read_named("given", text))
    )
    parser = ArgumentParser(exit_on_error=False)
    for option in registry.signature(load_data):
        if option.name in ("given", "beside", "pairs"):
            assert option.help
            parser.add_argument(f"--{option.name}", type=option.type, default=None)
    found = parser.parse_args([f"--given={text}", "--beside=b=horses/", "--pairs=left"])
    assert (found.given, found.beside, found.pairs) == (text, "b=horses/", "left")


def test_a_transform_without_companions_is_stored_as_before() -> None:
    kept = ImageTransform((4, 6), 3).to_dict()
    assert not {"given", "beside", "made"} & kept.keys()
    assert {ImageTransform((4, 6), 3), ImageTransform((4, 6), 3)} == {ImageTransform((4, 6), 3)}
    for bad in ({"given": 3}, {"given": {"a": {"kind": "image"}}}, {"given": {"a": kept | {"given": {"b": kept}}}}):
        with pytest.raises(ConfigError):
            Transform.from_dict(kept | bad)

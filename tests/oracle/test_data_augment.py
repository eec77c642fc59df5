"""Augmentation against what it must do in closed form."""

from __future__ import annotations

import math

import pytest
import torch

from sandglass.data.augment import AUGMENTATIONS, Augmentation, make_augmentation
from sandglass.errors import ConfigError

X = torch.rand(16, 3, 12, 10, generator=torch.Generator().manual_seed(0))
INDEX = torch.arange(16)


@pytest.mark.parametrize("name", [*AUGMENTATIONS, "all"])
def test_a_draw_depends_on_seed_epoch_and_index_alone(name):
    change = make_augmentation(list(AUGMENTATIONS) if name == "all" else [name])
    y = change(X, INDEX, 0, 0)
    assert not torch.equal(y, X)
    assert y.min() >= 0
    assert y.max() <= 1
    assert y.shape == X.shape
    order = torch.tensor([9, 2, 14])
    if name not in ("mixup", "all"):  # a mixture needs the rest of the batch
        assert torch.allclose(change(X[order], INDEX[order], 0, 0), y[order], atol=1e-6)
    assert not torch.equal(change(X, INDEX, 0, 1), y)
    assert not torch.equal(change(X, INDEX, 1, 0), y)
    assert name == "mixup" or not torch.equal(change(X[:1], INDEX[1:2], 0, 0), y[:1])


def test_no_strength_is_no_change():
    before = X.clone()
    assert torch.equal(Augmentation()(X, INDEX, 0, 0), X)
    assert make_augmentation([]) is None
    assert make_augmentation({"rotate": 0.0}) is None
    make_augmentation(list(AUGMENTATIONS))(X, INDEX, 0, 0)
    assert torch.equal(X, before)


def test_flip_always():
    assert torch.equal(Augmentation(flip=1.0)(X, INDEX, 0, 0), X.flip(-1))
    assert torch.equal(Augmentation(vflip=1.0)(X, INDEX, 0, 0), X.flip(-2))
    flipped = (
        (Augmentation(flip=0.5)(X[:1].expand(4000, -1, -1, -1), torch.arange(4000), 0, 0) != X[:1]).flatten(1).any(1)
    )
    assert abs(flipped.float().mean() - 0.5) < 4 * 0.5 / math.sqrt(4000)


def fixed(monkeypatch, **draws: float) -> None:
    """Every draw is in the middle, which changes nothing, but for those given."""
    from sandglass.data import augment

    row = torch.tensor([draws.get(name, 0.5) for name in augment._DRAWS])
    monkeypatch.setattr(augment, "uniform", lambda index, n, *parts: row.expand(len(index), n))


def test_shift_moves_whole_pixels(monkeypatch):
    fixed(monkeypatch, shift_x=1.0, shift_y=0.0)
    y = Augmentation(shift=0.25)(X, INDEX, 0, 0)  # 2.5 -> 2 pixels right (rounded to even), 3 up
    assert torch.allclose(y[..., :-3, 2:], X[..., 3:, :-2], atol=1e-5)
    assert torch.allclose(y[..., :-3, 0], X[..., 3:, 0], atol=1e-5)


def test_rotation_by_a_half_turn(monkeypatch):
    fixed(monkeypatch, rotate=1.0)
    assert torch.allclose(Augmentation(rotate=180.0)(X, INDEX, 0, 0), X.rot90(2, (-2, -1)), atol=1e-4)


def test_rotation_by_a_quarter_turn_keeps_pixels_square(monkeypatch):
    fixed(monkeypatch, rotate=1.0)
    x = torch.zeros(1, 1, 21, 41)
    x[0, 0, 10, 15:26] = 1  # a bar of 11 pixels along the long side
    y = Augmentation(rotate=90.0)(x, INDEX[:1], 0, 0)
    expected = torch.zeros_like(x)
    expected[0, 0, 5:16, 20] = 1
    assert torch.allclose(y, expected, atol=1e-3)


def test_scale_enlarges(monkeypatch):
    fixed(monkeypatch, scale=1.0)
    x = torch.zeros(1, 1, 40, 20)
    x[..., 17:23, 7:13] = 1
    assert Augmentation(scale=1.0)(x, INDEX[:1], 0, 0).sum() == pytest.approx(4 * 36, rel=0.02)


def test_light(monkeypatch):
    fixed(monkeypatch, brightness=1.0)
    assert torch.allclose(Augmentation(brightness=0.3)(X, INDEX, 0, 0), (X + 0.3).clamp(max=1))
    fixed(monkeypatch, contrast=0.0)
    y = Augmentation(contrast=1.0)(X, INDEX, 0, 0)
    assert torch.allclose(y, X.mean((1, 2, 3), keepdim=True).expand_as(X), atol=1e-6)


def test_mistakes():
    with pytest.raises(ConfigError, match="no augmentation 'blur'"):
        make_augmentation(["flip", "blur"])
    for strength in (-0.1, math.nan, 2.0, "much", True):
        with pytest.raises(ConfigError, match="'flip' must lie in 0 to 1"):
            make_augmentation({"flip": strength})
    with pytest.raises(ConfigError, match="not examples of shape"):
        make_augmentation(["flip"])(torch.rand(4, 5), INDEX[:4], 0, 0)

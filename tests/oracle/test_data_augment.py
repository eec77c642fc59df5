"""Augmentation against what it must do in closed form."""

from __future__ import annotations

import math

import pytest
import torch

from sandglass.core import Spec
from sandglass.data import augment
from sandglass.data.augment import AUGMENTATIONS, Augmentation, make_augmentation, mix, window
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
    with pytest.raises(ConfigError, match="Did you mean 'rotate'"):
        make_augmentation("rotat=3")
    with pytest.raises(ConfigError, match="has no severities"):
        make_augmentation("flip@3")
    with pytest.raises(ConfigError, match="rows"):
        make_augmentation("flip", Spec((5,)))
    with pytest.raises(ConfigError, match="not examples of shape"):
        make_augmentation(["flip"])(torch.rand(4, 5), INDEX[:4], 0, 0)


def test_what_is_asked_for_in_three_ways_is_the_same():
    asked = ("flip, rotate=20,crop=0.8", ["flip", "rotate=20", "crop=0.8"], {"flip": 0.5, "rotate": 20, "crop": 0.8})
    assert {make_augmentation(a) for a in asked} == {Augmentation(flip=0.5, rotate=20.0, crop=0.8)}


def test_the_draws_of_earlier_runs_stay():
    """The first pixel of every picture under all that there was at first: a resumed run must see what it saw."""
    names = ["flip", "vflip", "shift", "rotate", "scale", "brightness", "contrast"]
    x = torch.arange(3 * 12 * 10).view(1, 3, 12, 10).expand(4, -1, -1, -1) / 360
    seen = make_augmentation(names)(x, torch.tensor([0, 7, 100, 5]), 3, 2)[:, 0, 0, 0]
    assert torch.allclose(seen, torch.tensor(SEEN), atol=1e-6)
    more = make_augmentation([*names, "crop=1"])(x, torch.tensor([0, 7, 100, 5]), 3, 2)[:, 0, 0, 0]
    assert torch.equal(more, seen)


SEEN = [0.524621, 0.168037, 0.0, 0.184997]


def test_a_warp_looks_up_each_place_where_it_came_from():
    """The map from the output back to the input, written out for a grid that runs from -1 to 1 along both axes."""
    change = Augmentation(rotate=40.0, scale=0.5, shift=0.2)
    u = dict(zip(augment._DRAWS, augment.uniform(INDEX, 8, 0, 0, "augment").unbind(1), strict=True))
    h, w = X.shape[2:]
    dx, dy = (((2 * u[f"shift_{a}"] - 1) * 0.2 * n).round() * 2 / n for a, n in (("x", w), ("y", h)))
    angle, factor = (2 * u["rotate"] - 1) * math.radians(40), torch.exp((2 * u["scale"] - 1) * math.log(1.5))
    a, b = torch.cos(angle) / factor, torch.sin(angle) / factor * (h / w)
    c, d = -torch.sin(angle) / factor * (w / h), torch.cos(angle) / factor
    theta = torch.stack([a, b, -(a * dx + b * dy), c, d, -(c * dx + d * dy)], 1).view(-1, 2, 3)
    grid = torch.nn.functional.affine_grid(theta, list(X.shape), align_corners=False)
    expected = torch.nn.functional.grid_sample(X, grid, padding_mode="border", align_corners=False)
    assert torch.allclose(change(X, INDEX, 0, 0), expected, atol=1e-4)


def test_a_crop_enlarges_its_window(monkeypatch):
    x = torch.rand(1, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    quarter = tuple(torch.tensor([n]) for n in (0.25, 0.5, 0.5, 0.375))  # columns 4 to 12, rows 8 to 14
    monkeypatch.setattr(augment, "window", lambda *_: quarter)
    expected = torch.nn.functional.interpolate(x[..., 8:14, 4:12], (16, 16), mode="bilinear", align_corners=False)
    y = Augmentation(crop=0.5)(x, INDEX[:1], 0, 0)
    # Within, where the pixels beside the window do not come in.
    assert torch.allclose(y[..., 2:-2, 2:-2], expected[..., 2:-2, 2:-2], atol=1e-5)


def test_a_crop_of_a_turned_picture_is_one_warp(monkeypatch):
    down, across = torch.linspace(-2, 2, 40)[:, None], torch.linspace(-3, 3, 60)
    x = (0.5 + 0.4 * torch.sin(down + 0.5 * across) * torch.cos(across)).expand(16, 1, -1, -1)
    wide = tuple(torch.full((16,), n) for n in (0.2, 0.25, 0.7, 0.4))
    monkeypatch.setattr(augment, "window", lambda *_: wide)
    one = Augmentation(rotate=40.0, shift=0.1, crop=0.5)(x, INDEX, 0, 0)
    two = Augmentation(crop=0.5)(Augmentation(rotate=40.0, shift=0.1)(x, INDEX, 0, 0), INDEX, 0, 0)
    assert (one - two)[..., 3:-3, 3:-3].abs().max() < 0.02


def test_windows_have_their_share_and_lie_within():
    u = torch.rand(4000, 4, generator=torch.Generator().manual_seed(0))
    for least in (0.05, 0.5, 0.97, 1.0):
        share = least + (1 - least) * u[:, 3]
        left, top, width, height = window(share, u[:, :3], 4 / 3)
        assert torch.allclose(width * height, share, atol=1e-6)
        assert min(left.min(), top.min()) >= 0 and max((left + width).max(), (top + height).max()) <= 1 + 1e-6
        assert (width / height).max() <= 4 / 3 + 1e-5 and (height / width).max() <= 4 / 3 + 1e-5
    assert torch.equal(Augmentation(crop=1.0)(X, INDEX, 0, 0), X)


def test_a_mixture_is_convex_and_keeps_the_larger_share():
    """Of pictures that are one-hot, a mixture shows its shares."""
    x = torch.eye(64).view(64, 1, 8, 8)
    y = Augmentation(mixup=1.0)(x, torch.arange(64), 0, 0).flatten(1)
    assert torch.allclose(y.sum(1), torch.ones(64), atol=1e-6)
    kept = y.diagonal()
    assert kept.min() >= 0.5 and ((y > 0).sum(1) <= 2).all() and y.min() >= 0
    partner = (y - kept.diag()).argmax(1)
    assert partner.unique().numel() == 64 and (partner != torch.arange(64)).all()
    assert Augmentation(mixup=1.0)(x[:1], INDEX[:1], 0, 0).equal(x[:1])


def test_a_mixture_does_not_hang_on_the_order_of_the_batch():
    change, order = Augmentation(mixup=0.4), torch.randperm(16, generator=torch.Generator().manual_seed(0))
    assert torch.allclose(change(X[order], INDEX[order], 0, 0), change(X, INDEX, 0, 0)[order], atol=1e-6)
    assert not torch.equal(change(X, INDEX, 0, 1), change(X, INDEX, 0, 0))
    assert not torch.equal(change(X, INDEX, 1, 0), change(X, INDEX, 0, 0))


@pytest.mark.parametrize("a", [0.1, 0.2, 1.0, 4.0])
def test_the_larger_share_of_a_mixture_has_its_distribution(a):
    """Kolmogorov and Smirnov against the folded Beta(a, a); in double precision, for much of it is next to 1."""
    from scipy import stats

    beta, n = stats.beta(a, a), 4000
    u = torch.rand(n, 3, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    # Next to a picture of ones comes one of zeros: what is left is the share, or what it lacks of 1.
    u[:, 0] = torch.arange(n)
    y = mix((torch.arange(n) % 2).double()[:, None], a, u)[:, 0]
    assert stats.kstest(y[1::2].numpy(), lambda t: beta.cdf(t) - beta.cdf(1 - t)).pvalue > 1e-6


def test_real_numbers_are_not_cut_off():
    x = 4 * X - 2
    assert torch.equal(make_augmentation({"flip": 1}, Spec((3, 12, 10), "real"))(x, INDEX, 0, 0), x.flip(-1))
    assert make_augmentation({"flip": 1}, Spec((3, 12, 10), "unit"))(x, INDEX, 0, 0).min() == 0


def test_binarisation_draws_every_value_with_its_probability() -> None:
    """The mean over 4,000 draws of each value is the value, to five standard errors; a share of pictures is left."""
    many = X[:1].expand(4000, -1, -1, -1)
    ink = Augmentation(binarise=1.0)(many, torch.arange(4000), 0, 0)
    assert set(ink.unique().tolist()) == {0.0, 1.0}
    assert torch.all((ink.mean(0) - X[0]).abs() < 5 * (X[0] * (1 - X[0]) / 4000).sqrt() + 1e-6)
    half = Augmentation(binarise=0.5)(many, torch.arange(4000), 0, 0)
    changed = (half != many).flatten(1).any(1).float().mean()
    assert abs(float(changed) - 0.5) < 5 * 0.5 / 4000**0.5
    with pytest.raises(ConfigError, match="values in"):
        make_augmentation("binarise", Spec((1, 4, 4), "real"))

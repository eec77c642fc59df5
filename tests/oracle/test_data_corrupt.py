"""Corruption against what it must do in closed form, and against SciPy and Pillow."""

from __future__ import annotations

import io
import math

import numpy as np
import pytest
import torch
from torch import Tensor

from sandglass import rng
from sandglass.core import Column, Spec
from sandglass.data.corrupt import CORRUPTIONS, SCALES, Draws, blur, gaussian, jpeg, make_corruption, mask, salt_pepper
from sandglass.errors import ConfigError

Z = 4.9  # two-sided: a sound draw fails one in a million such tests, were it not fixed by its seed


def smooth(n: int, channels: int = 3, height: int = 24, width: int = 20) -> Tensor:
    """Soft blobs in the middle of the range, so that no corruption is cut off by much."""
    down, across = torch.linspace(-1, 1, height)[:, None], torch.linspace(-1, 1, width)
    phase = torch.linspace(0, 3, n * channels).view(n, channels, 1, 1)
    return 0.5 + 0.3 * torch.sin(3 * down + phase) * torch.cos(4 * across - phase)


X, INDEX = smooth(16), torch.arange(16)
DRAWS = Draws(torch.arange(64), (0,))


@pytest.mark.parametrize("name", [*CORRUPTIONS, "all"])
def test_a_draw_depends_on_seed_epoch_and_index_alone(name: str) -> None:
    damage = make_corruption(list(CORRUPTIONS) if name == "all" else name)
    before = X.clone()
    y = damage(X, INDEX, 0, 0)
    assert torch.equal(X, before) and not torch.equal(y, X)
    assert y.min() >= 0 and y.max() <= 1 and y.shape == X.shape and y.dtype == X.dtype
    order = torch.tensor([9, 2, 14])
    # A file of JPEG rounds: what differs in the last bit before it may differ by a level after it.
    assert (damage(X[order], INDEX[order], 0, 0) - y[order]).abs().max() <= (0.05 if name == "all" else 1e-6)
    if name not in ("blur", "jpeg"):
        assert not torch.equal(damage(X, INDEX, 0, 1), y)
        assert not torch.equal(damage(X, INDEX, 1, 0), y)
        assert not torch.equal(damage(X[:1], INDEX[1:2], 0, 0), y[:1])


@pytest.mark.parametrize("name", [*CORRUPTIONS])
def test_severity_is_a_scale(name: str) -> None:
    errors = [float((make_corruption(f"{name}@{s}")(X, INDEX, 0, 0) - X).square().mean()) for s in range(1, 6)]
    assert errors == sorted(errors) and errors[0] > 0 and errors[4] > 1.5 * errors[0]


def test_corruptions_act_in_the_order_named() -> None:
    first, second = (make_corruption(names)(X, INDEX, 0, 0) for names in ("gaussian,blur", "blur,gaussian"))
    roughness = [(y[..., 1:] - y[..., :-1]).square().mean() for y in (first, second)]
    assert roughness[0] < roughness[1] / 4


def test_gaussian_noise_has_its_moments() -> None:
    x = smooth(64)
    z = ((gaussian(x, 0.3, DRAWS) - x) / 0.3).double()
    n = z.numel()
    assert abs(z.mean()) < Z / math.sqrt(n)
    assert abs(z.square().mean() - 1) < Z * math.sqrt(2 / n)
    assert abs(z.pow(3).mean()) < Z * math.sqrt(15 / n)
    assert abs(z.pow(4).mean() - 3) < Z * math.sqrt(96 / n)
    for a, b in ((z[..., 1:], z[..., :-1]), (z[1:], z[:-1]), (z[:, 1:], z[:, :-1]), (z[..., 12:, :], z[..., :12, :])):
        assert abs((a * b).mean()) < Z / math.sqrt(a.numel())


def test_normal_numbers_are_normal() -> None:
    from scipy import stats

    z = rng.normal(torch.arange(400), 501, 0, "test")
    assert z.shape == (400, 501)
    assert stats.kstest(z.double().flatten().numpy(), "norm").pvalue > 1e-6
    a, b = z[:, :250].double(), z[:, 251:].double()  # the two numbers of a pair
    for f in (lambda t: t, lambda t: (t.square() - 1) / math.sqrt(2)):
        assert abs((f(a) * f(b)).mean()) < Z / math.sqrt(a.numel())


def test_salt_and_pepper_have_their_shares() -> None:
    x = smooth(64)
    y = salt_pepper(x, 0.2, DRAWS)
    changed = (y != x).all(1)
    assert torch.equal(changed, (y != x).any(1))  # a pixel in all its channels
    assert set(y[changed[:, None].expand_as(y)].tolist()) == {0.0, 1.0}
    n = changed.numel()
    assert abs(float(changed.float().mean()) - 0.2) < Z * math.sqrt(0.2 * 0.8 / n)
    assert abs(float((y[:, 0] == 1).float().mean()) - 0.1) < Z * math.sqrt(0.1 * 0.9 / n)
    assert abs(float((y[:, 0] == 0).float().mean()) - 0.1) < Z * math.sqrt(0.1 * 0.9 / n)


@pytest.mark.parametrize("sigma", [0.3, 1.0, 2.5, 30.0])
def test_blur_is_that_of_scipy(sigma: float) -> None:
    from scipy import ndimage

    x = torch.rand(2, 3, 24, 17, generator=torch.Generator().manual_seed(0)).double()
    expected = ndimage.gaussian_filter(x.numpy(), (0, 0, sigma, sigma), mode="reflect", truncate=6.0)
    assert np.allclose(blur(x, sigma).numpy(), expected, atol=1e-9)


@pytest.mark.parametrize("sigma", [0.3, 1.0, 2.5, 30.0])
def test_blur_keeps_constants_and_sums(sigma: float) -> None:
    x = torch.rand(2, 3, 24, 17, generator=torch.Generator().manual_seed(0))
    assert torch.allclose(blur(x, sigma).sum((2, 3)), x.sum((2, 3)), rtol=1e-5)
    assert torch.allclose(blur(torch.full_like(x, 0.7), sigma), torch.full_like(x, 0.7), atol=1e-6)
    # The naive way, a convolution with zeros around, keeps neither.
    naive = torch.nn.functional.avg_pool2d(x, 5, stride=1, padding=2)
    assert not torch.allclose(naive.sum((2, 3)), x.sum((2, 3)), rtol=1e-3)


@pytest.mark.parametrize("share", [0.05, 0.25, 0.6, 0.95])
def test_a_mask_hides_its_share(share: float) -> None:
    x = torch.ones(64, 2, 40, 30)
    left, seen = mask(x, share, DRAWS)
    assert torch.equal(left, seen.to(x.dtype)) and torch.equal(seen[:, 0], seen[:, 1])
    hidden = ~seen[:, 0]
    down, across = hidden.any(2), hidden.any(1)
    assert torch.equal(hidden, down[:, :, None] & across[:, None, :])  # one rectangle
    for side in (down, across):  # without holes
        assert ((side[:, 1:] != side[:, :-1]).sum(1) <= 2).all()
    # Either side is off by less than a pixel.
    high, wide = down.sum(1), across.sum(1)
    assert ((high - 1) * (wide - 1) < share * 1200).all() and ((high + 1) * (wide + 1) > share * 1200).all()
    assert abs(hidden.float().mean() - share) < 0.02
    if share < 0.5:
        assert high.unique().numel() > 3 and hidden.float().mean(0).std() < hidden.float().mean()


def test_a_mask_drops_cells_of_rows_and_whole_categories() -> None:
    index = torch.arange(4000)
    x = torch.ones(4000, 6)
    left, seen = mask(x, 0.3, Draws(index, (0,)))
    assert torch.equal(left, seen.to(x.dtype))
    assert ((1 - left.mean(0) - 0.3).abs() < Z * math.sqrt(0.3 * 0.7 / 4000)).all()
    columns = (Column("a"), Column("b", "categorical", 3, ("u", "v", "w")), Column("c"), Column("d"))
    damage = make_corruption("mask=0.3", Spec((6,), columns=columns))
    whole = damage(x, index, 0, 0)
    assert torch.equal(whole[:, 1], whole[:, 2]) and torch.equal(whole[:, 1], whole[:, 3])
    assert not torch.equal(whole[:, 0], whole[:, 1])
    assert ((1 - whole.mean(0) - 0.3).abs() < Z * math.sqrt(0.3 * 0.7 / 4000)).all()


@pytest.mark.parametrize("channels", [1, 3, 4])
def test_jpeg_is_that_of_pillow(channels: int) -> None:
    from PIL import Image

    x = smooth(2, channels)
    error = jpeg(x, 100) - x
    assert error[:, : 1 if channels == 1 else 3].square().mean().sqrt() < 4 / 255  # of colours, at half the resolution
    assert channels > 1 or error.abs().max() < 1.5 / 255
    pixels = (x[0] * 255).round().to(torch.uint8).movedim(0, -1).numpy()
    file = io.BytesIO()
    Image.fromarray(pixels[..., 0] if channels == 1 else pixels[..., :3]).save(file, "JPEG", quality=10)
    expected = torch.from_numpy(np.array(Image.open(file)).reshape(24, 20, -1)).movedim(-1, 0) / 255
    assert torch.equal(jpeg(x, 10)[0, :3], expected)
    assert channels < 4 or torch.equal(jpeg(x, 10)[:, 3], x[:, 3])
    with pytest.raises(ConfigError, match="not 2"):
        jpeg(x[:, :2].expand(-1, 2, -1, -1), 10)


def test_numbers_beyond_the_unit_interval_stay() -> None:
    x = 5 * X
    real = make_corruption("gaussian=0.1,blur=0.3", Spec((3, 24, 20), "real"))
    assert real(x, INDEX, 0, 0).max() > 3
    assert make_corruption("gaussian=0.1")(x, INDEX, 0, 0).max() == 1
    rows = make_corruption("gaussian=0.1,mask=0.1", Spec((6,)))
    assert rows(torch.full((4, 6), 7.0), INDEX[:4], 0, 0).max() > 5


MISTAKES = [
    ("gausian", None, "Did you mean 'gaussian'"),
    ("gaussian@6", None, "severities @1 to @5, not '@6'"),
    ("gaussian=-1", None, "must lie in 0 to 10"),
    ("mask=nan", None, "must lie in 0 to 1"),
    ("blur,blur=2", None, "given twice"),
    ("gaussian=much", None, "not 'much'"),
    ({"mask": True}, None, "not True"),
    ([{"mask": 1}], None, "by a text"),
    ("blur", Spec((5,)), "For such data: gaussian, mask"),
    ("jpeg", Spec((3, 8, 8), "real"), "For such data: gaussian, blur, mask"),
]


@pytest.mark.parametrize(("given", "spec", "message"), MISTAKES, ids=[str(m[0]) for m in MISTAKES])
def test_mistakes(given: object, spec: Spec | None, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        make_corruption(given, spec)


def test_pictures_only() -> None:
    with pytest.raises(ConfigError, match="not for rows"):
        make_corruption("salt-pepper")(torch.rand(4, 5), INDEX[:4], 0, 0)
    assert make_corruption("") is None and make_corruption({"blur": 0}) is None
    assert all(len(scale.severities) == 5 for scale in SCALES.values())

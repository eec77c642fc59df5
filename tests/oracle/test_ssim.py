"""Structural similarity against scikit-image, torchmetrics, windows one by one, and closed forms."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import numpy as np
import pytest
import torch
from skimage.metrics import structural_similarity
from torch import Tensor

from helpers import fresh, pictures
from sandglass.core import Spec
from sandglass.data.dataset import Split
from sandglass.distributions.similarity import WEIGHTS, multiscale, scales, similarity
from sandglass.errors import ConfigError, DataError
from sandglass.metrics.measure import measure

C1, C2 = 0.01**2, 0.03**2


def pair(side: int, seed: int = 0, channels: int = 1, n: int = 1) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    x = torch.rand(n, channels, side, side + 5, generator=generator, dtype=torch.float64)
    return x, (0.7 * x + 0.3 * torch.rand(x.shape, generator=generator, dtype=torch.float64)).clamp(0, 1)


@pytest.mark.parametrize("side", [11, 12, 28, 40])
@pytest.mark.parametrize("channels", [1, 3, 4])
@pytest.mark.parametrize("span", [1.0, 7.5])
def test_ssim_is_scikit_image_s(side: int, channels: int, span: float) -> None:
    x, y = pair(side, side, channels, n=3)
    ours = similarity(span * x, span * y, 11, span)[0].mean(1)
    options: dict[str, Any] = {"gaussian_weights": True, "sigma": 1.5, "use_sample_covariance": False}
    for a, b, value in zip(x.numpy(), y.numpy(), ours.tolist(), strict=True):
        theirs = structural_similarity(span * a, span * b, data_range=span, channel_axis=0, **options)
        assert value == pytest.approx(theirs, abs=1e-9)


@pytest.mark.parametrize(("shape", "window"), [((7, 9), 7), ((8, 8), 7), ((3, 20), 3), ((1, 5), 1)])
def test_a_smaller_window_is_the_same_formula(shape: tuple[int, int], window: int) -> None:
    random = np.random.default_rng(0)
    x, y = random.random((2, *shape))
    place = np.arange(window) - window // 2
    weights = np.exp(-(place[:, None] ** 2 + place[None] ** 2) / (2 * 1.5**2))
    weights /= weights.sum()
    full, structure = [], []
    for i in range(shape[0] - window + 1):
        for j in range(shape[1] - window + 1):
            a, b = (t[i : i + window, j : j + window] for t in (x, y))
            ma, mb = (weights * a).sum(), (weights * b).sum()
            va, vb = (weights * (a - ma) ** 2).sum(), (weights * (b - mb) ** 2).sum()
            cov = (weights * (a - ma) * (b - mb)).sum()
            structure.append((2 * cov + C2) / (va + vb + C2))
            full.append((2 * ma * mb + C1) / (ma**2 + mb**2 + C1) * structure[-1])
    ours = similarity(*(torch.tensor(t)[None, None] for t in (x, y)), window)
    assert [float(t) for t in ours] == pytest.approx([np.mean(full), np.mean(structure)], abs=1e-12)


def test_identities() -> None:
    x, y = pair(30, channels=2, n=4)
    assert torch.equal(similarity(x, x, 11)[0], torch.ones(4, 2, dtype=torch.float64))
    assert torch.equal(similarity(x, y, 11)[0], similarity(y, x, 11)[0])
    assert torch.equal(multiscale(x, y, 2), multiscale(y, x, 2))
    assert torch.equal(multiscale(x, x, 2), torch.ones(4, 2, dtype=torch.float64))
    full, structure = similarity(x, 1 - x, 11)
    assert (structure < 0).all() and (full < 0).all() and (multiscale(x, 1 - x, 2) == 0).all()


@pytest.mark.parametrize(("a", "b"), [(0.0, 1.0), (0.2, 0.7), (0.5, 0.5)])
def test_of_two_constants_only_the_luminance_differs(a: float, b: float) -> None:
    x, y = (torch.full((1, 1, 24, 24), v, dtype=torch.float64) for v in (a, b))
    luminance = (2 * a * b + C1) / (a * a + b * b + C1)
    full, structure = similarity(x, y, 11)
    assert float(full) == pytest.approx(luminance, abs=1e-9) and float(structure) == pytest.approx(1, abs=1e-9)
    weight = WEIGHTS[1] / (WEIGHTS[0] + WEIGHTS[1])
    assert float(multiscale(x, y, 2)) == pytest.approx(luminance**weight, abs=1e-9)


def test_many_pictures_are_taken_in_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    x, y = pair(20, channels=2, n=7)
    whole = similarity(x, y, 11)
    monkeypatch.setattr("sandglass.distributions.similarity._ELEMENTS", 3 * 2 * 20 * 25)
    assert all(torch.equal(a, b) for a, b in zip(whole, similarity(x, y, 11), strict=True))


def test_products_are_convolutions(monkeypatch: pytest.MonkeyPatch) -> None:
    x, y = pair(30, channels=2, n=3)
    dense = similarity(x, y, 11)
    monkeypatch.setattr("sandglass.distributions.similarity._DENSE", 8)
    for a, b in zip(dense, similarity(x, y, 11), strict=True):
        assert torch.allclose(a, b, rtol=0, atol=1e-12)


# Made by torchmetrics 1.9.0 under Python 3.13, in float64, of what wave() makes: at every scale but the last its
# _ssim_update(..., return_contrast_sensitivity=True), at the last the map of return_full_image without its five border
# pixels, each mean to the power of its weight. Its own MS-SSIM keeps that border, which sees a mirrored picture.
TORCHMETRICS = {
    (24, 2): 0.9306645928675554,
    (44, 3): 0.9239294180768642,
    (90, 4): 0.8996091180779154,
    (181, 5): 0.8691662284160563,
}


def wave(side: int) -> tuple[Tensor, Tensor]:
    row, column = np.mgrid[:side, : side + 8] / side
    x = 0.5 + 0.5 * np.sin(7 * row + 3 * np.cos(11 * column))
    y = np.clip(0.8 * x + 0.1 + 0.15 * np.sin(40 * row * column), 0, 1)
    return torch.tensor(x)[None, None], torch.tensor(y)[None, None]


@pytest.mark.parametrize("case", TORCHMETRICS)
def test_ms_ssim_is_torchmetrics_s(case: tuple[int, int]) -> None:
    side, count = case
    assert scales(Spec((1, side, side + 8), "unit"), 11) == count
    assert float(multiscale(*wave(side), count)) == pytest.approx(TORCHMETRICS[case], abs=1e-12)


def test_one_scale_is_ssim() -> None:
    x, y = wave(40)
    assert float(multiscale(x, y, 1)) == pytest.approx(float(similarity(x, y, 11)[0]), abs=1e-12)


def test_the_measures_compare_with_the_reconstruction() -> None:
    data = pictures(12, (3, 24, 24))
    model = fresh("ae", data, latent_dim=2, net={"name": "mlp", "widths": [8]})
    ssim, ms_ssim = measure(model, data.train, names=["ssim", "ms_ssim"])
    with torch.no_grad():
        x = data.train.batch(slice(0, 12)).x
        again = model.eval().reconstruct(x)
    each = similarity(x, again, 11)[0].mean(1)
    assert (ssim.value, ssim.stderr) == pytest.approx(
        (float(each.mean()), float(each.std() / math.sqrt(12))), abs=1e-12
    )
    assert ms_ssim.value == pytest.approx(float(multiscale(x, again, 2).mean()), abs=1e-12)
    few = "few examples"
    assert (ssim.n, ssim.note) == (12, few) and ms_ssim.note == f"2 of 5 scales, weights normalised to sum to 1; {few}"


def test_what_is_unusual_is_said_in_the_note() -> None:
    data = pictures(30)
    model = fresh("ae", data, latent_dim=2, net={"name": "mlp", "widths": [8]})
    assert measure(model, data.train, names=["ssim"])[0].note == "window 7x7, for images smaller than 11"
    note = measure(model, data.train, names=["ms_ssim"], ms_ssim={"window": 3})[0].note
    assert note == "2 of 5 scales, weights normalised to sum to 1; window 3x3"
    with pytest.raises(DataError, match=r"at least 22x22 pixels.*8x8.*'ssim'"):
        measure(model, data.train, names=["ms_ssim"])
    assert "ssim" in {r.name for r in measure(model, data.train)}, "small pictures do not stop what names nothing"
    for window in (1, 4):
        with pytest.raises(ConfigError, match=f"odd window of at least 3, not {window}"):
            measure(model, data.train, names=["ms_ssim"], ms_ssim={"window": window})


def test_a_range_that_is_not_known_is_that_of_the_examples() -> None:
    x = 40 * torch.rand(600, 1, 22, 22, generator=torch.Generator().manual_seed(0)) - 10
    x[3, 0, 0, 0], x[599, 0, 21, 21] = -12, 38
    data = dataclasses.replace(pictures(12, (1, 22, 22)), spec=Spec((1, 22, 22)), splits={"train": Split(x)})
    model = fresh("ae", data, latent_dim=2, net={"name": "mlp", "widths": [8]})
    result, several = measure(model, data.train, names=["ssim", "ms_ssim"])
    assert result.note == "data range 50, that of the examples" and several.note.endswith(result.note)
    with torch.no_grad():
        again = model.eval().reconstruct(x)
    assert result.value == pytest.approx(float(similarity(x, again, 11, 50.0)[0].mean()), abs=1e-12)
    assert several.value == pytest.approx(float(multiscale(x, again, 2, 11, 50.0).mean()), abs=1e-12)
    black = measure(model, Split(torch.zeros(30, 1, 22, 22)), names=["ssim"])[0]
    assert black.note == "data range 1, that of the examples" and math.isfinite(black.value)


def test_a_span_only_sets_the_scale() -> None:
    x, y = pair(48)
    for f in (lambda a, b, span: multiscale(a, b, 3, 11, span), lambda a, b, span: similarity(a, b, 11, span)[0]):
        assert float(f(9 * x, 9 * y, 9.0)) == pytest.approx(float(f(x, y, 1.0)), abs=1e-12)
        assert float(f(9 * x, 9 * y, 1.0)) != pytest.approx(float(f(x, y, 1.0)), abs=1e-6)


def test_gaps_are_refused() -> None:
    data = pictures(12)
    split = dataclasses.replace(data.train, mask=torch.ones(12, 1, 8, 8, dtype=torch.bool))
    model = fresh("vae", data, latent_dim=2, net={"name": "mlp", "widths": [8]})
    for name in ("ssim", "ms_ssim"):
        with pytest.raises(DataError, match=f"'{name}' needs complete examples"):
            measure(model, split, names=[name])
    assert "ssim" not in {r.name for r in measure(model, split)}

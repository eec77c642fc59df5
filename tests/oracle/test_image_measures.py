"""Patches, spectrum and sharpness against closed forms and images made by hand."""

from __future__ import annotations

import math
import os
from pathlib import Path

import pytest
import torch
from torch import Tensor

import artefacts
from artefacts import soft
from helpers import Draws
from sandglass.core import Spec
from sandglass.data.dataset import Split
from sandglass.data.load import load_data
from sandglass.metrics import patches, sharpness, spectrum
from sandglass.metrics.images import quantised
from sandglass.metrics.measure import measure


def generator() -> torch.Generator:
    return torch.Generator().manual_seed(1)


def test_samples_are_rounded_to_the_levels_of_the_data() -> None:
    x = torch.tensor([[-0.1, 0.2004, 0.6, 1.3]])
    assert torch.equal(quantised(x, Spec((4,), "binary")), torch.tensor([[0.0, 0.0, 1.0, 1.0]]))
    assert torch.equal(quantised(x, Spec((4,), "unit")) * 255, torch.tensor([[0.0, 51.0, 153.0, 255.0]]))
    assert torch.equal(quantised(x, Spec((4,))), x), "real numbers have no levels"


# patches


def test_the_distance_of_shifted_patches_is_the_mean_projection() -> None:
    """Moved by d along every value of one channel, every line moves by d times the sum of its direction."""
    x = torch.randn(50, 32, 1, 49, generator=generator())
    found = patches.distances(x, x + 0.5)
    lines = torch.randn(49, patches._LINES, generator=patches.rng.generator(0, "patches", "lines"))
    expected = 0.5 / x.std() * (lines / lines.norm(dim=0)).sum(0).abs().mean()
    assert float(found[0]) == pytest.approx(float(expected), rel=1e-4)
    assert float(patches.distances(x, x)[0]) == 0


def test_a_pyramid_adds_up_to_the_image() -> None:
    x = torch.rand(2, 3, 64, 48, generator=generator())
    bands = patches.pyramid(x)
    assert [tuple(b.shape[2:]) for b in bands] == [(64, 48), (32, 24)]
    up = torch.nn.functional.interpolate(bands[1], size=(64, 48), mode="bilinear", align_corners=False)
    assert torch.allclose(bands[0] + up, x, atol=1e-6)


def test_the_error_of_a_block_left_out_is_that_of_the_rest() -> None:
    x, y = torch.randn(2, 20, 4, 1, 9, generator=generator())
    found = patches.distances(x, y, 5)
    assert len(found) == 6
    scaled = [(t - x.mean()) / x.std() for t in (x, y)]
    rest = patches.distances(x, y)  # of all
    assert float(found[0]) == pytest.approx(float(rest[0]))
    lines = torch.randn(9, patches._LINES, generator=patches.rng.generator(0, "patches", "lines"))
    lines = lines / lines.norm(dim=0)
    one, other = ((t[4:].flatten(0, 1).flatten(1) @ lines).sort(0).values for t in scaled)
    assert float(found[1]) == pytest.approx(float((one - other).abs().mean()), rel=1e-4)


# spectrum


@pytest.mark.parametrize("period", [2, 4, 6, 8])
def test_a_grid_is_found_with_its_period(period: int) -> None:
    real, other = soft(200), soft(200, seed=1)
    found = spectrum.excess(real, artefacts.checkerboard(0.03, period)(other, torch.zeros(200), generator()))
    assert max(found, key=lambda p: float(found[p][0])) == period
    assert float(found[period][0]) > 6


def test_a_grid_of_period_4_has_peaks_of_period_2_and_is_one_of_4() -> None:
    """Lines, one pixel wide, every four pixels: most of their power is at the multiples of the frequency."""
    x = soft(200)
    lines = x.clone()
    lines[:, :, ::4] = (lines[:, :, ::4] - 0.2).clamp(0, 1)
    model = Draws(Spec((1, 32, 32), "unit"), lambda n: lines[torch.arange(n) % len(lines)])
    found = {r.name: r for r in measure(model, Split(soft(200, seed=1)), names=["spectrum"])}
    assert found["grid_period"].value == 4 and found["grid"].value > 6


def test_what_has_no_grid_shows_none() -> None:
    real, other = soft(300), soft(300, seed=1)
    for fault in (artefacts.blur(1.5), artefacts.noise(0.2), artefacts.colour(0.2)):
        found = spectrum.excess(real, fault(other, torch.zeros(300), generator()))
        assert max(float(v[0]) for v in found.values()) < 2
    both = artefacts.checkerboard(0.1)
    grids = [both(x, torch.zeros(300), generator()) for x in (real, other)]
    assert max(float(v[0]) for v in spectrum.excess(*grids).values()) < 2, "the examples have it, too"


@pytest.mark.parametrize("name", ["digits", "shapes", "mnist", "photos"])
def test_real_images_have_no_grid_and_their_own_sharpness(name: str) -> None:
    data = load_data(source(name))
    x = data.train.batch(torch.randperm(len(data.train), generator=generator())[:800]).x
    if len(x) >= 800:
        real, other = x[:400], x[400:]
    found = spectrum.excess(real, other)
    assert max(float(v[0]) for v in found.values()) < 3
    ratio = sharpness.strength(other)[0] / sharpness.strength(real)[0]
    assert 0.9 < ratio < 1.1


def source(name: str) -> str:
    """The built-in set, or the real files where they are."""
    if name not in ("mnist", "photos"):
        return name
    folder = Path(os.environ.get("SANDGLASS_DATA", "/nonexistent"))
    path = folder / ("cifar10-jpeg/test.zip" if name == "photos" else "mnist")
    if not path.exists():
        pytest.skip(f"SANDGLASS_DATA has no {path.relative_to(folder)}")
    return str(path) if name == "photos" else name


# sharpness


def test_blur_is_less_sharp_and_noise_is_not_sharper() -> None:
    x = shapes()
    whole = sharpness.strength(x)[0]
    ratios = [
        sharpness.strength(artefacts.blur(s)(x, torch.zeros(len(x)), generator()))[0] / whole for s in (0.6, 1, 2)
    ]
    assert 0.95 > ratios[0] > ratios[1] > ratios[2] and ratios[2] < 0.75
    for deviation in (0.02, 0.05, 0.1):
        noisy = artefacts.noise(deviation)(x, torch.zeros(len(x)), generator())
        assert sharpness.strength(noisy)[0] / whole < 1.05
    smooth = artefacts.blur(2.0)(soft(200), torch.zeros(200), generator())
    noisy = artefacts.noise(0.05)(smooth, torch.zeros(200), generator())
    assert sharpness.strength(noisy)[0] / sharpness.strength(smooth)[0] < 1.3, "its gradients are 1.8 times as large"
    assert sharpness.strength(0.5 * x)[0] == pytest.approx(whole, rel=1e-6), "contrast alone is not sharpness"
    assert sharpness.strength(torch.full((3, 1, 9, 9), 0.5)) == (0.0, 0.0)


def test_the_error_of_sharpness_is_its_spread() -> None:
    x = soft(2_000, 16)
    found = [sharpness.strength(part) for part in x.split(100)]
    values, errors = torch.tensor(found).T
    assert float(errors.mean()) == pytest.approx(float(values.std()), rel=0.4)


def shapes() -> Tensor:
    return load_data("shapes").train.batch(slice(0, 200)).x


# as metrics


def test_the_figures_of_a_model_that_draws_examples_and_of_one_that_blurs() -> None:
    x = soft(400)
    spec = Spec((1, 32, 32), "unit")
    for fake, sharp, apart in (
        (x[200:], (0.9, 1.1), 0.1),
        (artefacts.blur(2.0)(x[200:], x, generator()), (0, 0.75), 9),
    ):
        model = Draws(spec, lambda n, fake=fake: fake[torch.arange(n) % len(fake)])
        found = {r.name: r for r in measure(model, Split(x[:200]), names=["sharpness", "patches", "spectrum"])}
        assert sharp[0] < found["sharpness"].value < sharp[1]
        assert (found["patches_fine"].value < 0.15) == (apart < 1)
        assert found["grid"].value < 2
        assert all(r.stderr is not None and math.isfinite(r.stderr) for r in found.values())

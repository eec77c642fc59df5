"""The input of the LPIPS network and the statistics of its output, with a stub network."""

from __future__ import annotations

import sys
import types

import pytest
import torch
from torch import Tensor, nn

from helpers import fresh, pictures
from sandglass.core import Spec
from sandglass.data.dataset import Split
from sandglass.errors import ConfigError, DataError, MissingPackageError, NotFoundError
from sandglass.metrics.lpips import prepared
from sandglass.metrics.measure import measure


class Squares(nn.Module):
    """Stands for ``lpips.LPIPS``: mean squared difference; remembers what it was prepared."""

    def __init__(self, *, net: str, verbose: bool) -> None:
        super().__init__()
        assert not verbose
        self.weight = nn.Parameter(torch.ones(()))
        Squares.made, Squares.seen = (self, net), []

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        Squares.seen.append(x)
        return self.weight * (x - y).square().mean((1, 2, 3), keepdim=True)


@pytest.fixture
def package(monkeypatch: pytest.MonkeyPatch) -> types.ModuleType:
    module = types.ModuleType("lpips")
    module.LPIPS = Squares  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "lpips", module)
    return module


def test_it_is_shown_rgb_between_minus_one_and_one(package: types.ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sandglass.metrics.lpips._AT_ONCE", 3 * 3 * 80 * 64)
    data = pictures(20, (1, 10, 8))
    model = fresh("ae", data, latent_dim=2, net={"name": "mlp", "widths": [8]})
    (result,) = measure(model, data.train, names=["lpips"], lpips={"net": "vgg"})
    made, net = Squares.made
    assert net == "vgg" and not made.training and not made.weight.requires_grad
    assert [len(x) for x in Squares.seen] == [3] * 6 + [2]
    seen, x = torch.cat(Squares.seen), data.train.batch(slice(0, 20)).x
    assert seen.shape == (20, 3, 80, 64) and torch.equal(seen[:, 0], seen[:, 2])
    assert torch.allclose(seen.mean((1, 2, 3)), 2 * x.mean((1, 2, 3)) - 1, atol=0.02)
    with torch.no_grad():
        again = model.eval().reconstruct(x)
    each = (prepared(x) - prepared(again)).square().mean((1, 2, 3)).double()
    assert (result.value, result.stderr) == pytest.approx((float(each.mean()), float(each.std() / 20**0.5)), rel=1e-6)
    assert (result.n, result.note) == (
        20,
        "vgg, version 0.1; images enlarged 8 times; few examples",
    )


def test_large_images_are_not_resized() -> None:
    x = torch.rand(2, 3, 64, 70)
    assert torch.equal(prepared(x), 2 * x - 1)
    constant = torch.full((1, 1, 5, 5), 0.75)
    assert torch.allclose(prepared(constant), torch.full((1, 3, 65, 65), 0.5))


def test_unsupported_images_are_refused(package: types.ModuleType) -> None:
    two = pictures(12, (2, 8, 8))
    with pytest.raises(DataError, match="grey or RGB"):
        measure(fresh("ae", two), two.train, names=["lpips"])
    data = pictures(12)
    real = fresh("ae", type(data)("real", Spec((1, 8, 8)), data.transform, {"train": Split(torch.randn(9, 1, 8, 8))}))
    with pytest.raises(DataError, match=r"values in \[0, 1\]"):
        measure(real, Split(torch.randn(9, 1, 8, 8)), names=["lpips"])
    with pytest.raises(ConfigError, match="one of alex, vgg, squeeze, not resnet"):
        measure(fresh("ae", data), data.train, names=["lpips"], lpips={"net": "resnet"})


def test_what_is_missing_is_said(package: types.ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    data = pictures(12)
    model = fresh("ae", data)

    def offline(**_: object) -> None:
        raise OSError("<urlopen error no route>")

    package.LPIPS = offline  # type: ignore[attr-defined]
    with pytest.raises(NotFoundError, match=r"'alex' .* could not be downloaded: <urlopen error no route>"):
        measure(model, data.train, names=["lpips"])
    monkeypatch.setitem(sys.modules, "lpips", None)
    with pytest.raises(MissingPackageError, match=r"pip install 'sandglass-ml\[lpips\]'"):
        measure(model, data.train, names=["lpips"])
    assert "lpips" not in {r.name for r in measure(model, data.train)}

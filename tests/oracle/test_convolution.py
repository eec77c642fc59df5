"""The backward pass of convolutions against PyTorch's, and what the memory format must not change."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from sandglass import rng
from sandglass.models._code_map import down
from sandglass.nets._layout import Flatten, Unflatten, channels_last
from sandglass.nets.conv import Conv
from sandglass.nets.convolution import Conv2d, ConvTranspose2d

LAYERS: dict[str, tuple[Callable[..., nn.Module], Callable[..., nn.Module], tuple[int, ...]]] = {
    "halving": (Conv2d, nn.Conv2d, (3, 2, 1)),
    "same": (Conv2d, nn.Conv2d, (3, 1, 1)),
    "doubling": (ConvTranspose2d, nn.ConvTranspose2d, (4, 2, 1)),
    "mixing": (Conv2d, nn.Conv2d, (1, 1, 0)),
}
SIZES = [(4, 4), (7, 5), (1, 3), (9, 8)]


def pair(name: str, size: tuple[int, int], dtype: torch.dtype) -> tuple[nn.Module, nn.Module, Tensor]:
    """One of our layers, PyTorch's with the same weights, and maps."""
    make, known, (kernel, stride, padding) = LAYERS[name]
    with rng.forked("cpu", 1, name):
        ours, theirs = (m(6, 4, kernel, stride=stride, padding=padding).to(dtype) for m in (make, known))
        theirs.load_state_dict(ours.state_dict())
        return ours, theirs, torch.randn(8, 6, *size, dtype=dtype).to(memory_format=torch.channels_last)


def gradients(layer: nn.Module, x: Tensor, cast: bool = False) -> list[Tensor]:
    """Of a nonlinear function of the output: by input, weight and bias."""
    x = x.clone().requires_grad_()
    with torch.autocast("cpu", torch.bfloat16, enabled=cast):
        out = layer(x)
    weights = torch.linspace(-1, 1, out.numel(), dtype=torch.float64).view(out.shape)
    return list(torch.autograd.grad((out.double().sin() * weights).sum(), [x, *layer.parameters()]))


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("name", LAYERS)
def test_the_gradients_are_those_of_pytorch(name: str, size: tuple[int, int]) -> None:
    ours, theirs, x = pair(name, size, torch.float64)
    for mine, other in zip(gradients(ours, x), gradients(theirs, x), strict=True):
        assert torch.allclose(mine, other, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("name", LAYERS)
def test_in_bf16_they_are_as_near_to_the_exact_ones(name: str, size: tuple[int, int]) -> None:
    """The weight gradient of small maps is computed in another way: at most 1.5 times as far as PyTorch's."""
    ours, theirs, x = pair(name, size, torch.float32)
    exact = gradients(theirs.double(), x.double())
    found, known = gradients(ours, x, cast=True), gradients(theirs.float(), x, cast=True)
    for mine, other, right in zip(found, known, exact, strict=True):
        assert mine.dtype == torch.float32
        last = [t.dim() == 4 and t.is_contiguous(memory_format=torch.channels_last) for t in (mine, other)]
        assert last[0] == last[1]
        assert float((mine - right).norm()) < 1.5 * float((other - right).norm()) + 1e-6


@pytest.mark.parametrize("name", LAYERS)
def test_the_gradients_have_gradients(name: str) -> None:
    ours, _, x = pair(name, (3, 2), torch.float64)
    few = x[:2, :, :2].clone().requires_grad_()
    assert torch.autograd.gradgradcheck(ours, few)


@pytest.mark.parametrize("name", LAYERS)
def test_under_bf16_a_second_derivative_is_that_of_pytorch(name: str) -> None:
    ours, theirs, x = pair(name, (4, 4), torch.float32)
    found = []
    for layer in (ours, theirs):
        at = x.clone().requires_grad_()
        with torch.autocast("cpu", torch.bfloat16):
            (slope,) = torch.autograd.grad(layer(at).float().sin().sum(), at, create_graph=True)
        (second,) = torch.autograd.grad(slope.square().sum(), [layer.weight])
        found.append(second)
    assert float((found[0] - found[1]).norm()) < 0.02 * float(found[1].norm())


def test_float64_stays_so_under_autocast_and_types_are_not_mixed() -> None:
    ours, theirs, x = pair("doubling", (3, 3), torch.float64)
    with torch.autocast("cpu", torch.bfloat16):
        assert ours(x).dtype == theirs(x).dtype
    with pytest.raises(RuntimeError):
        ours(x.float())


@pytest.mark.parametrize("shape", [(1, 1, 1), (3, 2, 2), (1, 8, 8)])
def test_small_maps_may_be_changed_in_place(shape: tuple[int, int, int]) -> None:
    """As by a ReLU after maps of one pixel, which are in both memory formats at once."""
    net = Conv(width=4, stages=3, activation="relu")
    net.decoder(2, shape)(torch.randn(5, 2)).sum().backward()
    net.encoder(shape, 2)(torch.randn(5, *shape)).sum().backward()


def test_the_memory_format_changes_no_value() -> None:
    """In float64, of the whole network, and of the maps between."""
    x = torch.rand(3, 2, 9, 11, dtype=torch.float64)
    with rng.forked("cpu", 2, "net"):
        net = Conv(width=4)
        encoder, decoder = net.encoder((2, 9, 11), 3).double(), net.decoder(3, (2, 9, 11)).double()
    last = [h.clone() for h in (encoder(x), decoder(encoder(x)))]
    usual = [m.to(memory_format=torch.contiguous_format) for m in (encoder, decoder)]
    code = nn.Sequential(*[nn.Flatten() if isinstance(m, Flatten) else m for m in usual[0]])(x)
    assert torch.allclose(code, last[0], rtol=1e-12)
    assert torch.allclose(usual[1](code), last[1], rtol=1e-12)


def test_maps_stay_in_channels_last_memory_both_ways() -> None:
    """Where one of the two formats meets the other in an operation of two maps, it takes several times as long."""
    net = Conv(width=8)
    layers = [*net.encoder((1, 28, 28), 4), *net.decoder(4, (1, 28, 28))]
    seen: list[Tensor] = []
    h = channels_last(torch.rand(5, 1, 28, 28))
    for layer in layers:
        h = layer(h)
        if h.dim() == 4 and h.shape[1] > 1:
            seen.append(h)
            h.register_hook(seen.append)
    h.sin().sum().backward()
    assert len(seen) > 20
    assert all(t.is_contiguous(memory_format=torch.channels_last) for t in seen)


def test_flattening_is_that_of_pytorch() -> None:
    x = channels_last(torch.rand(2, 3, 4, 5))
    assert torch.equal(Flatten()(x), nn.Flatten()(x))
    assert torch.equal(Unflatten(1, (3, 4, 5))(x.flatten(1)), x)


def test_maps_of_one_column_have_gradients_in_bf16() -> None:
    """PyTorch 2.13 on a CPU reads memory that nothing was written to for a quarter of them."""
    with rng.forked("cpu", 1):
        (_, layer), x = down(4), torch.randn(16, 4, 2, 1).to(memory_format=torch.channels_last)
    for _ in range(40):
        junk = torch.full((3000,), torch.nan)
        del junk
        weight = gradients(layer, x, cast=True)[1]
        assert torch.allclose(weight, gradients(layer, x)[1], atol=0.1 * float(weight.abs().max()))

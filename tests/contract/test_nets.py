"""What every registered network family owes, in both directions, with and without a condition and gaps."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from sandglass import registry
from sandglass.core import Spec
from sandglass.errors import ConfigError
from sandglass.nets.conv import Trim
from sandglass.nets.mlp import Gated, Residual

SMALL: dict[str, dict[str, Any]] = {
    "mlp": {"widths": [16]},
    "conv": {"width": 4, "hidden": 16},
    "resnet": {"width": 4, "max_width": 16},
    "vit": {"width": 16, "heads": 2, "depth": 1},
}
"""Options with which a family is quick; one that is not here is tried as it comes."""

VARIANTS: list[tuple[str, dict[str, Any]]] = [
    ("mlp", {"widths": [8, 8, 6], "block": "residual"}),
    ("mlp", {"widths": [8, 6], "block": "gated"}),
    ("mlp", {"widths": [8], "decoder_widths": []}),
    ("conv", {"norm": "batch"}),
    ("conv", {"norm": "group"}),
    ("conv", {"norm": "instance", "stages": 4}),
    ("conv", {"hidden": 0, "activation": "gelu"}),
    ("resnet", {"norm": "none", "attention": 8}),
    ("resnet", {"blocks": 2, "patch": 4, "stages": 3, "attention": 64}),
    ("vit", {"pool": "token", "positions": "sine", "patch": 3}),
]

NETS = [(name, {}) for name in registry.names("net")] + VARIANTS
IMAGES = [(1, 8, 8), (3, 37, 53), (1, 1, 90), (1, 28, 20), (1, 1, 1)]
CONDS: list[Any] = [0, 5, (2, 6, 7)]
PICTURES_ONLY = ("conv", "resnet", "vit")


def family(name: str, options: dict[str, Any] | None = None) -> Any:
    return registry.resolve("net", {"name": name, **SMALL.get(name, {}), **(options or {})})


def told(cond: Any, n: int = 3) -> Tensor | None:
    return torch.randn(n, *((cond,) if isinstance(cond, int) else cond)) if cond else None


def case_id(value: Any) -> str:
    return "-".join(f"{k}={v}" for k, v in value.items()) if isinstance(value, dict) else str(value)


def every(shapes: list[tuple[int, ...]]) -> Any:
    """Each family at each shape that it takes, with each condition."""
    cases = [
        (name, options, shape, cond)
        for (name, options), shape, cond in itertools.product(NETS, shapes, CONDS)
        if len(shape) == 3 or name not in PICTURES_ONLY
    ]
    return pytest.mark.parametrize(("name", "options", "shape", "cond"), cases, ids=case_id)


def check_gradients(module: nn.Module, out: Tensor, *, alone: bool = False) -> None:
    """Every parameter acts; in attention over a single token (``alone``) queries and keys do not."""
    out.square().sum().backward()
    for key, p in module.named_parameters():
        if alone and (".query." in key or ".key." in key):
            continue
        assert p.grad is not None and torch.isfinite(p.grad).all() and float(p.grad.abs().sum()) > 0, key


def check_repeats(module: nn.Module, again: nn.Module, *inputs: Tensor | None) -> None:
    """In eval mode: the same twice, the same from saved weights, the same for an example whoever stands beside it."""
    module.eval(), again.eval()
    again.load_state_dict(module.state_dict())
    with torch.no_grad():
        out = module(*inputs)
        assert torch.equal(out, module(*inputs)) and torch.equal(out, again(*inputs))
        alone = module.double()(
            *(t if t is None or t.dtype == torch.bool else t[1:2].double() for t in inputs[:2]),
            *(t if t is None else t[1:2] for t in inputs[2:]),
        )
        assert torch.allclose(alone[0].to(out.dtype), out[1], rtol=1e-4, atol=1e-5)


@every([*IMAGES, (6,)])
@pytest.mark.parametrize("masked", [False, True])
def test_an_encoder(name: str, options: dict[str, Any], shape: tuple[int, ...], cond: Any, masked: bool) -> None:
    torch.manual_seed(0)
    net = family(name, options)
    encoder, again = (net.encoder(shape, 5, cond=cond, masked=masked) for _ in range(2))
    x, c = torch.randn(3, *shape), told(cond)
    mask = (torch.rand(3, *shape) < 0.5) | (torch.arange(3) == 0).view(3, *[1] * len(shape)) if masked else None
    out = encoder(x, c, mask)
    assert out.shape == (3, 5)
    check_gradients(encoder, out, alone=shape == (1, 1, 1))
    check_repeats(encoder, again, x, c, mask)
    assert isinstance(again.head, nn.Linear) and again.head.out_features == 5
    assert torch.equal(again.head(again.body(x, c, mask)), again(x, c, mask))


@every([*IMAGES, (6,)])
def test_a_decoder(name: str, options: dict[str, Any], shape: tuple[int, ...], cond: Any) -> None:
    torch.manual_seed(0)
    net = family(name, options)
    decoder, again = (net.decoder(4, shape, cond=cond) for _ in range(2))
    z, c = torch.randn(3, 4), told(cond)
    out = decoder(z, c)
    assert out.shape == (3, *shape)
    check_gradients(decoder, out, alone=shape == (1, 1, 1))
    check_repeats(decoder, again, z, c)


@every([(3, 9, 12), (6,)])
def test_a_condition_matters(name: str, options: dict[str, Any], shape: tuple[int, ...], cond: Any) -> None:
    """Every number of a vector, and every channel of a picture, in both directions."""
    if not cond:
        return
    torch.manual_seed(0)
    net = family(name, options)
    for module, x in (
        (net.encoder(shape, 5, cond=cond), torch.randn(3, *shape)),
        (net.decoder(4, shape, cond=cond), torch.randn(3, 4)),
    ):
        c = told(cond)
        assert c is not None
        (slope,) = torch.autograd.grad(module(x, c.requires_grad_()).square().sum(), c)
        moved = slope.abs().sum([0, *range(2, slope.dim())])
        assert float(moved.min()) > 1e-3 * float(moved.max()) > 0
        assert (module(x, c) - module(x, c + 1)).abs().max() > 1e-4


@every([(3, 9, 12), (6,)])
def test_gaps_matter_and_what_stands_in_them_does_not(
    name: str, options: dict[str, Any], shape: tuple[int, ...], cond: Any
) -> None:
    torch.manual_seed(0)
    encoder = family(name, options).encoder(shape, 5, cond=cond, masked=True).eval()
    x, c, mask = torch.randn(3, *shape), told(cond), torch.rand(3, *shape) < 0.5
    gone = torch.where(mask, x, torch.nan)
    out = encoder(gone, c, mask)
    assert torch.equal(out, encoder(x, c, mask))
    zeros = torch.where(mask, x, 0)
    assert (out - encoder(zeros, c)).abs().max() > 1e-4, "a zero that was seen is another thing than a gap"
    assert torch.equal(encoder(x, c), encoder(x, c, torch.ones_like(mask)))


@pytest.mark.parametrize("name", registry.names("net"))
def test_what_a_net_was_not_built_for_is_refused(name: str) -> None:
    net, shape = family(name), (1, 8, 8)
    x, z, mask = torch.randn(2, *shape), torch.randn(2, 4), torch.ones(2, *shape, dtype=torch.bool)
    for cond in (5, (2, 6, 7)):
        without, with_one = ((net.encoder(shape, 3, cond=k), net.decoder(4, shape, cond=k)) for k in (0, cond))
        c = told(cond, 2)
        assert c is not None
        for module, given in zip(without, (x, z), strict=True):
            with pytest.raises(ConfigError, match="built without a con"):
                module(given, c)
        for module, given in zip(with_one, (x, z), strict=True):
            with pytest.raises(ConfigError, match="got none"):
                module(given)
            with pytest.raises(ConfigError, match="conditions of shape"):
                module(given, c[:, 1:])
    with pytest.raises(ConfigError, match="masked=True"):
        net.encoder(shape, 3)(x, None, mask)
    with pytest.raises(ConfigError, match="masks of shape"):
        net.encoder(shape, 3, masked=True)(x, None, mask[..., 1:])
    with pytest.raises(ConfigError, match="condition"):
        net.encoder(shape, 3, cond=-1)
    if name in PICTURES_ONLY:
        with pytest.raises(ConfigError, match="mlp"):
            net.encoder((6,), 5)
        with pytest.raises(ConfigError, match="vector or an image"):
            net.encoder(shape, 3, cond=(4, 4))


@pytest.mark.parametrize("name", registry.names("net"))
@pytest.mark.parametrize("cond", CONDS, ids=str)
def test_half_precision_and_labels_that_are_whole_numbers(name: str, cond: Any) -> None:
    """A condition may come in another type than the input, and autocast puts a third between."""
    net, shape = family(name), (1, 9, 14)
    encoder, decoder = net.encoder(shape, 3, cond=cond, masked=True), net.decoder(4, shape, cond=cond)
    x, z, c = torch.randn(2, *shape), torch.randn(2, 4), told(cond, 2)
    c = None if c is None else (c > 0).float()
    whole = None if c is None else c.long()
    assert torch.allclose(encoder(x, whole), encoder(x, c)) and torch.allclose(decoder(z, whole), decoder(z, c))
    with torch.autocast("cpu", torch.bfloat16):
        low = encoder(x, c, x > 0), decoder(z, c)
    for a, b in zip(low, (encoder(x, c, x > 0), decoder(z, c)), strict=True):
        assert (a.float() - b).abs().max() < 0.05 * b.abs().max()
    encoder.double(), decoder.double()
    assert encoder(x.double(), c, x > 0).dtype == decoder(z.double(), c).dtype == torch.float64


@pytest.mark.parametrize(("name", "options"), [(n, {}) for n in registry.names("net")] + VARIANTS[-1:], ids=case_id)
@pytest.mark.parametrize("cond", CONDS, ids=str)
def test_a_graph_of_it_takes_a_batch_of_any_size(name: str, options: dict[str, Any], cond: Any) -> None:
    """A Python number that is taken from the batch would stand in the graph that is exported."""
    net, shape, free = family(name, options), (1, 9, 14), {0: torch.export.Dim("batch")}
    encoder, decoder = net.encoder(shape, 3, cond=cond, masked=True).eval(), net.decoder(4, shape, cond=cond).eval()
    for module, masked, size in ((encoder, True, shape), (decoder, False, (4,))):
        inputs = [(torch.randn(n, *size), told(cond, n), *([torch.rand(n, *size) > 0.5] * masked)) for n in (3, 5)]
        dims = tuple(None if t is None else free for t in inputs[0])
        graph = torch.export.export(module, inputs[0], dynamic_shapes=dims).module()
        assert torch.allclose(graph(*inputs[1]), module(*inputs[1]), atol=1e-6)


@pytest.mark.parametrize("name", registry.names("net"))
def test_a_body_can_be_given_on(name: str) -> None:
    """Whatever its head puts out."""
    net, x = family(name), torch.randn(2, 1, 8, 8)
    torch.manual_seed(0)
    ours, theirs = net.encoder((1, 8, 8), 5), net.encoder((1, 8, 8), 7)
    if ours.body.state_dict():
        assert not torch.equal(ours.body(x), theirs.body(x))
    theirs.body.load_state_dict(ours.body.state_dict())
    assert torch.equal(ours.body(x), theirs.body(x)) and theirs(x).shape == (2, 7)
    assert len(ours.state_dict()) == len(ours.body.state_dict()) + len(ours.head.state_dict())


def test_a_gated_layer_and_a_residual_block_are_their_formulas() -> None:
    torch.manual_seed(0)
    gated, residual, x = Gated(3, 4), Residual(3, 4, "relu"), torch.randn(5, 3)
    opened = 1 / (1 + torch.exp(-(x @ gated.gate.weight.T + gated.gate.bias)))
    assert torch.allclose(gated(x), (x @ gated.value.weight.T + gated.value.bias) * opened, atol=1e-6)
    _, _, first, _, _, second = residual.change
    h = residual.lift(x)
    inner = first(nn.functional.layer_norm(h, (4,)).relu())
    assert torch.allclose(residual(x), h + second(nn.functional.layer_norm(inner, (4,)).relu()), atol=1e-6)


@pytest.mark.parametrize("options", [{"positions": "sine"}, {"pool": "token"}, {}], ids=case_id)
def test_a_vit_sees_where_a_patch_is(options: dict[str, Any]) -> None:
    torch.manual_seed(0)
    encoder, x = family("vit", options).encoder((1, 8, 8), 5), torch.rand(2, 1, 8, 8)
    assert (encoder(x) - encoder(x.roll(4, -1))).abs().max() > 1e-3


def test_a_vit_with_a_token_reads_that_token_alone() -> None:
    """Which knows nothing of the picture where no block lets it look."""
    encoder = family("vit", {"pool": "token"}).encoder((1, 8, 8), 5)
    x = torch.rand(2, 1, 8, 8)
    assert not torch.equal(encoder(x)[0], encoder(x)[1])
    encoder.body.reader.trunk.blocks = nn.Identity()
    assert torch.equal(encoder(x)[0], encoder(x)[1])


def test_auto_is_conv_for_images_and_mlp_for_rows() -> None:
    assert registry.settle("net", {"name": "auto"}, Spec((1, 8, 8)))["name"] == "conv"
    assert registry.settle("net", {"name": "auto"}, Spec((6,)))["name"] == "mlp"


@pytest.mark.parametrize("options", [{"norm": "batch"}, {"norm": "group"}, {"hidden": 0}, {"stages": 1}, {"stages": 6}])
def test_every_conv_option_acts(options: dict[str, object]) -> None:
    plain, changed = (registry.resolve("net", {"name": "conv", "width": 8, **o}) for o in ({}, options))
    x = torch.randn(2, 3, 21, 30)
    torch.manual_seed(0)
    a = plain.encoder((3, 21, 30), 4)
    torch.manual_seed(0)
    b = changed.encoder((3, 21, 30), 4)
    assert str(a) != str(b)
    assert b(x).shape == (2, 4) and changed.decoder(4, (3, 21, 30))(b(x)).shape == x.shape


# what was trained before stays what it was


def by_hand(name: str, way: str) -> nn.Module:
    """The layers of version 0.1, in their order."""
    if (name, way) == ("mlp", "encoder"):
        return nn.Sequential(nn.Flatten(), nn.Linear(126, 16), nn.ReLU(), nn.Linear(16, 5))
    if (name, way) == ("mlp", "decoder"):
        return nn.Sequential(nn.Linear(4, 16), nn.ReLU(), nn.Linear(16, 126), nn.Unflatten(-1, (1, 9, 14)))
    if way == "encoder":
        return nn.Sequential(
            *(nn.Conv2d(1, 4, 3, 2, 1), nn.BatchNorm2d(4), nn.SiLU()),
            *(nn.Conv2d(4, 8, 3, 2, 1), nn.BatchNorm2d(8), nn.SiLU()),
            *(nn.Flatten(), nn.Linear(96, 16), nn.SiLU(), nn.Linear(16, 5)),
        )
    up = nn.Sequential(
        *(nn.Linear(4, 16), nn.SiLU(), nn.Linear(16, 96), nn.Unflatten(-1, (8, 3, 4)), nn.SiLU()),
        *(nn.ConvTranspose2d(8, 4, 4, 2, 1), Trim(5, 7), nn.BatchNorm2d(4), nn.SiLU()),
        *(nn.ConvTranspose2d(4, 2, 4, 2, 1), Trim(9, 14), nn.BatchNorm2d(2), nn.SiLU()),
        nn.Conv2d(2, 1, 3, 1, 1),
    )
    return up


@pytest.mark.parametrize("name", ["mlp", "conv"])
@pytest.mark.parametrize("way", ["encoder", "decoder"])
def test_without_a_condition_weights_and_outputs_are_those_of_the_layers_alone(name: str, way: str) -> None:
    net = family(name, {"norm": "batch"} if name == "conv" else {})
    torch.manual_seed(0)
    ours = net.encoder((1, 9, 14), 5) if way == "encoder" else net.decoder(4, (1, 9, 14))
    torch.manual_seed(0)
    theirs = by_hand(name, way)
    assert list(ours.state_dict()) == list(theirs.state_dict())
    assert all(torch.equal(a, b) for a, b in zip(ours.state_dict().values(), theirs.state_dict().values(), strict=True))
    x = torch.randn(3, *((1, 9, 14) if way == "encoder" else (4,)))
    assert torch.allclose(ours(x), theirs(x), atol=1e-6)  # maps may be in another memory format


# maps


MAPPED = [(name, options) for name, options in NETS if hasattr(family(name, options), "analysis")]


@pytest.mark.parametrize(("name", "options"), MAPPED, ids=case_id)
@pytest.mark.parametrize("shape", IMAGES, ids=str)
@pytest.mark.parametrize("cond", CONDS, ids=str)
def test_maps_lead_down_and_back_up(name: str, options: dict[str, Any], shape: Any, cond: Any) -> None:
    torch.manual_seed(0)
    net = family(name, options)
    x, c = torch.randn(3, *shape), told(cond)
    down, down_again = (net.analysis(shape, cond=cond) for _ in range(2))
    maps = down(x, c)
    assert [tuple(m.shape[1:]) for m in maps] == down.shapes
    assert all(a[1] >= b[1] and a[2] >= b[2] for a, b in itertools.pairwise(down.shapes))
    up, up_again = (net.synthesis(down.shapes, (2, *shape[1:]), cond=cond) for _ in range(2))
    out = up(maps, c)
    assert out.shape == (3, 2, *shape[1:])
    check_gradients(nn.ModuleList([down, up]), out, alone=shape == (1, 1, 1))
    check_repeats(Both(down, up), Both(down_again, up_again), x, c)


class Both(nn.Module):
    def __init__(self, down: nn.Module, up: nn.Module) -> None:
        super().__init__()
        self.down, self.up = down, up

    def forward(self, x: Tensor, c: Tensor | None) -> Tensor:
        return self.up(self.down(x, c), c)


@pytest.mark.parametrize(("name", "options"), MAPPED, ids=case_id)
@pytest.mark.parametrize("cond", CONDS, ids=str)
def test_every_map_and_the_condition_matter(name: str, options: dict[str, Any], cond: Any) -> None:
    torch.manual_seed(0)
    net, shape = family(name, options), (3, 37, 53)
    down = net.analysis(shape, cond=cond)
    up = net.synthesis(down.shapes, shape, cond=cond)
    c = told(cond)
    maps = [torch.randn(3, *s, requires_grad=True) for s in down.shapes]
    slopes = torch.autograd.grad(up(maps, c).square().sum(), maps)
    assert all(float(s.abs().sum()) > 0 for s in slopes)
    if c is None:
        return
    x = torch.randn(3, *shape)
    assert all((a - b).abs().max() > 1e-4 for a, b in zip(down(x, c), down(x, c + 1), strict=True))
    assert (up(maps, c) - up(maps, c.flip(-1))).abs().max() > 1e-5


@pytest.mark.parametrize(("name", "options"), MAPPED, ids=case_id)
@pytest.mark.parametrize("cond", CONDS, ids=str)
def test_the_smallest_map_alone_makes_a_decoder(name: str, options: dict[str, Any], cond: Any) -> None:
    net, shape = family(name, options), (3, 37, 53)
    _, height, width = net.analysis(shape).shapes[-1]
    up = net.synthesis([(6, height, width)], shape, cond=cond)
    assert up([torch.randn(2, 6, height, width)], told(cond, 2)).shape == (2, *shape)


@pytest.mark.parametrize(("name", "options"), MAPPED, ids=case_id)
def test_maps_that_do_not_belong_are_refused(name: str, options: dict[str, Any]) -> None:
    net, shape = family(name, options), (1, 20, 20)
    down = net.analysis(shape)
    with pytest.raises(ConfigError, match="map"):
        net.synthesis([(4, 19, 7)], shape)
    with pytest.raises(ConfigError, match="map"):
        net.synthesis([], shape)
    with pytest.raises(ConfigError, match=r"maps? but got"):
        net.synthesis(down.shapes, shape)([*down(torch.randn(2, *shape)), torch.randn(2, 1, 1, 1)])
    with pytest.raises(ConfigError, match="got none"):
        net.analysis(shape, cond=5)(torch.randn(2, *shape))
    with pytest.raises(ConfigError, match="built without a con"):
        net.synthesis(down.shapes, shape)(down(torch.randn(2, *shape)), torch.randn(2, 5))


def test_instance_norm_leaves_brightness_and_a_vector_to_the_first_stage() -> None:
    """Away from the border, where the padding shows them."""
    torch.manual_seed(0)
    net, shape, x, c = family("conv", {"norm": "instance"}), (1, 64, 64), torch.rand(2, 1, 64, 64), torch.rand(2, 5)
    down = net.analysis(shape, cond=5)
    for other in (down(x + 1, c), down(x, c + 1)):
        assert (down(x, c)[0] - other[0])[..., 4:-4, 4:-4].abs().mean() > 0.1


def test_maps_may_be_some_of_those_there_are() -> None:
    net, shape = family("conv"), (1, 37, 53)
    some = [s for i, s in enumerate(net.analysis(shape).shapes) if i != 1]
    assert net.synthesis(some, shape)([torch.randn(2, *s) for s in some]).shape == (2, *shape)

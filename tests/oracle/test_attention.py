"""Attention against PyTorch's own, against a loop by hand, and by what it must not see."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn

from sandglass.errors import ConfigError
from sandglass.nets.attention import Attention, attention, attention_weights
from sandglass.nets.vit import Block, Grid, sine_positions


def theirs(ours: Attention, width: int) -> nn.MultiheadAttention:
    """PyTorch's module with the same weights."""
    other = nn.MultiheadAttention(
        width, ours.heads, batch_first=True, kdim=ours.context or None, vdim=ours.context or None
    ).double()
    key, value = ours.key_value.weight.chunk(2)
    with torch.no_grad():
        if ours.context:
            parts = (other.q_proj_weight, other.k_proj_weight, other.v_proj_weight)
        else:
            parts = other.in_proj_weight.chunk(3)
        for mine, part in zip((ours.query.weight, key, value), parts, strict=True):
            part.copy_(mine)
        other.in_proj_bias.copy_(torch.cat([ours.query.bias, ours.key_value.bias]))
        other.out_proj.load_state_dict(ours.out.state_dict())
    return other


def allowed(t: int, s: int) -> Tensor:
    """Where attention is allowed, each position to something."""
    mask = torch.rand(3, t, s) < 0.6
    mask[..., 0] = True
    return mask


@pytest.mark.parametrize("heads", [1, 4])
@pytest.mark.parametrize("kind", ["self", "causal", "masked", "causal masked", "cross", "cross masked"])
def test_it_is_pytorch_s_with_the_same_weights(heads: int, kind: str) -> None:
    torch.manual_seed(0)
    ours = Attention(8, heads, context=5 if "cross" in kind else 0, causal="causal" in kind).double()
    x = torch.randn(3, 6, 8).double()
    context = torch.randn(3, 4, 5).double() if "cross" in kind else x
    mask = allowed(6, context.shape[1]) if "masked" in kind else None
    may = torch.ones(3, 6, context.shape[1], dtype=torch.bool) if mask is None else mask
    may = may.tril() if "causal" in kind else may
    told = (context if "cross" in kind else None, mask)
    expected, weights = theirs(ours, 8)(
        x, context, context, attn_mask=~may.repeat_interleave(heads, 0), average_attn_weights=False
    )
    assert torch.allclose(ours(x, *told), expected, atol=1e-12)
    assert torch.allclose(ours.weights(x, *told), weights, atol=1e-12)


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("masked", [False, True])
def test_the_weights_sum_to_one_and_are_those_that_are_used(causal: bool, masked: bool) -> None:
    torch.manual_seed(0)
    q, k, v = (torch.randn(3, 6, 4).double() for _ in range(3))
    mask = allowed(6, 6) if masked else None
    weights = attention_weights(q, k, mask, causal=causal)
    assert torch.allclose(weights.sum(-1), torch.ones(3, 6).double(), atol=1e-12)
    assert torch.allclose(weights @ v, attention(q, k, v, mask, causal=causal), atol=1e-12)
    assert not causal or float(weights.triu(1).abs().max()) == 0
    assert mask is None or float(weights[~mask].abs().max()) == 0


@pytest.mark.parametrize("masked", [False, True])
def test_a_causal_one_does_not_see_what_comes_later(masked: bool) -> None:
    torch.manual_seed(0)
    module = Attention(8, 2, causal=True)
    x = torch.randn(1, 6, 8, requires_grad=True)
    for t in range(6):
        (slope,) = torch.autograd.grad(module(x, mask=allowed(6, 6)[:1] if masked else None)[0, t].sum(), x)
        assert float(slope[0, t + 1 :].abs().sum()) == 0
        assert masked or all(float(slope[0, s].abs().sum()) > 0 for s in range(t + 1))


def test_without_positions_the_order_does_not_matter() -> None:
    torch.manual_seed(0)
    module, x, order = Attention(8, 2).double(), torch.randn(2, 6, 8).double(), torch.randperm(6)
    assert torch.allclose(module(x[:, order]), module(x)[:, order], atol=1e-12)
    causal = Attention(8, 2, causal=True).double()  # the control
    assert not torch.allclose(causal(x[:, order]), causal(x)[:, order], atol=1e-3)
    cross, words = Attention(8, 2, context=5).double(), torch.randn(2, 4, 5).double()
    assert torch.allclose(cross(x, words.flip(1)), cross(x, words), atol=1e-12)


@torch.no_grad()
def test_cross_attention_is_the_loop_by_hand() -> None:
    torch.manual_seed(0)
    module = Attention(6, 3, context=5).double()
    x, words = torch.randn(2, 4, 6).double(), torch.randn(2, 3, 5).double()
    q = module.query(x)
    k, v = module.key_value(words).split(6, -1)
    found = torch.zeros(2, 4, 6).double()
    for b in range(2):
        for t in range(4):
            for head in range(3):
                own = slice(2 * head, 2 * head + 2)
                scores = [math.exp(float(q[b, t, own] @ k[b, s, own]) / math.sqrt(2)) for s in range(3)]
                found[b, t, own] = sum(w / sum(scores) * v[b, s, own] for s, w in enumerate(scores))
    assert torch.allclose(module(x, words), module.out(found), atol=1e-12)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_position_that_may_attend_to_nothing_gets_zeros(dtype: torch.dtype) -> None:
    q = torch.randn(1, 2, 4, dtype=dtype, requires_grad=True)
    k, v = torch.randn(1, 3, 4, dtype=dtype), torch.randn(1, 3, 4, dtype=dtype)
    mask = torch.tensor([[[False, False, False], [True, True, False]]])
    found = attention(q, k, v, mask)
    assert float(found[0, 0].detach().abs().max()) == 0 and float(found[0, 1].detach().abs().min()) > 0
    assert float(attention_weights(q, k, mask)[0, 0].detach().abs().max()) == 0
    (slope,) = torch.autograd.grad(found.sum(), q)
    assert torch.isfinite(slope).all()


def test_the_weights_are_dropped_in_training_alone() -> None:
    torch.manual_seed(0)
    module, x = Attention(8, 2, dropout=0.5), torch.randn(2, 6, 8)
    assert not torch.equal(module(x), module(x))
    module.eval()
    assert torch.equal(module(x), module(x))


@pytest.mark.parametrize(
    ("options", "word"),
    [
        ({"heads": 3}, "divide"),
        ({"heads": 0}, "divide"),
        ({"heads": 2, "dropout": 1.0}, "dropout"),
        ({"heads": 2, "context": 5, "causal": True}, "causal"),
    ],
)
def test_what_makes_no_sense_is_refused(options: dict[str, int], word: str) -> None:
    with pytest.raises(ConfigError, match=word):
        Attention(8, **options)


def test_a_context_is_neither_forgotten_nor_ignored() -> None:
    x, words = torch.randn(2, 6, 8), torch.randn(2, 4, 5)
    with pytest.raises(ConfigError, match="got none"):
        Attention(8, 2, context=5)(x)
    with pytest.raises(ConfigError, match="built without a con"):
        Attention(8, 2)(x, words)


# the vision transformer


def test_a_block_is_pytorch_s_layer_with_the_same_weights() -> None:
    torch.manual_seed(0)
    ours, x = Block(8, 2, 0.0).double(), torch.randn(3, 5, 8).double()
    other = nn.TransformerEncoderLayer(8, 2, 32, 0.0, "gelu", batch_first=True, norm_first=True).double()
    other.self_attn = theirs(ours.attention, 8)
    norm, up, _, down = ours.mlp
    for mine, part in ((ours.before, other.norm1), (norm, other.norm2), (up, other.linear1), (down, other.linear2)):
        part.load_state_dict(mine.state_dict())
    with torch.no_grad():
        for p, q in ((ours.before, other.norm1), (norm, other.norm2)):
            p.weight.copy_(torch.rand(8)), q.weight.copy_(p.weight)
    assert torch.allclose(ours(x), other(x), atol=1e-12)


@pytest.mark.parametrize("shape", [(3, 37, 53), (1, 1, 90), (2, 8, 4), (1, 1, 1)])
def test_patches_are_those_that_a_convolution_would_read(shape: tuple[int, int, int]) -> None:
    grid, x = Grid.of(shape, 4), torch.randn(2, *shape)
    patches, (rows, columns), (height, width) = grid.cut(x), grid.size, grid.patch
    padded = torch.zeros(2, shape[0], rows * height, columns * width)
    padded[..., : shape[1], : shape[2]] = x
    assert torch.equal(patches, nn.functional.unfold(padded, grid.patch, stride=grid.patch).transpose(1, 2))
    assert torch.equal(grid.join(patches), x)


def test_sine_positions_are_the_formula_and_tell_every_place_apart() -> None:
    found = sine_positions((3, 5), 8)
    for i, (row, column) in enumerate((r, c) for r in range(3) for c in range(5)):
        expected = [f(v / 10000 ** (k / 2)) for v in (row, column) for f in (math.sin, math.cos) for k in range(2)]
        assert torch.allclose(found[i], torch.tensor(expected), atol=1e-6)
    assert float((torch.cdist(found, found) + torch.eye(15)).min()) > 0.5

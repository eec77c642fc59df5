"""The networks of Sandglass written out in plain PyTorch: the same layers, the same numbers of parameters."""

from __future__ import annotations

import math
from collections.abc import Callable
from itertools import pairwise

import torch
from torch import Tensor, nn

Activation = Callable[[], nn.Module]

HIDDEN, CHANNELS, WIDTH, DEPTH, HEADS, PATCH = 256, (32, 64, 128), 64, 3, 4, 4


def encoder(net: str, side: int, out: int, activation: Activation) -> nn.Module:
    """Pictures ``(B, 1, side, side)`` to ``(B, out)``."""
    if net == "mlp":
        return nn.Sequential(nn.Flatten(), nn.Linear(side * side, 512), nn.ReLU(), nn.Linear(512, out))
    return ConvEncoder(side, out, activation) if net == "conv" else PatchEncoder(side, out)


def decoder(net: str, latent: int, side: int, activation: Activation) -> nn.Module:
    """Codes ``(B, latent)`` to logits ``(B, 1, side, side)``."""
    if net == "mlp":
        layers = nn.Linear(latent, 512), nn.ReLU(), nn.Linear(512, side * side)
        return nn.Sequential(*layers, nn.Unflatten(1, (1, side, side)))
    return ConvDecoder(latent, side, activation) if net == "conv" else PatchDecoder(latent, side)


def sides(side: int) -> list[int]:
    """Sides of the maps, from the picture to the smallest.

    Example:
        >>> sides(28)
        [28, 14, 7, 4]
    """
    return [side, *(side := math.ceil(side / 2) for _ in CHANNELS)]


class ConvEncoder(nn.Sequential):
    def __init__(self, side: int, out: int, activation: Activation) -> None:
        layers: list[nn.Module] = []
        for a, b in pairwise((1, *CHANNELS)):
            layers += [nn.Conv2d(a, b, 3, stride=2, padding=1), activation()]
        flat = CHANNELS[-1] * sides(side)[-1] ** 2
        super().__init__(*layers, nn.Flatten(), nn.Linear(flat, HIDDEN), activation(), nn.Linear(HIDDEN, out))


class ConvDecoder(nn.Module):
    def __init__(self, latent: int, side: int, activation: Activation) -> None:
        super().__init__()
        self.sides, small = sides(side)[:-1], sides(side)[-1]
        self.stem = nn.Sequential(
            nn.Linear(latent, HIDDEN),
            activation(),
            nn.Linear(HIDDEN, CHANNELS[-1] * small**2),
            nn.Unflatten(1, (CHANNELS[-1], small, small)),
            activation(),
        )
        widths = (*CHANNELS[::-1], CHANNELS[0] // 2)
        ups = [nn.ConvTranspose2d(a, b, 4, stride=2, padding=1) for a, b in pairwise(widths)]
        self.ups, self.activation = nn.ModuleList(ups), activation()
        self.out = nn.Conv2d(widths[-1], 1, 3, padding=1)

    def forward(self, z: Tensor) -> Tensor:
        h = self.stem(z)
        for up, side in zip(self.ups, self.sides[::-1], strict=True):
            h = self.activation(up(h)[..., :side, :side])
        return self.out(h)


class Trunk(nn.Module):
    """Positions, transformer blocks and the last normalisation."""

    def __init__(self, tokens: int) -> None:
        super().__init__()
        self.positions = nn.Parameter(0.5 * torch.randn(tokens, WIDTH))
        layer = nn.TransformerEncoderLayer(
            WIDTH, HEADS, 4 * WIDTH, dropout=0.0, activation="gelu", batch_first=True, norm_first=True
        )
        self.blocks = nn.TransformerEncoder(layer, DEPTH, norm=nn.LayerNorm(WIDTH), enable_nested_tensor=False)

    def forward(self, tokens: Tensor) -> Tensor:
        return self.blocks(tokens + self.positions)


class PatchEncoder(nn.Module):
    def __init__(self, side: int, out: int) -> None:
        super().__init__()
        self.cut = nn.Unfold(PATCH, stride=PATCH)
        self.embed, self.trunk = nn.Linear(PATCH**2, WIDTH), Trunk((side // PATCH) ** 2)
        self.head = nn.Linear(WIDTH, out)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.trunk(self.embed(self.cut(x).transpose(1, 2))).mean(1))


class PatchDecoder(nn.Module):
    def __init__(self, latent: int, side: int) -> None:
        super().__init__()
        tokens = (side // PATCH) ** 2
        self.stem = nn.Sequential(nn.Linear(latent, tokens * WIDTH), nn.Unflatten(1, (tokens, WIDTH)))
        self.lift, self.trunk = nn.Linear(WIDTH, WIDTH), Trunk(tokens)
        self.pixels, self.join = nn.Linear(WIDTH, PATCH**2), nn.Fold((side, side), PATCH, stride=PATCH)

    def forward(self, z: Tensor) -> Tensor:
        return self.join(self.pixels(self.trunk(self.lift(self.stem(z)))).transpose(1, 2))

"""The loops that a person finds on the web, for comparison: a DCGAN and a convolutional VAE, without any care.

Architectures and settings are the published ones: Radford, Metz and Chintala 2016 (arXiv 1511.06434), with Adam at 2e-4
and betas (0.5, 0.999) and batches of 128; and strided convolutions with batch normalisation, latent 128, squared error
plus the KL term, Adam at 1e-3 and batches of 64. Float32, no averaging, no augmentation, the last weights.
"""

from __future__ import annotations

import time
from collections.abc import Iterator

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sandglass.core import Batch, Model, Phase, Spec
from sandglass.rng import forked


class Plain(Model):
    """A generator from normal noise to images in [0, 1], as the measures need it.

    Args:
        spec: the images.
        noise: size of the noise.
        generator: ``(B, noise) -> (B, C, H, W)``.
    """

    def __init__(self, spec: Spec, noise: int, generator: nn.Module) -> None:
        super().__init__()
        self.spec, self.noise, self.generator = spec, noise, generator

    def phases(self) -> tuple[Phase, ...]:
        """None: its own loop trains it."""
        return ()

    @torch.no_grad()
    def sample(self, n: int, given: Batch | None = None, *, noise: bool = False) -> Tensor:
        """``(n, C, H, W)``."""
        return self.generator(torch.randn(n, self.noise))


class Unit(nn.Module):
    """Maps [-1, 1] to [0, 1]."""

    def forward(self, x: Tensor) -> Tensor:
        """Elementwise."""
        return (x + 1) / 2


def down(channels: int, side: int, width: int, first_norm: bool) -> tuple[list[nn.Module], int]:
    """Strided convolutions to a map of 4x4, and its channels."""
    layers: list[nn.Module] = []
    while side > 4:
        layers.append(nn.Conv2d(channels, width, 4, 2, 1))
        layers += [nn.BatchNorm2d(width)] if layers[1:] or first_norm else []
        layers.append(nn.LeakyReLU(0.2))
        channels, width, side = width, 2 * width, side // 2
    return layers, channels


def up(noise: int, channels: int, side: int, width: int) -> nn.Sequential:
    """Transposed convolutions from 4x4 to the image, in [0, 1]."""
    count = (side // 4).bit_length() - 1
    wide = width * 2 ** (count - 1)
    layers: list[nn.Module] = [nn.Unflatten(1, (noise, 1, 1)), nn.ConvTranspose2d(noise, wide, 4)]
    for _ in range(count - 1):
        layers += [nn.BatchNorm2d(wide), nn.ReLU(), nn.ConvTranspose2d(wide, wide // 2, 4, 2, 1)]
        wide //= 2
    return nn.Sequential(
        *layers, nn.BatchNorm2d(wide), nn.ReLU(), nn.ConvTranspose2d(wide, channels, 4, 2, 1), nn.Tanh(), Unit()
    )


def batches(x: Tensor, size: int, seconds: float) -> Iterator[Tensor]:
    """Shuffled batches of uint8 images, as floats in [0, 1], until the time is up."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        for index in torch.randperm(len(x)).split(size):
            if time.monotonic() >= end:
                return
            if len(index) > 1:
                yield x[index].float() / 255


def dcgan(x: Tensor, spec: Spec, seconds: float) -> Plain:
    """A DCGAN of square uint8 images ``(N, C, H, H)`` with a side of 32, 64, ...."""
    side, channels = spec.shape[1], spec.shape[0]
    with forked("cpu", 0, "dcgan"):
        model = Plain(spec, 100, up(100, channels, side, 64))
        layers, width = down(channels, side, 64, first_norm=False)
        critic = nn.Sequential(*layers, nn.Conv2d(width, 1, 4), nn.Flatten())
        for m in [*model.modules(), *critic.modules()]:
            if isinstance(m, nn.Conv2d | nn.ConvTranspose2d):
                nn.init.normal_(m.weight, 0.0, 0.02)
            elif isinstance(m, nn.BatchNorm2d):
                nn.init.normal_(m.weight, 1.0, 0.02)
        adam = {"lr": 2e-4, "betas": (0.5, 0.999)}
        g, d = torch.optim.Adam(model.parameters(), **adam), torch.optim.Adam(critic.parameters(), **adam)
        for real in batches(x, 128, seconds):
            fake = model.generator(torch.randn(len(real), 100))
            loss = F.softplus(-critic(real * 2 - 1)).mean() + F.softplus(critic(fake.detach() * 2 - 1)).mean()
            d.zero_grad()
            loss.backward()
            d.step()
            g.zero_grad()
            F.softplus(-critic(fake * 2 - 1)).mean().backward()
            g.step()
    return model.eval()


def vae(x: Tensor, spec: Spec, seconds: float) -> Plain:
    """A convolutional VAE of square uint8 images ``(N, C, H, H)`` with a side of 32, 64, ...."""
    side, channels, latent = spec.shape[1], spec.shape[0], 128
    with forked("cpu", 0, "plain-vae"):
        model = Plain(spec, latent, up(latent, channels, side, 32))
        layers, width = down(channels, side, 32, first_norm=True)
        encoder = nn.Sequential(*layers, nn.Flatten(), nn.Linear(width * 16, 2 * latent))
        adam = torch.optim.Adam([*encoder.parameters(), *model.parameters()], lr=1e-3)
        for real in batches(x, 64, seconds):
            mean, log_variance = encoder(real).chunk(2, 1)
            z = mean + torch.randn_like(mean) * (log_variance / 2).exp()
            error = (model.generator(z) - real).square().flatten(1).sum(1)
            kl = 0.5 * (mean.square() + log_variance.exp() - 1 - log_variance).sum(1)
            adam.zero_grad()
            (error + kl).mean().backward()
            adam.step()
    return model.eval()


LOOPS = {"plain DCGAN": dcgan, "plain VAE": vae}

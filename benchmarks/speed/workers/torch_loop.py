"""Loops in plain PyTorch, without log, checks or checkpoints: with a DataLoader, and with the least that is needed.

``loader`` is the loop that people write: a ``TensorDataset`` of floats in a ``DataLoader``, Adam, and the mean loss.
Without it batches are taken by a shuffled index from bytes that are on the device.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from itertools import chain, count
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from benchmarks.speed.channel import Channel, Job, run, timed
from benchmarks.speed.workers.profiled import profiled
from benchmarks.speed.workers.torch_nets import decoder, encoder


def leaky() -> nn.Module:
    return nn.LeakyReLU(0.2)


class VAE(nn.Module):
    def __init__(self, net: str, latent: int, side: int) -> None:
        super().__init__()
        self.encoder, self.decoder = encoder(net, side, 2 * latent, nn.SiLU), decoder(net, latent, side, nn.SiLU)
        self.latent = latent

    def each(self, x: Tensor) -> Tensor:
        """The negative bound of every picture, in nats."""
        mean, log_variance = self.encoder(x).chunk(2, 1)
        z = mean + torch.randn_like(mean) * (0.5 * log_variance).exp()
        distortion = F.binary_cross_entropy_with_logits(self.decoder(z), x, reduction="none").flatten(1).sum(1)
        return distortion - 0.5 * (1 + log_variance - mean.square() - log_variance.exp()).sum(1)


class GAN(nn.Module):
    def __init__(self, net: str, latent: int, side: int) -> None:
        super().__init__()
        self.critic = encoder(net, side, 1, leaky)
        self.decoder = decoder(net, latent, side, leaky)
        self.latent = latent


class VAEStep:
    """An update of a VAE."""

    def __init__(self, model: VAE, rate: float, betas: tuple[float, float]) -> None:
        self.model, self.optimizer = model, torch.optim.Adam(model.parameters(), lr=rate, betas=betas)

    def __call__(self, x: Tensor) -> None:
        self.optimizer.zero_grad()
        self.model.each(x).mean().backward()
        self.optimizer.step()


class GANStep:
    """An update of the critic, then one of the generator."""

    def __init__(self, model: GAN, rate: float, betas: tuple[float, float]) -> None:
        self.model = model
        self.critic = torch.optim.Adam(model.critic.parameters(), lr=rate, betas=betas)
        self.generator = torch.optim.Adam(model.decoder.parameters(), lr=rate, betas=betas)

    def made(self, x: Tensor) -> Tensor:
        return torch.sigmoid(self.model.decoder(torch.randn(len(x), self.model.latent, device=x.device)))

    def __call__(self, x: Tensor) -> None:
        with torch.no_grad():
            made = self.made(x)
        self.critic.zero_grad()
        (F.softplus(-self.model.critic(x)) + F.softplus(self.model.critic(made))).mean().backward()
        self.critic.step()
        self.generator.zero_grad()
        self.model.critic.requires_grad_(False)
        F.softplus(-self.model.critic(self.made(x))).mean().backward()
        self.model.critic.requires_grad_(True)
        self.generator.step()


class Worker:
    """Trains one workload, and uses the model."""

    def __init__(self, channel: Channel, job: Job) -> None:
        torch.set_num_threads(job.threads)
        torch.manual_seed(0)
        device, workload = job.device, job.workload
        if device != "cpu":
            channel.synchronise = torch.cuda.synchronize
        self.channel, self.device, self.folder, self.epochs = channel, device, job.folder, job.epochs
        self.batch = workload["batch"]
        self.pixels = torch.from_numpy(np.load(job.data))
        gan = workload["model"] == "gan"
        kind: Any = GAN if gan else VAE
        self.model = kind(workload["net"], workload["latent"], workload["side"]).to(device)
        make: Any = GANStep if gan else VAEStep
        self.step = make(self.model, workload["rate"], tuple(workload["betas"]))
        self.loader = None
        if job.options["loader"]:
            floats = TensorDataset(self.pixels.float() / 255)
            self.loader = DataLoader(floats, self.batch, shuffle=True, pin_memory=device != "cpu")
        else:
            self.pixels = self.pixels.to(device)

    def about(self) -> dict[str, Any]:
        size = sum(p.numel() for p in self.model.parameters())
        return {"parameters": size, "versions": {"torch": torch.__version__.split("+")[0]}, "precision": "fp32"}

    def batches(self) -> Iterator[Tensor]:
        """The batches of an epoch, on the device."""
        if self.loader is not None:
            for (x,) in self.loader:
                yield x.to(self.device)
        else:
            for index in torch.randperm(len(self.pixels), device=self.device).split(self.batch):
                yield self.pixels[index].float().div_(255)

    def fit(self) -> None:
        self.channel.wait(self)
        for _ in range(self.epochs):
            for x in self.batches():
                self.step(x)
            self.channel.lap(self)

    def some(self, n: int) -> list[Tensor]:
        return [x.to(self.device).float() / 255 for x in self.pixels[:n].split(512)]

    @torch.no_grad()
    def generate(self, n: int) -> float:
        codes = [torch.randn(len(part), self.model.latent, device=self.device) for part in torch.arange(n).split(512)]
        return timed(lambda: torch.cat([torch.sigmoid(self.model.decoder(z)).cpu() for z in codes]))

    @torch.no_grad()
    def encode(self, n: int) -> float:
        return timed(lambda: torch.cat([self.model.encoder(x)[:, : self.model.latent].cpu() for x in self.some(n)]))

    @torch.no_grad()
    def score(self, n: int) -> float:
        return timed(lambda: torch.cat([self.model.each(x).cpu() for x in self.some(n)]))

    def save(self) -> float:
        with tempfile.TemporaryDirectory(dir=self.folder) as folder:
            state = {"model": self.model.state_dict(), "optimizer": self.step.optimizer.state_dict()}
            return timed(lambda: torch.save(state, Path(folder) / "checkpoint.pt"))

    def weights(self, path: str) -> None:
        """Saves the weights in the order of the layers."""
        np.savez(path, *[p.detach().cpu().numpy() for p in self.model.parameters()])

    def profile(self, steps: int) -> dict[str, Any]:
        """Where the time of a step goes."""
        batches = chain.from_iterable(self.batches() for _ in count())
        return profiled(lambda: self.step(next(batches)), steps)


if __name__ == "__main__":
    run(Worker)

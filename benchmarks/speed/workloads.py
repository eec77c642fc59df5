"""What is timed: the same model, data, batch size and optimiser in every library."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Workload:
    """One model on one set of pictures.

    Args:
        name: what ``--only`` calls it.
        title: in tables.
        model: ``vae``, ``gan``, or the registered name of a model that pythae has as well.
        net: ``mlp``, ``conv`` or ``vit``: the networks of encoder and decoder, or of critic and generator.
        latent: size of the code.
        examples: in an epoch.
        contenders: which libraries have it, in the order of their turns.
        batch: examples an update.
        side: of a picture, in pixels.
        equal: whether all must have the same number of parameters.
        options: further options of Sandglass's model.
    """

    name: str
    title: str
    model: str
    net: str
    latent: int
    examples: int
    contenders: tuple[str, ...]
    batch: int = 256
    side: int = 28
    equal: bool = True
    options: dict[str, Any] = field(default_factory=dict)

    @property
    def rate(self) -> float:
        """Adam's learning rate."""
        return 2e-4 if self.model == "gan" else 1e-3

    @property
    def betas(self) -> tuple[float, float]:
        """Adam's betas."""
        return (0.5, 0.999) if self.model == "gan" else (0.9, 0.999)

    def job(self) -> dict[str, Any]:
        """Plain values for a worker."""
        return dataclasses.asdict(self) | {"rate": self.rate, "betas": self.betas}


OURS = ("sandglass", "sandglass-fp32")
PEERS = ("torch", "torch-loader", "keras")
_PLAIN = {"likelihood": "bernoulli"}
_VAE = {**_PLAIN, "beta_schedule": "constant"}
_GAN = {"adversary": "non-saturating", "r1": 0.0, "r2": 0.0, "ada": 0.0}

WORKLOADS = (
    Workload("dense", "dense VAE, 784-512-2-512-784", "vae", "mlp", 2, 60000,
             (*OURS, *PEERS, "keras-xla", "pythae"), options=_VAE),
    Workload("conv", "convolutional VAE, 32-64-128 channels", "vae", "conv", 16, 2560,
             (*OURS, *PEERS), options=_VAE),
    Workload("gan", "DCGAN, 32-64-128 channels", "gan", "conv", 32, 1280,
             (*OURS, *PEERS), options=_GAN),
    Workload("vit", "VAE with vision transformers, 3 blocks of width 64", "vae", "vit", 16, 1280,
             (*OURS, *PEERS), options=_VAE),
)  # fmt: skip
"""The workloads that are written out in every library."""

PYTHAE = (
    *("AE", "VAE", "BetaVAE", "VAE_LinNF", "VAE_IAF", "DisentangledBetaVAE", "BetaTCVAE", "IWAE", "MIWAE", "CIWAE"),
    *("PIWAE", "MSSSIM_VAE", "WAE_MMD", "INFOVAE_MMD", "VAMP", "SVAE", "PoincareVAE", "VQVAE", "HVAE", "RAE_GP"),
    "RHVAE",
)
"""The models of pythae 0.1.2 that its usual trainer takes, as it spells their classes."""

_DRAWS = {**_VAE, "draws": 10}
OPTIONS: dict[str, dict[str, Any]] = {
    "ae": _PLAIN, "vq-vae": _PLAIN, "wae": _PLAIN, "iwae": _DRAWS, "combination-iwae": _DRAWS,
    "multiply-iwae": {**_DRAWS, "bounds": 5}, "partially-iwae": {**_DRAWS, "bounds": 5}, "rae-gp": _PLAIN,
    "ms-ssim-vae": {"beta_schedule": "constant"}, "vamp-vae": {**_VAE, "prior": {"name": "vamp", "pseudo_inputs": 50}},
}  # fmt: skip
"""Options of models that are shared with pythae, with its numbers of draws and pseudo-inputs; the others take those of
the VAE."""


OTHERWISE = {
    "combination-iwae": "CIWAE", "info-vae": "INFOVAE_MMD", "multiply-iwae": "MIWAE", "partially-iwae": "PIWAE",
    "wae": "WAE_MMD", "miwae": "", "vamp-vae": "VAMP", "hamiltonian-vae": "HVAE",
}  # fmt: skip
"""Names that the libraries do not share: what pythae calls MIWAE is ``multiply-iwae``, and it has no ``miwae``."""


def spelled(name: str) -> str:
    """A model's name without what libraries spell differently.

    Example:
        >>> spelled("BetaVAE") == spelled("beta-vae"), spelled("WAE_MMD")
        (True, 'waemmd')
    """
    return "".join(c for c in name.lower() if c.isalnum())


def shared(names: list[str]) -> dict[str, str]:
    """The models that both libraries have: our name to pythae's class.

    Example:
        >>> shared(["beta-vae", "gan", "multiply-iwae", "miwae"])
        {'beta-vae': 'BetaVAE', 'multiply-iwae': 'MIWAE'}
    """
    theirs = {spelled(name): name for name in PYTHAE}
    called = {name: spelled(OTHERWISE.get(name, name)) for name in names}
    return {name: theirs[known] for name, known in called.items() if known in theirs}


def with_pythae(names: list[str]) -> tuple[Workload, ...]:
    """A workload for each shared model but the VAE: one hidden layer of 512, 16 latents, as pythae has by default."""
    return tuple(
        Workload(name, f"{name}, 784-512-16", name, "mlp", 16, 60000, ("sandglass", "pythae"), equal=False,
                 options=OPTIONS.get(name, _VAE))
        for name in shared(names)
        if name != "vae"
    )  # fmt: skip


def small(workload: Workload) -> Workload:
    """The same for a smoke test: few examples, small batches."""
    return dataclasses.replace(workload, examples=128, batch=32)

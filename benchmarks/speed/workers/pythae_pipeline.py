"""pythae: its training pipeline, default networks and default trainer."""

from __future__ import annotations

import logging
import tempfile
import time
from typing import Any

import numpy as np
import pythae.models
import torch
from pythae.models import BaseAE
from pythae.pipelines import TrainingPipeline
from pythae.samplers import NormalSampler
from pythae.trainers import BaseTrainerConfig
from pythae.trainers.training_callbacks import TrainingCallback

from benchmarks.speed.channel import Channel, Job, run, timed

VERSION = "0.1.2"  # the package does not say


class Paced(TrainingCallback):
    """Holds the training at the end of every epoch, after all that the trainer does there."""

    def __init__(self, worker: Worker) -> None:
        self.worker = worker

    def on_log(self, training_config: Any, logs: Any, **others: Any) -> None:
        self.worker.channel.lap(self.worker)


def build(name: str, side: int, latent: int) -> BaseAE:
    """A model by the name of its class, with a Bernoulli likelihood where it has the choice."""
    options: dict[str, Any] = {"input_dim": (1, side, side), "latent_dim": latent}
    config = getattr(pythae.models, f"{name}Config" if "_" not in name else f"{name}_Config")
    if "reconstruction_loss" in config.__dataclass_fields__:
        options["reconstruction_loss"] = "bce"
    return getattr(pythae.models, name)(config(**options))


class Worker:
    """Trains one workload, and uses the model."""

    def __init__(self, channel: Channel, job: Job) -> None:
        torch.set_num_threads(job.threads)
        torch.manual_seed(0)
        logging.disable(logging.INFO)
        if job.device != "cpu":
            channel.synchronise = torch.cuda.synchronize
        self.channel, self.device, self.folder = channel, job.device, job.folder
        self.x = torch.from_numpy(np.load(job.data)).float() / 255
        workload = job.workload
        self.model = build(job.options["name"], workload["side"], workload["latent"])
        config = BaseTrainerConfig(
            output_dir=tempfile.mkdtemp(dir=job.folder),
            num_epochs=job.epochs,
            per_device_train_batch_size=workload["batch"],
            learning_rate=workload["rate"],
            no_cuda=job.device == "cpu",
        )
        self.pipeline = TrainingPipeline(model=self.model, training_config=config)

    def about(self) -> dict[str, Any]:
        count = sum(p.numel() for p in self.model.parameters())
        versions = {"pythae": VERSION, "torch": torch.__version__.split("+")[0]}
        return {"parameters": count, "versions": versions, "precision": "fp32"}

    def fit(self) -> None:
        self.channel.wait(self)
        self.pipeline(train_data=self.x, callbacks=[Paced(self)])

    def some(self, n: int) -> list[torch.Tensor]:
        return [x.to(self.device) for x in self.x[:n].split(512)]

    @torch.no_grad()
    def generate(self, n: int) -> float:
        sampler = NormalSampler(self.model)
        return timed(lambda: sampler.sample(n, batch_size=512).cpu())

    @torch.no_grad()
    def encode(self, n: int) -> float:
        return timed(lambda: torch.cat([self.model.encoder(x).embedding.cpu() for x in self.some(n)]))

    def save(self) -> float:
        with tempfile.TemporaryDirectory(dir=self.folder) as folder:
            trainer = self.pipeline.trainer
            return timed(lambda: trainer.save_checkpoint(self.model, dir_path=folder, epoch=0))

    def weights(self, path: str) -> None:
        """Saves the weights in the order of the layers, the two heads of the encoder as one."""
        own = {name: p.detach().cpu().numpy() for name, p in self.model.state_dict().items()}
        heads = [np.concatenate([own[f"encoder.{head}.{end}"] for head in HEADS]) for end in ENDS]
        before, after = ([own[f"{name}.{end}"] for name in names for end in ENDS] for names in LAYERS)
        np.savez(path, *before, *heads, *after)

    def load(self, path: str) -> None:
        """The inverse of :meth:`weights`."""
        kept = [torch.from_numpy(values) for values in np.load(path).values()]
        names = [f"{name}.{end}" for names in LAYERS for name in names for end in ENDS]
        state = dict(zip(names, [*kept[:2], *kept[4:]], strict=True))
        for end, both in zip(ENDS, kept[2:4], strict=True):
            state |= {f"encoder.{head}.{end}": half for head, half in zip(HEADS, both.chunk(2), strict=True)}
        self.model.load_state_dict(state)

    @torch.no_grad()
    def log_prob(self, path: str, start: int, stop: int, k: int, batch: int) -> dict[str, Any]:
        """``log p(x)`` of some examples by ``get_nll``, which returns +log p, and the seconds it took."""
        x = torch.from_numpy(np.load(path)[start:stop]).float().to(self.device) / 255
        self.model.eval()
        since = time.perf_counter()
        values = [float(self.model.get_nll(one[None], k, batch)) for one in x]
        return {"seconds": time.perf_counter() - since, "values": [round(value, 4) for value in values]}


LAYERS = (("encoder.layers.0.0",), ("decoder.layers.0.0", "decoder.layers.1.0"))
"""The layers before and after the heads of the encoder, by pythae's names."""

HEADS, ENDS = ("embedding", "log_var"), ("weight", "bias")


if __name__ == "__main__":
    run(Worker)

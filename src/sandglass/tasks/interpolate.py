"""Interpolations between examples, or between draws of the prior."""

from __future__ import annotations

import math
from typing import Annotated, Any

import torch
from torch import Tensor

from sandglass import registry, running
from sandglass.core import Batch, Model
from sandglass.errors import CapabilityError, ConfigError, DataError
from sandglass.registry import OptionsOf, register
from sandglass.tasks.pick import picked
from sandglass.tasks.task import Outcome, Task
from sandglass.tasks.trained import Source, Trained, check_count, positions


@register("interpolate", kind="task")
class Interpolate(Task):
    """Interpolate between pairs of examples in the latent space, one pair per row.

    A model without an encoder, such as a GAN, interpolates between pairs of draws from its prior.

    Args:
        number: number of pairs; by default 6.
        steps: examples per row, including both ends.
        from_: the first example of the only pair: a file, or the name or number of an example of the split.
        to: the second example of the only pair.
        split: train, validation, test or all; test by default.
        seed: random seed of the draws of a model without an encoder.
    """

    needs = ("decode",)
    examples = (
        "interpolate runs/vae-digits-1 -n 8 --steps 12",
        "interpolate runs/vae-photos-1 --from a.png --to b.png",
        "interpolate runs/gan-photos-1 -n 4 --seed 3",
    )
    file = "interpolation"

    def __init__(
        self,
        *,
        number: int | None = None,
        steps: int = 10,
        from_: str | None = None,
        to: str | None = None,
        split: str | None = None,
        seed: int = 0,
        **source: Annotated[Any, OptionsOf(Source)],
    ) -> None:
        check_count("The number of pairs", number)
        if steps < 2:
            raise ConfigError(f"An interpolation needs at least 2 steps, not {steps}.")
        if (from_ is None) != (to is None):
            raise ConfigError("--from and --to belong together: give both ends of the interpolation.")
        if from_ is not None and number is not None:
            raise ConfigError("--from and --to are one pair; leave the number of pairs out.")
        self.number, self.steps, self.ends, self.split = number or 6, steps, (from_, to), split
        self.seed, self.source = seed, Source(**source)

    def __call__(self, trained: Trained) -> Outcome:
        """``x`` ``(pairs * steps, *shape)``, one interpolation after another."""
        model = trained.model
        if "interpolate" in model.provides:
            rows, of = self.between_examples(trained), ""
        elif "prior" in model.provides:
            self.refuse_examples(model)
            rows, of = self.between_draws(trained), " between draws"
        else:
            registry.require(model, "interpolate")
        pairs = len(rows)
        columns = {
            "pair": [row for row in range(pairs) for _ in range(self.steps)],
            "step": [step for _ in range(pairs) for step in range(self.steps)],
        }
        said = f"{pairs} interpolation{'s' * (pairs != 1)} of {self.steps} steps{of}"
        return Outcome(said, torch.cat(rows), "step", columns=columns, width=self.steps)

    def refuse_examples(self, model: Model) -> None:
        """Refuses options that choose examples.

        Raises:
            CapabilityError: there are some, and the model does not encode examples.
        """
        chosen = {
            "from and to": self.ends != (None, None),
            "split": self.split,
            "data": self.source.options.get("data"),
        }
        given = [name for name, value in chosen.items() if value]
        if given:
            raise CapabilityError(
                f"The model '{registry.name_of(model)}' has no encoder and interpolates between draws from its prior: "
                f"leave out {given[0]}."
            )

    def between_examples(self, trained: Trained) -> list[Tensor]:
        """``(steps, *shape)`` for every pair of examples."""
        model, paths = trained.model, []
        with running.observing(model, 0, "interpolate"):
            for a, b in self.pairs(trained):
                paths.append(model.interpolate(running.placed(model, a), running.placed(model, b), self.steps)[0].cpu())
        return paths

    def pairs(self, trained: Trained) -> list[tuple[Batch, Batch]]:
        """Pairs of examples: the given one, or some that are spread over the split."""
        first, last = self.ends
        if first is not None and last is not None:
            found = [picked(which, trained, self.source, self.split) for which in (first, last)]
            return [(found[0].batch(slice(0, 1)), found[1].batch(slice(0, 1)))]
        every = self.source.examples(trained, self.split)
        place = positions(len(every), 2 * self.number)
        pairs = len(place) // 2
        if not pairs:
            raise DataError("An interpolation needs two examples; there is only one.")
        ends = [every.batch(place[k : k + 1].to(every.x.device)) for k in range(2 * pairs)]
        return list(zip(ends[:pairs], ends[pairs:], strict=True))

    def between_draws(self, trained: Trained) -> list[Tensor]:
        """``(steps, *shape)`` for every pair of draws, under one condition where the model needs one."""
        model, size = trained.model, self.number * self.steps
        given: Batch | None = None
        if running.conditioned_on(model):
            given = running.borrowed(self.source.examples(trained, self.split), self.number, self.seed, "interpolate")
            given = given.map(lambda t: t.repeat_interleave(self.steps, 0))
        with running.observing(model, self.seed, "interpolate"):
            codes = circle(model, self.number, self.steps, running.placed(model, given))
        return list(running.decode(model, codes.reshape(size, -1), given).split(self.steps))


_DRAWS = 1000  # from a prior whose mean is not known


def circle(model: Model, pairs: int, steps: int, given: Batch | None = None) -> Tensor:
    """``(pairs, steps, D)`` codes on circles around the prior's mean, from one draw to another.

    For a normal prior every point of such a path is distributed as the prior; on a straight line the points in the
    middle are too close to the mean (White 2016, "Sampling Generative Networks", arXiv 1609.04468).

    Args:
        model: has a prior.
        pairs: number of paths.
        steps: points of each, both ends included.
        given: conditions of the prior.
    """
    p = model.prior(given)
    try:
        mean = p.mean.reshape(-1, model.code_size)[:1]
    except NotImplementedError:  # as of a flow
        mean = p.sample((_DRAWS,)).reshape(_DRAWS, -1, model.code_size)[:, 0].mean(0, keepdim=True)
    a, b = (p.sample((pairs,)).reshape(pairs, -1, model.code_size)[:, :1] - mean for _ in range(2))
    angle = torch.linspace(0, math.pi / 2, steps, device=a.device, dtype=a.dtype)[:, None]
    found = mean + angle.cos() * a + angle.sin() * b
    return torch.cat([mean + a, found[:, 1:-1], mean + b], 1)

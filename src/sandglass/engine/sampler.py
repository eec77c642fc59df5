"""A sampler for a finished run: a new run with the same encoder and decoder, and another distribution of codes."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from sandglass import registry
from sandglass.data.dataset import Dataset
from sandglass.data.trained_on import run_data
from sandglass.engine.progress import Progress
from sandglass.engine.resume import check_same
from sandglass.engine.train import train
from sandglass.errors import CapabilityError, ConfigError, named_type
from sandglass.runs.needed import check_needed
from sandglass.runs.run import Run, find_run
from sandglass.samplers.sampler import STAGE, TrainedSampler

_LENGTHS = ("epochs", "minutes", "max_steps", "early_stopping", "ema", "stage")
_OWN = ("from_stage", "init_from", "model_options", "data_options")


def fit_sampler(
    run: Run | str | Path,
    kind: str | Mapping[str, Any] = "gaussian-mixture",
    *,
    out: str | Path | None = None,
    data: Any = None,
    progress: Progress | None = None,
    **training: Any,
) -> Run:
    """Fits a sampler to the codes of a finished run; the result is a new run, whose samples are drawn with it.

    Encoder and decoder are those of the run, so its codes and reconstructions are, too; only new codes are drawn from
    another distribution. All commands take the new run as any other.

    Args:
        run: with a model that has the option ``sampler``, such as ``vae`` or ``ae``.
        kind: of the sampler, see ``sandglass samplers``, or a mapping of its name and options.
        out: folder of the new run; by default that of the run with the kind added.
        data: the data, if it was given in Python and the run cannot load it by itself; or the place it has moved to.
        progress: as for :func:`sandglass.train`.
        training: options of :func:`sandglass.train`, such as ``epochs`` of a sampler that is trained; others are those
            of the run.

    Raises:
        CapabilityError: the model has no such option.
        ConfigError: there is no such sampler, or it does not go with the options of the run.
        DataError: the data is not what the run was trained on.

    Example:
        >>> import sandglass, tempfile
        >>> folder = tempfile.mkdtemp() + "/run"
        >>> run = sandglass.train("vae", "digits", out=folder, epochs=1, net="mlp")
        >>> sandglass.fit_sampler(run, {"name": "gaussian-mixture", "components": 3}).path.name
        'run-gaussian-mixture'
    """
    run = run if isinstance(run, Run) else Run(find_run(run))
    config = run.config
    name = registry.present("model", config["model"]["name"])
    if "sampler" not in {option.name for option in registry.schema("model", name)}:
        able = [n for n in registry.names("model") if "sampler" in {o.name for o in registry.schema("model", n)}]
        raise CapabilityError(f"The model '{name}' takes no sampler. Models that do: {', '.join(able)}.")
    if not isinstance(kind, str | Mapping):
        raise ConfigError(f"A sampler is a name, or a mapping of its name and options, not {named_type(kind)}.")
    chosen = registry.expand("sampler", kind)
    if chosen["name"] == "prior":
        raise ConfigError(f"The prior is not fitted after training; {run.path} draws from it.")
    trains = is_trained(chosen["name"])
    for option in training:
        if option in _OWN or (option in _LENGTHS and not trains):
            why = "is set by it" if option in _OWN else f"does nothing for {chosen['name']}, fitted in closed form"
            raise ConfigError(f"The training option {option} cannot be given to fit a sampler: it {why}.")
    check_needed(config, run.parts, run.path)
    options = {**registry.completed(name, config["model"]["options"]), **run.parts, "sampler": chosen}
    dataset = data if isinstance(data, Dataset) else run_data(run, data)
    check_same(dataset, run)
    kept = {key: value for key, value in config["training"].items() if key not in (*_LENGTHS, *_OWN)}
    usual = {"epochs": config["training"]["epochs"] or None} if trains else {}
    lengths = usual if not {"epochs", "minutes"} & training.keys() else {}
    return train(
        name,
        dataset,
        out=out if out is not None else free(run.path, chosen["name"]),
        model_options=options,
        init_from=run.path,
        progress=progress,
        **{**kept, **lengths, **training, "from_stage": STAGE},
    )


def is_trained(kind: str) -> bool:
    """Whether a sampler is trained by gradients, and so takes epochs.

    Example:
        >>> is_trained("maf"), is_trained("gaussian"), is_trained("prior")
        (True, False, False)
    """
    make = registry.entry("sampler", kind).make
    return isinstance(make, type) and issubclass(make, TrainedSampler)


def free(path: Path, kind: str) -> Path:
    """The next free folder beside a run."""
    first = path.with_name(f"{path.name}-{kind}")
    others = (first.with_name(f"{first.name}-{number}") for number in range(2, 10**6))
    return next(found for found in (first, *others) if not found.exists())

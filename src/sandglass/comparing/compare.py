"""Compares runs, all evaluated on the same examples with the same noise, so that differences are paired."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from sandglass import registry
from sandglass.comparing.page import KINDS, page
from sandglass.comparing.sides import Block, Comparison, Side, names_of
from sandglass.data.dataset import Dataset
from sandglass.data.fingerprint import fingerprint
from sandglass.data.selecting import joined
from sandglass.data.trained_on import Found, find_data, new_data, reading_of
from sandglass.errors import CapabilityError, ConfigError, DataError
from sandglass.metrics.compared import can, kind_of
from sandglass.metrics.measure import context_of, listed, measure, wanted
from sandglass.metrics.samples import COSTLY
from sandglass.reports.section import Material
from sandglass.runs import storage
from sandglass.runs.load import kept_step
from sandglass.runs.plain import strict_json
from sandglass.runs.run import Run
from sandglass.runs.storage import make_folder

_ORDER = ("test", "validation", "train")
_FORM = ("layout", "dtype", "pandas")  # of transforms


def compare(
    runs: Run | str | Path | Sequence[Run | str | Path],
    *,
    metrics: str | Sequence[str] = (),
    data: Any = None,
    split: str | None = None,
    group: bool = False,
    seed: int = 0,
    device: str = "cpu",
    out: str | Path | None = None,
    progress: Callable[[str], None] | None = None,
    **options: Any,
) -> Comparison:
    """Evaluates runs on the same examples, and determines which differences are larger than the noise.

    Runs evaluated on different examples, and likelihoods of different kinds, are never ranked against each other.
    Nothing is written into the run folders.

    Args:
        runs: two or more runs or their folders.
        metrics: names of metrics or of their figures; each is skipped for models that do not support it. By default all
            that apply, except slow ones.
        data: the new place of the runs' data, or other data, preprocessed like each run's, to evaluate them on.
        split: the split to evaluate; by default the first of test, validation and train that every run has, and all of
            other data that has no test split.
        group: whether to group runs that differ only in their seed, and report median and range.
        seed: random seed, the same for every run.
        device: device for evaluation.
        out: the ``.html`` file to write; none when not given.
        progress: is told which run and metric is being computed.
        options: options by metric, such as ``log_prob={"k": 1000}``; the same for every run.

    Raises:
        ConfigError: fewer than two runs, a duplicate run, or an unknown metric.
        CapabilityError: a metric that none of the models supports.
        DataError: there is no such split, or the data cannot be read again.

    Example:
        >>> import tempfile
        >>> from sandglass.engine.train import train
        >>> folder = tempfile.mkdtemp()
        >>> runs = [train("vae", "digits", out=f"{folder}/{d}", model_options={"latent_dim": d}, epochs=1)
        ...         for d in (1, 8)]
        >>> found = compare(runs, metrics=["mse"])
        >>> [(c.figure, c.better, sorted(c.results)) for c in found.blocks[0].rankings]
        [('mse', 'lower', ['1', '8'])]
        >>> [name for name, _ in found.differences]
        ['latent_dim']
    """
    metrics = listed(metrics)
    given: Sequence[Run | str | Path] = [runs] if isinstance(runs, str | Path | Run) else runs
    found = [run if isinstance(run, Run) else Run(run) for run in given]
    if len(found) < 2:
        raise ConfigError("Give two or more runs to compare; `sandglass runs` lists them.")
    try:
        names = names_of(found)
    except ValueError as error:
        raise ConfigError(f"The run {error} is given twice.") from error
    if out is not None and Path(out).suffix.lower() != ".html":
        raise ConfigError(f"The page must end in .html, not {out}.")
    wanted(metrics, options)  # rejects unknown metrics before anything is read
    read = _data(found, data)
    own = all(one.own for one in read)
    if not own and any(one.own for one in read):  # of runs trained on different data: new to some, so new to all
        read = [
            one if isinstance(data, Dataset) else Found(new_data(reading_of(run), data), False, one.remark)
            for run, one in zip(found, read, strict=True)
        ]
    have = [one.data.splits for one in read]
    usual = next((s for s in _ORDER[: None if own else 1] if all(s in splits for splits in have)), "all")
    split = split or usual
    if split == "all":
        read = [replace(f, data=replace(f.data, splits={**f.data.splits, split: joined(f.data.splits)})) for f in read]
    costly = any(registry.declared(run.config["model"]["name"]).evaluations > 1 for run in found)
    sides = []
    for run, name, one in zip(found, names, read, strict=True):
        tell = None if progress is None else partial(_tell, progress, name)
        most = COSTLY if costly else None
        sides.append(_side(run, name, one, split, metrics, seed, device, options, most, tell))
    if metrics and not any(side.results for side in sides):
        raise CapabilityError(f"None of these models has {', '.join(metrics)}.")
    blocks: dict[str, list[Side]] = {}
    for side in sides:
        blocks.setdefault(side.examples, []).append(side)
    titles = {id(side): one.data.name for side, one in zip(sides, read, strict=True)}
    made = [Block(s, titles[id(s[0])], split, group) for s in blocks.values()]
    comparison = Comparison(made, split, seed, _warnings(made, read, sides))
    if out is not None:
        make_folder(Path(out).parent)
        storage.write_file(Path(out), page(comparison).encode())
    return comparison


def _tell(progress: Callable[[str], None], name: str, doing: str) -> None:
    progress(f"{name}, {doing}")


def _data(runs: Sequence[Run], place: Any) -> list[Found]:
    """The data of each run; a shared one is read once."""
    read: dict[str, Found] = {}
    made = []
    for run in runs:
        key = strict_json([run.config["data"].get("source"), run.config["data"]["fingerprint"]])
        key = key if place is None else str(run.path)  # other data is preprocessed like that of the run
        if key not in read:
            read[key] = find_data(run, place)
        made.append(read[key])
    return made


def _side(
    run: Run,
    name: str,
    found: Found,
    split: str,
    metrics: Sequence[str],
    seed: int,
    device: str,
    options: Mapping[str, Mapping[str, Any]],
    most: int | None,
    progress: Callable[[str], None] | None,
) -> Side:
    data = found.data
    if split not in data.splits:
        raise DataError(
            f"There is no split '{split}' in '{data.name}' of {run.path}; it has: {', '.join(data.splits)}."
        )
    model = run.load_model(device=device)
    named = [m for m in metrics if all(can(model, name) for name in wanted([m]))]
    own = {k: v for k, v in options.items() if can(model, k)}
    results = []
    if named or own or not metrics:
        names = [*named, *(own if metrics else ())]
        known = {} if found.own else {"train": None}
        about: dict[str, Any] = {**context_of(data), **known, **own, "progress": progress}
        about |= {"seed": seed, "most": most, "quick": not names, "exact": True}
        results = measure(model, data.splits[split], names=names, **about)
    examples = fingerprint(data.spec, {split: data.splits[split]}, data.classes)
    examples += strict_json(_preprocessing(run.config["transform"]))
    material = Material(run, model, data, [{"split": split, "metrics": {}}])
    return Side(name, material, {r.name: r for r in results}, kind_of(model), examples, kept_step(run))


def _preprocessing(transform: Any) -> Any:
    """What a transform does to examples, without the form in which they are given back."""
    if isinstance(transform, Mapping):
        return {k: _preprocessing(v) for k, v in transform.items() if k not in _FORM}
    return [_preprocessing(v) for v in transform] if isinstance(transform, list) else transform


def _warnings(blocks: Sequence[Block], read: Sequence[Found], sides: Sequence[Side]) -> list[str]:
    """Warnings about what limits the comparison."""
    said = []
    if len(blocks) > 1:
        parts = "; ".join(", ".join(side.name for side in block.sides) for block in blocks)
        said.append(
            f"Not all runs were evaluated on the same examples with the same preprocessing: {parts}. These groups are "
            "shown separately, and their figures cannot be compared."
        )
    for block in blocks:
        kinds = {side.kind for side in block.sides if side.kind}
        if len(kinds) > 1:
            parts = "; ".join(
                f"{KINDS[kind]}: {', '.join(s.name for s in block.sides if s.kind == kind)}" for kind in sorted(kinds)
            )
            said.append(f"Likelihoods of different kinds cannot be compared, and have separate rows ({parts}).")
        trained = {side.run.config["data"]["fingerprint"] for side in block.sides}
        if len(trained) > 1:
            said.append("These runs were evaluated on the same examples, but trained on different ones.")
    for side, found in zip(sides, read, strict=True):
        if found.remark:
            said.append(found.remark + " Its figures may be too optimistic." * found.own)
        planned, done = (
            side.run.config["training"]["epochs"],
            max((r["epoch"] for r in side.material.records), default=0),
        )
        state = side.run.events()[-1:] or [{}]
        if done < planned and state[0].get("event") != "stop":
            said.append(f"{side.name} is still training or was killed: {done:g} of {planned} epochs.")
        bad = [name for name, result in side.results.items() if result.to_dict()["value"] is None]
        if bad:
            said.append(f"Of {side.name}, {', '.join(bad)} is not finite.")
    return said

"""Exports a trained model to a folder of ONNX graphs, which run without PyTorch and Sandglass.

A graph is written only after it has been verified against the model at several batch sizes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import count
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from sandglass import __version__, registry, rng
from sandglass.core import Batch, Model, Spec
from sandglass.data.dataset import Split
from sandglass.data.trained_on import run_data, transform_of
from sandglass.errors import CapabilityError, ConfigError, DataError, MissingPackageError
from sandglass.exports.graph import Decoder, Encoder, annotate, check_opset, conditions, convert
from sandglass.exports.parity import BATCHES, TOLERANCE, Difference, check, compare
from sandglass.exports.readme import readme
from sandglass.runs import storage
from sandglass.runs.load import load
from sandglass.runs.run import Run
from sandglass.runs.specification import to_plain

PARTS = {"encoder": "encode", "decoder": "decode"}
"""The parts that can be exported, with the capability that each needs."""


@dataclass(frozen=True)
class Exported:
    """The result of :func:`export`.

    Args:
        path: the folder.
        parts: names of the exported parts.
        differences: the largest difference of each part.
        examples: description of the examples used for verification.
    """

    path: Path
    parts: tuple[str, ...]
    differences: tuple[Difference, ...]
    examples: str


def export(
    source: Run | str | Path,
    out: str | Path | None = None,
    *,
    format: str = "onnx",
    parts: Sequence[str] = (),
    opset: int | None = None,
    tolerance: float = TOLERANCE,
    **own: Any,
) -> Exported:
    """Exports the encoder and the decoder of a trained model as ONNX graphs for any batch size.

    The encoder maps ``x`` to ``code``, the decoder ``z`` to ``x``, all float32. Further outputs of the encoder are the
    other parameters of the posterior, with their names in ``torch.distributions`` (``scale``). Conditional models have
    an additional input ``y`` for labels, int64, or an input for each companion. The metadata of the graphs has, as
    JSON, the model's configuration, the data's :class:`~sandglass.core.Spec` and its transform. Each graph is verified
    in ONNX Runtime against PyTorch on up to 64 of the run's examples, or on random ones if these are not available.

    Args:
        source: a run, a model folder or a hub id.
        out: the folder; by default the next free ``<name>-onnx``.
        format: ``"onnx"``.
        parts: ``"encoder"``, ``"decoder"`` or both; by default all that the model has.
        opset: ONNX opset; None for the exporter's default.
        tolerance: largest difference between graph and model, see :data:`TOLERANCE`.
        own: custom objects that the model was built with, such as ``net=...``.

    Raises:
        ConfigError: an unknown format or part, an unsupported opset, or a folder that is not empty.
        CapabilityError: a part that the model does not have or that cannot be exported, or a graph that differs from
            the model by more than the tolerance; then nothing is written.
        MissingPackageError: it needs ``pip install 'sandglass-ml[export]'``.
        SaveError: the folder could not be written.

    Example:
        >>> import tempfile
        >>> from sandglass.engine.train import train
        >>> folder = Path(tempfile.mkdtemp())
        >>> options = {"latent_dim": 2, "net": "linear"}
        >>> run = train("ae", "digits", out=folder / "run", epochs=1, model_options=options)
        >>> done = export(run, folder / "onnx", parts=["decoder"])
        >>> sorted(f.name for f in done.path.iterdir()), done.differences[0].value < 1e-5
        (['MANIFEST.json', 'README.md', 'decoder.onnx'], True)
    """
    require_packages()
    if format != "onnx":
        raise ConfigError(f"There is no export format '{format}'. Known: onnx.")
    check_opset(opset)
    path = folder_for(source, out)
    model = load(source, **own).float()
    chosen = chosen_parts(model, parts)
    transform = transform_of(source)
    batch, examples = inputs(source, model.spec)
    about = {"model": model.config, "spec": to_plain(model.spec), "transform": transform.to_dict()}
    files: dict[str, storage.Content] = {}
    differences = []
    with torch.no_grad(), rng.forked("cpu", 0, "export"):
        modules: dict[str, Any] = {}
        given = conditions(model, batch)
        if "encoder" in chosen:
            modules["encoder"] = Encoder(model, batch.map(lambda t: t[:2])), {"x": batch.x, **given}
        if "decoder" in chosen:
            modules["decoder"] = Decoder(model, batch), {"z": codes(model, batch), **given}
        for part, (module, values) in modules.items():
            graph = convert(module, values, part, opset)
            annotate(graph, {**about, "part": part})
            data = graph.SerializeToString(deterministic=True)
            differences.append(compare(data, module, values, part))
            check(differences[-1], tolerance)
            files[f"{part}.onnx"] = data
    files["README.md"] = readme(modules, model, transform).encode()
    with storage.saving(path):
        path.parent.mkdir(parents=True, exist_ok=True)
    storage.write_folder(path, files, {"sandglass": __version__, "torch": str(torch.__version__), "parts": chosen})
    return Exported(path, tuple(chosen), tuple(differences), examples)


def require_packages() -> None:
    """Checks that the packages needed for an export are installed.

    Raises:
        MissingPackageError: onnx, onnxruntime or onnxscript is not installed.
    """
    try:
        import onnx  # noqa: F401
        import onnxruntime  # type: ignore[import-untyped]  # noqa: F401
        import onnxscript  # noqa: F401
    except ImportError as error:
        raise MissingPackageError(
            f"An export needs the package {error.name}: pip install 'sandglass-ml[export]'."
        ) from error


def folder_for(source: Run | str | Path, out: str | Path | None) -> Path:
    """The folder to write: the given one, or the next free one.

    Raises:
        ConfigError: it is not empty.
    """
    if out is None:
        stem = f"{(source.path if isinstance(source, Run) else Path(source)).resolve().name}-onnx"
        names = (Path(stem if n == 1 else f"{stem}-{n}") for n in count(1))
        return next(p for p in names if not p.exists())
    path = Path(out)
    if path.exists() and (not path.is_dir() or any(path.iterdir())):
        raise ConfigError(f"{path} already exists and is not empty; name another folder with -o.")
    return path


def chosen_parts(model: Model, parts: Sequence[str]) -> list[str]:
    """The parts to export, in the order of :data:`PARTS`.

    Raises:
        ConfigError: an unknown part.
        CapabilityError: one that the model does not have.
    """
    for part in parts:
        if part not in PARTS:
            hint = registry.nearest(part, list(PARTS))
            raise ConfigError(f"There is no part '{part}'.{hint} Known: {', '.join(PARTS)}.")
        registry.require(model, PARTS[part])
    found = [part for part in PARTS if part in parts or (not parts and PARTS[part] in model.provides)]
    if not found:
        name = model.config["name"]
        raise CapabilityError(f"The model '{name}' has neither an encoder nor a decoder to export.")
    return found


def inputs(source: Run | str | Path, spec: Spec) -> tuple[Batch, str]:
    """64 examples for the verification, and a description of their origin."""
    n = max(BATCHES)
    path = source.path if isinstance(source, Run) else Path(source)
    if isinstance(source, Run) or (path / "config.yaml").is_file():
        try:
            data = run_data(source if isinstance(source, Run) else Run(path))
            name = "test" if "test" in data.splits else "train"
            split: Split = data.splits[name]
            batch = replace(split.batch(torch.arange(n) % len(split)), mask=None, beside={})
            if batch.x.shape[1:] == spec.shape:
                single = batch.map(lambda t: t.float() if t.is_floating_point() else t)
                return single, f"{min(n, len(split))} {name} examples of {data.name}"
        except (DataError, ConfigError, FileNotFoundError, OSError):
            pass  # the data was moved, or was passed as a Python object
    generator = rng.generator(0, "export")
    x = made_up(spec, n, generator)
    y = torch.randint(spec.classes, (n,), generator=generator) if spec.classes else None
    given = {name: made_up(other, n, generator) for name, other in spec.given.items()}
    return Batch(x, y, given=given), f"{n} random examples"


def made_up(spec: Spec, n: int, generator: torch.Generator) -> Tensor:
    """``(n, *shape)`` random values in the range of the data."""
    if spec.support == "real":
        return torch.randn(n, *spec.shape, generator=generator)
    levels = 2 if spec.support == "binary" else spec.levels
    drawn = torch.randint(levels, (n, *spec.shape), generator=generator)
    return drawn if spec.support == "index" else drawn / (levels - 1)


def codes(model: Model, batch: Batch) -> Tensor:
    """Codes to verify a decoder on: encoded examples, every other one outside their range; else prior samples."""
    if "encode" not in model.provides:
        if "prior" not in model.provides:
            return torch.randn(len(batch), model.code_size)
        prior = model.prior(batch)
        return prior.sample(torch.Size([] if prior.batch_shape else [len(batch)]))
    z = model.encode(batch).clone()
    if registry.can(model, "codes"):  # the codes of a model that has learnt little lie close together
        z[1::2] = z.mean(0) + (1 + z.std(0)) * torch.randn_like(z[1::2])
    return z

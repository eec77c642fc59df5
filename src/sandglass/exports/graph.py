"""Converts the encoder or decoder of a model to an ONNX graph."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.distributions import Distribution, Independent

from sandglass import __version__
from sandglass.core import Batch, Model
from sandglass.errors import CapabilityError, ConfigError
from sandglass.runs.plain import strict_json

if TYPE_CHECKING:
    from onnx import ModelProto

_LARGEST = 2**31 - 2**20  # bytes of weights in a file; the limit of protobuf is 2 GiB
_OLDEST = 18  # the oldest opset that the exporter supports


class Encoder(nn.Module):
    """Maps ``x`` and the conditions to the code and, if there is a posterior, its other parameters.

    Args:
        model: a model with an encoder, in eval mode.
        batch: some examples, to determine the parameters of the posterior.
    """

    def __init__(self, model: Model, batch: Batch) -> None:
        super().__init__()
        self.model = model
        self.inputs = ("x", *conditions(model, batch))
        code, extras = model.encode(batch), {}
        if "posterior" in model.provides:
            found = parameters_of(model.posterior(batch))
            extras = {k: v for k, v in found.items() if v.shape != code.shape or not torch.equal(v, code)}
        self.extras = tuple(extras)

    @property
    def outputs(self) -> tuple[str, ...]:
        """Names of the outputs."""
        return ("code", *self.extras)

    def forward(self, x: Tensor, given: tuple[Tensor, ...] = ()) -> tuple[Tensor, ...]:
        """Maps ``(B, *shape)`` and conditions to ``(B, D)`` codes and other parameters of the posterior."""
        batch = replace(given_as(self.inputs[1:], given), x=x)
        extras = parameters_of(self.model.posterior(batch)) if self.extras else {}
        return (self.model.encode(batch), *(extras[name] for name in self.extras))


class Decoder(nn.Module):
    """Maps codes and the conditions to examples.

    Args:
        model: a model with a decoder, in eval mode.
        batch: some examples, to determine the conditions.
    """

    outputs = ("x",)

    def __init__(self, model: Model, batch: Batch) -> None:
        super().__init__()
        self.model = model
        self.inputs = ("z", *conditions(model, batch))

    def forward(self, z: Tensor, given: tuple[Tensor, ...] = ()) -> tuple[Tensor]:
        """Maps ``(B, D)`` and conditions to means ``(B, *shape)``."""
        return (self.model.decode(z, given_as(self.inputs[1:], given)),)


LABELS = "y"
"""Name of the input for labels, ``(B,)`` class indices; that of a companion is its own name."""


def conditions(model: Model, batch: Batch) -> dict[str, Tensor]:
    """The conditions of a model by input name: ``(B,)`` class indices, or companions ``(B, ...)``."""
    found = {}
    for name in model.conditions:
        found[LABELS if name == "labels" else name] = batch.y if name == "labels" else batch.given[name]
    return found  # type: ignore[return-value]


def given_as(names: Sequence[str], values: Sequence[Tensor]) -> Batch:
    """A batch with only conditions, the inverse of :func:`conditions`."""
    given = dict(zip(names, values, strict=True))
    return Batch(y=given.pop(LABELS, None), given=given)


def parameters_of(q: Distribution) -> dict[str, Tensor]:
    """The parameters that a distribution was created with, by their PyTorch names.

    Example:
        >>> from torch.distributions import Normal
        >>> sorted(parameters_of(Independent(Normal(torch.zeros(2, 3), 1.0), 1)))
        ['loc', 'scale']
    """
    while isinstance(q, Independent):
        q = q.base_dist
    made = vars(q)
    return {name: made[name] for name in q.arg_constraints if isinstance(made.get(name), Tensor) and made[name].dim()}


def convert(module: nn.Module, given: Mapping[str, Tensor], part: str, opset: int | None) -> ModelProto:
    """Converts a module to a graph with a dynamic batch size.

    Args:
        module: an :class:`Encoder` or :class:`Decoder`.
        given: its inputs by name.
        part: name of the part, for messages.
        opset: ONNX opset, None for the exporter's default.

    Raises:
        CapabilityError: ONNX has no operator for an operation, or the weights are too large for a file.
        ConfigError: it cannot be expressed in that opset.
    """
    size = sum(p.nbytes for p in [*module.parameters(), *module.buffers()])
    if size > _LARGEST:
        raise CapabilityError(f"The model has {size / 2**30:.1f} GiB of weights; an ONNX file holds 2.")
    batch = torch.export.Dim("batch")
    first, *rest = (t[:3] for t in given.values())
    shapes = ({0: batch}, tuple({0: batch} for _ in rest))
    try:
        with quiet():
            program = torch.onnx.export(
                module.eval(),
                (first, tuple(rest)) if rest else (first,),
                dynamo=True,
                dynamic_shapes=shapes if rest else shapes[:1],
                input_names=list(given),
                output_names=list(module.outputs),  # type: ignore[arg-type]
                opset_version=opset,
                verbose=False,
            )
            assert program is not None
            graph = program.model_proto
    except (torch.onnx.errors.OnnxExporterError, RuntimeError, ValueError, TypeError) as error:
        why = " ".join(str(error.__cause__ or error).split())[:200]
        raise CapabilityError(f"The {part} cannot be exported to ONNX: {why}") from error
    made = next(o.version for o in graph.opset_import if not o.domain)
    if opset not in (None, made):
        raise ConfigError(f"The {part} cannot be exported with opset {opset}, only with {made}.")
    return graph


@contextmanager
def quiet() -> Iterator[None]:
    """Silences the exporter's warnings about unused packages and its internals."""
    log = logging.getLogger("torch.onnx._internal.exporter._registration")

    def without_torchvision(record: logging.LogRecord) -> bool:
        return "torchvision is not installed" not in record.getMessage()

    log.addFilter(without_torchvision)
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", r".*LeafSpec.* is deprecated", FutureWarning)
            warnings.filterwarnings("ignore", r".*axis name: batch will not be used", UserWarning)  # all share it
            yield
    finally:
        log.removeFilter(without_torchvision)


def check_opset(opset: int | None) -> None:
    """Checks that the exporter supports an opset.

    Raises:
        ConfigError: it is older than the exporter supports, or newer than the package onnx.
    """
    import onnx

    newest = onnx.defs.onnx_opset_version()
    if opset is not None and not _OLDEST <= opset <= newest:
        raise ConfigError(f"opset must be {_OLDEST} to {newest}, not {opset}; leave it out for the exporter's default.")


def annotate(graph: ModelProto, about: Mapping[str, Any]) -> None:
    """Adds metadata to a graph, and removes paths of this machine.

    Args:
        graph: the graph, modified in place.
        about: metadata by name, stored as JSON under ``sandglass.<name>``.
    """
    from onnx import helper

    for node in (*graph.graph.node, *(n for f in graph.functions for n in f.node)):
        del node.metadata_props[:]
        node.doc_string = ""
    del graph.graph.metadata_props[:]
    for value in (*graph.graph.value_info, *graph.graph.input, *graph.graph.output, *graph.graph.initializer):
        if hasattr(value, "metadata_props"):
            del value.metadata_props[:]
    props = {"sandglass.version": __version__}
    props |= {f"sandglass.{k}": v if isinstance(v, str) else strict_json(v) for k, v in about.items()}
    helper.set_model_props(graph, props)

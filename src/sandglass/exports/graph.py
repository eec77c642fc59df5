"""From a model's encoder or decoder to an ONNX graph."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.distributions import Distribution, Independent

from sandglass import __version__
from sandglass.core import Model
from sandglass.errors import CapabilityError, ConfigError
from sandglass.runs.plain import strict_json

if TYPE_CHECKING:
    from onnx import ModelProto

_LARGEST = 2**31 - 2**20  # bytes of weights in one file; protobuf ends at 2 GiB
_OLDEST = 18  # the opset that the exporter's operators are written in


class Encoder(nn.Module):
    """``x`` to the code and, where there is a posterior, its other parameters.

    Args:
        model: with an encoder, in eval mode.
        x: one batch, to see what the posterior has.
    """

    def __init__(self, model: Model, x: Tensor) -> None:
        super().__init__()
        self.model = model
        code, extras = model.encode(x), {}
        if "posterior" in model.provides:
            found = parameters_of(model.posterior(x))
            extras = {k: v for k, v in found.items() if v.shape != code.shape or not torch.equal(v, code)}
        self.extras = tuple(extras)

    @property
    def outputs(self) -> tuple[str, ...]:
        """Names of what it puts out."""
        return ("code", *self.extras)

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        """``(B, *shape)`` to ``(B, latent_dim)`` codes and the rest."""
        extras = parameters_of(self.model.posterior(x)) if self.extras else {}
        return (self.model.encode(x), *(extras[name] for name in self.extras))


class Decoder(nn.Module):
    """Codes to examples.

    Args:
        model: with a decoder, in eval mode.
    """

    outputs = ("x",)

    def __init__(self, model: Model) -> None:
        super().__init__()
        self.model = model

    def forward(self, z: Tensor) -> tuple[Tensor]:
        """``(B, latent_dim)`` to means ``(B, *shape)``."""
        return (self.model.decode(z),)


def parameters_of(q: Distribution) -> dict[str, Tensor]:
    """The parameters of a distribution by PyTorch's names, those alone that it was made with.

    Example:
        >>> from torch.distributions import Normal
        >>> sorted(parameters_of(Independent(Normal(torch.zeros(2, 3), 1.0), 1)))
        ['loc', 'scale']
    """
    while isinstance(q, Independent):
        q = q.base_dist
    made = vars(q)
    return {name: made[name] for name in q.arg_constraints if isinstance(made.get(name), Tensor) and made[name].dim()}


def convert(module: nn.Module, given: Tensor, part: str, opset: int | None) -> ModelProto:
    """The graph of a module, its first axis free.

    Raises:
        CapabilityError: it does something that ONNX has no operator for, or weighs too much for one file.
        ConfigError: what it does cannot be said in that opset.
    """
    size = sum(p.nbytes for p in [*module.parameters(), *module.buffers()])
    if size > _LARGEST:
        raise CapabilityError(f"The model has {size / 2**30:.1f} GiB of weights; an ONNX file holds 2.")
    name = "z" if part == "decoder" else "x"
    try:
        with quiet():
            program = torch.onnx.export(
                module.eval(),
                (given[:3],),
                dynamo=True,
                dynamic_shapes=({0: torch.export.Dim("batch")},),
                input_names=[name],
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
        raise ConfigError(f"The {part} cannot be written in opset {opset}; {made} is what it was possible in.")
    return graph


@contextmanager
def quiet() -> Iterator[None]:
    """Keeps back what the exporter says of packages that we do not use, and of its own insides; nothing else."""
    log = logging.getLogger("torch.onnx._internal.exporter._registration")

    def without_torchvision(record: logging.LogRecord) -> bool:
        return "torchvision is not installed" not in record.getMessage()

    log.addFilter(without_torchvision)
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", r".*LeafSpec.* is deprecated", FutureWarning)
            yield
    finally:
        log.removeFilter(without_torchvision)


def check_opset(opset: int | None) -> None:
    """Refuses a version of ONNX's operators that the exporter does not write.

    Raises:
        ConfigError: it is older than its operators, or newer than the package onnx.
    """
    import onnx

    newest = onnx.defs.onnx_opset_version()
    if opset is not None and not _OLDEST <= opset <= newest:
        raise ConfigError(f"opset must be {_OLDEST} to {newest}, not {opset}; leave it out for the exporter's choice.")


def annotate(graph: ModelProto, about: Mapping[str, Any]) -> None:
    """Puts what a stranger needs into a graph, and takes out where on this machine its code was.

    Args:
        graph: changed in place.
        about: by name, what becomes JSON under ``sandglass.<name>``.
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

"""Sandglass: generative models of a person's own images and tables.

Example:
    >>> import sandglass
    >>> data = sandglass.load_data("digits")
    >>> model = sandglass.build("vae", data.spec, latent_dim=2)
    >>> model.sample(4).shape
    torch.Size([4, 1, 8, 8])
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sandglass.api import (
        build,
        evaluate,
        figures,
        fit_sampler,
        generate,
        load,
        load_data,
        reconstruct,
        report,
        resume,
        train,
        use,
    )
    from sandglass.census.take import inspect
    from sandglass.comparing.compare import compare
    from sandglass.core import Spec
    from sandglass.exports.write import export
    from sandglass.runs.run import Run
    from sandglass.sweeps.sweep import sweep

__version__ = "0.2.0"
__all__ = [
    "Run",
    "Spec",
    "build",
    "compare",
    "evaluate",
    "export",
    "figures",
    "fit_sampler",
    "generate",
    "inspect",
    "load",
    "load_data",
    "reconstruct",
    "report",
    "resume",
    "sweep",
    "train",
    "use",
]

_HOMES = {
    "compare": "sandglass.comparing.compare",
    "export": "sandglass.exports.write",
    "inspect": "sandglass.census.take",
    "Run": "sandglass.runs.run",
    "Spec": "sandglass.core",
    "sweep": "sandglass.sweeps.sweep",
}


def __getattr__(name: str) -> Any:
    """Loads what is asked for when it is asked for, so that the import itself stays light."""
    if name not in __all__:
        raise AttributeError(f"module 'sandglass' has no attribute '{name}'")
    import importlib

    return getattr(importlib.import_module(_HOMES.get(name, "sandglass.api")), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])

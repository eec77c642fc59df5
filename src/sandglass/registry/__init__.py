"""Names to classes: the signature is the configuration.

A class registers itself under a name, with a preset if the name is a variant. Configuration files, flags and forms are
drawn from its signature by :func:`schema`; :func:`build` turns a name and plain options into an object and refuses what
the signature does not have. Nothing is ever imported because a file names it: a name is looked up here or refused.

Example:
    >>> from sandglass.core import Spec
    >>> model = build("beta-vae", Spec((1, 8, 8), "unit"), latent_dim=2)
    >>> model.config["options"]["beta"]
    4.0
"""

from __future__ import annotations

from sandglass.registry.building import (
    able,
    build,
    can,
    check_needs,
    completed,
    declared,
    model_for,
    name_of,
    origins,
    outline,
    registered,
    require,
    resolve,
    settle,
)
from sandglass.registry.completing import expand, merged, moved, moved_options
from sandglass.registry.names import (
    AUTO,
    Entry,
    Kind,
    LikelihoodOption,
    NetOption,
    Option,
    OptionsOf,
    PosteriorOption,
    PriorOption,
    QuantiserOption,
    SamplerOption,
    ScheduleOption,
    entries,
    entry,
    import_file,
    imported_files,
    kinds,
    names,
    nearest,
    present,
    register,
    schema,
    signature,
)

__all__ = [
    "AUTO",
    "Entry",
    "Kind",
    "LikelihoodOption",
    "NetOption",
    "Option",
    "OptionsOf",
    "PosteriorOption",
    "PriorOption",
    "QuantiserOption",
    "SamplerOption",
    "ScheduleOption",
    "able",
    "build",
    "can",
    "check_needs",
    "completed",
    "declared",
    "entries",
    "entry",
    "expand",
    "import_file",
    "imported_files",
    "kinds",
    "merged",
    "moved",
    "moved_options",
    "model_for",
    "name_of",
    "names",
    "nearest",
    "origins",
    "outline",
    "present",
    "register",
    "registered",
    "require",
    "resolve",
    "schema",
    "settle",
    "signature",
]

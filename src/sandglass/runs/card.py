"""The model card: the README of a model folder."""

from __future__ import annotations

import html
import re
from collections.abc import Mapping
from typing import Any

from sandglass.runs.run import Run


def model_card(run: Run) -> str:
    """Markdown that describes the model, its training data and its use."""
    config = run.config
    model, data, training = config["model"], config["data"], config["training"]
    shape = "x".join(map(str, config["spec"]["shape"]))
    examples = ", ".join(f"{n:,} {name}" for name, n in data["examples"].items())
    options = "\n".join(f"| {key} | `{value}` |" for key, value in model["options"].items())
    data_name = as_text(data["name"])
    return f"""---
library_name: sandglass
tags: [sandglass, {model["name"]}, generative]
---

# {model["name"]} on {data_name}

A generative model of examples of shape {shape}, trained with Sandglass {config["environment"]["sandglass"]}.

```python
import sandglass

model = sandglass.load(".")  # this folder, or its hub id
samples = model.sample(16)
```

| option | value |
|---|---|
{options}

Data: {data_name} ({examples}); fingerprint `{data["fingerprint"][:16]}`.
Training: {training["epochs"]} epochs{ended(training)}, batches of {training["batch_size"]}, {training["optimizer"]},
seed {training["seed"]}.
Every setting is in `config.json`; `MANIFEST.json` holds a SHA-256 of each file.
"""


def ended(training: Mapping[str, Any]) -> str:
    """Which stages ended before their last epoch, as a run of some minutes may; empty if none did.

    Example:
        >>> ended({"stage": {"train": {"max_steps": 1200}}})
        ' (the stage train ended after 1,200 updates)'
    """
    steps = {name: own["max_steps"] for name, own in training.get("stage", {}).items() if own.get("max_steps")}
    found = ", ".join(f"the stage {name} ended after {n:,} updates" for name, n in steps.items())
    return f" ({found})" if found else ""


def as_text(name: str) -> str:
    r"""A name escaped for Markdown and HTML.

    Example:
        >>> print(as_text("my_photos <b>"))
        my\_photos &lt;b&gt;
    """
    return re.sub(r"([\\`*_\[\]|#~!])", r"\\\1", html.escape(" ".join(name.split()), quote=False))

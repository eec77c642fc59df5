"""The README of an exported model: its graphs, and an example of their use."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from sandglass import __version__, registry
from sandglass.core import Model
from sandglass.data.transform import Transform
from sandglass.exports.graph import LABELS


def readme(modules: Mapping[str, Any], model: Model, transform: Transform) -> str:
    """Markdown that describes the folder and its use."""
    lines, use = [], []
    for part, (module, given) in modules.items():
        inputs = ", ".join(f"`{name}` (B{''.join(f', {n}' for n in t.shape[1:])})" for name, t in given.items())
        lines.append(f"* `{part}.onnx`: {inputs} to {', '.join(f'`{o}`' for o in module.outputs)}")
    given = next(iter(modules.values()))[1]
    beside = [name for name in given if name not in ("x", "z")]
    use += [f"{name} = {_zeros(given[name])}" for name in beside]
    feeds = "".join(f', "{name}": {name}' for name in beside)
    if "encoder" in modules:
        use += [
            'encoder = onnxruntime.InferenceSession("encoder.onnx", providers=["CPUExecutionProvider"])',
            f"x = {_zeros(modules['encoder'][1]['x'])}  # seven examples",
            f'code = encoder.run(["code"], {{"x": x{feeds}}})[0]',
            'about = json.loads(encoder.get_modelmeta().custom_metadata_map["sandglass.transform"])',
        ]
    if "decoder" in modules:
        use += [
            'decoder = onnxruntime.InferenceSession("decoder.onnx", providers=["CPUExecutionProvider"])',
            *([] if "encoder" in modules else [f"code = {_zeros(modules['decoder'][1]['z'])}"]),
            f'made = decoder.run(["x"], {{"z": code{feeds}}})[0]',
        ]
    code = "\n".join(["import json", "", "import numpy as np", "import onnxruntime", "", *use])
    code = code if "encoder" in modules else code.replace("import json\n\n", "")
    listing = "\n".join(lines)
    integers = [f"class indices `{LABELS}`"] * (LABELS in beside) + ["codes"] * (not registry.can(model, "codes"))
    whole = f", except the {' and '.join(integers)}, which are int64" if integers else ""
    return f"""# {model.config["name"]}, exported by Sandglass {__version__}

{listing}

All numbers are float32{whole}, B is any number of examples. {prepared(transform)}

```python
{code}
```

The metadata of each graph has, as JSON, `sandglass.model` (the configuration), `sandglass.spec` (the shape and range of
examples) and `sandglass.transform` (preprocessing and its inverse). `MANIFEST.json` has a SHA-256 of each file.
"""


def _zeros(t: Tensor) -> str:
    """Code that creates an input of seven examples."""
    dtype = "float32" if t.is_floating_point() else "int64"
    return f"np.zeros(({', '.join(map(str, (7, *t.shape[1:])))}{',' * (t.dim() == 1)}), np.{dtype})"


def prepared(transform: Transform) -> str:
    """A description of the preprocessing."""
    values = transform.to_dict()
    if transform.kind == "image":
        height, width = values["size"]
        known = {1: "grey", 3: "red, green and blue", 4: "red, green, blue and alpha"}
        colours = known.get(values["channels"], f"{values['channels']} channels")
        low, high = values.get("value_range") or (0, 0)
        scaled = f"values from {low:g} to {high:g} scaled to [0, 1]" if high else "bytes divided by 255"
        return (
            f"`x` is a picture resized ({values['fit']}) to {height} rows and {width} columns ({colours}, channels "
            f"first), with {scaled}; outputs of the decoder are in [0, 1]."
        )
    if transform.kind == "array":
        return f"`x` is `(raw - {values['mean']!r}) / {values['scale']!r}` of the raw numbers."
    return (
        "`x` is the concatenation of the encoded columns of a row: a number, rank or date (in seconds since 1970) as "
        "`(raw - mean) / scale`, a category as one-hot in the order of its `categories`, a missing cell as 0."
    )

"""``log p(x)`` of test pictures by importance sampling: Sandglass and pythae's ``get_nll``, with the same weights."""

from __future__ import annotations

from contextlib import ExitStack
from typing import Any

import numpy as np

from benchmarks.speed.contenders import Setting
from benchmarks.speed.data import pictures, stored
from benchmarks.speed.session import AbsentError
from benchmarks.speed.workloads import Workload

DENSE = Workload(
    "likelihood", "VAE, 784-512-16", "vae", "mlp", 16, 60000, ("sandglass", "pythae"),
    options={"likelihood": "bernoulli", "beta_schedule": "constant"},
)  # fmt: skip
BATCH = 100
"""How many draws ``get_nll`` takes at once by default."""


def measure(setting: Setting, images: int, k: int, blocks: int, peers: bool = True) -> dict[str, Any]:
    """Trains a model for an epoch and evaluates both, alternating between blocks of pictures.

    Args:
        setting: where.
        images: in all.
        k: draws for a picture.
        blocks: of pictures.
        peers: whether pythae takes part.

    Returns:
        By contender the nats of each picture, the seconds of each block and a note; or who is absent and why.
    """
    data = stored(setting.folder, "train", pictures(DENSE.examples)[1])
    test = str(stored(setting.folder, "test", pictures(images, "test")[1]))
    about = {"images": images, "k": k, "absent": {}}
    with ExitStack() as stack:
        ours = setting.start("sandglass", DENSE, data, 1)
        stack.callback(ours.close)
        ours("epoch")
        weights = str(setting.folder / "likelihood.npz")
        ours("weights", path=weights)
        turns: dict[str, tuple[Any, dict[str, int]]] = {"sandglass": (ours, {})}
        try:
            if not peers:
                raise AbsentError("not asked for")
            theirs = setting.start("pythae", DENSE, data, 1)
            stack.callback(theirs.close)
            theirs("load", path=weights)
            turns |= {f"pythae, batch {size}": (theirs, {"batch": size}) for size in dict.fromkeys((BATCH, k))}
        except AbsentError as error:
            about["absent"] = {"pythae": str(error)}
        found: dict[str, Any] = {name: {"seconds": [], "values": [], "note": ""} for name in turns}
        for worker, options in turns.values():
            worker("log_prob", path=test, start=0, stop=1, k=k, **options)  # a warm-up
        for part in np.array_split(np.arange(images), blocks):
            for name, (worker, options) in turns.items():
                block = {"start": int(part[0]), "stop": int(part[-1]) + 1}
                answer = worker("log_prob", path=test, **block, k=k, **options)
                found[name]["seconds"].append(answer["seconds"])
                found[name]["values"] += answer["values"]
                found[name]["note"] = answer.get("note", "")
    return {**about, "contenders": found}

"""Which figure sees which fault: real photographs with one thing wrong with them, at three strengths.

    python benchmarks/artefacts.py [--examples 500] [--sets 4] [--faults blur noise]

Needs ``SANDGLASS_DATA`` with ``cifar10-jpeg/train.zip``. Of its automobiles and horses it takes ``--examples`` real
images, ``--sets`` sets of as many others, from the first of which the faults are made, and the rest to learn features
from. The rows "real" are these sets as they are. The last column has the figures that are worse than those of every
real set by more than three of their standard errors.
"""

from __future__ import annotations

import argparse
import dataclasses
import os
import sys
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))

from artefacts import BAD, PHOTOS, STRENGTHS, figures, seen
from sandglass.data.load import load_data
from sandglass.runs.result import Result


def main() -> None:
    """Prints the table in Markdown."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--examples", type=int, default=500)
    parser.add_argument("--sets", type=int, default=4)
    parser.add_argument("--faults", nargs="+", default=list(PHOTOS), choices=list(PHOTOS))
    args = parser.parse_args()
    data = load_data(str(Path(os.environ["SANDGLASS_DATA"], "cifar10-jpeg", "train.zip")))
    assert data.train.y is not None
    two = torch.tensor([data.classes.index(name) for name in ("automobile", "horse")])
    kept = data.train.take(torch.nonzero(torch.isin(data.train.y, two)).flatten())
    assert kept.y is not None
    kept = dataclasses.replace(kept, y=(kept.y == two[1]).long())
    spec = dataclasses.replace(data.spec, classes=2)
    order = torch.randperm(len(kept), generator=torch.Generator().manual_seed(0))
    used = (args.sets + 1) * args.examples
    real, *others = (kept.take(part) for part in order[:used].split(args.examples))
    train = kept.take(order[used:])
    images = [other.batch(slice(None)) for other in others]
    print(f"| fault | strength | {' | '.join(BAD)} | seen by |\n|{'---|' * (len(BAD) + 3)}")
    reference: list[dict[str, Result]] = []
    for number, batch in enumerate(images, 1):
        assert batch.x is not None
        reference.append(figures(batch.x, real, train, spec, fingerprint="artefacts-photos"))
        show("real", f"set {number}", reference[-1], [])
    x, y = images[0].x, images[0].y
    assert x is not None and y is not None
    for fault in args.faults:
        for strength, make in zip(STRENGTHS, PHOTOS[fault], strict=True):
            faulty = make(x, y, torch.Generator().manual_seed(1))
            found = figures(faulty, real, train, spec, fingerprint="artefacts-photos")
            show(fault, strength, found, seen(found, reference))


def show(fault: str, strength: str, found: dict[str, Result], names: list[str]) -> None:
    """Prints a row."""
    values = (f"{found[name].value:.3g}" for name in BAD)
    print(f"| {fault} | {strength} | {' | '.join(values)} | {', '.join(names)} |", flush=True)


if __name__ == "__main__":
    main()

"""``sandglass preview``: shows augmented and corrupted training images before training."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from sandglass.app.output import say
from sandglass.app.parsing import Parser, count, output
from sandglass.errors import ConfigError

if TYPE_CHECKING:
    from torch import Tensor

    from sandglass.data.dataset import Dataset
    from sandglass.data.loading import Change
    from sandglass.tasks.sheet import Shown


def preview(words: Sequence[str]) -> int:
    """Writes a grid of examples, each change applied to them, and all changes combined in each epoch."""
    parser = Parser(
        "preview",
        "Show augmentations and corruptions of the training images before training: one row per example, one column\n"
        "per change, then all changes combined as in training with the same --seed. Without --augment and --corrupt,\n"
        "all available changes are shown.",
        [
            "preview --data digits",
            "preview --data photos/ --size 64 --augment flip,rotate=20,crop=0.8 --corrupt gaussian=0.2 -o sheet.png",
        ],
    )
    parser.add_argument("--data", metavar="SRC", required=True, help="the images, as for `sandglass train`")
    parser.add_argument("--size", metavar="N or HxW", help="height and width in pixels, if the images differ in size")
    parser.add_argument("--fit", help="how to resize images: crop (default), pad or stretch")
    parser.add_argument("--augment", default="", metavar="A,B,...", help="names, optionally with =strength")
    parser.add_argument("--corrupt", default="", metavar="A,B,...", help="the same, or name@severity from 1 to 5")
    parser.add_argument("-n", "--number", type=count, default=6, help="number of examples (default: 6)")
    parser.add_argument("--epochs", type=count, default=3, metavar="N", help="number of epochs to show (default: 3)")
    parser.add_argument("--seed", type=int, default=0, help="seed of training (default: 0)")
    output(parser, "output file, .png, .jpg or .webp (default: preview.png)")
    args = parser.parse(words)
    path = Path(args.out or "preview.png")
    if path.suffix.lower() not in (".png", ".jpg", ".jpeg", ".webp"):
        raise ConfigError(f"{path} should end in .png, .jpg or .webp.")

    from sandglass.data.augment import AUGMENTATIONS, make_augmentation
    from sandglass.data.corrupt import SCALES, make_corruption, possible
    from sandglass.data.load import load_data
    from sandglass.data.pixels import what_is_shown
    from sandglass.data.strengths import read
    from sandglass.tasks.files import free, write_image
    from sandglass.tasks.sheet import sheet

    selected = read("augmentation", AUGMENTATIONS, args.augment), read("corruption", SCALES, args.corrupt)
    data = load_data(args.data, size=args.size, fit=args.fit)
    if not data.spec.is_image:
        raise ConfigError(f"A preview shows images; '{data.name}' is a table.")
    augment, corrupt = (
        selected if any(selected) else (read("", AUGMENTATIONS, list(AUGMENTATIONS)), possible(data.spec))
    )
    groups: list[list[tuple[str, float, Change | None]]] = [
        [(name, s, make_augmentation({name: s}, data.spec)) for name, s in augment.items()],
        [(name, s, make_corruption({name: s}, data.spec)) for name, s in corrupt.items()],
    ]
    together = [make_augmentation(augment, data.spec), make_corruption(corrupt, data.spec)] if any(selected) else []
    columns = _columns(data, groups, [c for c in together if c is not None], args.number, args.epochs, args.seed)
    path = write_image(path if args.out else free(path), sheet(columns))
    if shown := what_is_shown(data.transform):
        say(f"note: {path.name} shows {shown}")
    examples, changes = len(columns[0].images), len(augment) + len(corrupt)
    print(f"{path}: {examples} examples, {changes} change{'s' * (changes != 1)}")
    return 0


def _columns(
    data: Dataset,
    groups: Sequence[Sequence[tuple[str, float, Change | None]]],
    together: Sequence[Change],
    number: int,
    epochs: int,
    seed: int,
) -> list[Shown]:
    """The originals, each change separately, and all changes combined, by epoch."""
    from sandglass import rng
    from sandglass.data.pixels import to_images
    from sandglass.tasks.sheet import Shown

    index = rng.permutation(len(data.train), seed, "preview")[:number]
    x = data.train.batch(index).x

    def column(name: str, detail: str, changes: Sequence[Change | None], epoch: int = 0, apart: bool = False) -> Shown:
        y: Tensor = x
        for change in changes:
            y = y if change is None else change(y, index, seed, epoch, "train")
        return Shown(name, detail, to_images(y, data.transform), apart)

    columns = [column("original", "", [])]
    for group in groups:
        for place, (name, strength, change) in enumerate(group):
            columns.append(column(name, f"{strength:g}", [change], apart=place == 0))
    for epoch in range(epochs if together else 0):
        columns.append(column("together", f"epoch {epoch + 1}", together, epoch, apart=epoch == 0))
    return columns

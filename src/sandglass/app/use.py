"""Putting a trained model to work: generate, reconstruct, encode, decode, interpolate, manifold."""

from __future__ import annotations

from argparse import BooleanOptionalAction, Namespace
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sandglass.app.parsing import Parser, count, examples_from, output, trained_model, whole
from sandglass.errors import ConfigError, DataError

if TYPE_CHECKING:
    from torch import Tensor

    from sandglass.app.trained import Trained
    from sandglass.data.dataset import Split

_PICTURE_OR_TABLE = "a .png grid, or .csv or .parquet for a table; .npy or .npz for the bare array"


def generate(words: Sequence[str]) -> int:
    """New examples from the prior."""
    parser = Parser(
        "generate",
        "Draw new examples from a trained model.",
        ["generate runs/vae-digits-1 -n 64 -o samples.png", "generate runs/vae-digits-1 -n 500 --separate -o samples/"],
    )
    trained_model(parser)
    parser.add_argument("-n", "--number", type=count, default=64, help="how many (default: 64)")
    parser.add_argument("--seed", type=int, default=0, help="the same seed draws the same examples (default: 0)")
    parser.add_argument("--separate", action="store_true", help="a PNG file each, in a folder")
    about = "draw x itself, not its mean given the latent (default: rows of a table are drawn, pictures are means)"
    parser.add_argument("--noise", action=BooleanOptionalAction, help=about)
    output(parser, f"{_PICTURE_OR_TABLE} (default: samples.png or .csv); with --separate a folder")
    args = parser.parse(words)

    from sandglass.app.files import write_examples

    trained = _open(args)
    noise = trained.transform.kind == "table" if args.noise is None else args.noise
    x = draw(trained, args.number, args.seed, noise)
    path = write_examples(trained.transform, x, args.out, default="samples", separate=args.separate)
    return _wrote(path, f"{args.number} samples")


def draw(trained: Trained, n: int, seed: int, noise: bool = False) -> Any:
    """``(n, *shape)`` samples on the CPU, the same for the same seed whatever else was drawn."""
    import torch

    from sandglass import rng

    pieces = []
    for place, start in enumerate(range(0, n, 256)):
        with torch.no_grad(), rng.forked(trained.model.device, seed, "generate", place):
            pieces.append(trained.model.sample(min(256, n - start), noise=noise).cpu())
    return torch.cat(pieces)


def reconstruct(words: Sequence[str]) -> int:
    """Originals over their reconstructions."""
    parser = Parser(
        "reconstruct",
        "Pass examples from all over a split through the model: originals over reconstructions; for a table, two rows\n"
        "each, with the example's place in the split. With --corrupt, damaged examples over what the model makes of\n"
        "them over the originals.",
        ["reconstruct runs/vae-digits-1 -n 10", "reconstruct runs/vae-photos-1 --data new-photos/ -o new.png",
         "reconstruct runs/vae-digits-1 --corrupt gaussian=0.3"],
    )  # fmt: skip
    trained_model(parser)
    examples_from(parser, "test")
    about = "damage the examples first: gaussian, salt-pepper, blur, mask, jpeg; each with =strength where wanted"
    parser.add_argument("--corrupt", default="", metavar="A,B,...", help=about)
    parser.add_argument("-n", "--number", type=count, default=10, help="how many (default: 10)")
    output(parser, f"{_PICTURE_OR_TABLE} (default: reconstructions.png or .csv)")
    args = parser.parse(words)

    import torch

    from sandglass.app.files import write_examples
    from sandglass.app.trained import positions
    from sandglass.data.corrupt import make_corruption

    trained = _open(args, "reconstruct")
    every = _split(trained, args, "test")
    place = positions(len(every), args.number)
    split = every.take(place)
    damage = make_corruption(args.corrupt, trained.model.spec)
    before = torch.cat([x.cpu() for x in trained.batches(split)])
    given = before if damage is None else damage(before, torch.arange(len(before)), 0, 0)
    with torch.no_grad():
        pieces = given.to(trained.model.device).split(256)
        after = torch.cat([trained.model.reconstruct(piece).cpu() for piece in pieces])
    shown = {"original": before, "reconstruction": after}
    if damage is not None:
        shown = {"corrupted": given, "denoised": after, "original": before}
    columns = min(len(before), 20)
    if trained.transform.kind == "table":
        x = torch.stack(list(shown.values()), 1).flatten(0, 1)
    else:
        x = torch.cat([part[i : i + columns] for i in range(0, len(before), columns) for part in shown.values()])
    extra: dict[str, list[Any]] = {
        "example": [i for i in place.tolist() for _ in shown],
        "which": list(shown) * len(before),
    }
    mask = _gaps(split, shown)
    path = write_examples(
        trained.transform, x, args.out, default="reconstructions", columns=columns, extra=extra, mask=mask
    )
    if damage is None:
        return _wrote(path, f"{len(before)} originals over their reconstructions")
    errors = [f"{which} {float((shown[which] - before).square().mean()):.4g}" for which in ("corrupted", "denoised")]
    return _wrote(path, f"{len(before)} corrupted, denoised and original; squared error: {', '.join(errors)}")


def _gaps(split: Split, shown: Mapping[str, Tensor]) -> Tensor | None:
    """Where the rows of a table are to have gaps: where the originals do; all others have a value everywhere."""
    import torch

    if split.mask is None:
        return None
    full = torch.ones_like(split.mask)
    return torch.stack([split.mask if which == "original" else full for which in shown], 1).flatten(0, 1)


def encode(words: Sequence[str]) -> int:
    """Latent codes, with labels, names and positions."""
    parser = Parser(
        "encode",
        "Write the latent codes of examples, with their labels, file names and positions.",
        ["encode runs/vae-digits-1 -o codes.csv", "encode runs/vae-photos-1 --data photos/ -o codes.parquet"],
    )
    trained_model(parser)
    examples_from(parser, "all")
    output(parser, "a .npz, .parquet or .csv file (default: codes.npz)")
    args = parser.parse(words)
    ending = Path(args.out or "codes.npz").suffix.lower()
    if ending not in (".npz", ".parquet", ".csv"):
        raise ConfigError(f"Codes are written as .npz, .parquet or .csv, not as '{ending}'.")

    from sandglass.app import codes, files
    from sandglass.app.trained import dataset, examples

    trained = _open(args, "encode")
    data = dataset(trained, args.data, args.labels)
    columns = codes.of(trained, data, examples(data, args.split, "all"))
    path = Path(args.out) if args.out else files.free(Path("codes.npz"))
    codes.write(path, columns, data.classes)
    z = columns["codes"]
    return _wrote(path, f"{len(z):,} codes of {z.shape[1]} numbers")


def decode(words: Sequence[str]) -> int:
    """Codes back to examples."""
    parser = Parser(
        "decode",
        "Turn latent codes back into examples.",
        ["decode runs/vae-digits-1 codes.npz -o decoded.png", "decode runs/vae-digits-1 codes.csv -o decoded/"],
    )
    trained_model(parser)
    parser.add_argument("codes", metavar="CODES", help="a .npz, .csv or .parquet file, as `encode` writes them")
    output(parser, f"{_PICTURE_OR_TABLE}; a folder for a file each (default: decoded.png or .csv)")
    args = parser.parse(words)

    import torch

    from sandglass.app import codes
    from sandglass.app.files import write_examples

    trained = _open(args, "decode")
    z = codes.read(Path(args.codes), trained.latent_dim)
    path = write_examples(trained.transform, trained.decode(torch.from_numpy(z)), args.out, default="decoded")
    return _wrote(path, f"{len(z):,} decoded")


def interpolate(words: Sequence[str]) -> int:
    """Rows that lead from one example to another."""
    parser = Parser(
        "interpolate",
        "Walk from one example to another through the latent space, a pair a row.",
        ["interpolate runs/vae-digits-1 -n 8 --steps 12"],
    )
    trained_model(parser)
    examples_from(parser, "test")
    parser.add_argument("-n", "--number", type=count, default=6, metavar="ROWS", help="pairs (default: 6)")
    parser.add_argument("--steps", type=count, default=10, help="pictures a row, both ends included (default: 10)")
    output(parser, f"{_PICTURE_OR_TABLE} (default: interpolation.png or .csv)")
    args = parser.parse(words)

    import torch

    from sandglass.app.files import write_examples
    from sandglass.app.trained import spread

    trained = _open(args, "interpolate")
    split = spread(_split(trained, args, "test"), 2 * args.number)
    if len(split) < 2:
        raise DataError("An interpolation needs two examples; there is only one.")
    x = torch.cat(list(trained.batches(split)))
    pairs = len(x) // 2
    with torch.no_grad():
        rows = trained.model.interpolate(x[:pairs], x[pairs : 2 * pairs], args.steps).cpu()
    extra = {
        "pair": [i for i in range(len(rows)) for _ in range(args.steps)],
        "step": [s for _ in range(len(rows)) for s in range(args.steps)],
    }
    x = rows.flatten(0, 1)
    path = write_examples(trained.transform, x, args.out, default="interpolation", columns=args.steps, extra=extra)
    return _wrote(path, f"{len(rows)} walks of {args.steps} steps")


def manifold(words: Sequence[str]) -> int:
    """A decoded grid over two latent directions."""
    parser = Parser(
        "manifold",
        "Decode a grid laid over two latent directions, evenly spaced in probability.",
        ["manifold runs/vae-digits-1 --side 20", "manifold runs/vae-digits-1 --axes 0,3"],
    )
    trained_model(parser)
    parser.add_argument("--side", type=count, default=20, help="pictures along each side (default: 20)")
    about = "two dimensions as i,j (from 0), or 'principal' for the directions in which the codes vary most"
    parser.add_argument("--axes", default="principal", help=f"{about} (default: both of two, else principal)")
    output(parser, f"{_PICTURE_OR_TABLE} (default: manifold.png or .csv)")
    args = parser.parse(words)

    from sandglass.app.files import write_examples
    from sandglass.app.trained import own_codes
    from sandglass.reports.latent import manifold as decoded

    trained = _open(args, "decode")
    x = decoded(trained.model, args.side, _axes(args.axes), own_codes(trained))
    extra = {"row": [i // args.side for i in range(len(x))], "column": [i % args.side for i in range(len(x))]}
    path = write_examples(trained.transform, x, args.out, default="manifold", columns=args.side, extra=extra)
    return _wrote(path, f"a grid of {args.side}x{args.side}")


def _axes(text: str) -> tuple[int, int] | None:
    if text == "principal":
        return None
    try:
        i, j = (int(part) for part in whole(text))
    except ValueError as error:
        raise ConfigError(f"--axes must be two dimensions such as 0,3, or 'principal', not '{text}'.") from error
    return i, j


def _open(args: Namespace, capability: str | None = None) -> Trained:
    from sandglass import registry
    from sandglass.app.trained import opened

    trained = opened(args.run, args.device, args.allow_nonfinite)
    if capability is not None:
        registry.require(trained.model, capability)
    return trained


def _split(trained: Trained, args: Namespace, default: str) -> Any:
    from sandglass.app.trained import dataset, examples, joined

    return joined(examples(dataset(trained, args.data, args.labels), args.split, default))


def _wrote(path: Path, what: str) -> int:
    print(f"{path}: {what}")
    return 0

"""``sandglass export``: writes a trained model as ONNX."""

from __future__ import annotations

from collections.abc import Sequence

from sandglass.app.parsing import Parser, count, output, whole


def export(words: Sequence[str]) -> int:
    """Writes encoder and decoder as ONNX, after comparing them with the model."""
    parser = Parser(
        "export",
        "Write the encoder and the decoder of a trained model as ONNX graphs, for any batch size. Each graph is first\n"
        "compared with the model; one that differs is not written.",
        ["export runs/vae-digits-1", "export runs/vae-digits-1 -o digits-onnx --parts decoder --opset 18"],
    )
    parser.add_argument("run", metavar="RUN", help="a run folder (or latest), a model folder, or a hub id")
    output(parser, "the folder (default: the run's name with -onnx)")
    parser.add_argument("--format", default="onnx", choices=["onnx"], help="onnx (default)")
    parser.add_argument("--opset", type=count, help="ONNX operator set version (default: the exporter's choice)")
    about = "encoder, decoder or both (default: all that the model has)"
    parser.add_argument("--parts", type=whole, default=[], metavar="A,B", help=about)
    args = parser.parse(words)

    from pathlib import Path

    from sandglass.exports.parity import TOLERANCE
    from sandglass.exports.write import export as write
    from sandglass.runs.run import find_run

    found = find_run(args.run)
    source: Path | str = found if found.exists() else args.run
    done = write(source, args.out, format=args.format, parts=args.parts, opset=args.opset)
    print(f"{done.path}: {' and '.join(f'{part}.onnx' for part in done.parts)}")
    print(f"Largest differences from the model, on {done.examples} (tolerance {TOLERANCE:g}):")
    for difference in done.differences:
        print(f"  {difference.part}: {difference}")
    return 0

"""``sandglass sampler``: fits samplers to the codes of a finished run, and compares their samples."""

from __future__ import annotations

from collections.abc import Sequence

from sandglass.app.output import say, telling
from sandglass.app.parsing import Parser, count, moved_data, output

_FIGURES = ("fid", "nearest")


def sampler(words: Sequence[str]) -> int:
    """Fits each sampler in a new run, then compares all with the run they are for."""
    parser = make_parser()
    given = [words[i + 1] for i, word in enumerate(words[:-1]) if word == "--kind"]
    given += [word.removeprefix("--kind=") for word in words if word.startswith("--kind=")]
    kinds = list(dict.fromkeys(given or ["gaussian-mixture"]))

    from sandglass import registry
    from sandglass.app.flags import typed
    from sandglass.app.tasks import add, form_of

    options = registry.schema("sampler", kinds[0]) if len(kinds) == 1 else ()
    for option in options:
        add(parser, option)
    args = parser.parse(words)

    from sandglass.engine.sampler import fit_sampler, is_trained
    from sandglass.errors import ConfigError, SandglassError
    from sandglass.runs.run import Run, find_run

    if args.out and len(kinds) > 1:
        raise ConfigError("--out names one folder; with several kinds, leave it out.")
    run = Run(find_run(args.run))
    own = {}
    for option in options:
        value = getattr(args, option.name)
        if value is not None:
            own[option.name] = typed(option, form_of(option), value) if isinstance(value, str) else value
    trained = [kind for kind in kinds if is_trained(kind)]  # an unknown name is refused before anything is fitted
    if args.epochs and not trained:
        raise ConfigError(f"{' and '.join(kinds)}: fitted in closed form: leave out --epochs.")
    made = []
    for kind in kinds:
        training = {name: getattr(args, name) for name in ("seed", "device") if getattr(args, name) is not None}
        training |= {"epochs": args.epochs} if args.epochs and kind in trained else {}
        made.append(fit_sampler(run, {"name": kind, **own}, out=args.out, data=args.data, **training))
        say(f"{kind}: fitted to the codes of {run.path}")
    for new in made:
        print(f"run     {new.path}")
    if args.compare:
        from sandglass.app.compare import show
        from sandglass.comparing.compare import compare

        print()
        try:
            with telling() as tell:
                show(compare([run, *made], metrics=_FIGURES, data=args.data, progress=tell))
        except SandglassError as error:  # what was fitted is there all the same
            say(f"note: samples are not compared: {error}")
    print(f"\nnext:\n  sandglass generate {made[0].path} -n 64")
    print(f"  sandglass compare {' '.join(str(r.path) for r in (run, *made))} -o compare.html")
    return 0


def make_parser() -> Parser:
    """The parser, without the options of the samplers themselves."""
    parser = Parser(
        "sampler",
        "Fit a distribution to the codes of a finished run, and draw new codes from it: often much better samples,\n"
        "from the same encoder and decoder. The result is a new run. `sandglass samplers` lists the kinds; with one\n"
        "--kind, its own options can be given, and --help shows them.",
        [
            "sampler runs/vae-digits-1",
            "sampler runs/vae-digits-1 --kind gaussian-mixture --components 30",
            "sampler latest --kind two-stage --kind maf --epochs 20",
        ],
    )
    parser.add_argument("run", metavar="RUN", help="a run folder (or latest) of a model with the option sampler")
    about = "sampler (default: gaussian-mixture); several are fitted in turn"
    parser.add_argument("--kind", action="append", metavar="NAME", help=about)
    about = "epochs of samplers that are trained (default: those of the run)"
    parser.add_argument("--epochs", type=count, metavar="N", help=about)
    parser.add_argument("--seed", type=int, metavar="N", help="random seed (default: that of the run)")
    parser.add_argument("--device", help="cpu, cuda, cuda:N or mps (default: that of the run)")
    parser.add_argument(
        "--no-compare", dest="compare", action="store_false", help="do not compare samples with those of the run"
    )
    moved_data(parser)
    output(parser, "folder of the new run (default: that of the run with the kind added)")
    return parser

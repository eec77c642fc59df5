"""Commands on runs: report, runs, verify."""

from __future__ import annotations

import re
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

from sandglass.app.output import say, table, telling
from sandglass.app.parsing import Parser, moved_data
from sandglass.errors import CheckpointError, ConfigError, NotFoundError
from sandglass.runs import overview
from sandglass.runs.plain import read_json
from sandglass.runs.result import figure

if TYPE_CHECKING:
    from sandglass.runs.run import Run


def report(words: Sequence[str]) -> int:
    """Writes ``report.html``."""
    parser = Parser("report", "Write or update the HTML report of a run.", ["report runs/vae-digits-1"])
    parser.add_argument("run", metavar="RUN", help="a run folder (or latest)")
    moved_data(parser)
    args = parser.parse(words)

    from sandglass import api
    from sandglass.data.trained_on import Found, find_data, own_data
    from sandglass.runs.run import Run

    run = Run(args.run)
    found = Found(own_data(run, args.data), own=True) if args.data else find_data(run)
    if not run.results():
        say("evaluating first ...")
    with telling() as tell:
        path = api.report(run, data=found.data, device=run.config["training"]["device"], progress=tell)
    if found.remark:
        say(f"note: {found.remark}")
    print(path)
    return 0


def runs(words: Sequence[str]) -> int:
    """Lists the runs of a folder."""
    parser = Parser("runs", "List the runs of a folder.", ["runs", "runs experiments/"])
    parser.add_argument("folder", nargs="?", default="runs", metavar="FOLDER", help="folder to list (default: runs)")
    args = parser.parse(words)
    folder = Path(args.folder)
    if not folder.is_dir():
        if args.folder == "runs":
            print("There are no runs yet; create one in runs/ with `sandglass train --recipe digits`.")
            return 0
        raise NotFoundError(f"There is no folder {folder}.")

    from sandglass.runs.run import Run

    found = sorted({f.parent for f in folder.glob("**/config.yaml")}, key=lambda p: natural_key(str(p)))
    if not found:
        print(f"There are no runs in the folder '{folder}'.")
        return 0
    rows, broken = [], []
    for path in found:
        try:
            rows.append(run_row(Run(path), folder))
        except (CheckpointError, ConfigError, LookupError, TypeError, ValueError, AttributeError) as error:
            broken.append(f"{path} cannot be read as a run: {' '.join(str(error).split())}")
    headers = ["run", "model", "data", "epochs", "loss", "best", "test elbo", "state", "when"]
    table(headers, rows, right=(3, 5, 6))
    for line in broken:
        say(line)
    return 0


def natural_key(name: str) -> list[int | str]:
    """Sort key that puts run-2 before run-10."""
    return [int(part) if part.isdigit() else part for part in re.split(r"(\d+)", name)]


def run_row(run: Run, folder: Path) -> list[str]:
    """One line of ``sandglass runs``."""
    from sandglass import registry

    config, events, metrics = run.config, run.events(), run.metrics()
    found = overview.best(run, metrics)
    done = max((m["epoch"] for m in metrics), default=0)
    elbo = run.results().get("test", {}).get("metrics", {}).get("elbo")
    return [
        str(run.path.relative_to(folder)) if run.path != folder else run.path.name,
        registry.present("model", config["model"]["name"]),
        config["data"]["name"],
        overview.epochs(run, metrics),
        found.loss if found else "",
        figure(found.value) if found else "",
        "" if elbo is None else figure(elbo["value"], elbo["stderr"]),
        state(run, done >= config["training"]["epochs"]),
        when(events[-1]["time"]) if events else "",
    ]


def when(time: str) -> str:
    """An ISO time in the local time zone, without seconds."""
    return datetime.fromisoformat(time).astimezone().strftime("%Y-%m-%d %H:%M")


def state(run: Run, complete: bool) -> str:
    """Whether the run is finished, stopped or still training."""
    if (run.path / "run.owner").is_file() and locked(run.path):
        return "training"
    if complete:
        return "finished"
    steps = run.steps()
    file = run.checkpoint_path(steps[-1]) / "state.json" if steps else None
    now = read_json(file).get("loop", {}) if file is not None and file.is_file() else {}
    training = run.config["training"]
    most = training.get("stage", {}).get(now.get("stage"), {}).get("max_steps") or training.get("max_steps")
    if most and now.get("step", 0) >= most:  # such as a run of some minutes
        return "finished"
    return "stopped early" if now.get("stopped_early") else "stopped"


def locked(path: Path) -> bool:
    """Whether a process holds the lock of the folder."""
    from filelock import FileLock, Timeout

    try:
        with FileLock(path / "run.lock", timeout=0):
            return False
    except (Timeout, OSError):
        return True


def verify(words: Sequence[str]) -> int:
    """Verifies the checksums of all files of a run."""
    parser = Parser(
        "verify",
        "Check every file of a run: checkpoints and the model against their SHA-256, the log and the configuration\n"
        "against the newest checkpoint; exit code 74 when one is damaged.",
        ["verify runs/vae-digits-1"],
    )
    parser.add_argument("run", metavar="RUN", help="a run folder (or latest) or a model folder")
    args = parser.parse(words)

    from sandglass.runs.run import Run, find_run
    from sandglass.runs.verify import verify as verified

    path = find_run(args.run)
    if (path / "MANIFEST.json").is_file():
        found = [(str(path), problem_of(path))]
    else:
        run = Run(path)
        found = list(verified(run))
        if not run.steps() and not (path / "model").is_dir():
            raise CheckpointError(f"{path} has no saved weights yet.")
    for where, problem in found:
        print(f"{'damaged' if problem else 'good   '}  {where}")
    problems = [problem for _, problem in found if problem]
    if problems:
        raise CheckpointError(" ".join(problems))
    return 0


def problem_of(folder: Path) -> str:
    """The problem of a damaged model folder, or an empty string."""
    from sandglass.runs.storage import verify_folder

    try:
        verify_folder(folder)
    except CheckpointError as error:
        return str(error)
    return ""

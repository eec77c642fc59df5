"""``sandglass sweep``: what it says, its mistakes, several processes, and going on after a kill."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path

import pytest

from helpers import Cli
from sandglass.runs.run import Run

pytest.importorskip("optuna")


def test_on_the_command_line(cli: Cli) -> None:
    words = ["sweep", "vae", "--data", "digits", "--limit", "200", "--net", "mlp", "--model.net.widths", "8",
             "--threads", "1", "--epochs", "1", "--vary", "lr=1e-6,1e-2", "latent_dim=1,2",
             "--sampler", "grid"]  # fmt: skip
    code, out, err = cli(*words, "--out", "s")
    assert code == 0 and err.count("finished") == 4 and "trial 3 (4 now, 4 in total)" in err
    assert "validation elbo, higher is better" in out and "--epochs 2" in out and Path("s/sweep.html").is_file()
    best = out.split("best    ")[1].split("\n")[0]
    assert cli("train", "--config", f"{best}/config.yaml", "--epochs", "2", "--no-report", "--out", "again")[0] == 0
    assert Run("again").config["training"]["lr"] == 1e-2
    code, out, _ = cli("sweep", "--resume", "s", "--json")
    assert code == 0 and len(json.loads(out)["trials"]) == 4
    for wrong, message in {
        "--vary": "option=values", "--vary=lr": "option=values", "--vary=lrr=1,2": "Did you mean '--lr'",
        "--vary=latent_dim=a,b": "must be a whole number", "--vary=lr=x..y": "must be a number",
        "--vary=limit=1,2": "other examples", "--dry-run": "sweeps do not", "--init-from=s": "sweeps do not",
    }.items():  # fmt: skip
        code, out, err = cli(
            "sweep", "vae", "--data", "digits", *([] if wrong == "--vary" else ["--vary=beta=1,2"]), wrong
        )
        assert code == 2 and out == "" and err.count("\n") == 1, wrong
        assert message in err or wrong == "--vary", (wrong, err)
    code, _, err = cli("sweep", "--resume", "s", "--lr", "1")
    assert code == 2 and "omit --lr" in err


SLOW = ["--data", "digits", "--limit", "300", "--net", "mlp", "--model.net.widths", "8", "--batch-size", "16",
        "--threads", "2", "--vary", "lr=1e-4..1e-1", "--vary", "latent_dim=1,2,3"]  # fmt: skip


@pytest.mark.slow
def test_two_jobs_finish_and_share_the_threads(cli: Cli) -> None:
    code, _, err = cli("sweep", *SLOW, "--trials", "5", "--epochs", "4", "--jobs", "2", "--out", "s")
    assert code == 0, err
    runs = [Run(path) for path in sorted(Path("s").glob("0*"))]
    assert len(runs) == 5 and all(run.metrics()[-1]["epoch"] == 4 for run in runs)
    assert {run.config["training"]["threads"] for run in runs} == {1}
    begun = [run.events()[0]["time"] for run in runs]
    ended = [run.events()[-1]["time"] for run in runs]
    assert begun[1] <= ended[0]  # the second did not wait for the first


@pytest.mark.slow
@pytest.mark.parametrize("jobs", [1, 2])
def test_a_killed_sweep_goes_on_and_loses_nothing(jobs: int, cli: Cli) -> None:
    words = ["sweep", *SLOW, "--trials", "3", "--epochs", "12", "--save-seconds", "0", "--jobs", str(jobs), "--out"]
    process = subprocess.Popen([sys.executable, "-m", "sandglass", *words, "s"], stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 100
    while not list(Path("s").glob("0001/checkpoints/step-*")) and time.monotonic() < deadline:
        time.sleep(0.05)
    process.kill()
    process.wait()
    time.sleep(0 if jobs == 1 else 3)  # workers notice at the next step that they are alone
    left = [Run(path) for path in sorted(Path("s").glob("0*")) if (path / "config.yaml").is_file()]
    assert any(run.metrics()[-1]["epoch"] < 12 for run in left)
    code, out, err = cli("sweep", "--resume", "s", "--jobs", str(jobs), "--json")
    assert code == 0, err
    found = json.loads(out)["trials"]
    assert [t["state"] for t in found] == ["finished"] * 3 and {t["epochs"] for t in found} == {12}
    if jobs == 1:
        assert cli(*words, "t")[0] == 0
        for number in range(3):
            one, other = (Run(Path(name) / f"{number:04d}").metrics_file.read_bytes() for name in "st")
            assert one == other

"""What is copied to other tools is what metrics.jsonl says, and nothing about a tool can change or stop a run."""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import sandglass
from helpers import Quiet, digest, fresh, make_loop, pictures, stop_at
from sandglass import registry
from sandglass.engine.mirror import Point
from sandglass.engine.options import Training
from sandglass.errors import ConfigError, MissingPackageError
from sandglass.registry.names import _entries
from sandglass.runs.run import Run

Series = dict[str, list[tuple[int, float]]]
"""By name, steps and values in order."""

NET = {"name": "mlp", "widths": [8]}


@pytest.fixture(autouse=True)
def _here(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("MLFLOW_TRACKING_URI", "MLFLOW_EXPERIMENT_NAME"):
        monkeypatch.delenv(name, raising=False)


def read_tensorboard(run: Run) -> Series:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(run.path / "tensorboard"), size_guidance={"scalars": 0}).Reload()
    return {tag: [(e.step, e.value) for e in events.Scalars(tag)] for tag in events.Tags()["scalars"]}


def read_mlflow(run: Run) -> Series:
    client, name = mlflow_of(run)
    keys = client.get_run(name).data.metrics
    return {key: sorted((m.step, m.value) for m in client.get_metric_history(name, key)) for key in keys}


def mlflow_of(run: Run) -> tuple[Any, str]:
    from mlflow import MlflowClient

    return MlflowClient((run.path / "mlflow").as_uri()), (run.path / "mlflow" / "run_id").read_text().strip()


READ = {"tensorboard": read_tensorboard, "mlflow": read_mlflow}


def logged(run: Run) -> Series:
    series: Series = {}
    for record in run.metrics():
        if record["value"] is not None:
            name = f"{record['split']}/{record['phase']}/{record['term']}"
            series.setdefault(name, []).append((record["step"], record["value"]))
    return series


def test_every_logger_is_read_here() -> None:
    assert sorted(READ) == registry.names("logger")


class CrashError(Exception):
    """Stands for a process that is gone."""


def crash() -> None:
    raise CrashError


@pytest.mark.parametrize("name", READ)
def test_a_copy_is_the_log_after_a_crash_too(name: str, tmp_path: Path) -> None:
    data = pictures(64)
    options: dict[str, Any] = {"epochs": 2, "batch_size": 8, "log_every": 1, "save_steps": 3, "log_to": [name]}
    model = fresh("vae", data, latent_dim=2, net=NET)
    loop, run = make_loop(model, data, tmp_path / "run", **options)
    stop_at(loop, 5, crash)
    with pytest.raises(CrashError):
        loop.fit()
    assert max(step for points in READ[name](run).values() for step, _ in points) == 5  # beyond the checkpoint

    again = fresh("vae", data, latent_dim=2, net=NET)
    loop, run = make_loop(again, data, tmp_path / "run", **options)
    checkpoint, _ = run.latest_checkpoint()
    assert checkpoint is not None and checkpoint.step == 3
    loop.fit(checkpoint)
    truth, copied = logged(run), READ[name](run)
    assert copied.keys() == truth.keys() and {"train/elbo/lr", "validation/elbo/objective"} <= truth.keys()
    for key, points in truth.items():
        assert [step for step, _ in copied[key]] == [step for step, _ in points], key
        values = [value for _, value in points]
        there = [value for _, value in copied[key]]
        assert there == (values if name == "mlflow" else np.float32(values).tolist()), key

    alone = fresh("vae", data, latent_dim=2, net=NET)
    loop, plain = make_loop(alone, data, tmp_path / "plain", **options | {"log_to": ()})
    loop.fit()
    assert digest(again, run) == digest(alone, plain), "a logger changes no bit"


def test_results_and_configuration_are_copied(tmp_path: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    options: dict[str, Any] = {"epochs": 1, "threads": 1, "model_options": {"latent_dim": 2, "net": NET}}
    run = sandglass.train("vae", "digits", out=tmp_path / "run", log_to="mlflow,tensorboard", **options)
    before = {name: READ[name](run) for name in READ}
    report = sandglass.evaluate(run, metrics=["mse", "elbo"])
    for name in READ:
        copied = READ[name](run)
        for figure in ("mse", "elbo"):
            ((step, value),) = copied.pop(f"results/test/{figure}")
            assert step == report["step"] and value == pytest.approx(report["metrics"][figure]["value"], rel=1e-6)
        assert copied == before[name], "what was there stays"
    client, number = mlflow_of(run)
    kept = client.get_run(number)
    assert (kept.info.run_name, kept.info.status) == ("run", "FINISHED")
    assert client.get_experiment(kept.info.experiment_id).name == "sandglass"
    assert kept.data.params["model.options.net.name"] == "mlp" and kept.data.params["training.epochs"] == "1"
    assert kept.data.params["data.fingerprint"] == run.config["data"]["fingerprint"]
    assert len(client.search_runs([kept.info.experiment_id])) == 1
    texts = EventAccumulator(str(run.path / "tensorboard")).Reload()
    (text,) = texts.Tensors("config/text_summary")
    assert b"latent_dim: 2" in text.tensor_proto.string_val[0]


class Broken:
    """A logger that fails at a place of one's choice."""

    package = "json"
    fails_at = ""

    def __init__(self, run: Run, after: int | None) -> None:
        self.do("open")

    def log(self, points: Sequence[Point]) -> None:
        self.do("log")

    def close(self, finished: bool | None) -> None:
        self.do("close")

    def do(self, what: str) -> None:
        if what == self.fails_at:
            raise RuntimeError(f"no {what}\nwith more lines")


@pytest.mark.parametrize("place", ["open", "log", "close"])
def test_a_logger_that_fails_is_named_once_and_dropped(
    place: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(_entries, ("logger", "broken"), registry.Entry("broken", "logger", Broken, {}))
    monkeypatch.setattr(Broken, "fails_at", place)
    data, quiet = pictures(32), Quiet()
    model = fresh("vae", data, latent_dim=2, net=NET)
    names = ["broken", "tensorboard"]
    loop, run = make_loop(model, data, tmp_path / "run", epochs=2, log_every=1, log_to=names, progress=quiet)
    loop.fit()
    reason = f"could not be built: no {place}" if place == "open" else f"no {place}"
    assert [text.endswith(reason) for text in quiet.said if "Logging to broken" in text] == [True]
    assert loop.now.step == loop.total and read_tensorboard(run).keys() == logged(run).keys()


def test_a_server_that_is_away_stops_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    data, quiet = pictures(32), Quiet()
    loop, _ = make_loop(fresh("vae", data, net=NET), data, tmp_path / "run", epochs=1, log_to="mlflow", progress=quiet)
    loop.fit()
    assert loop.now.step == loop.total and len(quiet.said) == 1 and "Logging to mlflow failed" in quiet.said[0]


def test_figures_that_are_not_finite_are_left_out(tmp_path: Path) -> None:
    data = pictures(32)
    loop, run = make_loop(fresh("vae", data, net=NET), data, tmp_path / "run", epochs=1, log_to="tensorboard,mlflow")
    loop.recorder.mirror.start(0)
    loop.recorder.log([loop.record("train", "elbo", "loss", value, 1) for value in (math.nan, 2.5, math.inf)])
    there = [READ[name](run) for name in READ]  # before anything is closed: a process may be killed at any time
    loop.recorder.mirror.stop(False)
    assert there == [READ[name](run) for name in READ] == [{"train/elbo/loss": [(0, 2.5)]}] * 2
    client, number = mlflow_of(run)
    assert client.get_run(number).info.status == "KILLED"


def test_a_logger_must_be_known_and_its_package_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ConfigError, match=r"no logger 'tensorbord'. Did you mean 'tensorboard'"):
        Training(log_to=["tensorbord"])
    assert Training.of({"log_to": "mlflow,tensorboard,mlflow"}).log_to == ("mlflow", "tensorboard")
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    for name in registry.names("logger"):
        with pytest.raises(MissingPackageError, match=rf"{name}: pip install 'sandglass-ml\[logging\]'"):
            sandglass.train("vae", "digits", out=tmp_path / "run", log_to=name)
    assert not (tmp_path / "run").exists(), "before anything is written"


def test_an_evaluation_does_not_need_the_logger(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    options: dict[str, Any] = {"epochs": 1, "threads": 1, "model_options": {"latent_dim": 2, "net": NET}}
    run = sandglass.train("vae", "digits", out=tmp_path / "run", **options)
    for nonsense in (["gone"], "gone", 7):
        run.rewrite({**run.config, "training": {**run.config["training"], "log_to": nonsense}})
        assert sandglass.evaluate(run, metrics=["mse"])["metrics"]["mse"]["n"] == 359
    assert "There is no logger 'gone'" in capsys.readouterr().err


QUIET = """
import json, socket, sys
asked = []
def connect(self, address):
    asked.append(str(address))
    raise OSError("no network")
socket.socket.connect = connect
socket.getaddrinfo = lambda *a, **k: connect(None, a[0])
from sandglass.engine.mirror import Mirror, Point
from sandglass.runs.run import Run
run = Run.create(sys.argv[1], {})
mirror = Mirror(["tensorboard", "mlflow"], run, print)
mirror.start(0)
mirror.copy([Point("train/elbo/loss", 1.0, 1)])
mirror.stop(True)
from mlflow.telemetry import get_telemetry_client
print(json.dumps([asked, get_telemetry_client() is None, (run.path / "mlflow" / "run_id").is_file()]))
"""


def test_nothing_is_sent(tmp_path: Path) -> None:
    root = Path(__file__).resolve().parents[2]
    keep = {
        k: v for k, v in os.environ.items() if k in ("PATH", "OMP_NUM_THREADS", "LANG")
    }  # no sign of a test or of CI
    environment = keep | {"PYTHONPATH": str(root / "src"), "HOME": str(tmp_path)}
    command = [sys.executable, "-W", "error", "-c", QUIET, str(tmp_path / "run")]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout.splitlines()[-1]) == [[], True, True]
    assert done.stderr == ""


def test_noise_is_not_drawn_from_the_person_s_generator(tmp_path: Path) -> None:
    data = pictures(32)
    loop, _ = make_loop(fresh("vae", data, net=NET), data, tmp_path / "run", epochs=1, log_to="tensorboard,mlflow")
    state = torch.get_rng_state()
    loop.fit()
    assert torch.equal(state, torch.get_rng_state())

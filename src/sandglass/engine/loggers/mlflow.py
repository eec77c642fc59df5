"""A run of MLflow."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence

from sandglass.engine.mirror import Point
from sandglass.registry import register
from sandglass.runs.run import Run
from sandglass.runs.settings import flat
from sandglass.runs.storage import write_file

EXPERIMENT = "sandglass"
_QUIET = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_ALLOW_FILE_STORE": "true",  # a folder needs no database packages
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1",  # an unreachable server must not delay training for minutes
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "10",
}
"""Defaults for MLflow's environment variables."""
_AT_ONCE = 100  # parameters in a request, the limit of MLflow servers
_LONGEST = 500  # characters of a parameter; older servers take no more


@register("mlflow", kind="logger")
class MLflow:
    """A run of MLflow under $MLFLOW_TRACKING_URI, or in the folder RUN/mlflow when that is not set.

    The experiment is $MLFLOW_EXPERIMENT_NAME, or sandglass. The run is named after the folder; its id is kept in
    RUN/mlflow/run_id, so that a resumed run and its results go to the same one. MLflow never overwrites a point, so
    only steps after the last one of each figure are added.
    """

    package = "mlflow"

    def __init__(self, run: Run, after: int | None) -> None:
        for name, value in _QUIET.items():
            os.environ.setdefault(name, value)
        from mlflow import MlflowClient

        folder = run.path / "mlflow"
        folder.mkdir(exist_ok=True)
        self.client = MlflowClient(os.environ.get("MLFLOW_TRACKING_URI") or folder.resolve().as_uri())
        self.last: dict[str, int] = {}
        kept = folder / "run_id"
        self.id = kept.read_text().strip() if kept.is_file() else self.create(run)
        write_file(kept, f"{self.id}\n".encode())
        if after is not None:
            self.client.update_run(self.id, status="RUNNING")

    def create(self, run: Run) -> str:
        """A new run with the configuration as its parameters."""
        from mlflow.entities import Param

        name = os.environ.get("MLFLOW_EXPERIMENT_NAME") or EXPERIMENT
        experiment = self.client.get_experiment_by_name(name)
        number = experiment.experiment_id if experiment else self.client.create_experiment(name)
        made: str = self.client.create_run(number, run_name=run.path.resolve().name).info.run_id
        params = [Param(k, str(v)[:_LONGEST]) for k, v in parameters(run).items()]
        for start in range(0, len(params), _AT_ONCE):
            self.client.log_batch(made, params=params[start : start + _AT_ONCE])
        return made

    def log(self, points: Sequence[Point]) -> None:
        """Sends the figures that MLflow does not have yet."""
        from mlflow.entities import Metric

        now = int(1000 * time.time())
        new = [Metric(p.name, p.value, now, p.step) for p in points if p.step > self.last_step(p.name)]
        if new:
            self.client.log_batch(self.id, metrics=new)
        self.last |= {metric.key: metric.step for metric in new}

    def last_step(self, name: str) -> int:
        """The last logged step of a figure, -1 for none."""
        if name not in self.last:
            self.last[name] = max((m.step for m in self.client.get_metric_history(self.id, name)), default=-1)
        return self.last[name]

    def close(self, finished: bool | None) -> None:
        """Sets the status of the run."""
        if finished is not None:
            self.client.set_terminated(self.id, "FINISHED" if finished else "KILLED")


def parameters(run: Run) -> dict[str, object]:
    """The configuration as flat parameters: model, training, data and environment."""
    data = run.config.get("data", {})
    parts = {k: run.config.get(k, {}) for k in ("model", "training", "environment")}
    parts["data"] = {k: data[k] for k in ("name", "fingerprint", "examples") if k in data}
    return {name: value for part, values in parts.items() for name, value in flat(values, part).items()}

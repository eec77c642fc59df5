"""The library's face: read data, build, train, load, evaluate."""

from __future__ import annotations

from sandglass.data.load import load_data
from sandglass.data.trained_on import reading_of, run_data, transform_of
from sandglass.engine.train import build, resume, train
from sandglass.metrics.evaluate import evaluate
from sandglass.runs.load import load

__all__ = ["build", "evaluate", "load", "load_data", "reading_of", "resume", "run_data", "train", "transform_of"]

"""A table of people, with a column of every kind, for tests of tables."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from sandglass.data.load import load_data

N = 60


def whole(source: Any, **options: Any) -> Any:
    return load_data(source, validation=0, test=0, **options)


def table(n: int = N) -> pd.DataFrame:
    """A column of every kind, complete."""
    r = np.random.default_rng(0)
    day = pd.Timestamp("2019-12-30")
    return pd.DataFrame(
        {
            "age": r.integers(18, 90, n),
            "weight": r.normal(70, 12, n),
            "town": r.choice(["Ulm", "Bern", "Graz"], n),
            "member": r.random(n) < 0.5,
            "born": [str((day - pd.Timedelta(days=int(d))).date()) for d in r.integers(0, 30000, n)],
            "seen": day + pd.to_timedelta(r.integers(0, 10**7, n), unit="s"),
            "grade": r.integers(1, 6, n),
        }
    )


def with_gaps(frame: pd.DataFrame, share: float = 0.2) -> pd.DataFrame:
    """The same with some cells emptied, and none of the first row's."""
    gap = np.random.default_rng(1).random(frame.shape) < share
    gap[0] = False
    return frame.astype(object).mask(gap).infer_objects()


def same_cells(back: pd.DataFrame, frame: pd.DataFrame) -> None:
    assert list(back.columns) == list(frame.columns)
    for name in frame.columns:
        assert back[name].isna().tolist() == frame[name].isna().tolist(), name
        own, other = back[name].dropna(), frame[name].dropna()
        if name == "weight":
            assert np.allclose(own.astype(float), other.astype(float), rtol=1e-6)
        elif name in ("born", "seen"):
            assert (pd.to_datetime(own) == pd.to_datetime(other)).all(), name
        else:
            assert own.tolist() == other.tolist(), name

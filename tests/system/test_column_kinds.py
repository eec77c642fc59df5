"""Columns of positive numbers and of counts: what they hold, how they are found, and the way back."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from people import table, whole, with_gaps
from sandglass.api import load, train, transform_of
from sandglass.app.main import main
from sandglass.core import Column, Spec
from sandglass.data.cells import MOST
from sandglass.data.dataset import Split
from sandglass.data.fingerprint import fingerprint
from sandglass.data.load import load_data
from sandglass.data.transform import TableTransform, Transform
from sandglass.errors import ConfigError, DataError
from sandglass.reports import columns
from sandglass.reports.section import Material
from sandglass.runs.specification import from_plain, to_plain

KINDS = {"income": "positive", "visits": "count"}


def money(n: int = 300) -> pd.DataFrame:
    """The table of people with an amount and a count."""
    r = np.random.default_rng(3)
    return table(n).assign(income=np.exp(r.normal(10, 0.8, n)).round(2), visits=r.negative_binomial(1, 0.1, n))


@pytest.mark.parametrize("frame", [money(), with_gaps(money())], ids=["complete", "gaps"])
def test_positive_numbers_and_counts_come_back(frame: pd.DataFrame) -> None:
    data = whole(frame, types=KINDS)
    transform = Transform.from_dict(json.loads(json.dumps(data.transform.to_dict())))
    assert isinstance(transform, TableTransform)
    kinds = {c.name: c for c in data.spec.columns}
    assert kinds["income"].kind == "positive" and kinds["visits"].kind == "count"
    back = transform.inverse(data.train.x, data.train.mask)
    for name in KINDS:
        assert back[name].isna().tolist() == frame[name].isna().tolist()
    seen = frame["visits"].notna()
    assert back["visits"][seen].tolist() == frame["visits"][seen].tolist()
    seen = frame["income"].notna()
    own, other = back["income"][seen].astype(float), frame["income"][seen].astype(float)
    assert np.allclose(own, other, rtol=2e-6)
    logs = np.log(other)
    assert (kinds["income"].mean, kinds["income"].scale) == pytest.approx((logs.mean(), logs.std(ddof=0)))
    column = data.train.x[:, -2][torch.tensor(seen.to_numpy())]
    assert float(column.mean()) == pytest.approx(0, abs=1e-5) and float(column.std()) == pytest.approx(1, abs=0.01)
    scale = kinds["visits"].scale
    assert math.frexp(scale)[0] == 0.5 and 0.7 < scale / frame["visits"].astype(float).std() < 1.42
    assert any("1 column of counts" in n for n in data.notes)
    assert any("1 column of positive numbers" in n for n in data.notes)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(0, MOST), min_size=1, max_size=30))
def test_every_count_comes_back_to_the_unit_in_single_precision(counts: list[int]) -> None:
    frame = pd.DataFrame({"n": [*counts, 0], "other": [0.5] * len(counts) + [1.0]})
    data = whole(frame, types={"n": "count"})
    assert data.train.x.dtype == torch.float32
    assert data.transform.inverse(data.train.x)["n"].tolist() == frame["n"].tolist()
    column = data.spec.columns[0]
    assert (data.train.x[:, 0] * column.scale + column.mean).tolist() == frame["n"].tolist()  # as a likelihood has it


def test_what_a_model_draws_becomes_what_a_cell_can_hold() -> None:
    transform = whole(money(), types=KINDS | {"income": "positive"}).transform
    wild = torch.cat([torch.full((2, transform.spec().size), s * 1e4) for s in (-1, 1)])
    rows = transform.inverse(wild)
    assert (rows["visits"] >= 0).all() and rows["visits"].dtype == np.int64 and rows["visits"].iloc[-1] > 0
    assert np.isfinite(rows["income"].astype(np.float32)).all() and (rows["income"].astype(np.float32) > 0).all()
    euros = whole(money().assign(income=[1, 5000, 20] * 100), types=KINDS).transform
    rows = euros.inverse(wild)
    assert rows["income"].dtype == np.int64 and rows["income"].min() == 1


@pytest.mark.parametrize(
    ("column", "kind", "words"),
    [
        (
            [1.0, 0.0, 2.0],
            "positive",
            "'n' has 0 in row 1; a positive column holds numbers above 0; declare it numeric",
        ),
        ([1.0, 2.0, -3.5], "positive", "'n' has -3.5 in row 2; a positive column"),
        ([1.0, 1e40, 2.0], "positive", r"'n' has 1e\+40 in row 1; a positive column holds numbers from 1e-36 to 1e36"),
        ([1, 2, -1], "count", "'n' has -1 in row 2; a count is a whole number from 0"),
        ([1.0, 2.5, 1.0], "count", "'n' has 2.5 in row 1; a count is a whole number"),
        ([1, MOST + 1, 2], "count", "counts go up to 16,777,216; declare it numeric or positive"),
        (["a", "b", "c"], "count", "'n' must hold numbers"),
        (["a", "b", "c"], "positive", "'n' must hold numbers"),
        (["1", "0", "?"], "positive", "'n' has 0 in row 1"),
        ([None, None, None], "count", "'n' has no value in any row"),
    ],
)
def test_cells_that_are_not_what_was_declared(column: list[Any], kind: str, words: str) -> None:
    with pytest.raises(DataError, match=words):
        whole(pd.DataFrame({"n": column}), types={"n": kind})


def test_new_rows_and_held_out_rows_are_judged_in_the_same_way() -> None:
    data = load_data(money(), types=KINDS)
    for name, bad in (("income", 0.0), ("visits", -1)):
        with pytest.raises(DataError, match=f"'{name}' has {bad:g} in row 0"):
            load_data(money().assign(**{name: bad}), transform=data.transform)
        rows = money()
        rows.loc[int(rows.index[-1]), name] = bad
        with pytest.raises(DataError, match=f"'{name}' has {bad:g}"):
            load_data({"train": money(), "test": rows}, types=KINDS)
    words = pd.DataFrame({"n": ["3", "?", "0", "12"]}, dtype=object)
    assert whole(words, types="n=count").transform.inverse(whole(words, types="n=count").train.x)["n"].tolist()[2] == 0


def found(values: Any) -> str:
    """The kind that a column is taken for when nothing is said."""
    kind: str = whole(pd.DataFrame({"n": values, "x": np.linspace(0, 1, len(values))})).spec.columns[0].kind
    return kind


def test_counts_are_found_where_nothing_else_is_likely() -> None:
    r = np.random.default_rng(0)
    n = 1000
    assert found(r.negative_binomial(1, 0.05, n)) == "count"
    assert found(r.geometric(0.1, n) - 1) == "count"
    spent = r.poisson(np.where(r.random(n) < 0.7, 0, 40), n)
    assert found(spent) == "count"
    assert found(pd.Series(spent).astype("Int64").mask(r.random(n) < 0.2)) == "count"
    assert found(pd.Series(spent).astype(float).mask(r.random(n) < 0.2)) == "count"  # as pandas reads gaps
    for what, values in {
        "ages": r.integers(18, 90, n),
        "ages of all": r.integers(0, 90, n),
        "years": r.integers(1950, 2025, n),
        "row numbers": np.arange(n),
        "codes": r.integers(0, 500, n),
        "ratings": r.integers(0, 11, n),
        "few visits": r.poisson(2, n),
        "amounts": np.where(r.random(n) < 0.1, 0, np.exp(r.normal(10, 1, n)).astype(int)),
        "differences": r.negative_binomial(1, 0.05, n) - 5,
        "fractions": r.negative_binomial(1, 0.05, n) + 0.5,
        "a Poisson": r.poisson(200, n) - 130,
    }.items():
        assert found(values) == "numeric", what
    array = np.stack([spent, r.normal(size=n)], 1).astype(float)
    array[0, 0] = np.nan
    assert [c.kind for c in whole(array).spec.columns] == ["numeric", "numeric"]


def test_the_notes_say_what_was_guessed_and_what_else_could_be() -> None:
    notes = "\n".join(whole(money()).notes)
    assert "read as counts: 'visits'; types={'visits': 'numeric'} (--types 'visits=numeric')" in notes
    assert "above 0, with a long tail: 'income'; types={'income': 'positive'}" in notes
    assert "'grade'" in notes and "'count' counts" in notes
    notes = "\n".join(whole(money(), types=KINDS | {"grade": "ordinal"}).notes)
    assert not any(w in notes for w in ("taken for", "long tail", "few whole"))
    assert "long tail" not in "\n".join(whole(table(300)).notes)


@pytest.mark.parametrize(
    "change", [{"mean": 0.5}, {"mean": -1.0}, {"scale": 3.0}, {"scale": 0.0}, {"categories": ["a"]}]
)
def test_a_damaged_count_is_refused(change: dict[str, Any]) -> None:
    good = {"name": "n", "kind": "count", "mean": 2.0, "scale": 4.0, "dtype": "int64"}
    Transform.from_dict({"kind": "table", "columns": [good], "frame": True, "binary": False})
    with pytest.raises(ConfigError, match="damaged"):
        Transform.from_dict({"kind": "table", "columns": [good | change], "frame": True, "binary": False})


def test_a_spec_of_an_earlier_version_reads_and_a_strange_one_does_not() -> None:
    spec = Spec((2,), columns=(Column("n", "count", 1, (), 3.0, 4.0), Column("g", "ordinal", 1, ("a", "b"), 0.5, 0.5)))
    values = json.loads(json.dumps(to_plain(spec)))
    assert from_plain(values) == spec
    old = {**values, "columns": [{k: c[k] for k in ("name", "kind", "width", "categories")} for c in values["columns"]]}
    assert [(c.kind, c.mean, c.scale) for c in from_plain(old).columns] == [("count", 0, 1), ("ordinal", 0, 1)]
    splits = {"train": Split(torch.zeros(3, 2))}
    assert fingerprint(from_plain(old), splits) == fingerprint(spec, splits)  # so that it can be gone on with
    for change in ({"kind": "sum"}, {"scale": 0.0}, {"scale": math.inf}, {"mean": math.nan}):
        with pytest.raises(ValueError, match="a column of kind"):
            from_plain({**values, "columns": [values["columns"][0] | change]})


def test_a_mixed_table_from_file_to_rows(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    frame = with_gaps(money(150)).assign(patient=[i % 30 for i in range(150)])
    frame.to_csv(tmp_path / "t.csv", index=False)
    config = tmp_path / "c.yaml"
    config.write_text(f"data: {{source: {tmp_path / 't.csv'}, types: {{income: positive, visits: count}}}}")
    run = str(tmp_path / "run")
    words = [
        "train",
        "vae",
        "--config",
        str(config),
        "--epochs",
        "2",
        "--out",
        run,
        "--groups",
        "patient",
        "--no-report",
    ]
    assert main([*words, "--latent-dim", "2"]) == 0
    model = load(run)
    assert model.config["options"]["likelihood"] == {"name": "mixed", "learn": "column"}
    assert main(["generate", run, "-n", "200", "-o", str(tmp_path / "rows.csv")]) == 0
    rows = pd.read_csv(tmp_path / "rows.csv")
    assert rows["visits"].dtype == np.int64 and rows["visits"].min() >= 0
    assert (rows["income"] > 0).all() and set(rows["town"]) <= {"Ulm", "Bern", "Graz"}
    assert pd.to_datetime(rows["born"]).notna().all() and not rows.isna().any().any()
    again, mask = load_data(tmp_path / "rows.csv", transform=transform_of(run)).transform.observe(rows)
    assert mask is None and torch.isfinite(again).all()
    assert main(["reconstruct", run, "-n", "9", "-o", str(tmp_path / "back.csv")]) == 0
    back = pd.read_csv(tmp_path / "back.csv")
    assert not back[back["which"] == "reconstruction"].isna().any().any()
    held = load_data(tmp_path / "t.csv", types={"income": "positive", "visits": "count"}, groups="patient")
    shown = back.loc[back["which"] == "original", ["example", "visits"]].iloc[[0, -1]]
    every = held.transform.inverse(held.splits["test"].x, held.splits["test"].mask)["visits"]
    assert shown["example"].tolist() == [0, 8 * len(every) // 9], "from all over the split"
    assert shown["visits"].fillna(-1).tolist() == every.iloc[shown["example"]].fillna(-1).tolist()
    capsys.readouterr()
    assert main(["evaluate", run, "--json"]) == 0
    metrics = json.loads(capsys.readouterr().out)["metrics"]
    assert metrics["elbo"]["note"].startswith("a log density, which can be positive; of the observed values only")
    assert "bits_per_dim" not in metrics
    frame.assign(visits=-1).to_csv(tmp_path / "bad.csv", index=False)
    assert main(["evaluate", run, "--data", str(tmp_path / "bad.csv")]) != 0
    assert "'visits' has -1 in row 0; a count is a whole number from 0" in capsys.readouterr().err


def test_a_report_shows_them_in_their_own_unit(tmp_path: Path) -> None:
    frame = money(60)
    run = train(
        "vae", frame, out=tmp_path / "run", epochs=1, data_options={"types": KINDS}, model_options={"latent_dim": 1}
    )
    data = load_data(frame, types=KINDS)
    found = {s.name: s.values for s in columns.series(data.train.x, Material(run, run.load_model(), data))}
    rows = data.transform.inverse(data.train.x)
    assert found["visits"].tolist() == rows["visits"].tolist()
    assert np.allclose(found["income"], rows["income"], rtol=1e-6)


def test_a_model_is_trained_on_a_table_of_categories_alone(tmp_path: Path) -> None:
    frame = table(80)[["town", "member"]]
    run = train("ae", frame, out=tmp_path / "run", epochs=1, model_options={"latent_dim": 1})
    assert run.load_model().config["options"]["likelihood"]["name"] == "mixed"

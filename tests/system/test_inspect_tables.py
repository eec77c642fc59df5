"""``sandglass inspect`` of tables."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import sandglass
from looking import TABLE, Cli, inspect_command, said, write
from sandglass.errors import DataError
from sandglass.reports.census import render_census

HOSTILE = "<img src=x onerror=1>"


@pytest.fixture
def cli(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Cli:
    return inspect_command(capsys, monkeypatch)


def test_table(tmp_path: Path) -> None:
    census = sandglass.inspect(write(tmp_path / "people.csv", TABLE))
    words = said(census)
    assert "'age' has 4% missing values (40 of 1,000 rows)" in words["missing"]
    assert "'bad' holds numbers, but also 'none yet' (1 cell)" in words["strays"]
    assert "'note' has 1,000 different texts" in words["text"]
    assert "'same' is constant" in words["constant"]
    assert "'id' looks like row numbers" in words["identifier"]
    assert "'height' and 'height_cm'" in words["correlation"]
    assert "infinite" not in words, "a gap is no number"
    assert "duplicates" not in words
    facts = census.facts
    assert facts["kinds"] == {"numeric": 6, "categorical": 1, "text": 1}
    assert facts["missing"] == {"cells": 40, "share": 40 / 8000, "rows": 40, "columns": 1}
    town = facts["columns"][4]
    assert town["categories"] == [
        {"value": "Bern", "count": 334}, {"value": "Oslo", "count": 333}, {"value": "Rome", "count": 333},
    ]  # fmt: skip
    age = facts["columns"][1]
    known = np.array([20 + i % 50 for i in range(1000) if i % 25])
    assert age["mean"] == pytest.approx(known.mean())
    assert age["quantiles"]["0.5"] == np.median(known)
    assert sum(age["histogram"]["counts"]) == 960


def test_dates_and_gaps_are_seen_as_training_sees_them(tmp_path: Path) -> None:
    text = "day,amount\n" + "".join(f"2024-01-{1 + i % 28:02},{'?' if i % 10 == 0 else i}\n" for i in range(300))
    census = sandglass.inspect(write(tmp_path / "a.csv", text))
    day, amount = census.facts["columns"]
    assert (day["kind"], day["first"], day["last"], day["distinct"]) == ("date", "2024-01-01", "2024-01-28", 28)
    assert (amount["kind"], amount["missing"], amount["strays"]) == ("numeric", 30, {})
    data = sandglass.load_data(tmp_path / "a.csv", validation=0, test=0)
    assert [c.kind for c in data.spec.columns] == ["date", "numeric"]
    assert data.train.mask is not None and int((~data.train.mask[:, 1]).sum()) == 30


def test_codes_are_texts_as_training_has_them(tmp_path: Path) -> None:
    text = "number,zip\n" + "".join(f"{i:05},{('01069', '80331', '10115')[i % 3]}\n" for i in range(300))
    census = sandglass.inspect(write(tmp_path / "a.csv", text))
    number, town = census.facts["columns"]
    assert (number["kind"], town["kind"], town["distinct"]) == ("text", "categorical", 3)
    assert "'number' has 300 different texts" in said(census)["text"]
    with pytest.raises(DataError, match=r"'number' has 300 different texts.*--drop 'number'"):
        sandglass.load_data(tmp_path / "a.csv")
    assert [c.kind for c in sandglass.load_data(tmp_path / "a.csv", drop=["number"]).spec.columns] == ["categorical"]


def test_a_file_is_read_as_training_reads_it(tmp_path: Path) -> None:
    census = sandglass.inspect(write(tmp_path / "a.csv", "a;b\n" + "1;2,5\n" * 300))
    assert [c["name"] for c in census.facts["columns"]] == ["a", "b"]
    assert said(census)["read"] == "a.csv is separated by semicolons."
    for text, problem in (("a,a\n1,2\n", "2 columns named 'a'"), ("a,b\n1,2,3\n", "more cells"), ("a,b\n", "no rows")):
        census = sandglass.inspect(write(tmp_path / "b.csv", text))
        assert census.kind == "nothing" and problem in census.findings[0].message
        with pytest.raises(DataError, match=problem):
            sandglass.load_data(tmp_path / "b.csv")


def test_table_without_a_header_with_equal_rows_and_without_end(tmp_path: Path) -> None:
    rows = [f"{i % 40},{i % 7}.5,{'inf' if i == 3 else 1e300 if i == 4 else i}\n" for i in range(300)]
    census = sandglass.inspect(write(tmp_path / "a.csv", "".join([*rows, rows[0], rows[0]])))
    words = said(census)
    assert words["read"] == "a.csv has no header, as its first line has numbers: columns are named c1 to c3."
    assert "2 rows are duplicates" in words["duplicates"]
    assert "2 values that are infinite" in words["infinite"]
    assert census.facts["examples"] == 302
    render_census(census)


def test_a_gap_equals_a_gap_and_nothing_else(tmp_path: Path) -> None:
    path = write(tmp_path / "a.csv", "x,y\n1,a\n,a\n2,a\n,a\n")
    assert sandglass.inspect(path).facts["duplicates"] == {"rows": 1}


def test_names_of_any_length(tmp_path: Path, cli: Cli) -> None:
    long = "9" * 400
    path = write(tmp_path / "a.csv", f"{long},x{long}\n" + f"a{long},1\nb,2\n" * 30)
    code, out, _ = cli(path, "-o", tmp_path / "page.html")
    assert code == 0
    assert max(map(len, out.splitlines())) <= 80


def test_outliers(tmp_path: Path) -> None:
    values = [*np.random.default_rng(0).normal(size=500).round(3).tolist(), 1000.0]
    census = sandglass.inspect(write(tmp_path / "a.csv", "x\n" + "\n".join(map(str, values)) + "\n"))
    assert census.facts["columns"][0]["outliers"] == 1
    assert "to 1000" in said(census)["outliers"]


def test_labels_of_a_table(tmp_path: Path, cli: Cli) -> None:
    path = write(tmp_path / "a.csv", "x,kind\n" + "1.5,rare\n" + "2.5,common\n" * 60)
    assert "Class 'rare' has 1 row, 'common' 60." in said(sandglass.inspect(path, labels="kind"))["balance"]
    code, _, err = cli(path, "--labels", "kin")
    assert code == DataError.exit_code
    assert "'kin'" in err


@pytest.mark.parametrize("text", ["", "a,b\n", "a,b\n,\n,\n", "a\nx\n"])
def test_small_tables(text: str, tmp_path: Path) -> None:
    census = sandglass.inspect(write(tmp_path / "a.csv", text))
    assert census.findings
    render_census(census)


def test_a_frame_of_anything() -> None:
    import pandas as pd

    frame = pd.DataFrame(
        {
            "when": pd.to_datetime(["2024-01-01", None, "2024-01-03"]),
            "kind": pd.Categorical(["a", None, "b"]),
            "int": pd.array([1, None, 3], dtype="Int64"),
            "flag": [True, False, True],
            "mixed": [1, "x", None],
            "wide": [1 + 2j, 0j, 1j],
        }
    )
    census = sandglass.inspect(frame)
    by = {c["name"]: c for c in census.facts["columns"]}
    assert [by[n]["missing"] for n in frame.columns] == [1, 1, 1, 0, 1, 0]
    assert by["when"]["kind"] == "date"
    assert by["int"]["kind"] == "numeric"
    assert by["int"]["strays"] == {}
    assert by["flag"]["kind"] == "categorical"
    render_census(census)

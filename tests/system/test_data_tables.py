"""Tables of a person's own: types, gaps, dates, sequences, groups, and every kind of file they come in."""

from __future__ import annotations

import json
import re
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from people import N, same_cells, table, whole, with_gaps
from sandglass.data.load import load_data
from sandglass.data.splits import carve
from sandglass.data.transform import TableTransform, Transform
from sandglass.errors import ConfigError, DataError


@pytest.mark.parametrize("frame", [table(), with_gaps(table())], ids=["complete", "gaps"])
def test_every_kind_of_column_comes_back(frame: pd.DataFrame) -> None:
    data = whole(frame, types={"grade": "ordinal"})
    kinds = [c.kind for c in data.spec.columns]
    assert kinds == ["numeric", "numeric", "categorical", "categorical", "date", "date", "ordinal"]
    assert data.spec.shape == (1 + 1 + 3 + 2 + 1 + 1 + 1,)
    transform = Transform.from_dict(json.loads(json.dumps(data.transform.to_dict())))
    assert isinstance(transform, TableTransform)
    x, mask = data.train.x, data.train.mask
    assert (mask is None) == (not frame.isna().any().any())
    if mask is None:
        same_cells(transform.inverse(x), frame)
        return
    assert not x[~mask].any()
    assert torch.equal(mask[:, 2:5], mask[:, 2:3].expand(-1, 3))  # a category is observed in one piece
    same_cells(transform.inverse(x, mask), frame)
    back = transform.inverse(x)
    types = {"age": "i", "weight": "f", "member": "b", "born": "M", "seen": "M", "grade": "i"}
    assert {n: back[n].dtype.kind for n in types} == types
    assert transform.inverse(x, mask)["age"].dtype == "Int64"
    again = transform.observe(frame)
    assert torch.equal(again[0], x) and again[1] is not None and torch.equal(again[1], mask)


def test_gaps_are_counted_in_the_notes_and_not_in_the_statistics() -> None:
    frame = with_gaps(table())
    data = whole(frame)
    count = int(frame.isna().sum().sum())
    assert any(note.startswith(f"{count} cells of 7 columns are missing") for note in data.notes)
    columns = {c["name"]: c for c in data.transform.columns}
    assert columns["weight"]["mean"] == pytest.approx(frame["weight"].astype(float).mean())
    assert columns["age"]["dtype"] == "int64"
    assert data.fingerprint != whole(frame.bfill()).fingerprint
    assert whole(table()).train.mask is None


@pytest.mark.parametrize("word", ["", "NA", "?", " ? ", "NaN", "null", "None", None, np.nan, pd.NA])
def test_what_stands_for_a_missing_value(word: Any) -> None:
    frame = pd.DataFrame({"number": ["1", word, "3"], "text": ["a", "b", word]}, dtype=object)
    data = whole(frame)
    assert data.train.mask.tolist() == [[True, True, True], [False, True, True], [True, False, False]]
    assert [c.kind for c in data.spec.columns] == ["numeric", "categorical"]
    assert data.transform.inverse(data.train.x)["number"].tolist() == [1, 2, 3]


def test_rows_of_an_array_may_have_gaps() -> None:
    x = np.random.default_rng(0).normal(3, 2, (50, 4))
    x[3, 1] = x[7, 2] = np.nan
    data = whole(x)
    assert (~data.train.mask).nonzero().tolist() == [[3, 1], [7, 2]]
    assert np.allclose(data.transform.inverse(data.train.x, data.train.mask), x, equal_nan=True, atol=1e-5)
    bits = (x > 3).astype(float)
    bits[np.isnan(x)] = np.nan
    assert whole(bits).spec.support == "binary" and whole(bits).train.mask is not None
    with pytest.raises(DataError, match="no value"):
        load_data(np.full((4, 3), np.nan))


@pytest.mark.parametrize("ending", ["csv", "tsv", "parquet", "feather"])
@pytest.mark.parametrize("gaps", [False, True])
def test_files_give_what_the_frame_gives(ending: str, gaps: bool, tmp_path: Path) -> None:
    frame = with_gaps(table()) if gaps else table()
    path = tmp_path / f"people.{ending}"
    typed = frame.convert_dtypes() if gaps else frame
    if ending in ("csv", "tsv"):
        frame.to_csv(path, index=False, sep="\t" if ending == "tsv" else ",")
    else:
        getattr(typed, f"to_{ending}")(path)
    data, direct = load_data(path), load_data(frame)
    assert data.spec == direct.spec
    assert data.fingerprint == direct.fingerprint == load_data(**data.source).fingerprint
    assert [c["dtype"] for c in data.transform.columns] == [c["dtype"] for c in direct.transform.columns]


def test_a_file_without_a_header(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    for text in ("1,2,7\n3,4,8\n", "5.1,0.2,setosa\n4.9,0.3,other\n", "1,?,3\n4,5,\n"):
        path.write_text(text)
        data = whole(path)
        assert [c.name for c in data.spec.columns] == ["c1", "c2", "c3"]
        assert len(data.train) == 2
        assert data.notes[0] == "t.csv has no header, as its first line has numbers: columns are named c1 to c3"
    path.write_text("name,2019,2020\na,1,2\nb,3,4\n")
    assert [c.name for c in whole(path).spec.columns] == ["name", "2019", "2020"]


def test_codes_with_a_zero_in_front_stay_as_they_are(tmp_path: Path) -> None:
    lines = [f"{('007', '010', '')[i % 3]},{i % 5},{i / 10},12:0{i % 10}" for i in range(30)]
    for text in (
        "code,count,size,time\n" + "\n".join(lines),
        "\n".join(["code;count;size", *["017;1;0.5", "7;2;05.5"] * 9]),
    ):
        path = tmp_path / "codes.csv"
        path.write_text(text)
        data = load_data(path, drop=["time"] if "time" in text else [], validation=0, test=0)
        first = data.spec.columns[0]
        assert first.kind == "categorical" and first.categories == (("007", "010") if "time" in text else ("017", "7"))
        assert [c.kind for c in data.spec.columns[1:]] == ["numeric", "numeric"]
        numbers = load_data(path, types={"code": "numeric"}, drop=["time"] if "time" in text else [], validation=0)
        assert numbers.spec.columns[0].kind == "numeric"


def test_numbers_come_back_with_the_places_and_the_sign_that_the_table_has() -> None:
    draws = np.random.default_rng(0)
    frame = pd.DataFrame({"age": draws.normal(50, 9, 90).round(1), "price": draws.lognormal(0, 2, 90).round(2) + 0.01,
                          "whole": draws.integers(0, 9, 90) * 1.0, "real": draws.normal(size=90)})  # fmt: skip
    data = load_data(frame, types={"price": "positive"}, validation=0, test=0)
    columns = {c["name"]: c.get("decimals") for c in data.transform.columns}
    assert columns == {"age": 1, "price": 2, "whole": 0, "real": None}
    made = data.transform.inverse(torch.randn(500, 4, generator=torch.Generator().manual_seed(1)) * 4)
    for name, places in (("age", 1), ("price", 2), ("whole", 0)):
        assert made[name].dtype == np.float64 and (made[name] == made[name].round(places)).all()
    assert (made["real"] != made["real"].round(6)).any() and float(made["price"].min()) == 0.01
    assert [float(made[name].min()) < 0 for name in columns] == [False, False, False, True]
    assert float(made["whole"].min()) == 0 and float(made["age"].min()) < 40
    again = Transform.from_dict(json.loads(json.dumps(data.transform.to_dict())))
    exact = [name for name in columns if name != "real"]
    pd.testing.assert_frame_equal(again.inverse(again.apply(frame))[exact], frame[exact].round(2), check_exact=True)
    assert not any(
        {"decimals", "unsigned"} & set(c) for c in load_data(frame.to_numpy(), validation=0, test=0).transform.columns
    )


@pytest.mark.parametrize(
    "change",
    [
        {"decimals": -1},
        {"decimals": 7},
        {"decimals": True},
        {"decimals": 1.0},
        {"dtype": "int64"},
        {"unsigned": False},
        {"unsigned": 1},
        {"kind": "positive"},
    ],
)
def test_damaged_decimals_and_signs_are_refused(change: dict[str, Any]) -> None:
    good = {"name": "n", "kind": "numeric", "mean": 2.0, "scale": 4.0, "dtype": "float64"}
    good |= {"decimals": 2, "unsigned": True}
    Transform.from_dict({"kind": "table", "columns": [good], "frame": True, "binary": False})
    with pytest.raises(ConfigError, match="damaged"):
        Transform.from_dict({"kind": "table", "columns": [good | change], "frame": True, "binary": False})


def test_types_are_declared() -> None:
    frame = table()
    guessed = whole(frame)
    assert any("'grade'" in note and "few distinct integers" in note for note in guessed.notes)
    data = whole(frame, types={"grade": "categorical", "age": "numeric"})
    assert data.spec.columns[6].categories == ("1", "2", "3", "4", "5")
    assert not any("few distinct integers" in note for note in data.notes)
    assert data.transform.inverse(data.train.x)["grade"].tolist() == frame["grade"].tolist()
    assert whole(frame, types="grade=categorical,age=numeric").fingerprint == data.fingerprint
    data = whole(frame, types={"town": ["Ulm", "Bern", "Graz"]})
    assert data.spec.columns[2].kind == "ordinal" and data.spec.columns[2].categories == ("Ulm", "Bern", "Graz")
    assert data.transform.inverse(data.train.x)["town"].tolist() == frame["town"].tolist()
    assert whole(frame, types="town=Ulm<Bern<Graz").fingerprint == data.fingerprint
    words = pd.DataFrame({"a": ["yes", "no", None, "no"], "b": [0, 1, 1, 0]})
    data = whole(words, types={"a": "boolean", "b": "boolean"})
    back = data.transform.inverse(data.train.x, data.train.mask)
    assert back["a"].tolist() == [True, False, pd.NA, False] and back["b"].tolist() == [False, True, True, False]


@pytest.mark.parametrize(
    ("options", "error", "words"),
    [
        ({"types": {"age": "number"}}, ConfigError, "Did you mean 'numeric'"),
        ({"types": "age"}, ConfigError, "COLUMN=KIND"),
        ({"types": {"agee": "numeric"}}, DataError, "no column 'agee' for types. Did you mean 'age'"),
        ({"types": {"town": "numeric"}}, DataError, "'town' must hold numbers"),
        ({"types": {"town": "boolean"}}, DataError, "'town' is declared boolean, but has"),
        ({"types": {"town": "date"}}, DataError, "'town' has '.*' in row 0, which is not a date"),
        ({"types": {"town": "ordinal"}}, DataError, "'town' holds texts, so the order of its values must be given"),
        ({"types": {"town": ["Ulm", "Bern"]}}, DataError, "'town' has 'Graz', which is not one of"),
        ({"types": {"seen": "numeric"}}, DataError, "'seen' must hold numbers"),
        ({"drop": ["towm"]}, DataError, "no column 'towm' for drop. Did you mean 'town'"),
        ({"drop": list(table().columns)}, DataError, "no columns left"),
        ({"groups": "patient"}, DataError, "no column 'patient' for groups"),
        ({"groups": [1, 2]}, ConfigError, "2 values for 60 examples"),
    ],
)
def test_options_that_do_not_fit(options: dict[str, Any], error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=words):
        load_data(table(), **options)


def test_options_of_tables_are_for_tables() -> None:
    for options in ({"types": {"a": "numeric"}}, {"drop": ["a"]}, {"groups": "a"}):
        with pytest.raises(ConfigError, match="of a table"):
            load_data(np.zeros((9, 8, 8), np.uint8), **options)
    with pytest.raises(ConfigError, match="leave types out"):
        load_data(table(), types={"age": "numeric"}, transform=whole(table()).transform)


def test_columns_are_left_out(tmp_path: Path) -> None:
    frame = table().assign(id=[f"n{i}" for i in range(N)])
    with pytest.raises(DataError, match=re.escape("leave it out: drop=['id'] (--drop 'id')")):
        load_data(frame)
    assert [c.name for c in whole(frame, drop=["id", "town"]).spec.columns] == [c for c in table() if c != "town"]
    frame.to_csv(tmp_path / "a.csv", index=False)
    data = load_data(tmp_path / "a.csv", drop="id, town", groups="grade", labels="member")
    assert load_data(**data.source).fingerprint == data.fingerprint


def test_an_infinite_value_and_an_empty_column_are_refused() -> None:
    with pytest.raises(DataError, match="'weight' has 1 value that is infinite, the first in row 4"):
        load_data(table().assign(weight=[np.inf if i == 4 else 1.0 for i in range(N)]))
    with pytest.raises(DataError, match=r"'weight' has 2 values that are larger than 1e\+100, the first in row 1"):
        load_data(table().assign(weight=[1e300 if i in (1, 4) else 1.0 for i in range(N)]))
    with pytest.raises(DataError, match="too far from those"):
        whole(table()).transform.apply(table().assign(weight=1e60))
    with pytest.raises(DataError, match=r"'none' has no value in any row; leave it out: drop=\['none'\]"):
        load_data(table().assign(none=None))
    with pytest.raises(DataError, match="labels of 'train' have missing values"):
        load_data(with_gaps(table()), labels="grade")


def test_other_tables_than_those_of_pandas(tmp_path: Path) -> None:
    arrow = pyarrow.Table.from_pandas(table())
    assert load_data(arrow, labels="town").fingerprint == load_data(table(), labels="town").fingerprint
    prices = pyarrow.table({"price": pyarrow.array([Decimal("1.5"), None, Decimal("2.5")])})
    assert whole(prices).spec.columns[0].kind == "numeric"
    (tmp_path / "t.csv").write_text("a;b\n1;2.5\n3;4.5\n")
    data = whole(tmp_path / "t.csv")
    assert [c.name for c in data.spec.columns] == ["a", "b"] and "t.csv is separated by semicolons" in data.notes


def test_times_with_a_zone() -> None:
    """Texts become times in UTC; times of one zone come back in it."""
    frame = pd.DataFrame({"when": ["2020-01-01T00:00:00+01:00", "2020-01-01T00:00:00Z", None]})
    data = whole(frame)
    assert "times were converted to UTC: 'when'" in data.notes
    back = data.transform.inverse(data.train.x, data.train.mask)["when"]
    assert [str(v) for v in back] == ["2019-12-31 23:00:00+00:00", "2020-01-01 00:00:00+00:00", "NaT"]
    zoned = frame.assign(when=pd.to_datetime(frame["when"], utc=True).dt.tz_convert("Asia/Tokyo"))
    data = whole(zoned)
    assert not any("UTC" in note for note in data.notes)
    pd.testing.assert_frame_equal(data.transform.inverse(data.train.x, data.train.mask), zoned)


def test_a_transform_stored_before_there_were_gaps_still_reads() -> None:
    """The keys that an earlier version wrote."""
    old = {
        "kind": "table",
        "columns": [
            {"name": "a", "kind": "numeric", "mean": 2.0, "scale": 4.0, "dtype": "int64"},
            {"name": "b", "kind": "categorical", "categories": ["False", "True"], "dtype": "bool"},
            {"name": "c", "kind": "categorical", "categories": ["1", "10"], "dtype": "int64"},
        ],
        "frame": True,
        "binary": False,
    }
    transform = Transform.from_dict(old)
    frame = pd.DataFrame({"a": [6, 2], "b": [True, False], "c": [10, 1]})
    x = transform.apply(frame)
    assert x.tolist() == [[1, 0, 1, 0, 1], [0, 1, 0, 1, 0]]
    assert transform.inverse(x).equals(frame)
    assert transform.to_dict() == old


def test_sequences_are_rows_with_a_masked_end() -> None:
    signals = [np.arange(3.0), np.arange(5.0), [1.0, np.nan, 2.0], None, np.arange(5.0) * 2]
    frame = pd.DataFrame({"signal": signals, "kind": list("abaab")})
    data = whole(frame)
    assert data.spec.shape == (5 + 2,) and data.spec.columns[0].kind == "sequence"
    assert data.train.mask[:, :5].sum(1).tolist() == [3, 5, 2, 0, 5]
    assert any("at most 5 steps" in note for note in data.notes)
    back = data.transform.inverse(data.train.x, data.train.mask)["signal"]
    assert back[3] is None
    for i in (0, 1, 2, 4):
        assert np.allclose(back[i], signals[i], equal_nan=True, atol=1e-6)
    assert all(len(one) == 5 for one in data.transform.inverse(data.train.x)["signal"])
    with pytest.raises(DataError, match="at most 5"):
        data.transform.apply(pd.DataFrame({"signal": [np.zeros(6)], "kind": ["a"]}))
    channels = pd.DataFrame({"signal": [np.random.default_rng(i).normal(size=(4, 2)) for i in range(8)]})
    data = whole(channels)
    assert data.spec.shape == (8,) and data.train.mask is None
    assert np.allclose(np.stack(data.transform.inverse(data.train.x)["signal"]), np.stack(channels["signal"]))
    for bad, words in (
        (([1.0], [[1.0]]), "only T may differ"),
        ((["a"], ["b"]), "list of numbers"),
        (([], []), "empty lists"),
    ):
        with pytest.raises(DataError, match=words):
            load_data(pd.DataFrame({"signal": list(bad)}))


def test_sequences_go_through_parquet(tmp_path: Path) -> None:
    frame = pd.DataFrame({"signal": [list(np.arange(1.0 + i % 3)) for i in range(20)], "a": range(20)})
    frame.to_parquet(tmp_path / "s.parquet")
    assert load_data(tmp_path / "s.parquet").fingerprint == load_data(frame).fingerprint


# groups


def test_rows_of_a_group_stay_in_one_split() -> None:
    frame = table(200).assign(patient=[f"p{i % 23}" for i in range(200)])
    data = load_data(frame, groups="patient", validation=0.2, test=0.2)
    assert "patient" not in [c.name for c in data.spec.columns]
    assert "23 groups: each stays in one split" in data.notes
    array = load_data(frame.drop(columns="patient"), groups=frame["patient"], validation=0.2, test=0.2)
    assert array.fingerprint == data.fingerprint and array.source is None
    born = {s: set(data.transform.inverse(part.x)["weight"].round(3)) for s, part in data.splits.items()}
    owner = dict(zip(frame["weight"].round(3), frame["patient"], strict=True))
    patients = {s: {owner[min(owner, key=lambda w: abs(w - v))] for v in values} for s, values in born.items()}
    assert len(patients["train"] | patients["validation"] | patients["test"]) == 23
    assert sum(map(len, patients.values())) == 23
    apart = load_data(frame.drop(columns="patient"), validation=0.2, test=0.2)  # the control: rows by themselves
    shared = {owner[min(owner, key=lambda w: abs(w - v))]
              for v in apart.transform.inverse(apart.splits["test"].x)["weight"]}  # fmt: skip
    assert len(shared) > len(patients["test"])
    with pytest.raises(DataError, match="groups has a missing value in row 1"):
        load_data(table(3).assign(g=[1, None, 2]), groups="g")
    few = load_data(table(60).assign(g=[i // 20 for i in range(60)]), groups="g")
    assert {s: len(part) for s, part in few.splits.items()} == {"train": 20, "validation": 20, "test": 20}
    one = load_data(table(60).assign(g=1), groups="g")
    assert list(one.splits) == ["train"] and any("too few groups" in note for note in one.notes)


@settings(max_examples=80, deadline=None)
@given(
    sizes=st.lists(st.integers(1, 6), min_size=1, max_size=40),
    classes=st.integers(1, 4),
    shares=st.tuples(st.floats(0, 0.4), st.floats(0, 0.4)),
    seed=st.integers(0, 5),
)
def test_splits_keep_groups_and_shares(sizes: list[int], classes: int, shares: tuple[float, float], seed: int) -> None:
    groups = torch.repeat_interleave(torch.arange(len(sizes)), torch.tensor(sizes))
    n = len(groups)
    y = groups % classes
    fractions = dict(zip(("validation", "test"), shares, strict=True))
    parts = carve(n, fractions, seed, y, groups)
    again = carve(n, fractions, seed, y, groups)
    assert all(torch.equal(parts[k], again[k]) for k in parts)
    assert torch.equal(torch.cat(list(parts.values())).sort().values, torch.arange(n))  # disjoint and complete
    held = [set(groups[index].tolist()) for index in parts.values()]
    assert sum(map(len, held)) == len(set(groups.tolist()))  # groups whole
    assert len(parts["train"]) >= 1
    single = carve(n, fractions, seed, y)
    for name, share in fractions.items():
        wanted = len(single[name])
        for c in range(classes):
            exact = wanted * float((y == c).float().mean())
            # What comes second may find a class used up, and takes of another in its place.
            assert abs(int((y[single[name]] == c).sum()) - exact) < (2 if name == "test" else 1 + 1e-6)
        assert wanted == 0 or abs(wanted - n * share) <= 1

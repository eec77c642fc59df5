"""What a DataFrame has beside its cells: the types of its columns and the labels of its rows."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import sandglass
from sandglass.app.main import main
from sandglass.data.load import load_data
from sandglass.data.trained_on import transform_of
from sandglass.data.transform import Transform
from sandglass.errors import ConfigError, DataError
from sandglass.estimator import GenerativeModel

N = 40
R = np.random.default_rng(0)
DAYS = pd.Timestamp("2024-03-30 22:15:00") + pd.to_timedelta(np.arange(N) * 3601, unit="s")
WORDS = R.choice(["Ulm", "Bern"], N)
COLUMNS: dict[str, pd.Series] = {
    "Int64": pd.Series(R.integers(18, 90, N), dtype="Int64"),
    "UInt8": pd.Series(R.integers(0, 256, N), dtype="UInt8"),
    "int32": pd.Series(R.integers(-5, 900, N), dtype="int32"),
    "uint8": pd.Series(R.integers(0, 256, N), dtype="uint8"),
    "Float64": pd.Series(R.integers(0, 900, N) / 4, dtype="Float64"),
    "float32": pd.Series(R.integers(0, 900, N) / 4, dtype="float32"),
    "boolean": pd.Series(R.random(N) < 0.5, dtype="boolean"),
    "string": pd.Series(WORDS, dtype="string"),
    "category": pd.Series(WORDS, dtype="category"),
    "category of numbers": pd.Series(R.choice([10, 2, 30], N), dtype="category"),
    "ordered": pd.Series(pd.Categorical(R.choice(["S", "M", "L"], N), ["S", "M", "L"], ordered=True)),
    "order": pd.Series(pd.Categorical(WORDS, ["Ulm", "Bern"])),
    "order of numbers": pd.Series(pd.Categorical(R.choice([1, 2], N), [2, 1])),
    "order of floats": pd.Series(pd.Categorical(R.choice([0.5, 2], N), [2, 0.5])),
    "order of booleans": pd.Series(pd.Categorical(R.random(N) < 0.5, [True, False])),
    "datetime64[us]": pd.Series(DAYS).astype("datetime64[us]"),
    "zone": pd.Series(DAYS).dt.tz_localize("UTC").dt.tz_convert("Europe/Berlin"),
    "offset": pd.Series(DAYS).dt.tz_localize("+03:00"),
    "int64": pd.Series(R.integers(0, 99, N)),
    "bool": pd.Series(R.random(N) < 0.5),
    "str": pd.Series(WORDS),
}  # fmt: skip


def whole(frame, **options):
    return load_data(frame, validation=0, test=0, **options)


def back(data) -> pd.DataFrame:
    stored = Transform.from_dict(json.loads(json.dumps(data.transform.to_dict())))
    return stored.inverse(data.train.x, data.train.mask)


@pytest.mark.parametrize("kind", COLUMNS)
def test_types_come_back(kind: str) -> None:
    frame = pd.DataFrame({"x": COLUMNS[kind], "y": R.normal(size=N)})
    found = back(whole(frame))
    assert found["x"].dtype == frame["x"].dtype
    assert found["x"].tolist() == frame["x"].tolist()


@pytest.mark.parametrize("kind", [k for k in COLUMNS if k not in ("int32", "uint8", "int64", "bool")])
def test_types_come_back_with_gaps(kind: str) -> None:
    frame = pd.DataFrame({"x": COLUMNS[kind].copy(), "y": R.normal(size=N)})
    frame.loc[3:5, "x"] = None
    found = back(whole(frame))
    assert found["x"].dtype == frame["x"].dtype
    assert found["x"].isna().tolist() == frame["x"].isna().tolist()
    assert found["x"].dropna().tolist() == frame["x"].dropna().tolist()


@pytest.mark.parametrize("edges", [[0, 18, 40, 90], [0.0, 18.5, 40.0, 90.0], [-1, 18, 40, 90]], ids=str)
def test_groups_of_numbers_come_back(edges: list[float], tmp_path: Path) -> None:
    ages = np.array([0, *R.integers(1, 90, N - 1)])  # 0 is in no group that begins above it
    frame = pd.DataFrame({"x": pd.cut(ages, edges), "y": R.normal(size=N)})
    texts = [str(group) for group in frame["x"].cat.categories]
    data = whole(frame)
    found = back(data)
    assert data.spec.columns[0].kind == "ordinal" and found["x"].cat.categories.tolist() == texts
    assert found["x"].cat.ordered and found["x"].isna().sum() == (edges[0] >= 0)
    wanted = [str(group) for group in frame["x"].dropna()]
    assert found["x"].dropna().tolist() == wanted
    assert [str(group) for group in back(whole(found))["x"].dropna()] == wanted
    run = sandglass.train("vae", frame.iloc[1:], epochs=1, max_steps=1, out=tmp_path / "runs", device="cpu")
    made = transform_of(run).inverse(sandglass.load(run).sample(8))
    assert set(made["x"]) <= set(texts)
    again = load_data(frame, transform=transform_of(run))  # with a gap that the run's rows have not
    assert sum(len(part) for part in again.splits.values()) == N


def test_an_order_of_whole_floats_with_gaps_is_that_of_whole_numbers() -> None:
    groups = pd.Categorical([1.0, 2.0, None, 2.0] * 10, [2.0, 1.0, 3.0], ordered=True)
    found = back(whole(pd.DataFrame({"x": groups, "y": R.normal(size=N)})))
    assert found["x"].dtype == pd.CategoricalDtype([2, 1], ordered=True)
    assert found["x"].dropna().tolist() == [1, 2, 2] * 10


def test_whole_numbers_stay_in_the_range_of_their_type() -> None:
    data = whole(pd.DataFrame({"x": COLUMNS["UInt8"], "y": COLUMNS["uint8"]}))
    found = data.transform.inverse(data.train.x * 50)
    assert found["x"].max() == 255 and found["y"].max() == 255 and found["x"].min() == 0


@pytest.mark.parametrize("bad", ["object", "Int64", "datetime64[ns, nowhere]", "category", 3, "x" * 99])
def test_a_stored_type_is_checked(bad: object) -> None:
    column = {"name": "a", "kind": "numeric", "mean": 0.0, "scale": 1.0, "dtype": "float64", "pandas": bad}
    with pytest.raises(ConfigError, match="damaged"):
        Transform.from_dict({"kind": "table", "columns": [column], "frame": True})


@pytest.mark.parametrize("ordered", [False, True])
def test_declared_kinds_leave_a_category_as_it_was(ordered: bool) -> None:
    sizes = pd.Series(pd.Categorical(R.choice(["S", "M"], N), ["S", "M", "L"], ordered=ordered))
    for types, categories in (({"x": "categorical"}, ["S", "M"]), ({"x": ["S", "M", "L"]}, ["S", "M", "L"])):
        found = back(whole(pd.DataFrame({"x": sizes, "y": R.normal(size=N)}), types=types))
        assert found["x"].dtype == pd.CategoricalDtype(categories, ordered) and found["x"].tolist() == sizes.tolist()


@pytest.mark.parametrize("ordered", [False, True])
@pytest.mark.parametrize("given", [None, ["who"]])
def test_categories_that_no_row_has_are_not_stored(ordered: bool, given: list[str] | None, tmp_path: Path) -> None:
    names = pd.Categorical(["Zoe", "Ann", "Secret Person"] * N, ["Zoe", "Secret Person", "Ann"], ordered=ordered)
    frame = pd.DataFrame({"who": names, "x": R.normal(size=3 * N), "y": R.normal(size=3 * N)})
    frame = frame[frame["who"] != "Secret Person"]
    options = {} if given is None else {"given": {"who": given}}
    assert "Secret" not in json.dumps(whole(frame, **options).transform.to_dict())
    if given is None:
        assert back(whole(frame))["who"].dtype == pd.CategoricalDtype(["Zoe", "Ann"], ordered)
        run = sandglass.train("vae", frame, epochs=1, max_steps=1, out=tmp_path / "runs", device="cpu")
        for file in run.path.rglob("*"):
            assert not file.is_file() or b"Secret" not in file.read_bytes(), file


@pytest.mark.parametrize(
    "bad",
    [{"known": "ab"}, {"known": ["a"]}, {"known": ["b", "c", "a"]},
     {"known": ["b", "a", "b"]}, {"known": ["a", "b", 3]}, {"ordered": "yes"},
     {"known": ["a", "b", "c"], "pandas": "string"}, {"dtype": "int64", "known": ["a", "b", "1"]}],
)  # fmt: skip
def test_stored_categories_are_checked(bad: dict[str, object]) -> None:
    column = {"name": "x", "kind": "categorical", "categories": ["a", "b"], "dtype": "str", "pandas": "category"}
    Transform.from_dict({"kind": "table", "columns": [column | {"known": ["b", "a"]}], "frame": True})
    with pytest.raises(ConfigError, match="damaged"):
        Transform.from_dict({"kind": "table", "columns": [column | bad], "frame": True})


def test_a_zone_that_is_not_known_stays_utc() -> None:
    column = {
        "name": "a",
        "kind": "date",
        "mean": 0.0,
        "scale": 1.0,
        "dtype": "utc",
        "pandas": "datetime64[ns, No/Zone]",
    }
    transform = Transform.from_dict({"kind": "table", "columns": [column], "frame": True})
    assert str(transform.inverse(np.zeros((1, 1)))["a"].dtype) == "datetime64[s, UTC]"


def test_two_header_rows_say_what_to_do(tmp_path: Path) -> None:
    frame = pd.DataFrame(R.normal(size=(N, 2)), columns=pd.MultiIndex.from_tuples([("a", "mean"), ("a", "std")]))
    for source in (frame, {"train": (frame, None)}, (frame, R.integers(0, 2, N))):
        with pytest.raises(DataError, match=r"2 header rows.*'_'\.join"):
            whole(source)
    with pytest.raises(DataError, match="2 header rows"):
        whole(frame, labels="a")
    with pytest.raises(DataError, match="2 header rows"):
        GenerativeModel("vae", epochs=1).fit(frame)
    frame.columns = ["_".join(map(str, c)) for c in frame.columns]
    assert whole(frame).spec.shape == (2,)


def test_row_labels_are_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    frame = pd.DataFrame({"a": R.normal(size=N), "b": R.normal(size=N)}, index=[f"p{i}" for i in range(N)])
    assert whole(frame).train.names[:2] == ("p0", "p1")
    assert whole(frame.reset_index(drop=True)).train.names == ()
    mixed = load_data({"train": frame.reset_index(drop=True), "test": frame[:3]}, validation=0)
    assert mixed.train.names[:2] == ("0", "1") and mixed.splits["test"].names == ("p0", "p1", "p2")
    model = GenerativeModel("vae", latent_dim=2, epochs=1, random_state=0).fit(frame)
    assert model.reconstruct(frame[::-1]).index.tolist() == frame.index[::-1].tolist()
    run = sandglass.train("vae", frame, out=tmp_path / "python", epochs=1, latent_dim=2, sheets=0)
    other = frame[5:12].copy()
    assert sandglass.reconstruct(run, data=other).examples.index.tolist() == other.index.tolist()
    other.iloc[0, 0] = np.nan
    assert sandglass.use("complete", run, data=other).examples.index.tolist() == other.index.tolist()
    monkeypatch.chdir(tmp_path)
    frame.to_parquet("t.parquet")
    gaps = frame.copy()
    gaps.iloc[::2, 0] = np.nan
    gaps.to_parquet("gaps.parquet")
    assert main(["train", "vae", "--data", "gaps.parquet", "--epochs", "1", "--out", "run", "--no-report"]) == 0
    assert main(["complete", "run", "--data", "gaps.parquet", "--split", "all", "-o", "full.csv"]) == 0
    full = pd.read_csv("full.csv", index_col="row")
    assert sorted(full.index) == sorted(frame.index)
    np.testing.assert_allclose(full.loc[frame.index, "b"], frame["b"], rtol=1e-5)
    assert main(["reconstruct", "run", "--data", "t.parquet", "-n", "4", "-o", "back.parquet"]) == 0
    assert pd.read_parquet("back.parquet")["row"].tolist() == ["p0", "p0", "p10", "p10", "p20", "p20", "p30", "p30"]

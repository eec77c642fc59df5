"""A table with gaps from its file to a trained model and back to rows."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from people import N, table, with_gaps
from sandglass.api import load, train, transform_of
from sandglass.app.main import main
from sandglass.data.load import load_data
from sandglass.data.transform import TableTransform
from sandglass.errors import CapabilityError
from sandglass.reports import columns
from sandglass.reports.section import Material
from sandglass.reports.sections.columns import columns as column_section
from sandglass.reports.sections.errors import errors as error_section


def test_a_table_with_gaps_from_file_to_rows(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    frame = with_gaps(table(120)).assign(patient=[i % 30 for i in range(120)])
    frame.to_csv(tmp_path / "people.csv", index=False)
    run = str(tmp_path / "run")
    words = ["train", "vae", "--data", str(tmp_path / "people.csv"), "--epochs", "2", "--out", run, "--no-report"]
    assert main([*words, "--types", "grade=ordinal,member=boolean", "--drop", "seen", "--groups", "patient"]) == 0
    assert main(["evaluate", run, "--json"]) == 0
    shown = capsys.readouterr().out
    elbo = json.loads(shown[shown.index("{") :])["metrics"]["elbo"]
    assert elbo["value"] < 0 and "of the observed values only" in elbo["note"]
    own = [c for c in table() if c != "seen"]
    for ending, read in ((".csv", pd.read_csv), (".parquet", pd.read_parquet)):
        assert main(["generate", run, "-n", "20", "-o", str(tmp_path / f"rows{ending}")]) == 0
        rows = read(tmp_path / f"rows{ending}")
        assert list(rows.columns) == own and len(rows) == 20 and not rows.isna().any().any()
        assert rows["age"].dtype == np.int64 and rows["grade"].isin(range(1, 6)).all() and rows["member"].dtype == bool
        assert pd.to_datetime(rows["born"]).between("1900-01-01", "2030-01-01").all()
        assert set(rows["town"]) <= {"Ulm", "Bern", "Graz"}
    assert main(["generate", run, "-o", str(tmp_path / "rows.npy")]) == 2  # NumPy would pickle texts and dates
    assert main(["reconstruct", run, "-n", "8", "-o", str(tmp_path / "back.csv")]) == 0
    back = pd.read_csv(tmp_path / "back.csv")
    originals = back[back["which"] == "original"][own]
    assert originals.isna().any().any() and not back[back["which"] == "reconstruction"].isna().any().any()
    gaps = {tuple(row) for row in frame[own].isna().to_numpy()}
    assert all(tuple(row) in gaps for row in originals.isna().to_numpy())
    assert main(["encode", run, "-o", str(tmp_path / "codes.csv")]) == 0
    assert len(pd.read_csv(tmp_path / "codes.csv")) == 120
    assert main(["evaluate", run, "--data", str(tmp_path / "people.csv")]) == 0
    assert load(run).spec.columns[0].name == "age" and isinstance(transform_of(run), TableTransform)


def test_a_report_passes_over_what_is_missing(tmp_path: Path) -> None:
    data = load_data(with_gaps(table()).assign(signal=[[1.0, 2.0][: i % 2 + 1] for i in range(N)]),
                     types={"grade": "ordinal"}, drop=["age", "weight", "member", "born"])  # fmt: skip
    run = train("vae", data, out=tmp_path / "run", epochs=1, model_options={"latent_dim": 2})
    m = Material(run, run.load_model(), data)
    assert m.split is not None and m.split.mask is not None
    real = columns.series(m.split.batch(slice(0, len(m.split))).x, m, m.split.mask)
    assert [s.name for s in real] == ["town", "seen (year)", "grade", "signal[0]", "signal[1]"]
    firsts = np.cumsum([0, *(c.width for c in data.spec.columns)])[:-1]
    for s, i in zip(real[:4], firsts, strict=True):
        assert np.isnan(s.values).sum() == int((~m.split.mask[:, i]).sum()), s.name
    years = real[1].values[~np.isnan(real[1].values)]
    assert 2019 < years.min() and years.max() < 2021
    histograms, errors = column_section(m), error_section(m)
    assert histograms is not None and len(histograms.charts) == 5
    assert errors is not None and "NaN" not in str(errors.charts) and "nan" not in str(errors.tables)


def test_types_come_from_a_configuration_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    table().to_csv(tmp_path / "t.csv", index=False)
    file = tmp_path / "c.yaml"
    file.write_text(f"data: {{source: {tmp_path / 't.csv'}, types: {{town: [Ulm, Bern, Graz], grade: categorical}}}}")
    assert main(["train", "--config", str(file), "--drop", "seen", "--print_config"]) == 0
    printed = capsys.readouterr().out
    file.write_text(printed)
    assert main(["train", "--config", str(file), "--print_config"]) == 0
    assert capsys.readouterr().out == printed
    words = ["train", "--config", str(file), "--epochs", "1", "--no-report", "--out", str(tmp_path / "run")]
    assert main(words) == 0
    kinds = {c["name"]: c["kind"] for c in transform_of(tmp_path / "run").to_dict()["columns"]}
    assert kinds["town"] == "ordinal" and kinds["grade"] == "categorical" and "seen" not in kinds


def test_a_model_that_cannot_leave_gaps_out_refuses_before_anything_is_written(tmp_path: Path) -> None:
    with pytest.raises(CapabilityError, match=r"'gan' cannot learn from data with missing values.*vae"):
        train("gan", with_gaps(table()), out=tmp_path / "run", epochs=1)
    assert not (tmp_path / "run").exists()
    train("gan", table(), out=tmp_path / "run", epochs=1, model_options={"latent_dim": 2})

"""Tables with many columns: what is written can be read, and what could not be is refused before training."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

import sandglass
from sandglass.app import configure
from sandglass.errors import ConfigError
from sandglass.runs.configuration import LONG, files_of, read_config
from sandglass.runs.plain import to_yaml
from sandglass.runs.run import Run
from sandglass.runs.verify import verify

OPTIONS: dict[str, Any] = {
    "model_options": {"net": {"name": "mlp", "widths": [4]}, "latent_dim": 2},
    "epochs": 1, "device": "cpu", "precision": "fp32", "sheets": 0,
}  # fmt: skip


def table(path: Path, columns: int) -> str:
    x = np.random.default_rng(0).normal(size=(12, columns)).round(2)
    names = ",".join(f"gene_{i:05d}" for i in range(columns))
    np.savetxt(path, x, fmt="%.2f", delimiter=",", header=names, comments="")
    return str(path)


@pytest.fixture(scope="module")
def wide(tmp_path_factory: pytest.TempPathFactory) -> Run:
    folder = tmp_path_factory.mktemp("wide")
    return sandglass.train("vae", table(folder / "wide.csv", 3000), out=folder / "run", **OPTIONS)


def test_a_wide_table_is_read_again(wide: Run) -> None:
    run = Run(wide.path)
    assert len(run.config["spec"]["columns"]) == 3000
    assert len((run.path / "config.yaml").read_bytes()) < LONG
    assert run.load_model().spec.shape == (3000,)
    assert not [problem for _, problem in verify(run) if problem]
    sandglass.resume(run.path, epochs=2)
    assert Run(run.path).config["training"]["epochs"] == 2


def test_its_configuration_repeats_it_even_without_the_lists(wide: Run, tmp_path: Path) -> None:
    (tmp_path / "copy.yaml").write_bytes((wide.path / "config.yaml").read_bytes())
    config = configure.normal(read_config(tmp_path / "copy.yaml", configure.SECTIONS), "copy.yaml")
    assert config["data"]["source"] == wide.config["data"]["source"]["source"]


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda f: f.unlink(), "config-.*json is missing; config.yaml beside it names it"),
        (lambda f: f.write_bytes(f.read_bytes().replace(b"gene_00001", b"gene_0000x")), "is damaged: its SHA-256"),
        (lambda f: f.write_bytes(f.read_bytes()[:-9]), "cannot be read"),
    ],
)
def test_a_list_that_was_changed_is_noticed(damage: Any, message: str, wide: Run) -> None:
    file = next(wide.path.glob("config-*.json"))
    before = file.read_bytes()
    try:
        damage(file)
        with pytest.raises(ConfigError, match=message):
            Run(wide.path)
    finally:
        file.write_bytes(before)


@pytest.mark.parametrize("name", ["../config-0123456789ab.json", "/etc/passwd", "results.json"])
def test_only_a_list_beside_it_is_read(name: str, tmp_path: Path) -> None:
    (tmp_path / "results.json").write_text("[]")
    values = {"classes": {"json_file": name, "sha256": hashlib.sha256(b"[]").hexdigest()}}
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(values))
    with pytest.raises(ConfigError, match="is not a file of a list"):
        read_config(tmp_path / "config.yaml")


def test_many_lists_are_not_read_without_end(tmp_path: Path) -> None:
    values = {}
    for number in range(3):
        data = json.dumps(["x" * 2**20] * 3 + [number]).encode()
        digest = hashlib.sha256(data).hexdigest()
        (tmp_path / f"config-{digest[:12]}.json").write_bytes(data)
        values[str(number)] = {"json_file": f"config-{digest[:12]}.json", "sha256": digest}
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(values))
    with pytest.raises(ConfigError, match="cannot be read: it has more than"):
        read_config(tmp_path / "config.yaml")


def test_what_could_not_be_read_is_refused_before_training(tmp_path: Path) -> None:
    columns = [{"name": f"column {n}", "categories": ["x" * 400] * 5} for n in range(5000)]
    with pytest.raises(ConfigError, match=r"takes \d+\.\d MiB.*8 MiB can be read again. Leave out columns with --drop"):
        Run.create(tmp_path / "run", {"spec": {"columns": columns}})
    with pytest.raises(ConfigError, match=r"too long to be read again from YAML: .*one value has 70,000 characters"):
        Run.create(tmp_path / "run", {"data": {"name": "x" * 70_000}})
    with pytest.raises(ConfigError, match="more than 200,000 values"):
        to_yaml({str(n): n for n in range(100_001)})
    assert not (tmp_path / "run").exists()


def test_lists_of_every_section_come_back(tmp_path: Path) -> None:
    long = [f"käse {n}\udc80" for n in range(9000)]
    config = {"classes": long, "model": {"options": {"names": long, "more": {"deep": [[1, 2], {"a": long}]}}}}
    files = files_of(config)
    assert len(files) == 3 and list(files)[-1] == "config.yaml"
    for name, data in files.items():
        (tmp_path / name).write_bytes(data)
    assert read_config(tmp_path / "config.yaml") == config

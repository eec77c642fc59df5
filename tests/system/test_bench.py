"""The benchmark of speed: a smoke run, its figures, its networks, and the page that is made from results."""

from __future__ import annotations

import doctest
import importlib
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from torch import nn

import sandglass
from benchmarks.speed import contenders, page, session, tables, training
from benchmarks.speed.figures import Spread, paired, ratios
from benchmarks.speed.workers.torch_loop import GAN, VAE
from benchmarks.speed.workloads import WORKLOADS, small
from sandglass.core import Spec

ROOT = Path(__file__).resolve().parents[2]
WITH_EXAMPLES = ("figures", "growth", "session", "tables", "training", "workloads", "workers.torch_nets")


def bench(folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    """A smoke run, without the data that the machine may have."""
    environment = os.environ | {"PYTHONPATH": str(ROOT / "src"), "SANDGLASS_DATA": str(folder)}
    command = [sys.executable, "-m", "benchmarks.speed", "--quick", "--threads", "1", "--out", str(folder / "out")]
    return subprocess.run([*command, *words], cwd=ROOT, env=environment, capture_output=True, text=True, timeout=240)


def test_a_smoke_run_saves_every_time_and_prints_a_table(tmp_path: Path) -> None:
    done = bench(tmp_path)
    assert done.returncode == 0, done.stderr
    results = json.loads((tmp_path / "out" / "results.json").read_text())
    dense = results["training"]["dense"]
    assert list(dense["contenders"]) == ["sandglass", "torch"] and dense["absent"] == {}
    assert dense["data"] == "digits of scikit-learn, enlarged"
    for about in dense["contenders"].values():
        assert len(about["seconds"]) == len(about["processor"]) == 2 and min(about["seconds"]) > 0 and about["dropped"]
        assert about["parameters"] == 807700 and about["memory"] > 2**26
        assert -784 < about["bound"] < 0
    assert {use: {*seconds} for use, seconds in dense["uses"].items()} == {
        use: {"sandglass", "torch"} for use in training.USES
    }
    assert results["machine"]["cores"] and "import sandglass" in results["commands"]["start_up"]["seconds"]
    for line in ("dense VAE, 784-512-2-512-784", "PyTorch, least loop", "pictures generated a second", "Start-up"):
        assert line in done.stdout


@pytest.mark.slow
def test_the_other_parts_run_too(tmp_path: Path) -> None:
    done = bench(tmp_path, "--only", "profile", "likelihood", "growth", "gan")
    assert done.returncode == 0, done.stderr
    results = json.loads((tmp_path / "out" / "results.json").read_text())
    assert "aten::_fused_adam_" in results["profile"]["dense"]["contenders"]["sandglass"]["operations"]
    assert len(results["likelihood"]["contenders"]["sandglass"]["values"]) == 4
    assert [{*each["sizes"]} for each in results["growth"]] == [{"1000"}, {"16"}, {"10"}]
    assert results["training"]["gan"]["contenders"]["torch"]["parameters"] == 1324546
    assert "log p(x) of 4 test pictures" in done.stdout and "Growth: pictures of 28x28" in done.stdout


def test_ratios_are_of_the_same_round() -> None:
    """The machine is twice as slow in the second round and thrice in the third; the ratio does not see it."""
    times = {"sandglass": [1.0, 2.0, 3.0, 1.0, 1.0], "other": [1.5, 3.0, 4.5, 1.5, 1.2]}
    assert ratios(times, "sandglass") == {"sandglass": Spread(1.0, 1.0, 1.0), "other": Spread(1.5, 1.5, 1.5)}


def test_quartiles_and_paired_differences_of_known_numbers() -> None:
    assert Spread.of([5.0, 1.0, 4.0, 2.0, 3.0]) == Spread(3.0, 2.0, 4.0)
    assert Spread.of([1.0, 2.0, 3.0, 4.0]) == Spread(2.5, 1.75, 3.25)
    assert Spread.of([7.0]) == Spread(7.0, 7.0, 7.0)
    assert paired([3.0, 5.0, 7.0, 9.0], [2.0, 3.0, 4.0, 5.0]) == pytest.approx((2.5, (5 / 3) ** 0.5 / 2))


@pytest.mark.parametrize("workload", WORKLOADS, ids=lambda w: w.name)
def test_the_loops_have_the_networks_of_sandglass(workload: training.Workload) -> None:
    from benchmarks.speed.workers.ours import net_of

    options = {"latent_dim": workload.latent, "net": net_of(vars(workload)), **workload.options}
    ours = sandglass.build(workload.model, Spec((1, 28, 28), "unit"), **options)
    kind = GAN if workload.model == "gan" else VAE
    assert counts(kind(workload.net, workload.latent, workload.side)) == counts(ours)


def counts(model: nn.Module) -> int:
    return sum(p.numel() for p in model.parameters())


def test_other_nets_are_refused() -> None:
    with pytest.raises(training.DifferentNetsError, match="ours 10, theirs 11 parameters"):
        training.check_equal({"ours": 10, "theirs": 11})


def test_a_peer_that_is_not_installed_is_absent_in_one_line(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(contenders, "PEERS", ROOT / "build" / "nowhere")
    setting = contenders.Setting(tmp_path, "cpu", 1)
    with pytest.raises(session.AbsentError, match=r"^it is not installed in build/nowhere/keras; `make bench` does"):
        setting.start("keras", small(WORKLOADS[0]), tmp_path, 1)


def test_a_worker_that_fails_says_why_in_one_line(tmp_path: Path) -> None:
    with pytest.raises(session.AbsentError, match=r"No such file or directory: .*nothing\.npy"):
        contenders.Setting(tmp_path, "cpu", 1).start("torch", small(WORKLOADS[0]), tmp_path / "nothing.npy", 1)


def test_one_that_fails_midway_is_absent_and_the_others_go_on() -> None:
    def failing() -> float:
        if times:
            raise session.AbsentError("no memory")
        times.append(1.0)
        return 1.0

    times: list[float] = []
    kept, dropped, absent = session.in_turns({"ours": lambda: 2.0, "theirs": failing}, rounds=3)
    assert (kept, dropped, absent) == ({"ours": [2.0] * 3}, {"ours": [2.0]}, {"theirs": "no memory"})


@pytest.mark.parametrize("name", WITH_EXAMPLES)
def test_its_examples_are_true(name: str) -> None:
    result = doctest.testmod(importlib.import_module(f"benchmarks.speed.{name}"))
    assert result.attempted and not result.failed


def test_the_page_shows_the_results() -> None:
    """Otherwise run ``python -m benchmarks.speed --page``."""
    results = json.loads(page.RESULTS.read_text(encoding="utf-8"))
    assert page.PAGE.read_text(encoding="utf-8") == page.page(results)
    assert "</svg>" in page.CHART.read_text(encoding="utf-8")
    assert len(tables.tables(results)) > len(results["training"])

"""In a notebook: what is shown, and one session from training to the report."""

from __future__ import annotations

import json
import math
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

import sandglass
from sandglass.core import Column, Spec
from sandglass.errors import CapabilityError, ConfigError, DataError

SMALL = {"epochs": 2, "batch_size": 64, "latent_dim": 2, "net": {"name": "mlp", "widths": [16]}}


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> sandglass.Run:
    return sandglass.train("vae", "digits", out=tmp_path_factory.mktemp("notebook") / "run", log_every=4, **SMALL)


def test_results_are_a_mapping_that_is_shown_as_a_table(run: sandglass.Run) -> None:
    found = sandglass.evaluate(run, metrics=["bound", "mse"])
    assert isinstance(found, dict) and json.loads(json.dumps(found)) == found
    assert list(found["metrics"]) == ["elbo", "rate", "distortion", "bits_per_dim", "mse"]
    assert repr(found).startswith("Results(vae on digits, test, step 42: elbo ") and len(repr(found)) < 150
    assert "2 more" in repr(found) and found._repr_html_().count("<tr>") == 6


def test_only_what_was_asked_for_is_returned_and_all_is_kept(run: sandglass.Run) -> None:
    sandglass.evaluate(run, metrics=["elbo"])
    assert list(sandglass.evaluate(run, metrics=["mse"])["metrics"]) == ["mse"]
    assert {"elbo", "mse"} <= set(run.results()["test"]["metrics"])


def test_a_run_is_a_line_or_a_table(run: sandglass.Run) -> None:
    sandglass.evaluate(run, metrics=["elbo"])
    assert repr(run).startswith(f"Run('{run.path}': vae on digits, 2/2 epochs, test elbo ")
    page = run._repr_html_()
    assert "1,294 train" in page and "best elbo" in page and "<table>" in page
    (run.path / "results.json").rename(run.path / "kept.json")
    (run.path / "results.json").write_text("{")
    assert "test elbo" not in repr(run) and "<table>" in run._repr_html_()
    (run.path / "kept.json").rename(run.path / "results.json")


def test_a_line_about_a_run_reads_the_end_of_its_log_alone(
    run: sandglass.Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(run.path, tmp_path / "run")
    long = sandglass.Run(tmp_path / "run")
    own = long.metrics_file.read_bytes()
    long.metrics_file.write_bytes(b"not JSON\n" * 10**5 + own * (2**17 // len(own)))
    monkeypatch.setattr(sandglass.Run, "metrics", lambda self: pytest.fail("all of the log was read"))
    assert ": vae on digits, 2/2 epochs" in repr(long)


def test_a_line_about_a_run_of_stages_says_which(tmp_path: Path) -> None:
    x = np.random.default_rng(0).random((40, 8, 8)).astype(np.float32)
    options = {"net": {"name": "mlp", "widths": [8]}, "codes": 4, "sheets": 0, "stage": {"prior": {"epochs": 3}}}
    assert "vq-vae on arrays, 3/3 epochs of prior" in repr(
        sandglass.train("vq-vae", x, out=tmp_path / "vq", epochs=2, **options)
    )
    ae = sandglass.train("ae", x.reshape(40, 64), out=tmp_path / "ae", epochs=2, latent_dim=2, sheets=0)
    assert "ae on arrays, 2/2 epochs)" in repr(ae), "the fit that follows has no epochs"


@pytest.mark.parametrize(
    "text", ["{]\n{}\n", '{"split": 3}\n', "[]\n[]\n", "\xff\n\xff\n", '{"split": "train", "epoch": "x"}\n']
)
def test_a_damaged_run_is_still_shown(text: str, run: sandglass.Run, tmp_path: Path) -> None:
    shutil.copytree(run.path, tmp_path / "run")
    damaged = sandglass.Run(tmp_path / "run")
    damaged.metrics_file.write_text(text, encoding="latin-1")
    assert repr(damaged) == f"Run('{tmp_path / 'run'}')"
    assert damaged._repr_html_() == f"<p><b>{tmp_path / 'run'}</b></p>"
    (tmp_path / "run" / "results.json").write_text('{"test": [1]}')
    shutil.copy(run.metrics_file, damaged.metrics_file)
    assert repr(damaged).startswith("Run(") and damaged._repr_html_().startswith("<p><b>")
    shutil.rmtree(tmp_path / "run")
    assert repr(damaged).startswith("Run(") and damaged._repr_html_().startswith("<p><b>")


def test_the_history_has_the_means_of_whole_epochs(run: sandglass.Run, tmp_path: Path) -> None:
    history = run.history()
    assert history[["stage", "epoch"]].values.tolist() == [["train", 1], ["train", 2]]
    rows = [r for r in run.metrics() if (r["split"], r["term"]) == ("train", "loss")]
    assert len(rows) == 12, "six rows an epoch, the last of fewer updates"
    for epoch in (1, 2):
        own = [r for r in rows if epoch - 1 < r["epoch"] <= epoch]
        assert sum(r["n"] for r in own) == 1294
        mean = sum(r["value"] * r["n"] for r in own) / 1294
        assert history["train_loss"][epoch - 1] == pytest.approx(mean, rel=1e-12)
    rarely = sandglass.train("vae", "digits", out=tmp_path / "run", log_every=10**6, **SMALL).history()
    assert np.allclose(rarely["train_loss"], history["train_loss"], rtol=1e-12)
    assert "validation_objective" in history and history["train_lr"].notna().all()


def test_the_history_of_players_and_of_stages(tmp_path: Path) -> None:
    x = np.random.default_rng(0).normal(size=(60, 3)).astype(np.float32)
    gan = sandglass.train("gan", x, out=tmp_path / "gan", epochs=2, sheets=0).history()
    assert {"train_critic_loss", "train_generator_loss"} <= set(gan) and len(gan) == 2
    ae = sandglass.train("ae", x, out=tmp_path / "ae", epochs=2, latent_dim=2, sheets=0).history()
    assert ae["stage"].tolist()[:2] == ["train", "train"] and "density" in set(ae["stage"])


class OwnNet:
    """A family of one's own."""

    def encoder(self, shape: tuple[int, ...], out: int) -> nn.Module:
        return nn.Sequential(nn.Flatten(), nn.Linear(64, out))

    def decoder(self, dim: int, shape: tuple[int, ...]) -> nn.Module:
        return nn.Sequential(nn.Linear(dim, math.prod(shape)), nn.Unflatten(-1, shape))


def test_a_session_with_data_and_a_net_of_ones_own(tmp_path: Path) -> None:
    x = np.random.default_rng(0).random((80, 8, 8)).astype(np.float32)
    run = sandglass.train("vae", x, out=tmp_path / "run", epochs=1, latent_dim=2, net=OwnNet())
    assert sandglass.evaluate(run, split="train", metrics=["elbo"])["metrics"]["elbo"]["n"] == 64
    assert sandglass.load(run).code_size == 2
    assert sandglass.report(run).read_text().startswith("<!doctype html>")
    assert sandglass.generate(run, 5).x.shape == (5, 1, 8, 8)
    assert sandglass.reconstruct(run, number=3).x.shape == (3, 1, 8, 8)
    assert {"samples", "reconstructions"} <= set(sandglass.figures(run))
    longer = sandglass.resume(run, epochs=2)
    assert sandglass.evaluate(longer, split="train", metrics=["elbo"])["step"] > 1
    later = sandglass.Run(run.path)
    with pytest.raises(ConfigError, match=r"custom net \(OwnNet\); pass net="):
        sandglass.evaluate(later, data=x)
    with pytest.raises(ConfigError, match=r"custom net \(OwnNet\); pass net="):
        sandglass.resume(later, data=x, epochs=3)
    data = sandglass.load_data(x, **sandglass.api.reading_of(later))
    assert sandglass.evaluate(later, data=data, split="train", metrics=["elbo"], net=OwnNet())["metrics"]["elbo"]
    assert sandglass.generate(later, 2, net=OwnNet()).x.shape == (2, 1, 8, 8)


def test_pictures_come_back_as_pictures_and_tables_as_tables(run: sandglass.Run, tmp_path: Path) -> None:
    import pandas

    made = sandglass.generate(run, 6, out=tmp_path / "six.png")
    assert made.x.shape == (6, 1, 8, 8) and made.examples.shape == (6, 8, 8) and (tmp_path / "six.png").is_file()
    assert "data:image/png;base64," in made._repr_html_() and len(repr(made)) < 100
    assert torch.equal(made.x, sandglass.generate(run, 6).x)
    made.save(tmp_path / "six.npy")
    assert np.load(tmp_path / "six.npy").shape[0] == 6
    frame = pandas.DataFrame({"a": np.arange(60.0), "b": ["x", "y", "z"] * 20})
    table = sandglass.train("vae", frame, out=tmp_path / "run", epochs=1, latent_dim=2)
    rows = sandglass.generate(table, 7)
    assert list(rows.examples.columns) == ["a", "b"] and len(rows.examples) == 7 and "<table" in rows._repr_html_()
    again = sandglass.reconstruct(table, number=3)
    assert len(again.examples) == 3


def test_every_task_is_one_function(run: sandglass.Run) -> None:
    assert sandglass.use("encode", run, split="test").arrays["codes"].shape == (359, 2)
    with pytest.raises(ConfigError, match="Did you mean 'encode'"):
        sandglass.use("encod", run)
    with pytest.raises(ConfigError, match="has no option 'splitt'"):
        sandglass.use("encode", run, splitt="test")


def test_figures_are_of_matplotlib(run: sandglass.Run) -> None:
    from matplotlib.colors import to_hex
    from matplotlib.figure import Figure

    found = sandglass.figures(run)
    assert {"curve-elbo-loss", "samples", "codes"} <= set(found)
    assert all(isinstance(figure, Figure) for figure in found.values())
    lines = found["curve-elbo-loss"].axes[0].lines
    assert to_hex(lines[0].get_color()) == "#2b6cb0" and found["curve-elbo-loss"].axes[0].get_title(loc="left")
    assert sum(len(dots.get_offsets()) for dots in found["codes"].axes[0].collections) == 359
    found["codes"].savefig(run.path / "codes.png")


def test_a_figure_that_does_not_apply_says_why(tmp_path: Path) -> None:
    run = sandglass.train("vae", "digits", out=tmp_path / "run", likelihood="bernoulli", epochs=1, net="mlp", sheets=0)
    with pytest.raises(DataError, match="'bits_per_dim' needs a likelihood that gives discrete values probabilities"):
        sandglass.evaluate(run, metrics=["bits_per_dim"])
    assert list(sandglass.evaluate(run, metrics=["elbo"])["metrics"]) == ["elbo"]


def test_a_class_for_every_sample(run: sandglass.Run, tmp_path: Path) -> None:
    conditional = sandglass.train("cvae", "digits", out=tmp_path / "run", **SMALL)
    made = sandglass.generate(conditional, label=[7, "3"])
    assert made.x.shape[0] == 2 and made.columns["class"] == ["7", "3"]
    model = sandglass.load(conditional)
    with pytest.raises(ConfigError, match="3 examples were asked for, and 2 labels"):
        sandglass.generate(conditional, 3, label=[7, 3])
    with pytest.raises(ConfigError, match="There is no class '10'"):
        sandglass.generate(conditional, label=[10])
    with pytest.raises(CapabilityError, match="not conditional on labels"):
        sandglass.generate(run, label=[7])
    for source in (model, sandglass.load(run)):
        with pytest.raises(ConfigError, match=r"Conditions are a Batch, such as Batch\(y=labels\), not a Tensor"):
            source.sample(3, torch.tensor([1, 1, 1]))


def test_a_wide_spec_is_short() -> None:
    columns = tuple(Column(f"<{k}>", "categorical", 3, ("a", "b", "c")) for k in range(3000))
    spec = Spec((9000,), columns=columns)
    assert len(repr(spec)) < 100 and len(spec._repr_html_()) < 1500 and "<0>" not in spec._repr_html_()
    assert "<img" not in sandglass.Spec((1, 8, 8), "unit")._repr_html_()


def test_examples_are_like_the_array_that_was_trained_on(tmp_path: Path) -> None:
    x = np.random.default_rng(0).uniform(-1, 1, (40, 6, 5, 3)).astype("float32")
    for name, options in (("real", {}), ("picture", {"value_range": (-1, 1)})):
        run = sandglass.train(
            "vae", x, out=tmp_path / name, epochs=1, net="mlp", latent_dim=2, sheets=0, data_options=options
        )
        made = sandglass.generate(run, 4).examples
        assert made.shape == (4, 6, 5, 3) and made.dtype == np.float32 and -1.5 < made.min() < 0.2 < 1.5 > made.max()


def test_a_comparison_is_a_line_or_a_table(run: sandglass.Run, tmp_path: Path) -> None:
    other = sandglass.train("vae", "digits", out=tmp_path / "other", **SMALL)
    found = sandglass.compare([run, other], metrics="bound")
    assert repr(found) == "Comparison(run, other on 359 test examples of digits)"
    page = found._repr_html_()
    assert page.count("<tr>") == 5 and "<td>elbo</td><td>higher</td>" in page and "bits_per_dim" in page


def test_a_sweep_is_a_line() -> None:
    from sandglass.sweeps.trials import Swept, Trial

    trials = [Trial(k, Path(f"s/{k:04d}"), "finished", {"training.lr": 0.1}, -3.0 - k, 0.12) for k in (7, 2)]
    found = Swept(Path("s"), "vae", "elbo", "higher", {}, trials, {}, 20, 3, "tpe", "none", {})
    assert repr(found) == "Swept('s': 2 of 20 trials, best trial 7, elbo -10.00 ± 0.12)"
    found = Swept(Path("s"), "vae", "elbo", "higher", {}, [], {}, 20, 3, "tpe", "none", {})
    assert repr(found) == "Swept('s': 0 of 20 trials, none finished)"

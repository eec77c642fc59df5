"""``sandglass train``: layers of configuration, dry runs, resuming, recipes."""

from __future__ import annotations

import dataclasses
import json
import types
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

import sandglass
from helpers import Cli
from sandglass import recipes, registry
from sandglass.app.words import sort
from sandglass.core import Spec
from sandglass.engine.options import Settled
from sandglass.runs.run import Run

SMALL = ["--net", "mlp", "--model.net.widths", "16", "--latent-dim", "3", "--limit", "200", "--threads", "1"]


def configuration(cli: Cli, *words: str | Path) -> dict[str, Any]:
    """What ``--print_config`` prints."""
    code, out, err = cli("train", *words, "--print_config")
    assert code == 0, err
    return yaml.safe_load(out)


def test_every_override_arrives(cli: Cli) -> None:
    found = configuration(
        cli, "vae", "--data", "digits", "--model.beta", "4", "--net", "mlp", "--model.net.widths", "512,256",
        "--training.ema", "0.999", "--data.validation=0", "--size", "8x8", "--augment", "flip,shift=0.2",
        "--corrupt", "gaussian@1",
        "--labels", "false", "--lr", "null", "--batch-size", "7", "--model.likelihood.name", "gaussian",
        "--model.likelihood.scale", "0.5",
    )  # fmt: skip
    model, data, training = found["model"]["options"], found["data"], found["training"]
    assert model["beta"] == 4.0 and model["net"]["name"] == "mlp" and model["net"]["widths"] == [512, 256]
    assert model["likelihood"] == {"name": "gaussian", "scale": 0.5, "learn": "shared", "bounded": False}
    assert data["validation"] == 0 and data["size"] == "8x8" and data["labels"] is False
    assert training["ema"] == 0.999 and training["augment"] == ["flip=0.5", "shift=0.2"]
    assert training["corrupt"] == ["gaussian=0.08"]
    assert training["lr"] is None and training["batch_size"] == 7


def test_schedules_of_a_weight_and_of_the_learning_rate_are_told_apart(cli: Cli) -> None:
    found = configuration(
        cli, "vae", "--data", "digits", "--schedule", "step", "--beta-schedule", "sigmoid", "--capacity", "3",
        "--model.beta_schedule.epochs", "5", "--capacity_schedule", "cyclical", "--model.capacity_schedule.cycles", "2",
    )  # fmt: skip
    options = found["model"]["options"]
    assert found["training"]["schedule"] == "step"
    assert options["beta_schedule"] == {"name": "sigmoid", "epochs": 5.0, "start": 0.0, "end": 1.0}
    assert (options["capacity_schedule"]["name"], options["capacity_schedule"]["cycles"]) == ("cyclical", 2)
    code, _, err = cli("train", "vae", "--data", "digits", "--beta-schedule", "triangular", "--epochs", "1")
    assert code == 2 and "with a final value" in err and "Traceback" not in err


def test_a_data_set_with_options(cli: Cli, tmp_path: Path) -> None:
    source = {"name": "shapes", "side": 16, "scales": 1, "positions": 4}
    (tmp_path / "own.yaml").write_text(yaml.safe_dump({"data": {"source": source, "limit": 60}}))
    assert configuration(cli, "--config", "own.yaml")["data"]["source"] == source
    code, _, err = cli("train", "--config", "own.yaml", *SMALL, "--epochs", "1", "--no-report", "--out", "run")
    assert code == 0, err
    found = configuration(cli, "--config", "run/config.yaml")
    assert found["data"]["source"] == source and found["data"]["limit"] == 200
    assert cli("evaluate", "run", "--json")[0] == 0
    assert "side" in cli("datasets", "shapes")[1] and "Apache" in cli("datasets", "shapes")[1]


def test_options_of_an_automatic_choice(cli: Cli, tmp_path: Path) -> None:
    found = configuration(cli, "--data", "digits", "--model.net.width", "4")
    assert found["model"]["options"]["net"] == {"name": "auto", "width": 4}
    assert (
        cli("train", "--data", "digits", "--model.net.width", "4", "--limit", "50", "--epochs", "1", "--no-report")[0]
        == 0
    )
    net = sandglass.Run(tmp_path / "runs" / "vae-digits-1").config["model"]["options"]["net"]
    assert net["name"] == "resnet" and net["width"] == 4
    code, _, err = cli("train", "--data", "digits", "--model.net.hidden", "8")
    assert code == 2 and "'resnet' has no option 'hidden'" in err


def test_synonyms(cli: Cli) -> None:
    found = configuration(
        cli, "--data", "digits", "--num-epochs", "3", "--learning-rate", "0.1", "--random-state", "5", "--z-dim", "9",
        "--kl-weight", "2", "--image-size", "16", "--output-dir", "x", "--batch_size", "3",
    )  # fmt: skip
    assert found["training"]["epochs"] == 3 and found["training"]["lr"] == 0.1 and found["training"]["seed"] == 5
    assert found["model"]["options"]["latent_dim"] == 9 and found["model"]["options"]["beta"] == 2.0
    assert found["data"]["size"] == 16 and found["training"]["batch_size"] == 3
    assert sort(["--output-dir", "x", "-o=y"]).own["--out"] == "y"


def test_preset_below_recipe_below_config_below_flags(cli: Cli, tmp_path: Path) -> None:
    (tmp_path / "own.yaml").write_text("model: {options: {latent_dim: 5}}\ntraining: {epochs: 7, lr: 0.5}\n")
    found = configuration(cli, "--recipe", "mnist-512-2", "--config", "own.yaml", "--lr", "0.25", "--data", "digits")
    assert found["model"]["options"]["latent_dim"] == 5 and found["model"]["options"]["net"]["widths"] == [512]
    assert found["training"]["epochs"] == 7 and found["training"]["lr"] == 0.25
    assert found["training"]["batch_size"] == 256 and found["data"]["source"] == "digits"
    assert configuration(cli, "beta-vae", "--data", "digits")["model"]["options"]["beta"] == 4.0
    assert configuration(cli, "beta-vae", "--data", "digits", "--beta", "2")["model"]["options"]["beta"] == 2.0


def test_another_model_keeps_what_was_set_and_it_knows(cli: Cli, tmp_path: Path) -> None:
    complete = configuration(cli, "vae", "--data", "digits", "--latent-dim", "5", "--net", "mlp")
    (tmp_path / "vae.yaml").write_text(yaml.safe_dump(complete))
    found = configuration(cli, "beta-vae", "--config", "vae.yaml")["model"]["options"]
    assert found["latent_dim"] == 5 and found["net"]["name"] == "mlp" and found["beta"] == 4.0
    gan = configuration(cli, "gan", "--recipe", "mnist-512-2")["model"]["options"]
    assert gan["latent_dim"] == 2 and "beta" not in gan


def test_another_net_drops_the_options_of_the_one_below(cli: Cli) -> None:
    net = configuration(cli, "--recipe", "mnist-512-2", "--net", "conv")["model"]["options"]["net"]
    assert net["name"] == "conv" and "widths" not in net


@pytest.mark.parametrize("name", recipes.names())
def test_printed_configuration_is_accepted_again(cli: Cli, tmp_path: Path, name: str) -> None:
    code, first, _ = cli("train", "--recipe", name, "--print_config")
    assert code == 0
    (tmp_path / "a.yaml").write_text(first)
    assert cli("train", "--config", "a.yaml", "--print_config")[1] == first


@pytest.mark.parametrize("name", recipes.names())
def test_recipes_say_what_they_are(name: str) -> None:
    recipe = recipes.read(name)
    assert set(recipe) == {"summary", "model", "data", "training", "show"} and "\n" not in recipe["summary"]
    if name.startswith("mnist"):
        assert recipe["data"] == {"source": "mnist", "validation": 0}, "all 60,000 pictures are learned from"
        assert recipe["training"]["watch"] == "test" and recipe["training"]["select"] == "last"


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("modle: vae", "unknown key 'modle'. Did you mean 'model'"),
        ("model: {name: vae, beta: 3}", "unknown key 'beta'"),
        ("model: {name: vae, options: {btea: 3}}", "Did you mean 'beta'"),
        ("model: {name: vae, options: {beta: much}}", "model.beta must be a number, not much"),
        ("training: {epoch: 3}", "Did you mean 'epochs'"),
        ("training: {epochs: three}", "training.epochs must be a whole number"),
        ("data: {sauce: digits}", "Did you mean 'source'"),
        ("model: {name: vae, options: {net: {custom: Mine}}}", "custom net"),
        ("model: &a {name: vae}\ntraining: *a", "aliases"),
        ("- 1", "mapping"),
        ("model: {name: torch.nn.Linear}", "There is no model 'torch.nn.Linear'"),
    ],
)
def test_a_bad_file_is_one_line(cli: Cli, tmp_path: Path, text: str, says: str) -> None:
    (tmp_path / "bad.yaml").write_text(text)
    code, out, err = cli("train", "--data", "digits", "--config", "bad.yaml")
    assert code == 2 and says in err and err.count("\n") == 1 and out == ""
    assert not (tmp_path / "runs").exists()


def test_dry_run_writes_nothing(cli: Cli, tmp_path: Path) -> None:
    code, out, _ = cli("train", "--data", "digits", *SMALL, "--dry-run", "--out", "here", "--log-every", "1")
    assert code == 0 and not list(tmp_path.iterdir())
    for word in ("parameters", "epoch  ", "total", "memory", "Nothing was written"):
        assert word in out
    # 64-16 and 16-6 in, 3-16 and 16-960 out, 15 numbers a pixel for five logistics, with biases
    assert f"{64 * 16 + 16 + 16 * 6 + 6 + 3 * 16 + 16 + 16 * 960 + 960:,}" in out


def test_dry_run_leaves_training_as_it_would_be(cli: Cli, tmp_path: Path) -> None:
    words = ["train", "--data", "digits", *SMALL, "--epochs", "1", "--no-report"]
    assert cli(*words, "--out", "a")[0] == 0
    assert cli(*words, "--dry-run")[0] == 0
    assert cli(*words, "--out", "b")[0] == 0
    a, b = ((tmp_path / n / "model" / "model.safetensors").read_bytes() for n in "ab")
    assert a == b


def test_a_run_can_be_repeated_from_its_own_configuration(cli: Cli, tmp_path: Path) -> None:
    assert (
        cli("train", "--data", "digits", *SMALL, "--epochs", "1", "--no-report", "--out", "a", "--data.seed", "3")[0]
        == 0
    )
    assert cli("train", "--config", "a/config.yaml", "--no-report", "--out", "b")[0] == 0
    a, b = (sandglass.Run(tmp_path / n) for n in "ab")
    assert a.config["data"] == b.config["data"] and a.config["model"] == b.config["model"]
    assert (a.path / "model" / "model.safetensors").read_bytes() == (
        b.path / "model" / "model.safetensors"
    ).read_bytes()


def test_train_closes_with_figures_report_and_what_next(cli: Cli, tmp_path: Path) -> None:
    code, out, err = cli("train", "--recipe", "digits", *SMALL, "--likelihood", "bernoulli", "--epochs", "1")
    run = tmp_path / "runs" / "vae-digits-1"
    assert code == 0 and "±" in out and "359 test examples" in out
    assert "report  runs/vae-digits-1/report.html" in out and (run / "report.html").is_file()
    assert (run / "figures" / "samples-8x8.png").is_file()
    assert "sandglass generate runs/vae-digits-1" in out and "sandglass reconstruct runs/vae-digits-1" in out
    assert "epoch 1/1" not in err and "\x1b" not in out + err  # no bar in a pipe
    assert sandglass.Run(run).config["recipe"] == "digits"
    assert "elbo" in json.loads((run / "results.json").read_text())["test"]["metrics"]
    (run / "report.html").unlink()
    assert cli("report", run)[0] == 0 and (run / "report.html").is_file()


def test_training_ends_with_quick_figures_and_evaluate_gives_the_rest(cli: Cli, tmp_path: Path) -> None:
    code, out, err = cli("train", "vae", "--data", "digits", "--net", "mlp", "--epochs", "1", "--out", "run")
    assert code == 0 and "Quick figures on 359 test examples; for all, sandglass evaluate run" in out, err
    quick = json.loads((tmp_path / "run" / "results.json").read_text())["test"]
    assert quick["quick"] and {"elbo", "two_sample_auc", "coverage", "fid", "grid", "active_units"} <= set(
        quick["metrics"]
    )
    assert not {"ssim", "mmd", "fid_infinity", "mutual_information"} & set(quick["metrics"])
    assert "These are quick figures" in (tmp_path / "run" / "report.html").read_text()
    assert cli("evaluate", "run", "--metrics", "mmd,elbo")[0] == 0
    some = json.loads((tmp_path / "run" / "results.json").read_text())["test"]
    assert some["quick"] and set(some["metrics"]) == {*quick["metrics"], "mmd"}
    sandglass.evaluate(tmp_path / "run")
    all_of_them = json.loads((tmp_path / "run" / "results.json").read_text())["test"]
    assert not all_of_them["quick"] and {*some["metrics"], "ssim"} < set(all_of_them["metrics"])
    code, out, _ = cli("metrics", "fid")
    assert code == 0 and "and at the end of training" in out


@pytest.mark.parametrize(
    ("model", "options", "hint"),
    [
        ("vae", {}, "generate run -n 64"),
        ("cvae", {}, "generate run --label each"),
        ("vae", {"condition": "grey"}, "generate run --given grey=FILE"),
        ("pix2pix", {"source": "grey"}, "translate run"),
        ("cycle-gan", {}, "translate run"),
        ("joint-vae", {}, "generate run -n 64"),
    ],
)
def test_the_command_to_try_next_suits_the_model(model: str, options: dict[str, Any], hint: str) -> None:
    from sandglass.app.train import first

    picture = Spec((1, 8, 8), "unit", classes=2)
    spec = dataclasses.replace(picture, given={"grey": picture}, beside={"b": picture})
    outline = registry.outline(model, spec, **options)
    assert first(types.SimpleNamespace(path="run"), outline) == f"sandglass {hint}"  # type: ignore[arg-type]


def test_more_epochs_are_proposed_for_the_last_stage() -> None:
    from sandglass.app.train import second

    training = Settled(epochs=5, stage={"prior": {"epochs": 7}}).to_dict()
    run: Any = types.SimpleNamespace(path="run", config={"training": training})
    hint = "sandglass train --resume run --stage.prior.epochs 14"
    assert second(run, registry.outline("vq-vae", Spec((6,)))) == hint
    assert second(run, registry.outline("vae", Spec((6,)))) == "sandglass train --resume run --epochs 10"


def test_length_and_batches_follow_the_data_and_a_short_run_is_told(cli: Cli, tmp_path: Path) -> None:
    data = ["vae", "--data", "digits", *SMALL, "--no-report"]  # 200 to train on: batches of 16
    code, _, err = cli("train", *data, "--epochs", "2", "--out", tmp_path / "short")
    assert code == 0 and "2 epochs in batches of 16" in err
    assert "only 26 updates in total" in err and "--epochs 154 for 2,002 updates" in err
    training = yaml.safe_load((tmp_path / "short/config.yaml").read_text())["training"]
    assert (training["epochs"], training["batch_size"]) == (2, 16), "settled, and not decided again on resume"
    code, _, err = cli("train", *data, "--epochs", "24", "--out", tmp_path / "long")
    assert code == 0 and "updates in total" not in err
    code, out, _ = cli("train", *data, "--dry-run")
    assert code == 0 and "(154 epochs)" in out


def test_resume_with_more_epochs(cli: Cli, tmp_path: Path) -> None:
    words = ["train", "--data", "digits", *SMALL, "--no-report"]
    assert cli(*words, "--epochs", "3", "--out", "whole")[0] == 0
    assert cli(*words, "--epochs", "1", "--out", "parts")[0] == 0
    code, _, err = cli("train", "--resume", "parts", "--epochs", "3", "--no-report")
    assert code == 0 and "3 epochs instead of 1" in err
    whole, parts = (tmp_path / n / "model" / "model.safetensors" for n in ("whole", "parts"))
    assert whole.read_bytes() == parts.read_bytes()
    code, _, err = cli("train", "--resume", "parts", "--epochs", "2")
    assert code == 2 and "can only have more" in err


def test_a_run_that_stopped_early_goes_on(cli: Cli, tmp_path: Path) -> None:
    words = ["train", "--data", "digits", *SMALL, "--no-report", "--lr", "3", "--epochs", "20", "--out", "run"]
    assert cli(*words, "--early-stopping", "1")[0] == 0
    before = Run("run").steps()[-1]
    code, _, err = cli("train", "--resume", "run")
    assert code == 0 and "run stopped early, after" in err
    assert "--epochs 40, or --minutes 10, or --early-stopping 0" in err
    code, _, err = cli("train", "--resume", "run", "--epochs", "20", "--no-report")
    assert code == 0 and "had stopped early, and goes on, and stops again after 1 epoch " in err
    after = Run("run").steps()[-1]
    assert before < after
    code, _, err = cli("train", "--resume", "run", "--early_stopping", "0", "--no-report")
    assert code == 0 and "no longer stops early" in err and Run("run").steps()[-1] > after
    code, _, err = cli("train", "--resume", "run", "--early-stopping", "1", "--no-report")
    assert code == 2 and "does not stop early" in err


def test_a_finished_run_is_left_alone(cli: Cli, tmp_path: Path) -> None:
    words = ["train", "--data", "digits", *SMALL, "--no-report"]
    assert cli(*words, "--epochs", "2", "--out", "run")[0] == 0
    before = {p: p.read_bytes() for p in (tmp_path / "run").rglob("*") if p.is_file()}
    code, out, err = cli("train", "--resume", "run")
    assert (code, out) == (0, "") and err.startswith("run is finished, after 26 steps.") and "--epochs 4" in err
    assert {p: p.read_bytes() for p in (tmp_path / "run").rglob("*") if p.is_file()} == before
    (tmp_path / "run/model/config.json").unlink()  # as after a crash before the model was written
    code, _, err = cli("train", "--resume", "run", "--no-report")
    assert code == 0 and "is finished" not in err and (tmp_path / "run/model/config.json").is_file()
    assert cli("train", "--resume", "run", "--epochs", "3", "--no-report")[0] == 0


def test_hints_are_spelt_as_flags(cli: Cli) -> None:
    code, _, err = cli("train", "--data", "digits", "--latent_dimm", "3")
    assert code == 2 and "'--latent-dim'" in err


def test_a_limit_above_the_data_is_said(cli: Cli, tmp_path: Path) -> None:
    words = [*SMALL[:-4], "--threads", "1", "--no-report", "--epochs", "1", "--out", "run"]
    code, _, err = cli("train", "--data", "digits", "--limit", "100000", *words)
    assert code == 0 and "note: the limit of 100,000 training examples kept all: there are 1,294" in err


def test_init_from(cli: Cli, tmp_path: Path) -> None:
    words = ["train", "--data", "digits", *SMALL, "--no-report", "--epochs", "1"]
    assert cli(*words, "--out", "a")[0] == 0
    assert cli(*words, "--init-from", "a", "--out", "b")[0] == 0
    first = [
        next(
            r["value"]
            for r in sandglass.Run(tmp_path / n).metrics()
            if r["split"] == "validation" and r["term"] == "loss"
        )
        for n in "ab"
    ]
    assert first[1] < first[0]
    code, _, err = cli(*words, "--latent-dim", "4", "--init-from", "a", "--out", "c")
    assert code == 0 and "started from the bodies of q" in err
    code, _, err = cli(*words, "--model.net.widths", "8", "--init-from", "a", "--out", "d")
    assert code == 2 and "do not fit" in err and not (tmp_path / "d").exists()


def test_data_is_read_and_the_model_loaded_once(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    from sandglass.data import load, trained_on
    from sandglass.runs.run import Run

    calls: list[str] = []

    def counted(where: Any, name: str, what: str) -> None:
        original = getattr(where, name)

        def call(*args: Any, **kwargs: Any) -> Any:
            calls.append(what)
            return original(*args, **kwargs)

        monkeypatch.setattr(where, name, call)

    counted(sandglass.api, "load_data", "data")
    counted(load, "load_data", "data")
    counted(trained_on, "load_data", "data")
    counted(Run, "load_model", "model")
    code, _, err = cli("train", "--recipe", "digits", *SMALL, "--epochs", "1", "--likelihood", "bernoulli")
    assert code == 0 and sorted(calls) == ["data", "model"], err


def test_without_a_name_the_data_chooses_the_model(cli: Cli, tmp_path: Path) -> None:
    """Photographs are drawn by a flow; rows and small pictures go to a VAE, and so do options without a name."""
    noise = np.random.default_rng(0).integers(0, 256, (40, 3, 16, 16), np.uint8)
    np.save(tmp_path / "photos.npy", noise)
    words = ("--data", "photos.npy", "--print_config")
    code, out, _ = cli("train", *words)
    assert code == 0 and yaml.safe_load(out)["model"] == {"name": "auto"}
    (tmp_path / "auto.yaml").write_text(out)
    code, out, err = cli("train", "--config", "auto.yaml", "--dry-run")
    assert code == 0 and "No model is named: flow-matching, because" in err and "flow-matching" in out
    assert yaml.safe_load(cli("train", *words, "--latent-dim", "3")[1])["model"]["name"] == "vae"
    assert yaml.safe_load(cli("train", "gan", *words)[1])["model"]["name"] == "gan"
    run = sandglass.train(data=noise[:, :1, :6, :6], out=tmp_path / "run", epochs=1, device="cpu")
    assert run.config["model"]["name"] == "vae"


def test_the_chosen_model_has_what_was_asked_for(cli: Cli, tmp_path: Path) -> None:
    """A flow has no latent size, and does not undo damage; weights to start from are of a model."""
    noise = np.random.default_rng(0).integers(0, 256, (40, 3, 16, 16), np.uint8)
    np.save(tmp_path / "photos.npy", noise)
    code, _, err = cli("train", "--data", "photos.npy", "--corrupt", "gaussian", "--dry-run")
    assert code == 0 and "No model is named: vae, because it learns to undo damage" in err
    options = {"latent_dim": 2, "net": {"name": "conv", "width": 4}}
    run = sandglass.train(data=noise, out=tmp_path / "run", epochs=1, device="cpu", model_options=options)
    assert run.config["model"]["name"] == "vae"
    gan = sandglass.train(
        "gan", noise[:, :, :8, :8], out=tmp_path / "gan", epochs=1, device="cpu", model_options=options
    )
    code, _, err = cli("train", "--data", "photos.npy", "--init-from", str(gan.path), "--dry-run")
    assert "No model is named: gan, because" in err

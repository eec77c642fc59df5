"""The Python face, as a person in a notebook would use it."""

from __future__ import annotations

import dataclasses
import json
import sys
import types
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

import sandglass
from sandglass import recipes
from sandglass.core import Spec
from sandglass.engine.copying import bodies, start_from
from sandglass.engine.train import build
from sandglass.errors import ConfigError, DataError, NotFoundError

SMALL = {"epochs": 2, "batch_size": 64}
OPTIONS = {"latent_dim": 2, "net": {"name": "mlp", "widths": [16]}}


class OwnNet:
    """A person's own family: one hidden layer with a Tanh."""

    def encoder(self, shape: tuple[int, ...], out: int) -> nn.Module:
        return nn.Sequential(nn.Flatten(), nn.Linear(64, 12), nn.Tanh(), nn.Linear(12, out))

    def decoder(self, dim: int, shape: tuple[int, ...]) -> nn.Module:
        return nn.Sequential(nn.Linear(dim, 12), nn.Tanh(), nn.Linear(12, 64), nn.Unflatten(-1, shape))


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> sandglass.Run:
    return sandglass.train("vae", "digits", out=tmp_path_factory.mktemp("api") / "run", model_options=OPTIONS, **SMALL)


def test_the_face_is_what_is_promised() -> None:
    for name in ("load_data", "build", "train", "load", "evaluate", "resume"):
        assert callable(getattr(sandglass, name)), name
    with pytest.raises(AttributeError, match="no attribute 'trian'"):
        sandglass.trian  # noqa: B018


def test_training_leaves_the_global_generator_alone(tmp_path: Path) -> None:
    state = torch.get_rng_state()
    sandglass.train("vae", "digits", out=tmp_path / "run", model_options=OPTIONS, **SMALL)
    assert torch.equal(state, torch.get_rng_state())


def test_the_same_seed_is_the_same_run(run: sandglass.Run, tmp_path: Path) -> None:
    torch.manual_seed(77)
    again = sandglass.train("vae", "digits", out=tmp_path / "run", model_options=OPTIONS, **SMALL)
    assert again.metrics_file.read_bytes() == run.metrics_file.read_bytes()
    for key, value in run.load_model().state_dict().items():
        assert torch.equal(value, again.load_model().state_dict()[key])


def test_load_from_a_run_a_folder_and_the_model_alone(run: sandglass.Run, tmp_path: Path) -> None:
    import shutil

    shutil.copytree(run.path / "model", tmp_path / "alone")
    x = torch.rand(3, 1, 8, 8)
    models = [
        sandglass.load(source) for source in (run, run.path, str(run.path), run.path / "model", tmp_path / "alone")
    ]
    for model in models:
        assert not model.training
        assert torch.equal(model.reconstruct(x), models[0].reconstruct(x))
    with pytest.raises(NotFoundError, match="neither a run"):
        sandglass.load(tmp_path)


def test_load_from_the_hub(run: sandglass.Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []

    def snapshot_download(name: str, allow_patterns: list[str]) -> str:
        asked.append(name)
        assert "model.safetensors" in allow_patterns
        return str(run.path / "model")

    errors = types.ModuleType("huggingface_hub.errors")
    errors.HfHubHTTPError = errors.LocalEntryNotFoundError = OSError  # type: ignore[attr-defined]
    hub = types.ModuleType("huggingface_hub")
    hub.snapshot_download = snapshot_download  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "huggingface_hub", hub)
    monkeypatch.setitem(sys.modules, "huggingface_hub.errors", errors)
    assert sandglass.load("someone/digits-vae").code_size == 2
    monkeypatch.chdir(tmp_path)
    (tmp_path / "models").mkdir()
    for misspelt in ("runs/nope", "models/nope", "./a/b", "nope"):
        with pytest.raises(NotFoundError, match=f"no folder {misspelt}"):
            sandglass.load(misspelt)
    assert asked == ["someone/digits-vae"], "a path with a slip in it is nobody else's business"


def test_evaluate_repeats_and_is_kept(run: sandglass.Run) -> None:
    first = sandglass.evaluate(run)
    assert first == sandglass.evaluate(run.path)
    assert first["model"] == "vae" and first["split"] == "test"
    elbo = first["metrics"]["elbo"]
    assert elbo["n"] == 359 and elbo["unit"] == "nats" and elbo["stderr"] > 0
    assert json.loads((run.path / "results.json").read_text())["test"] == first
    with pytest.raises(DataError, match="no split 'tset'"):
        sandglass.evaluate(run, split="tset")


def test_more_draws_tighten_the_bound(run: sandglass.Run) -> None:
    loose, tight = (
        sandglass.evaluate(run, metrics=["log_prob"], log_prob={"k": k})["metrics"]["log_prob"]["value"]
        for k in (1, 50)
    )
    assert loose < tight


def test_a_net_of_ones_own_is_saved_as_weights_and_passed_again(tmp_path: Path) -> None:
    data = sandglass.load_data("digits")
    model = sandglass.build("vae", data.spec, seed=0, latent_dim=2, net=OwnNet(), likelihood="bernoulli")
    assert model.config["options"]["net"] == {"custom": "OwnNet"}
    run = sandglass.train(model, data, out=tmp_path / "run", **SMALL)
    with pytest.raises(ConfigError, match=r"custom net \(OwnNet\).*pass net="):
        sandglass.load(run.path)
    loaded = sandglass.load(run, net=OwnNet())
    x = data.splits["test"].batch(slice(0, 4)).x
    assert torch.equal(loaded.encode(x), run.load_model(net=OwnNet()).encode(x))


def test_resume_gives_more_epochs_and_refuses_other_data(tmp_path: Path) -> None:
    x = np.random.default_rng(0).random((80, 5)).astype(np.float32)
    run = sandglass.train("vae", x, out=tmp_path / "run", model_options={"latent_dim": 2}, epochs=2, batch_size=20)
    with pytest.raises(DataError, match="passed as a Python object"):
        sandglass.resume(run.path)
    with pytest.raises(DataError, match=r"differs from what .* was trained on"):
        sandglass.resume(run.path, data=x + 1)
    with pytest.raises(ConfigError, match="can only have more"):
        sandglass.resume(run.path, data=x, epochs=1)
    longer = sandglass.resume(run.path, data=x, epochs=4)
    straight = sandglass.train("vae", x, out=tmp_path / "b", model_options={"latent_dim": 2}, epochs=4, batch_size=20)
    assert longer.metrics_file.read_bytes() == straight.metrics_file.read_bytes()
    assert longer.config["training"]["epochs"] == 4


def test_start_from_the_weights_of_another_run(run: sandglass.Run, tmp_path: Path) -> None:
    started = sandglass.train(
        "vae", "digits", out=tmp_path / "b", init_from=run.path, model_options=OPTIONS, lr=1e-12, **SMALL
    )
    for a, b in zip(run.load_model().parameters(), started.load_model().parameters(), strict=True):
        assert torch.allclose(a, b, atol=1e-8)
    with pytest.raises(ConfigError, match="do not fit this model"):
        sandglass.train(
            "vae", "digits", out=tmp_path / "c", init_from=run.path, model_options={"net": "linear"}, **SMALL
        )
    assert not (tmp_path / "c").exists()


def test_start_from_the_body_of_another_model(run: sandglass.Run) -> None:
    source = run.load_model()
    options = {**OPTIONS, "latent_dim": 5}
    for name in ("vae", "ae"):  # an encoder with another number of outputs, and one of another model
        model = build(name, source.spec, seed=9, **options)
        before = {k: v.clone() for k, v in model.state_dict().items()}
        copied = start_from(model, run.path)
        assert len(copied) == 1
        mine, theirs = bodies(model)[copied[0]], bodies(source)["q.trunk.module"]
        assert all(torch.equal(a, b) for a, b in zip(mine.parameters(), theirs.parameters(), strict=True))
        moved = {k for k, v in model.state_dict().items() if not torch.equal(v, before[k])}
        assert moved and all(key.startswith(copied[0]) for key in moved), "all else starts anew"


def test_a_model_built_for_other_companions_is_refused(tmp_path: Path) -> None:
    data = sandglass.load_data(np.arange(120.0).reshape(30, 4), given={"tag": np.arange(90.0).reshape(30, 3)})
    model = build("vae", dataclasses.replace(data.spec, given={"tag": Spec((4,))}), condition="tag")
    with pytest.raises(ConfigError, match=r"built for 'tag' of shape \(4,\)"):
        sandglass.train(model, data, out=tmp_path / "run", epochs=1)
    assert not (tmp_path / "run").exists()


def test_mistakes_leave_nothing_behind(tmp_path: Path) -> None:
    out = tmp_path / "run"
    with pytest.raises(ConfigError, match="Did you mean 'epochs'"):
        sandglass.train("vae", "digits", out=out, epoch=3)
    with pytest.raises(ConfigError, match="Did you mean 'vae'"):
        sandglass.train("vea", "digits", out=out)
    with pytest.raises(ConfigError, match="what to train on"):
        sandglass.train("vae", out=out)
    with pytest.raises(ConfigError, match=r"was built for"):
        sandglass.train(sandglass.build("vae", sandglass.Spec((3,))), "digits", out=out)
    with pytest.raises(ConfigError, match="device"):
        sandglass.train("vae", "digits", out=out, device="tpu")
    assert not out.exists()
    out.mkdir()
    (out / "mine.txt").write_text("keep")
    with pytest.raises(ConfigError, match="already exists"):
        sandglass.train("vae", "digits", out=out, model_options=OPTIONS, **SMALL)
    assert (out / "mine.txt").read_text() == "keep"


def test_runs_are_numbered(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for number in (1, 2):
        run = sandglass.train("ae", "digits", model_options=OPTIONS, epochs=1, batch_size=512)
        assert run.path == Path(f"runs/ae-digits-{number}")


def test_every_kind_of_array_trains_at_any_size(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    sources = {
        "odd grey": random.integers(0, 256, (30, 28, 20), dtype=np.uint8),
        "odd colour": random.integers(0, 256, (30, 37, 53, 3), dtype=np.uint8),
        "floats": torch.rand(30, 2, 9, 7),
        "rows": random.normal(size=(30, 4)),
    }
    for number, (name, source) in enumerate(sources.items()):
        net = {} if name == "rows" else {"net": {"name": "conv", "width": 4, "hidden": 8}}
        run = sandglass.train(
            "vae", source, out=tmp_path / str(number), model_options={"latent_dim": 2, **net}, epochs=1
        )
        spec = run.load_model().spec
        assert (
            spec.shape == {"odd grey": (1, 28, 20), "odd colour": (3, 37, 53), "floats": (2, 9, 7), "rows": (4,)}[name]
        )


def test_a_path_that_is_no_text_survives_the_configuration(tmp_path: Path) -> None:
    import os
    import sys

    if sys.platform in ("darwin", "win32"):
        pytest.skip("this file system has no names that are not text")
    from PIL import Image

    folder = tmp_path / os.fsdecode(b"caf\xe9 \xf0\x9f\x98\x80")
    folder.mkdir()
    random = np.random.default_rng(0)
    for number in range(20):
        Image.fromarray(random.integers(0, 256, (8, 8), dtype=np.uint8)).save(folder / f"{number}.png")
    run = sandglass.train("vae", folder, out=tmp_path / "run", model_options=OPTIONS, epochs=1)
    assert sandglass.evaluate(sandglass.Run(run.path), split="train")["metrics"]["elbo"]["n"] == 16


def test_a_mistyped_folder_is_not_looked_up_elsewhere(run: sandglass.Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(run.path.parent)
    Path("runs").mkdir(exist_ok=True)
    Path("runs/mine").mkdir()
    with pytest.raises(NotFoundError, match="Did you mean runs/mine"):
        sandglass.load("rns/mine")


def test_a_loaded_model_knows_the_precision_it_was_trained_in(tmp_path: Path) -> None:
    for precision in ("fp32", "bf16"):
        small = {"latent_dim": 2, "net": "mlp"}
        run = sandglass.train(
            "vae", "digits", out=tmp_path / precision, epochs=1, precision=precision, model_options=small
        )
        assert run.load_model().precision == run.load_model("last").precision == precision


def test_options_of_the_model_are_taken_by_name(tmp_path: Path) -> None:
    run = sandglass.train("vae", "digits", out=tmp_path / "run", epochs=1, latent_dim=3, net="mlp", sheets=0)
    assert run.load_model().code_size == 3 and run.config["training"]["epochs"] == 1
    with pytest.raises(
        ConfigError, match=r"Neither training nor the model 'vae' has an option 'latent_dims'. .*latent_dim"
    ):
        sandglass.train("vae", "digits", out=tmp_path / "no", latent_dims=3)
    with pytest.raises(ConfigError, match="'beta' is not a training option, and this model is already built"):
        sandglass.train(sandglass.build("vae", Spec((3,))), np.zeros((50, 3)), out=tmp_path / "no", beta=3.0)
    assert not (tmp_path / "no").exists()


def test_a_recipe_by_name_is_applied(tmp_path: Path) -> None:
    run = sandglass.train(recipe="digits", out=tmp_path / "run", epochs=1, sheets=0, latent_dim=3)
    settings = recipes.read("digits")
    assert run.config["model"]["options"]["latent_dim"] == 3 and run.config["recipe"] == "digits"
    assert run.config["model"]["options"]["net"]["name"] == settings["model"]["options"]["net"]["name"]
    assert run.config["training"]["lr"] == settings["training"]["lr"] and run.config["data"]["name"] == "digits"
    with pytest.raises(ConfigError, match="no recipe 'nonsense'"):
        sandglass.train("vae", "digits", recipe="nonsense", out=tmp_path / "no")
    with pytest.raises(ConfigError, match="is for the model 'vae'"):
        sandglass.train("gan", "digits", recipe="digits", out=tmp_path / "no")
    with pytest.raises(ConfigError, match="builds its own model"):
        sandglass.train(sandglass.build("vae", Spec((3,))), recipe="digits", out=tmp_path / "no")
    assert not (tmp_path / "no").exists()
    own = sandglass.train(
        recipe="digits", data=np.random.default_rng(0).random((60, 8, 8)), out=tmp_path / "own", epochs=1
    )
    assert own.config["recipe"] == "digits" and own.config["spec"]["shape"] == [1, 8, 8]


def test_a_run_has_its_data_while_it_is_in_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    x = np.random.default_rng(0).normal(size=(400, 3))
    run = sandglass.train(
        "vae", x, out=tmp_path / "run", epochs=1, data_options={"test": 0.3}, sheets=0
    )  # fmt: skip
    found = sandglass.evaluate(run)
    assert found["metrics"]["elbo"]["n"] == 120 and run.results()["test"]["metrics"].keys() == found["metrics"].keys()
    longer = sandglass.resume(run.path, epochs=2, data=run.data)
    assert sandglass.evaluate(longer)["step"] > found["step"]
    with pytest.raises(DataError, match="passed as a Python object"):
        sandglass.evaluate(sandglass.Run(run.path))


def test_the_newest_run_by_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(NotFoundError, match="no run in the folder runs/"):
        sandglass.load("latest")
    run = sandglass.train("vae", "digits", epochs=1, net="mlp", sheets=0)
    assert sandglass.Run("latest").path == run.path
    assert sandglass.load("latest").config == run.load_model().config
    assert sandglass.evaluate("latest", metrics=["elbo"])["model"] == "vae"


def test_data_is_short_where_it_is_shown() -> None:
    data = sandglass.load_data("digits")
    assert repr(data) == "Dataset(digits: 1,294 train, 144 validation, 359 test examples of 1x8x8)"
    assert repr(data.train) == "Split(1,294 examples of 1x8x8, labels)"
    assert repr(data.spec) == "Spec((1, 8, 8), 'levels', levels=17, classes=10)"
    assert data._repr_html_().count("<tr>") == 4
    wide = sandglass.load_data(np.random.default_rng(0).normal(size=(40, 3000)), labels=False)
    assert len(repr(wide.spec)) < 100 and len(repr(wide)) < 120
    named = dataclasses.replace(data, name="<b>", classes=("<i>", *data.classes[1:]))
    assert "<i>" not in named._repr_html_() and "<b>" not in named._repr_html_().removeprefix("<p><b>")

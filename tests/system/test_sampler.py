"""Samplers for finished runs, and training from a later stage on."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

import sandglass
from helpers import Cli
from sandglass.engine.loop import Loop
from sandglass.errors import CapabilityError, ConfigError, DataError
from sandglass.runs.run import Run

SMALL = {"net": {"name": "mlp", "widths": [16]}, "latent_dim": 3}
TRAINING = {"epochs": 2, "batch_size": 64, "sheets": 0, "threads": 1}
MAF = {"name": "maf", "widths": [8], "transforms": 2}


@pytest.fixture(scope="module")
def vae(tmp_path_factory: pytest.TempPathFactory) -> Run:
    return sandglass.train("vae", "digits", out=tmp_path_factory.mktemp("vae") / "run", **SMALL, **TRAINING)


def weights(run: Run) -> dict[str, torch.Tensor]:
    return run.load_model().state_dict()


@pytest.mark.parametrize("kind", ["gaussian-mixture", MAF])
def test_it_is_what_training_with_that_sampler_gives(vae: Run, kind: object, tmp_path: Path) -> None:
    """To the last bit; encoder and decoder are those of the run."""
    later = sandglass.fit_sampler(vae, kind, out=tmp_path / "later", sheets=0)
    once = sandglass.train("vae", "digits", out=tmp_path / "once", sampler=kind, **SMALL, **TRAINING)
    found, wanted, before = weights(later), weights(once), weights(vae)
    assert found.keys() == wanted.keys()
    assert all(torch.equal(found[name], value) for name, value in wanted.items())
    assert all(torch.equal(found[name], value) for name, value in before.items())
    assert later.config["training"]["from_stage"] == "density"


def test_samples_are_drawn_with_it(vae: Run, tmp_path: Path) -> None:
    """Of codes with one Gaussian around 9, all samples are what 9 decodes to."""
    later = sandglass.fit_sampler(vae, "gaussian", out=tmp_path / "later")
    model = later.load_model()
    model.density.mean.fill_(9.0)
    model.density.root.zero_()
    with torch.no_grad():
        assert torch.allclose(model.sample(2), model.decode(torch.full((2, 3), 9.0)))


@pytest.mark.parametrize("steps", [0, 12])
def test_an_interrupted_fit_is_resumed_with_the_same_bits(
    vae: Run, steps: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where it is stopped before its first step: the weights of the other run are in a checkpoint by then."""
    whole = sandglass.fit_sampler(vae, MAF, out=tmp_path / "whole", sheets=0)
    step = Loop.step

    def stopping(loop: Loop) -> None:
        if loop.now.step == steps:
            raise RuntimeError("power cut")
        step(loop)
        if steps and loop.now.step == steps:
            loop.save()

    with monkeypatch.context() as patch:
        patch.setattr(Loop, "step", stopping)
        with pytest.raises(RuntimeError, match="power cut"):
            sandglass.fit_sampler(vae, MAF, out=tmp_path / "cut", sheets=0)
    again = sandglass.resume(tmp_path / "cut")
    assert all(torch.equal(weights(again)[name], value) for name, value in weights(whole).items())


def test_a_crash_before_the_first_checkpoint_does_not_lose_copied_weights(
    vae: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Resumed from scratch, a run with --init-from would begin with fresh weights."""
    whole = sandglass.train("vae", "digits", out=tmp_path / "whole", init_from=vae.path, **SMALL, **TRAINING)

    def failing(loop: Loop) -> None:
        raise RuntimeError("power cut")

    with monkeypatch.context() as patch:
        patch.setattr(Loop, "step", failing)
        with pytest.raises(RuntimeError, match="power cut"):
            sandglass.train("vae", "digits", out=tmp_path / "cut", init_from=vae.path, **SMALL, **TRAINING)
    again = sandglass.resume(tmp_path / "cut")
    assert all(torch.equal(weights(again)[name], value) for name, value in weights(whole).items())


def test_any_later_stage_can_be_trained_anew(tmp_path: Path) -> None:
    """The prior of a VQ-VAE, with other options, on the codes of a finished run."""
    own = {"net": {"name": "mlp", "widths": [16]}, "codes": 4, "code_dim": 3}
    tiny = {"prior_width": 8, "prior_depth": 1, "prior_heads": 1}
    first = sandglass.train("vq-vae", "digits", out=tmp_path / "a", **own, **tiny, **TRAINING)
    other = {**TRAINING, "epochs": 1, "from_stage": "prior", "init_from": first.path}
    second = sandglass.train("vq-vae", "digits", out=tmp_path / "b", **own, **{**tiny, "prior_width": 16}, **other)
    before, after = weights(first), weights(second)
    same = {name for name, value in after.items() if name in before and torch.equal(before[name], value)}
    assert {name for name in after if not name.startswith("pk.")} <= same
    assert {record["stage"] for record in second.metrics()} == {"prior"}
    with pytest.raises(
        ConfigError, match=r"The stage \w+ of .* trained another model: '.*' is of shape .* here and of shape"
    ):
        sandglass.train("vq-vae", "digits", out=tmp_path / "c", **{**own, "code_dim": 2}, **tiny, **other)


def test_what_does_not_go_is_refused(vae: Run, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"from_stage=density begins after other stages.*--init-from"):
        sandglass.train("ae", "digits", out=tmp_path / "a", from_stage="density", **SMALL, **TRAINING)
    with pytest.raises(ConfigError, match=r"no stage 'densty' to begin from\. Did you mean 'density'"):
        sandglass.train("ae", "digits", out=tmp_path / "a", from_stage="densty", init_from=vae.path, **SMALL)
    with pytest.raises(ConfigError, match="no sampler 'gmm'"):
        sandglass.fit_sampler(vae, "gmm")
    with pytest.raises(ConfigError, match="The prior is not fitted"):
        sandglass.fit_sampler(vae, "prior")
    with pytest.raises(ConfigError, match="with condition=labels the sampler is the prior"):
        sandglass.build("cvae", sandglass.load_data("digits").spec, sampler="gaussian")
    gan = sandglass.train("gan", "digits", out=tmp_path / "gan", net=SMALL["net"], **{**TRAINING, "epochs": 1})
    with pytest.raises(CapabilityError, match=r"The model 'gan' takes no sampler. Models that do: .*vae"):
        sandglass.fit_sampler(gan, "gaussian")
    assert not (tmp_path / "a").exists()


def test_the_command_fits_several_and_compares(cli: Cli, tmp_path: Path) -> None:
    words = ["--data", "digits", "--epochs", "1", "--net.widths", "16", "--net", "mlp", "--no-report", "--sheets", "0"]
    assert cli("train", "vae", *words, "--out", "run")[0] == 0
    code, out, err = cli("sampler", "run", "--kind", "gaussian", "--kind", "sphere")
    assert code == 0 and "sphere: fitted to the codes of run" in err
    assert "fid (own features)" in out and "run-gaussian" in out and "run-sphere" in out
    assert "sandglass generate run-gaussian -n 64" in out
    code, out, _ = cli(
        "sampler", "run", "--kind", "gaussian-mixture", "--components", "2", "--no-compare", "--out", "x"
    )
    assert code == 0 and sandglass.Run(tmp_path / "x").config["model"]["options"]["sampler"]["components"] == 2
    assert (
        cli("sampler", "run", "--kind", "gaussian", "--no-compare")[0] == 0 and (tmp_path / "run-gaussian-2").is_dir()
    )
    code, _, err = cli("sampler", "run", "--kind", "gaussian", "--components", "2")
    assert code == 2 and "no option --components" in err
    code, _, err = cli("sampler", "run", "--kind", "maf", "--kind", "iaf", "--out", "y")
    assert code == 2 and "--out names one folder" in err
    for words in (["run", "--kind", "kernel-density", "--help"], ["--help"]):
        with pytest.raises(SystemExit) as stop:
            cli("sampler", *words)
        assert stop.value.code == 0
    code, _, err = cli("sampler", "run", "--epochs", "3")
    assert code == 2 and "fitted in closed form: leave out --epochs" in err
    assert cli("sampler", "x", "--kind", "sphere", "--no-compare")[0] == 0, "of a run that was itself fitted"


def test_a_table_with_gaps_is_fitted_though_its_samples_are_not_compared(cli: Cli, tmp_path: Path) -> None:
    lines = ["a,b,c", *(f"{i},{i * i % 7}," + ("" if i % 5 == 0 else str(i % 3)) for i in range(90))]
    (tmp_path / "gaps.csv").write_text("\n".join(lines) + "\n")
    words = ["--data", "gaps.csv", "--epochs", "1", "--no-report", "--out", "run"]
    assert cli("train", "vae", *words)[0] == 0
    code, out, err = cli("sampler", "run", "--kind", "gaussian")
    assert code == 0 and "samples are not compared" in err and "run-gaussian" in out


def test_codes_are_those_of_examples_as_they_are(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A run with augmentation and corruption: neither the fit nor the training of a sampler sees them."""
    own = {**SMALL, "augment": "shift", "corrupt": "gaussian=0.5"}
    run = sandglass.train("vae", "digits", out=tmp_path / "run", **own, **{**TRAINING, "epochs": 1})
    seen: list[torch.Tensor] = []
    x = sandglass.load_data("digits").train.batch(slice(0, None)).x
    monkeypatch.setattr("sandglass.models._condition.Sees.__call__", watched(seen))
    sandglass.fit_sampler(run, MAF, out=tmp_path / "maf", epochs=1, sheets=0)
    known = {tuple(row) for row in x.flatten(1).tolist()}
    train = [row for batch in seen for row in batch.flatten(1).tolist()]
    assert sum(tuple(row) in known for row in train) / len(train) > 0.7, "the others are of validation"


def watched(seen: list[torch.Tensor]) -> object:
    """What an encoder reads, kept."""
    from sandglass.models._condition import Sees

    whole = Sees.__call__

    def call(self: Sees, batch: object) -> torch.Tensor:
        found = whole(self, batch)
        seen.append(found.detach().clone())
        return found

    return call


def test_a_net_of_ones_own(tmp_path: Path) -> None:
    from sandglass.nets.mlp import MLP

    run = sandglass.train("vae", "digits", out=tmp_path / "run", net=MLP(widths=(8,)), **{**TRAINING, "epochs": 1})
    later = sandglass.fit_sampler(run, "gaussian", out=tmp_path / "later")
    assert later.load_model(net=MLP(widths=(8,))).sample(2).shape == (2, 1, 8, 8)


def test_other_data_is_refused(vae: Run, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="differs from what"):
        sandglass.fit_sampler(vae, "gaussian", out=tmp_path / "x", data=torch.rand(50, 1, 8, 8))
    with pytest.raises(ConfigError, match="does nothing for gaussian, fitted in closed form"):
        sandglass.fit_sampler(vae, "gaussian", out=tmp_path / "x", epochs=3)
    with pytest.raises(ConfigError, match="from_stage cannot be given"):
        sandglass.fit_sampler(vae, "gaussian", out=tmp_path / "x", from_stage="train")
    with pytest.raises(ConfigError, match="A sampler is a name"):
        sandglass.fit_sampler(vae, ["gaussian"], out=tmp_path / "x")  # type: ignore[arg-type]


def test_trials_are_not_judged_by_the_density_of_their_codes() -> None:
    from sandglass.sweeps.study import deciding_stage

    model = sandglass.build("vae", sandglass.load_data("digits").spec, sampler=MAF, **SMALL)
    assert deciding_stage(model) == "train"


def test_a_stage_of_the_sampler_has_options(cli: Cli, tmp_path: Path) -> None:
    words = ["--data", "digits", "--epochs", "1", "--net", "mlp", "--no-report", "--sheets", "0", "--out", "run"]
    assert cli("train", "vae", *words, "--sampler", "two-stage", "--stage.density.epochs", "2")[0] == 0
    assert sandglass.Run(tmp_path / "run").config["training"]["stage"]["density"]["epochs"] == 2
    code, _, err = cli("train", "vae", *words, "--stage.density.epochs", "2")
    assert code == 2 and "no stage 'density'" in err

"""What every registered model owes, on every kind of data; a new model is tested by being registered."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch

from helpers import digest, fresh, make_loop, stop_at
from made import MODELS, SPECS, batch, dataset, distinct, normed, small, spec_for, suits, tiered
from sandglass import registry, rng
from sandglass.core import Clock, Model
from sandglass.testing import checks
from sandglass.testing.data import make


@pytest.fixture(params=tiered(list(SPECS)))
def model(request: pytest.FixtureRequest) -> Model:
    return make(request.param[0], spec_for(*request.param))


@pytest.fixture(params=MODELS)
def name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def test_terms_are_per_example_finite_and_detached(model: Model) -> None:
    checks.terms_are_per_example_finite_and_detached(model)


def test_a_phase_moves_all_of_its_own_parameters_and_no_other(model: Model) -> None:
    checks.a_phase_moves_all_of_its_own_parameters_and_no_other(model)


def test_every_parameter_is_trained_by_some_phase(model: Model) -> None:
    checks.every_parameter_is_trained_by_some_phase(model)


def test_a_loss_says_whether_it_depends_on_the_clock(model: Model) -> None:
    checks.a_loss_says_whether_it_depends_on_the_clock(model)


def test_samples_have_the_shape_range_and_seed(model: Model) -> None:
    checks.samples_have_the_shape_range_and_seed(model)


def test_a_condition_that_it_needs_is_asked_for(model: Model) -> None:
    checks.a_condition_that_it_needs_is_asked_for(model)


def test_capabilities_are_declared_and_work(model: Model) -> None:
    checks.capabilities_are_declared_and_work(model)


def test_a_bare_tensor_or_array_is_a_batch(model: Model) -> None:
    checks.a_bare_tensor_or_array_is_a_batch(model)


def test_a_completion_keeps_what_was_observed(model: Model) -> None:
    checks.a_completion_keeps_what_was_observed(model)


def test_encode_and_reconstruct_are_deterministic_and_batch_invariant(model: Model) -> None:
    checks.encode_and_reconstruct_are_deterministic_and_batch_invariant(model)


def test_its_configuration_builds_the_same_model(model: Model) -> None:
    checks.its_configuration_builds_the_same_model(model)


def test_a_saved_model_gives_the_same_bits(model: Model) -> None:
    checks.a_saved_model_gives_the_same_bits(model)


def test_missing_values_are_left_out_or_refused(model: Model) -> None:
    checks.missing_values_are_left_out_or_refused(model)


def test_names_of_stages_and_phases_are_their_own(name: str) -> None:
    checks.names_of_stages_and_phases_are_their_own(name)


def test_an_unknown_option_is_refused_with_the_nearest(name: str) -> None:
    checks.an_unknown_option_is_refused_with_the_nearest(name)


def test_what_it_needs_is_asked_of_the_data(name: str) -> None:
    checks.what_it_needs_is_asked_of_the_data(name)


def test_double_precision_stays_double(name: str) -> None:
    checks.double_precision_stays_double(name)


def test_every_option_is_documented(name: str) -> None:
    checks.every_option_is_documented(name)


def test_every_check_is_a_test_here() -> None:
    """Each with its own name, so that a failure is found at a glance."""
    assert {f"test_{check.__name__}" for check in (*checks.OF_MODEL, *checks.OF_NAME)} <= set(globals())


@pytest.mark.parametrize("name", [name for name in distinct() if "net" in registry.declared(name).config["options"]])
def test_a_transformer_trains_in_every_model(name: str) -> None:
    if not suits(name, "grey"):
        pytest.skip("not for images")
    vit = {"name": "vit", "width": 8, "heads": 2, "depth": 1}
    nets = {option.name: vit for option in registry.schema("model", name) if option.kind == "net"}
    data = batch(spec_for(name, "grey"))
    model = fresh(name, dataset(spec_for(name, "grey")), **small(name), **nets)
    for stage in model.stages():
        for phase in stage.phases:
            model.zero_grad()
            loss = phase.loss(data, Clock()).loss
            loss.backward()
            norms = [float(p.grad.norm()) for p in phase.parameters() if p.grad is not None]
            assert torch.isfinite(loss) and norms and math.isfinite(sum(norms)) and sum(norms) > 0


@pytest.mark.parametrize("name", distinct())
def test_every_model_trains_in_bf16(name: str) -> None:
    """As a CPU that has it does by default; the gradients point where those in float32 do."""
    kind = next(kind for kind in ("grey", *SPECS) if suits(name, kind))
    data, gradients = batch(spec_for(name, kind)), []
    for cast in (False, True):
        model = make(name, spec_for(name, kind)).train()
        found = []
        for number, phase in enumerate(phase for stage in model.stages() for phase in stage.phases):
            model.zero_grad()
            with rng.forked("cpu", number), torch.autocast("cpu", torch.bfloat16, enabled=cast):
                loss = phase.loss(data, Clock()).loss
            loss.backward()
            found += [torch.zeros_like(p) if p.grad is None else p.grad for p in phase.parameters()]
        assert all(g.dtype == torch.float32 for g in found)
        gradients.append(torch.cat([g.flatten() for g in found]))
    assert torch.cosine_similarity(*gradients, dim=0) > 0.9


@pytest.mark.parametrize("which", tiered(["grey", "row"], distinct(), full=["vae"]))
def test_resume_is_exact_at_every_step(which: tuple[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Stopping after any step of any stage and going on gives the same weights and log as never stopping."""
    name, kind = which
    monkeypatch.setattr("os.fsync", lambda descriptor: None)
    data = dataset(spec_for(name, kind))
    rich = {"mlp": {"widths": [16], "dropout": 0.1}, "conv": {"width": 4, **normed(name)}}
    chosen = "mlp" if kind == "row" else "conv"
    net = {"net": {"name": chosen, **rich[chosen]}} if "net" in registry.declared(name).config["options"] else {}
    options = {"epochs": 2, "batch_size": 16, "log_every": 3, "keep": 1, "accumulate": 2, "ema": 0.9, "clip": 5.0}
    options |= {"schedule": "cosine", "lr_warmup": 1}
    later = [stage.name for stage in registry.declared(name).stages() if stage.phases][1:]
    options |= {"stage": {stage: {"epochs": 1} for stage in later}}

    def start(folder: str) -> tuple[Any, Any]:
        return make_loop(fresh(name, data, **small(name), **net), data, tmp_path / folder, **options)

    loop, run = start("straight")
    loop.fit()
    expected, last = digest(loop.model, run), loop.now.total
    for k in range(1, last):
        loop, run = start(f"stop{k}")
        stop_at(loop, k, lambda loop=loop: setattr(loop.signals, "stop", 15))
        with pytest.raises(SystemExit):
            loop.fit()
        torch.manual_seed(999)
        loop, run = start(f"stop{k}")
        checkpoint, problems = run.latest_checkpoint()
        assert checkpoint is not None and checkpoint.step >= k and not problems
        loop.fit(checkpoint)
        assert digest(loop.model, run) == expected, f"resume at step {k} differs"

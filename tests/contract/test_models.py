"""What every registered model owes, on every kind of data; a new model is tested by being registered."""

from __future__ import annotations

import contextlib
import copy
import inspect
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from helpers import digest, fresh, make_loop, stop_at
from made import MODELS, NETS, SPECS, batch, dataset, distinct, given_of, small, spec_for, suits, tiered
from sandglass import registry, rng
from sandglass.core import CAPABILITIES, Batch, Clock, Model, Phase, Spec
from sandglass.engine.options import Training
from sandglass.engine.step import Stepper
from sandglass.errors import CapabilityError, ConfigError
from sandglass.runs.run import load_model, write_model_folder
from sandglass.runs.specification import to_plain


def make(name: str, spec: Spec, **options: Any) -> Model:
    net = "conv" if spec.is_image else "mlp"
    for option in registry.schema("model", name):
        if option.kind == "net":
            options.setdefault(option.name, {"name": net, **NETS[net]})
    with rng.forked("cpu", 0, "weights"):
        return registry.build(name, spec, **small(name), **options)


def codes_for(model: Model, n: int) -> Tensor:
    """Codes that the model may decode."""
    parts = [
        torch.zeros(n, latent.size, dtype=torch.long if latent.support == "index" else None) for latent in model.latents
    ]
    return torch.cat(parts, 1)


@pytest.fixture(params=tiered(list(SPECS)))
def model(request: pytest.FixtureRequest) -> Model:
    return make(request.param[0], spec_for(*request.param))


@pytest.fixture(params=MODELS)
def name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def test_terms_are_per_example_finite_and_detached(model: Model) -> None:
    data = batch(model.spec)
    kept = data.x.clone()
    for phase in phases(model):
        terms = phase.loss(data, Clock())
        assert terms.loss.shape == () and terms.loss.requires_grad and torch.isfinite(terms.loss)
        for part in terms.parts.values():
            assert part.shape == (16,) and torch.isfinite(part).all() and not part.requires_grad
        for scalar in terms.scalars.values():
            assert scalar.shape == () and torch.isfinite(scalar) and not scalar.requires_grad
    assert torch.equal(data.x, kept)


def phases(model: Model) -> list[Phase]:
    """Those of all stages."""
    return [phase for stage in model.stages() for phase in stage.phases]


def test_a_phase_moves_all_of_its_own_parameters_and_no_other(model: Model) -> None:
    for which, number in [(s, p) for s, stage in enumerate(model.stages()) for p in range(len(stage.phases))]:
        own_model = copy.deepcopy(model)
        stepper = Stepper(own_model, own_model.stages()[which], Training(lr=0.1, device="cpu"))
        stepper.train()
        phase = stepper.phases[number]
        before = {k: v.detach().clone() for k, v in own_model.named_parameters()}
        own = {id(p) for p in phase.parameters()}
        for step in range(3):
            stepper.turn(number, phase, batch(model.spec, seed=step), Clock(step), 1.0)
        for key, value in own_model.named_parameters():
            still = torch.equal(value, before[key])
            # The gradient of a critic's last bias can be exactly zero: real and generated examples cancel in it.
            assert still != (id(value) in own) or (value.numel() == 1 and value.grad is not None), key


def test_every_parameter_is_trained_by_some_phase(model: Model) -> None:
    trained = {id(p) for phase in phases(model) for p in phase.parameters()}
    assert [key for key, p in model.named_parameters() if p.requires_grad and id(p) not in trained] == []


def test_a_loss_says_whether_it_depends_on_the_clock(model: Model) -> None:
    for number, phase in enumerate(phases(model)):
        losses = []
        for clock in (Clock(), Clock.final()):
            own = phases(copy.deepcopy(model))[number]  # a loss may move running statistics
            with rng.forked("cpu", 1):
                losses.append(own.loss(batch(model.spec), clock).loss)
        assert phase.scheduled or torch.equal(*losses), f"{phase.name} follows the clock but says it does not"


def test_names_of_stages_and_phases_are_their_own(name: str) -> None:
    stages = registry.declared(name).stages()
    assert len({s.name for s in stages}) == len(stages)
    assert all(stage.phases or stage.fit for stage in stages)
    named = [p.name for s in stages for p in s.phases]
    assert len(set(named)) == len(named)


def test_samples_have_the_shape_range_and_seed(model: Model) -> None:
    given = given_of(model, batch(model.spec, 5))
    for noise in (False, True):
        with rng.forked("cpu", 5):
            a = model.eval().sample(5, given, noise=noise)
        with rng.forked("cpu", 5):
            b = model.sample(5, given, noise=noise)
        assert torch.equal(a, b) and a.shape == (5, *model.spec.shape) and not a.requires_grad
        assert torch.isfinite(a).all()
        if model.spec.support != "real" and not noise:
            assert a.min() >= 0 and a.max() <= 1


def test_a_condition_that_a_model_needs_is_asked_for(model: Model) -> None:
    needs = set(model.needs) - {"complete"}
    if model.conditions:
        with pytest.raises(ConfigError, match="conditioned on"):
            model.sample(3)
        return
    # A set beside may be what is translated (then it is asked for), or only what is also learnt from.
    with contextlib.suppress(ConfigError) if needs else contextlib.nullcontext():
        assert model.eval().sample(3).shape == (3, *model.spec.shape)


def test_capabilities_are_declared_and_work(model: Model) -> None:
    data, model = batch(model.spec, 4), model.eval()
    given, index = given_of(model, data), slice(0, 2)
    first, second = data.map(lambda t: t[index]), data.map(lambda t: t[2:])
    gone = torch.rand(data.x.shape, generator=torch.Generator().manual_seed(1)) > 0.3
    gaps = data if "complete" in model.needs else replace(data, mask=gone)
    code, x = (4, model.code_size), (4, *model.spec.shape)
    calls: dict[str, tuple[Any, Any]] = {
        "encode": (lambda: model.encode(data), code),
        "decode": (lambda: model.decode(codes_for(model, 4), given), x),
        "reconstruct": (lambda: model.reconstruct(data), x),
        "posterior": (lambda: model.posterior(data).rsample(), code),
        "prior": (lambda: model.prior(given).sample((4,)).reshape(4, -1), code),
        "interpolate": (lambda: model.interpolate(first, second, 5), (2, 5, *model.spec.shape)),
        "bound": (lambda: model.bound(data).elbo, (4,)),
        "log_prob": (lambda: model.log_prob(data, 3), (4,)),
        "score": (lambda: model.score(data), (4,)),
        "classify": (lambda: model.classify(data), (4, model.spec.classes)),
        "embed": (lambda: model.embed(codes_for(model, 4))[:, 0], (4,)),
        "complete": (lambda: model.complete(gaps).x, x),
        "translate": (lambda: model.translate(data), x),
    }
    assert set(calls) == set(CAPABILITIES)
    for capability, (call, shape) in calls.items():
        if capability in model.provides:
            assert call().shape == shape, capability
        else:
            with pytest.raises(CapabilityError, match=capability):
                call()
            with pytest.raises(CapabilityError, match="Models that can"):
                registry.require(model, capability)


def test_a_bare_tensor_or_array_is_a_batch(model: Model) -> None:
    x = batch(model.spec, 4).x
    if "encode" in model.provides and not set(model.needs) - {"complete"}:
        model.eval()
        assert torch.equal(model.encode(x), model.encode(Batch(x)))
        assert torch.equal(model.encode(x.double().numpy()), model.encode(Batch(x)))


def test_a_completion_keeps_what_was_observed(model: Model) -> None:
    if "complete" not in model.provides or "complete" in model.needs:
        return
    data = batch(model.spec, 4)
    mask = torch.rand(data.x.shape, generator=torch.Generator().manual_seed(1)) > 0.3
    for draws in (0, 3):
        x = model.eval().complete(replace(data, mask=mask), draws).x.view(-1, 4, *model.spec.shape)
        assert len(x) == max(draws, 1)
        assert torch.equal(x[:, mask], data.x[mask].expand(len(x), -1)) and torch.isfinite(x).all()


def test_encode_and_reconstruct_are_deterministic_and_batch_invariant(model: Model) -> None:
    model.eval()
    data = batch(model.spec, 6)
    for capability in {"encode", "reconstruct", "translate"} & set(model.provides):
        call = getattr(model, capability)
        with torch.no_grad():
            whole = call(data)
            assert torch.equal(whole, call(data))
            single = torch.cat([call(data.map(lambda t, i=i: t[i : i + 1])) for i in range(6)])
        assert torch.allclose(whole, single, atol=1e-5)


def test_an_unknown_option_is_refused_with_the_nearest(name: str) -> None:
    first = registry.schema("model", name)[0].name
    with pytest.raises(ConfigError, match=f"Did you mean '{first}'"):
        registry.build(name, spec_for(name, "grey"), **{first[:-1] + "_": 3})
    for option in small(name):
        with pytest.raises(ConfigError, match=option):
            registry.build(name, spec_for(name, "grey"), **{option: 0})


def test_the_configuration_builds_the_same_model(model: Model) -> None:
    import json

    config = json.loads(json.dumps(model.config))
    again = registry.build(config["name"], model.spec, **config["options"])
    assert again.config == model.config
    again.load_state_dict(model.state_dict())


def test_a_saved_model_gives_the_same_bits(model: Model, tmp_path: Path) -> None:
    for stage in model.stages():
        if stage.fit is not None:
            stage.fit(lambda: [batch(model.spec)], None)
        if stage.phases:
            Stepper(model, stage, Training(device="cpu"))(batch(model.spec), Clock(), 1.0)
    config = {"model": model.config, "spec": to_plain(model.spec), "transform": {}, "classes": [], "step": 1}
    write_model_folder(tmp_path / "model", config, model.state_dict(), "card")
    loaded = load_model(tmp_path / "model")
    model.eval()
    assert outputs(model).keys() == outputs(loaded).keys()
    for key, value in outputs(model).items():
        assert torch.equal(value, outputs(loaded)[key]), key


def outputs(model: Model) -> dict[str, Tensor]:
    data = batch(model.spec, 3)
    with torch.no_grad(), rng.forked("cpu", 9):
        values = {"sample": model.sample(3, given_of(model, data))}
        values |= {c: getattr(model, c)(data) for c in ("encode", "reconstruct", "translate") if c in model.provides}
    return values


def test_missing_values_are_left_out_or_refused(model: Model) -> None:
    data = batch(model.spec)
    mask = torch.rand(data.x.shape, generator=torch.Generator().manual_seed(1)) > 0.3
    if "complete" in model.needs:
        with pytest.raises(CapabilityError, match=r"missing values.*vae"):
            registry.check_needs(model, model.spec, gaps=True)
        return
    losses = []
    for junk in (0.0, 1e30):
        with rng.forked("cpu", 3):
            gaps = replace(data, x=torch.where(mask, data.x, junk), mask=mask)
            losses.append(torch.stack([p.loss(gaps, Clock()).loss for p in phases(copy.deepcopy(model))]))
    assert torch.isfinite(losses[0]).all() and torch.equal(*losses)
    stage = next(stage for stage in model.stages() if stage.phases)
    Stepper(model, stage, Training(device="cpu"))(replace(data, mask=mask), Clock(), 1.0)
    assert all(torch.isfinite(p).all() for p in model.parameters())


def test_what_a_model_needs_is_asked_of_the_data(name: str) -> None:
    model = registry.declared(name)
    registry.check_needs(model, model.spec, gaps=False)
    for need in set(model.needs) - {"complete"}:
        with pytest.raises(CapabilityError, match=f"'{model.config['name']}' needs"):
            registry.check_needs(model, SPECS["grey"], gaps=False)
        assert need


def test_double_precision_stays_double(name: str) -> None:
    model = make(name, spec_for(name, "row" if suits(name, "row") else "grey")).double()
    data = batch(model.spec).map(lambda t: t.double() if t.is_floating_point() else t)
    for phase in phases(model):
        terms = phase.loss(data, Clock(epoch=torch.zeros((), dtype=torch.float64)))
        assert terms.loss.dtype == torch.float64
        assert all(part.dtype == torch.float64 for part in terms.parts.values())
    given = given_of(model, data.map(lambda t: t[:2]))
    assert model.sample(2, given).dtype == torch.float64


def test_every_option_is_documented(name: str) -> None:
    assert registry.entry("model", name).summary
    for option in registry.schema("model", name):
        assert option.help, f"{name} has no help for '{option.name}'"
        assert option.default is not inspect.Parameter.empty, f"{name} cannot be built without '{option.name}'"


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


@pytest.mark.parametrize("which", tiered(["grey", "row"], distinct(), full=["vae"]))
def test_resume_is_exact_at_every_step(which: tuple[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Stopping after any step of any stage and going on gives the same weights and log as never stopping."""
    name, kind = which
    monkeypatch.setattr("os.fsync", lambda descriptor: None)
    data = dataset(spec_for(name, kind))
    rich = {"mlp": {"widths": [16], "dropout": 0.1}, "conv": {"width": 4, "norm": "batch"}}
    chosen = "mlp" if kind == "row" else "conv"
    net = {"net": {"name": chosen, **rich[chosen]}} if "net" in registry.declared(name).config["options"] else {}
    options = {"epochs": 3, "batch_size": 16, "log_every": 3, "keep": 1, "accumulate": 2, "ema": 0.9, "clip": 5.0}
    options |= {"schedule": "cosine", "lr_warmup": 1}
    later = [stage.name for stage in registry.declared(name).stages() if stage.phases][1:]
    options |= {"stage": {stage: {"epochs": 2} for stage in later}}

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

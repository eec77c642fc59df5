"""What every registered model owes, on every kind of data; a new model is tested by being registered."""

from __future__ import annotations

import copy
import inspect
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from helpers import digest, fresh, make_loop, pictures, rows, stop_at
from sandglass import registry, rng
from sandglass.core import CAPABILITIES, Batch, Clock, Model, Spec
from sandglass.data.dataset import Dataset
from sandglass.engine.options import Training
from sandglass.engine.step import Stepper
from sandglass.errors import CapabilityError, ConfigError
from sandglass.runs.run import load_model, write_model_folder

SPECS = {
    "row": Spec((6,)),
    "grey": Spec((1, 9, 7), "unit"),
    "colour": Spec((3, 12, 17), "unit"),
    "binary": Spec((1, 5, 5), "binary"),
}
MODELS = registry.names("model")


def make(name: str, spec: Spec, **options: Any) -> Model:
    if spec.is_image:
        options.setdefault("net", {"name": "conv", "width": 4, "hidden": 16})
    else:
        options.setdefault("net", {"name": "mlp", "widths": [16]})
    with rng.forked("cpu", 0, "weights"):
        return registry.build(name, spec, latent_dim=3, **options)


def batch(spec: Spec, n: int = 16, seed: int = 0) -> Batch:
    x = torch.randn(n, *spec.shape, generator=torch.Generator().manual_seed(seed))
    return Batch(x if spec.support == "real" else (x > 0).float() if spec.support == "binary" else x.sigmoid())


@pytest.fixture(params=[(m, s) for m in MODELS for s in SPECS], ids=lambda p: f"{p[0]}-{p[1]}")
def model(request: pytest.FixtureRequest) -> Model:
    return make(request.param[0], SPECS[request.param[1]])


@pytest.fixture(params=MODELS)
def name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def test_terms_are_per_example_finite_and_detached(model: Model) -> None:
    data = batch(model.spec)
    kept = data.x.clone()
    for phase in model.phases():
        terms = phase.loss(data, Clock())
        assert terms.loss.shape == () and terms.loss.requires_grad and torch.isfinite(terms.loss)
        for part in terms.parts.values():
            assert part.shape == (16,) and torch.isfinite(part).all() and not part.requires_grad
    assert torch.equal(data.x, kept)


def test_a_phase_moves_all_of_its_own_parameters_and_no_other(model: Model) -> None:
    for number, phase in enumerate(model.phases()):
        own_model = copy.deepcopy(model)
        stepper = Stepper(own_model, Training(lr=0.1, device="cpu"))
        phase = stepper.phases[number]
        before = {k: v.detach().clone() for k, v in own_model.named_parameters()}
        own = {id(p) for p in phase.parameters()}
        for step in range(3):
            stepper.turn(number, phase, batch(model.spec, seed=step), Clock(step), 1.0)
        for key, value in own_model.named_parameters():
            still = torch.equal(value, before[key])
            # The gradient of a critic's last bias can be exactly zero: real and generated examples cancel in it.
            assert still != (id(value) in own) or (value.numel() == 1 and value.grad is not None), key


def test_a_loss_says_whether_it_depends_on_the_clock(model: Model) -> None:
    for phase in model.phases():
        losses = []
        for clock in (Clock(), Clock.final()):
            with rng.forked("cpu", 1):
                losses.append(phase.loss(batch(model.spec), clock).loss)
        assert phase.scheduled or torch.equal(*losses), f"{phase.name} follows the clock but says it does not"


def test_the_objective_is_a_phase(name: str) -> None:
    model = make(name, SPECS["row"])
    assert model.objective is None or model.objective in [p.name for p in model.phases()]
    assert len({p.name for p in model.phases()}) == len(model.phases())


def test_samples_have_the_shape_range_and_seed(model: Model) -> None:
    for noise in (False, True):
        with rng.forked("cpu", 5):
            a = model.eval().sample(5, noise=noise)
        with rng.forked("cpu", 5):
            b = model.sample(5, noise=noise)
        assert torch.equal(a, b) and a.shape == (5, *model.spec.shape) and not a.requires_grad
        assert torch.isfinite(a).all()
        if model.spec.support != "real" and not noise:
            assert a.min() >= 0 and a.max() <= 1


def test_capabilities_are_declared_and_work(model: Model) -> None:
    x = batch(model.spec, 4).x
    calls: dict[str, Any] = {
        "encode": lambda: model.encode(x),
        "decode": lambda: model.decode(torch.zeros(4, 3)),
        "reconstruct": lambda: model.reconstruct(x),
        "posterior": lambda: model.posterior(x).rsample(),
        "prior": lambda: model.prior().sample((4,)),
        "interpolate": lambda: model.interpolate(x[:2], x[2:], 5),
        "log_prob": lambda: model.log_prob(x, 3),
        "bound_parts": lambda: torch.stack(model.bound_parts(x)),
    }
    assert set(calls) == set(CAPABILITIES)
    shapes = {"encode": (4, 3), "posterior": (4, 3), "prior": (4, 3), "log_prob": (4,), "bound_parts": (2, 4)}
    shapes |= {"interpolate": (2, 5, *model.spec.shape)}
    for capability, call in calls.items():
        if capability in model.provides:
            assert call().shape == shapes.get(capability, (4, *model.spec.shape)), capability
        else:
            with pytest.raises(CapabilityError, match=capability):
                call()
            with pytest.raises(CapabilityError, match="Models that can"):
                registry.require(model, capability)


def test_encode_and_reconstruct_are_deterministic_and_batch_invariant(model: Model) -> None:
    model.eval()
    x = batch(model.spec, 6).x
    for capability in {"encode", "reconstruct"} & set(model.provides):
        call = getattr(model, capability)
        with torch.no_grad():
            whole = call(x)
            assert torch.equal(whole, call(x))
            single = torch.cat([call(x[i : i + 1]) for i in range(6)])
        assert torch.allclose(whole, single, atol=1e-5)


def test_an_unknown_option_is_refused_with_the_nearest(name: str) -> None:
    with pytest.raises(ConfigError, match="Did you mean 'latent_dim'"):
        registry.build(name, SPECS["row"], latent_dm=3)
    with pytest.raises(ConfigError, match="latent_dim"):
        registry.build(name, SPECS["row"], latent_dim=0)


def test_the_configuration_builds_the_same_model(model: Model) -> None:
    import json

    config = json.loads(json.dumps(model.config))
    again = registry.build(config["name"], model.spec, **config["options"])
    assert again.config == model.config
    again.load_state_dict(model.state_dict())


def test_a_saved_model_gives_the_same_bits(model: Model, tmp_path: Path) -> None:
    stepper = Stepper(model, Training(device="cpu"))
    stepper(batch(model.spec), Clock(), 1.0)
    config = {"model": model.config, "spec": model.spec.to_dict(), "transform": {}, "classes": [], "step": 1}
    write_model_folder(tmp_path / "model", config, model.state_dict(), "card")
    loaded = load_model(tmp_path / "model")
    model.eval()
    assert outputs(model).keys() == outputs(loaded).keys()
    for key, value in outputs(model).items():
        assert torch.equal(value, outputs(loaded)[key]), key


def outputs(model: Model) -> dict[str, Tensor]:
    x = batch(model.spec, 3).x
    with torch.no_grad(), rng.forked("cpu", 9):
        values = {"sample": model.sample(3)}
        values |= {c: getattr(model, c)(x) for c in ("encode", "reconstruct") if c in model.provides}
    return values


def test_missing_values_are_left_out_or_refused(model: Model) -> None:
    data = batch(model.spec)
    mask = torch.rand(data.x.shape, generator=torch.Generator().manual_seed(1)) > 0.3
    stepper = Stepper(model, Training(device="cpu"))
    if not model.masks:
        with pytest.raises(CapabilityError, match=r"missing values.*vae"):
            stepper(Batch(data.x, mask=mask), Clock(), 1.0)
        return
    losses = []
    for junk in (0.0, 1e30):
        with rng.forked("cpu", 3):
            terms = [p.loss(Batch(torch.where(mask, data.x, junk), mask=mask), Clock()) for p in model.phases()]
        losses.append(torch.stack([t.loss for t in terms]))
    assert torch.isfinite(losses[0]).all() and torch.equal(*losses)
    stepper(Batch(data.x, mask=mask), Clock(), 1.0)
    assert all(torch.isfinite(p).all() for p in model.parameters())


def test_double_precision_stays_double(name: str) -> None:
    model = make(name, SPECS["row"]).double()
    x = batch(model.spec).x.double()
    for phase in model.phases():
        terms = phase.loss(Batch(x), Clock(epoch=torch.zeros((), dtype=torch.float64)))
        assert terms.loss.dtype == torch.float64
        assert all(part.dtype == torch.float64 for part in terms.parts.values())
    assert model.sample(2).dtype == torch.float64


def test_every_option_is_documented(name: str) -> None:
    assert registry.entry("model", name).summary
    for option in registry.schema("model", name):
        assert option.help, f"{name} has no help for '{option.name}'"
        assert option.default is not inspect.Parameter.empty, f"{name} cannot be built without '{option.name}'"


def _resume_data(kind: str) -> Dataset:
    if kind == "row":
        return rows(torch.randn(50, 6, generator=torch.Generator().manual_seed(0)), torch.randn(10, 6))
    return pictures()


@pytest.mark.parametrize("kind", ["row", "image"])
def test_resume_is_exact_at_every_step(name: str, kind: str, tmp_path: Path) -> None:
    """Stopping after any step and going on gives the same weights and the same log as never stopping."""
    data = _resume_data(kind)
    net = (
        {"name": "mlp", "widths": [16], "dropout": 0.1}
        if kind == "row"
        else {"name": "conv", "width": 4, "norm": "batch"}
    )
    options = {"epochs": 3, "batch_size": 16, "log_every": 3, "keep": 1, "accumulate": 2, "ema": 0.9, "clip": 5.0}
    options |= {"schedule": "cosine", "lr_warmup": 1}

    def start(folder: str) -> tuple[Any, Any]:
        return make_loop(fresh(name, data, latent_dim=3, net=net), data, tmp_path / folder, **options)

    loop, run = start("straight")
    loop.fit()
    expected = digest(loop.model, run)
    for k in range(1, loop.total):
        loop, run = start(f"stop{k}")
        stop_at(loop, k, lambda loop=loop: setattr(loop.signals, "stop", 15))
        with pytest.raises(SystemExit):
            loop.fit()
        torch.manual_seed(999)
        loop, run = start(f"stop{k}")
        checkpoint, problems = run.latest_checkpoint()
        assert checkpoint is not None and checkpoint.step == k and not problems
        loop.fit(checkpoint)
        assert digest(loop.model, run) == expected, f"resume at step {k} differs"

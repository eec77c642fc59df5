"""The checks: each takes a small model, or the name of one, and raises an AssertionError that says what is wrong."""

from __future__ import annotations

import contextlib
import copy
import inspect
import json
import re
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from sandglass import registry, rng
from sandglass.core import CAPABILITIES, Batch, Clock, Model, Phase
from sandglass.engine.gradient import check_terms
from sandglass.engine.options import Training
from sandglass.engine.step import Stepper
from sandglass.errors import CapabilityError, ConfigError, SandglassError
from sandglass.runs.model_folder import load_model, write_model_folder
from sandglass.runs.specification import to_plain
from sandglass.testing.data import SPECS, batch, given_of, make, observed, small, spec_for, suits

_CPU = Training(device="cpu")


def require(holds: bool | Tensor, what: str) -> None:
    """Raises an AssertionError unless the condition holds."""
    if not bool(holds):
        raise AssertionError(what)


@contextlib.contextmanager
def refused(kind: type[SandglassError], match: str, what: str) -> Iterator[None]:
    """Requires that the block raises an error of this kind whose message matches."""
    try:
        yield
    except kind as error:
        require(
            re.search(match, str(error)) is not None, f"{what} is refused, but the message does not say why: {error}"
        )
    else:
        raise AssertionError(f"{what} is not refused with a {kind.__name__}")


def phases(model: Model) -> list[Phase]:
    """Those of all stages."""
    return [phase for stage in model.stages() for phase in stage.phases]


def conditions(model: Model) -> set[str]:
    """What it needs of the data, other than complete values."""
    return set(model.needs) - {"complete"}


# of a model


def terms_are_per_example_finite_and_detached(model: Model) -> None:
    """The loss is a finite scalar with a gradient; its parts are ``(B,)``, its scalars ``()``, both without."""
    data = batch(model.spec)
    kept = data.x.clone()
    for phase in phases(model):
        terms = phase.loss(data, Clock())
        check_terms(terms, phase.name)
        require(terms.loss.requires_grad, f"the loss of '{phase.name}' has no gradient")
        require(torch.isfinite(terms.loss), f"the loss of '{phase.name}' is not finite")
        for name, part in terms.parts.items():
            require(
                part.shape == (16,), f"the part '{name}' of '{phase.name}' has the shape {tuple(part.shape)}, not (16,)"
            )
            require(torch.isfinite(part).all(), f"the part '{name}' of '{phase.name}' is not finite")
        for name, scalar in terms.scalars.items():
            require(torch.isfinite(scalar), f"the scalar '{name}' of '{phase.name}' is not finite")
    require(torch.equal(data.x, kept), "a loss changes the examples in place")


def a_phase_moves_all_of_its_own_parameters_and_no_other(model: Model) -> None:
    """Three updates of a phase change every parameter that it trains, and no other."""
    for which, number in [(s, p) for s, stage in enumerate(model.stages()) for p in range(len(stage.phases))]:
        own_model = copy.deepcopy(model)
        stepper = Stepper(own_model, own_model.stages()[which], Training(lr=0.1, device="cpu"))
        stepper.train()
        phase = stepper.phases[number]
        before = {k: v.detach().clone() for k, v in own_model.named_parameters()}
        own = {id(p) for p in phase.parameters()}
        for step in range(3):
            late = replace(Clock.final(), step=step)  # a prior is trained by the rate alone, which a warm-up leaves out
            stepper.turn(number, phase, batch(model.spec, seed=step), late, 1.0)
        for key, value in own_model.named_parameters():
            still = torch.equal(value, before[key])
            # The gradient of a critic's last bias can be exactly zero: real and generated examples cancel in it.
            cancelled = value.numel() == 1 and value.grad is not None
            moved = "does not change" if still else "changes"
            trains = "trains" if id(value) in own else "does not train"
            require(still != (id(value) in own) or cancelled, f"{key} {moved}, and '{phase.name}' {trains} it")


def every_parameter_is_trained_by_some_phase(model: Model) -> None:
    """No parameter that requires a gradient is left out."""
    trained = {id(p) for phase in phases(model) for p in phase.parameters()}
    left = [key for key, p in model.named_parameters() if p.requires_grad and id(p) not in trained]
    require(not left, f"no phase trains {', '.join(left)}")


def a_loss_says_whether_it_depends_on_the_clock(model: Model) -> None:
    """A phase that is not ``scheduled`` has the same loss at the first and the last clock."""
    for number, phase in enumerate(phases(model)):
        losses = []
        for clock in (Clock(), Clock.final()):
            own = phases(copy.deepcopy(model))[number]  # a loss may move running statistics
            with rng.forked("cpu", 1):
                losses.append(own.loss(batch(model.spec), clock).loss)
        require(phase.scheduled or torch.equal(*losses), f"'{phase.name}' follows the clock but says it does not")


def samples_have_the_shape_range_and_seed(model: Model) -> None:
    """Samples are finite, in range, without a gradient, and the same for the same seed."""
    given, shape = given_of(batch(model.spec, 5)), (5, *model.spec.shape)
    for noise in (False, True):
        with rng.forked("cpu", 5):
            a = model.eval().sample(5, given, noise=noise)
        with rng.forked("cpu", 5):
            b = model.sample(5, given, noise=noise)
        require(a.shape == shape, f"samples have the shape {tuple(a.shape)}, not {shape}")
        require(torch.equal(a, b), "the same seed gives other samples")
        require(not a.requires_grad, "samples have a gradient")
        require(torch.isfinite(a).all(), "samples are not finite")
        if model.spec.support != "real" and not noise:
            require(a.min() >= 0 and a.max() <= 1, "samples are not in [0, 1]")


def a_condition_that_it_needs_is_asked_for(model: Model) -> None:
    """Sampling without labels or companions that the model needs is refused."""
    if model.conditions:
        with refused(ConfigError, "conditioned on", "sampling without a condition"):
            model.sample(3)
        return
    # An unpaired set may be what is translated (then it is asked for), or only what is also learnt from.
    with contextlib.suppress(ConfigError) if conditions(model) else contextlib.nullcontext():
        require(model.eval().sample(3).shape == (3, *model.spec.shape), "three samples have another shape")


def capabilities_are_declared_and_work(model: Model) -> None:
    """What it provides has the right shape; what it does not is refused by name."""
    data, model = batch(model.spec, 4), model.eval()
    given, codes = given_of(data), codes_for(model, 4)
    first, second = data.map(lambda t: t[:2]), data.map(lambda t: t[2:])
    gaps = data if "complete" in model.needs else replace(data, mask=observed(data.x))
    code, x = (4, model.code_size), (4, *model.spec.shape)
    calls: dict[str, tuple[Any, Any]] = {
        "encode": (lambda: model.encode(data), code),
        "decode": (lambda: model.decode(codes, given), x),
        "reconstruct": (lambda: model.reconstruct(data), x),
        "posterior": (lambda: model.posterior(data).rsample(), code),
        "prior": (lambda: model.prior(given).sample((4,)).reshape(4, -1), code),
        "interpolate": (lambda: model.interpolate(first, second, 5), (2, 5, *model.spec.shape)),
        "bound": (lambda: model.bound(data).elbo, (4,)),
        "log_prob": (lambda: model.log_prob(data, 3), (4,)),
        "score": (lambda: model.score(data), (4,)),
        "classify": (lambda: model.classify(data), (4, model.spec.classes)),
        "embed": (lambda: model.embed(codes)[:, 0], (4,)),
        "complete": (lambda: model.complete(gaps).x, x),
        "translate": (lambda: model.translate(data), x),
    }
    require(set(calls) == set(CAPABILITIES), "the checks do not know every capability")
    for capability, (call, shape) in calls.items():
        if capability in model.provides:
            found = tuple(call().shape)
            require(found == shape, f"{capability} gives the shape {found}, not {shape}")
            continue
        with refused(CapabilityError, capability, f"'{capability}', which is not in provides,"):
            call()
        with refused(CapabilityError, "Models that do", f"'{capability}', which is not in provides,"):
            registry.require(model, capability)


def codes_for(model: Model, n: int) -> Tensor:
    """Codes that the model may decode."""
    kinds = [torch.long if latent.support == "index" else None for latent in model.latents]
    parts = [torch.zeros(n, latent.size, dtype=kind) for latent, kind in zip(model.latents, kinds, strict=True)]
    return torch.cat(parts, 1) if parts else torch.zeros(n, 0)


def a_bare_tensor_or_array_is_a_batch(model: Model) -> None:
    """``encode`` takes a batch, a tensor or an array."""
    x = batch(model.spec, 4).x
    if "encode" in model.provides and not conditions(model):
        whole = model.eval().encode(Batch(x))
        for same in (x, x.double().numpy()):
            require(torch.equal(model.encode(same), whole), f"encode of a {type(same).__name__} is not that of a batch")


def a_completion_keeps_what_was_observed(model: Model) -> None:
    """``complete`` fills gaps and changes nothing else."""
    if "complete" not in model.provides or "complete" in model.needs:
        return
    data = batch(model.spec, 4)
    mask = observed(data.x)
    for draws in (0, 3):
        x = model.eval().complete(replace(data, mask=mask), draws).x.view(-1, 4, *model.spec.shape)
        require(len(x) == max(draws, 1), f"{draws} draws give {len(x)} completions")
        require(torch.equal(x[:, mask], data.x[mask].expand(len(x), -1)), "a completion changes observed values")
        require(torch.isfinite(x).all(), "a completion is not finite")


def encode_and_reconstruct_are_deterministic_and_batch_invariant(model: Model) -> None:
    """The result for an example depends on neither noise nor the rest of the batch."""
    model.eval()
    data = batch(model.spec, 6)
    for capability in sorted({"encode", "reconstruct", "translate"} & set(model.provides)):
        call = getattr(model, capability)
        with torch.no_grad():
            whole = call(data)
            require(torch.equal(whole, call(data)), f"{capability} gives another result the second time")
            single = torch.cat([call(data.map(lambda t, i=i: t[i : i + 1])) for i in range(6)])  # type: ignore[misc]
        require(torch.allclose(whole, single, atol=1e-5), f"{capability} depends on the rest of the batch")


def its_configuration_builds_the_same_model(model: Model) -> None:
    """The configuration in JSON gives a model with the same weights by name and shape."""
    config = json.loads(json.dumps(model.config))
    again = registry.build(config["name"], model.spec, **config["options"])
    require(again.config == model.config, "a model that is built from the configuration has another configuration")
    again.load_state_dict(model.state_dict())


def a_saved_model_gives_the_same_bits(model: Model) -> None:
    """Samples, codes and reconstructions are the same after saving and loading."""
    for stage in model.stages():
        if stage.fit is not None:
            stage.fit(lambda: [batch(model.spec)], None)
        if stage.phases:
            Stepper(model, stage, _CPU)(batch(model.spec), Clock(), 1.0)
    config = {"model": model.config, "spec": to_plain(model.spec), "transform": {}, "classes": [], "step": 1}
    with tempfile.TemporaryDirectory(prefix="sandglass-") as folder:
        write_model_folder(Path(folder) / "model", config, model.state_dict(), "card")
        loaded = load_model(Path(folder) / "model")
    before, after = outputs(model.eval()), outputs(loaded)
    for key, value in before.items():
        require(torch.equal(value, after[key]), f"{key} gives other values after saving and loading")


def outputs(model: Model) -> dict[str, Tensor]:
    """What a model makes of three examples."""
    data = batch(model.spec, 3)
    with torch.no_grad(), rng.forked("cpu", 9):
        values = {"sample": model.sample(3, given_of(data))}
        values |= {c: getattr(model, c)(data) for c in ("encode", "reconstruct", "translate") if c in model.provides}
    return values


def missing_values_are_left_out_or_refused(model: Model) -> None:
    """Whatever stands in the place of a missing value, the losses are the same; or the model needs ``complete``."""
    data = batch(model.spec)
    mask = observed(data.x)
    if "complete" in model.needs:
        with refused(CapabilityError, r"missing values.*vae", "data with missing values"):
            registry.check_needs(model, model.spec, gaps=True)
        return
    losses = []
    for junk in (0.0, 1e30):
        with rng.forked("cpu", 3):
            gaps = replace(data, x=torch.where(mask, data.x, junk), mask=mask)
            losses.append(torch.stack([p.loss(gaps, Clock()).loss for p in phases(copy.deepcopy(model))]))
    require(torch.isfinite(losses[0]).all(), "a loss of examples with missing values is not finite")
    require(torch.equal(*losses), "a loss depends on what stands in the place of missing values")
    stage = next(stage for stage in model.stages() if stage.phases)
    Stepper(model, stage, _CPU)(replace(data, mask=mask), Clock(), 1.0)
    finite = all(torch.isfinite(p).all() for p in model.parameters())
    require(finite, "weights are not finite after an update with missing values")


OF_MODEL = (
    terms_are_per_example_finite_and_detached,
    a_phase_moves_all_of_its_own_parameters_and_no_other,
    every_parameter_is_trained_by_some_phase,
    a_loss_says_whether_it_depends_on_the_clock,
    samples_have_the_shape_range_and_seed,
    a_condition_that_it_needs_is_asked_for,
    capabilities_are_declared_and_work,
    a_bare_tensor_or_array_is_a_batch,
    a_completion_keeps_what_was_observed,
    encode_and_reconstruct_are_deterministic_and_batch_invariant,
    its_configuration_builds_the_same_model,
    a_saved_model_gives_the_same_bits,
    missing_values_are_left_out_or_refused,
)


# of a name


def names_of_stages_and_phases_are_their_own(name: str) -> None:
    """Each name is used once, and every stage has something to do."""
    stages = registry.declared(name).stages()
    _once([s.name for s in stages], "stage")
    _once([p.name for s in stages for p in s.phases], "phase")
    require(all(stage.phases or stage.fit for stage in stages), "a stage has neither phases nor a fit")


def _once(names: Sequence[str], what: str) -> None:
    twice = sorted({n for n in names if names.count(n) > 1})
    require(not twice, f"two {what}s have the name {', '.join(twice)}")


def an_unknown_option_is_refused_with_the_nearest(name: str) -> None:
    """A misspelt option is refused, and so is a size of 0."""
    kind = next(kind for kind in SPECS if kind != "row" and suits(name, kind))
    for option in registry.schema("model", name)[:1]:
        with refused(ConfigError, f"Did you mean '{option.name}'", "a misspelt option"):
            registry.build(name, spec_for(name, kind), **{option.name[:-1] + "_": 3})
    for few in small(name):
        with refused(ConfigError, few, f"{few}=0"):
            registry.build(name, spec_for(name, kind), **{few: 0})


def what_it_needs_is_asked_of_the_data(name: str) -> None:
    """Data without labels or companions that it needs is refused."""
    model = registry.declared(name)
    registry.check_needs(model, model.spec, gaps=False)
    for need in conditions(model):
        with refused(CapabilityError, f"'{model.config['name']}' needs", f"data without {need}"):
            registry.check_needs(model, SPECS["grey"], gaps=False)


def double_precision_stays_double(name: str) -> None:
    """In float64 nothing is rounded to float32 on the way."""
    model = make(name, spec_for(name, "row" if suits(name, "row") else "grey")).double()
    data = batch(model.spec).map(lambda t: t.double() if t.is_floating_point() else t)
    for phase in phases(model):
        terms = phase.loss(data, Clock(epoch=torch.zeros((), dtype=torch.float64)))
        for what, value in (("loss", terms.loss), *terms.parts.items()):
            require(value.dtype == torch.float64, f"'{what}' of '{phase.name}' is {value.dtype} in a float64 model")
    kind = model.sample(2, given_of(data.map(lambda t: t[:2]))).dtype
    require(kind == torch.float64, f"samples of a float64 model are {kind}")


def every_option_is_documented(name: str) -> None:
    """The docstring has a summary and a line on every option; every option has a default."""
    require(bool(registry.entry("model", name).summary), "the class has no docstring")
    for option in registry.schema("model", name):
        require(bool(option.help), f"the docstring has no help for '{option.name}'")
        require(option.default is not inspect.Parameter.empty, f"the option '{option.name}' has no default")


OF_NAME = (
    names_of_stages_and_phases_are_their_own,
    an_unknown_option_is_refused_with_the_nearest,
    what_it_needs_is_asked_of_the_data,
    double_precision_stays_double,
    every_option_is_documented,
)

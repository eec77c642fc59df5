"""Every option does something: a changed value changes what comes of it, or what is written, or is refused.

The options come from the signatures, and so do most of the other values tried; an option for which none follows from
its type, or that acts only beside others, has a line in a table here, and fails the test without one.
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import json
import tempfile
import typing
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from helpers import QUICK, digest, fresh, make_loop, pictures, rows
from made import SPECS, dataset, distinct, given_of, small, spec_for, suits, with_prior
from sandglass import registry, rng
from sandglass.core import Clock, Column, Model, Spec
from sandglass.data.dataset import Dataset, Mixture
from sandglass.data.loading import Loader, in_order
from sandglass.data.sources.raw import Part, Raw
from sandglass.data.transform import ImageTransform
from sandglass.engine.options import Training
from sandglass.engine.step import Stepper
from sandglass.engine.train import spec_of
from sandglass.errors import ConfigError, MissingPackageError, SaveError
from sandglass.metrics.evaluation import Evaluation, UnsuitableError
from sandglass.samplers.sampler import codes_of

Options = dict[str, Any]

VALUES: dict[tuple[str, str], list[Any]] = {
    ("model", "condition"): ["labels", "other"],
    ("model", "latent_dim"): [5],
    ("model", "sees"): ["other"],
    ("model", "source"): ["other"],
    ("model", "codes"): [3],
    ("model", "modalities"): [["labels"], ["other"]],
    ("model", "private"): [[1, 1], [1, 1, 1]],
    ("model", "ada"): [0.0],
    ("model", "inverse_temperature"): [0.3],
    ("model", "weight"): [2.0],
    ("model", "weight_draws"): [1],
    ("model", "weights"): [[2.0, 1.0], [2.0, 1.0, 1.0]],
    ("model", "maps"): [3],
    ("model", "temperature_schedule"): [{"name": "linear", "start": 2.0, "epochs": 4.0}],
    ("quantiser", "revive"): [0.9],
    ("sampler", "bandwidth"): [0.3],
    ("model", "pixels"): [0.5],
    ("net", "activation"): ["tanh"],
    ("net", "stages"): [1],
    ("net", "decoder_widths"): [(5,)],
    ("net", "norm"): ["batch", "none"],
    ("net", "patch"): [2],
    ("model", "patch"): [2],
    ("schedule", "ratio"): [0.25],
    ("metric", "samples"): [20, 22],
    ("metric", "folds"): [2],
    ("metric", "examples"): [5],
    ("metric", "window"): [5],
    ("likelihood", "window"): [1],
    ("metric", "features"): ["pixels", {"name": "own", "updates": 3}],
}
"""By kind and option, values to try where none follows from the type and the default."""

BESIDE: dict[tuple[str, str], Options] = {
    ("model", "capacity_schedule"): {"capacity": 2.0},
    ("model", "free_bits"): {"capacity": 0.0},
    ("model", "identity_schedule"): {"identity": 1.0},
    ("model", "partially"): {"bounds": 2},
    ("model", "random_subsets"): {"modalities": ["labels", "other"]},
    ("model", "alpha"): {"posterior": "joint"},
    ("m2", "alpha"): {},
    ("model", "code_dim"): {"quantiser": "ema"},
    ("model", "commitment"): {"quantiser": "ema"},
    ("model", "drop"): {"condition": "labels"},
    ("model", "guidance"): {"condition": "labels", "drop": 0.2},
    ("model", "kernel"): {"mmd": 1.0, "divergence": "mmd"},
    ("model", "covariance"): {"off_diagonal": 1.0},
    ("model", "sampler"): {"condition": ""},
    ("model", "posterior"): {
        "information": 1.0,
        "total_correlation": 1.0,
        "dimension_kl": 1.0,
        "off_diagonal": 0.0,
        "diagonal": 0.0,
    },
    ("model", "adversary"): {"divergence": "adversarial"},
    ("model", "critic_width"): {"divergence": "adversarial"},
    ("model", "critic_depth"): {"divergence": "adversarial"},
    ("net", "activation"): {"widths": [5]},
    ("net", "block"): {"widths": [5]},
    ("net", "dropout"): {"widths": [5]},
    ("net", "max_width"): {"width": 8, "max_width": 12},
    ("features", "dim"): {"updates": 2},
    ("features", "size"): {"updates": 2, "size": 4},
    ("features", "updates"): {"updates": 2},
}
"""By kind and option, what else must be set for it to act, where there is such an option."""

TRAINING: dict[str, Options] = {
    "epochs": {"epochs": 3},
    "minutes": {"minutes": 5},  # refused beside epochs
    "max_steps": {"max_steps": 5},
    "batch_size": {"batch_size": 7},
    "lr": {"lr": 0.02},
    "optimizer": {"optimizer": "sgd"},
    "weight_decay": {"weight_decay": 0.1},
    "momentum": {"optimizer": "sgd", "momentum": 0.5},
    "schedule": {"schedule": "cosine"},
    "lr_warmup": {"lr_warmup": 1.0},
    "schedule_every": {"schedule": "step", "schedule_every": 1},
    "schedule_factor": {"schedule": "step", "schedule_every": 1, "schedule_factor": 0.5},
    "schedule_peak": {"schedule": "triangular", "schedule_peak": 2.0},
    "log_to": {"log_to": ["tensorboard"]},
    "clip": {"clip": 1e-3},
    "accumulate": {"accumulate": 2},
    "shard_weights": {"shard_weights": True, "minutes": 5},  # refused together; test_processes.py has the rest
    "ema": {"ema": 0.5},
    "labelled_share": {"labelled_share": 0.5},
    "early_stopping": {"early_stopping": 1, "lr": 3.0, "epochs": 6},
    "seed": {"seed": 1},
    "device": {"device": "abacus"},  # refused on every machine
    "precision": {"precision": "fp64"},
    "threads": {"threads": 2},
    "log_every": {"log_every": 1},
    "watch": {"watch": "none"},
    "select": {"select": "last", "lr": 10.0, "epochs": 6},
    "save_every": {"save_every": 2, "select": "last"},
    "save_seconds": {"save_seconds": 1e6, "select": "last"},
    "save_steps": {"save_steps": 1},
    "keep": {"keep": 1, "save_steps": 1},
    "on_save_error": {"on_save_error": "continue", "select": "last"},
    "sheets": {"sheets": 0},
    "augment": {"augment": ["flip"]},
    "corrupt": {"corrupt": ["gaussian"]},
    "stage": {"stage": {"train": {"lr": 0.02}}},
    "from_stage": {"from_stage": "nothing"},  # refused; tests/system/test_sampler.py has the rest
}
"""By training option, a value to try and what must stand beside it; the rest stands in the run it is compared with."""

DATA = {
    "row": rows(torch.randn(24, 6, generator=torch.Generator().manual_seed(0))),
    "image": pictures(24),
    "colour": pictures(24, (3, 17, 12)),
}


def candidates(kind: str, option: registry.Option) -> Iterator[Any]:
    """Other values than the default, the likeliest first."""
    if (kind, option.name) in VALUES:
        yield from VALUES[kind, option.name]
        return
    default, hint = option.default, option.type
    if option.kind is not None:
        yield from (name for name in registry.names(option.kind) if name != default)
    elif isinstance(default, bool):
        yield not default
    elif typing.get_origin(hint) is typing.Literal:
        yield from (value for value in typing.get_args(hint) if value != default)
    elif isinstance(default, int):
        yield from (default + 1, 2 * default, 3)
    elif isinstance(default, float):
        yield from (default / 2 + 0.1, default + 1.0, 2 * default)
    elif isinstance(default, list | tuple):
        yield from ([*default, 5], [7])
    else:
        pytest.fail(f"add a value of '{option.name}' to try to VALUES")


def every(kind: str) -> list[tuple[str, registry.Option]]:
    """Every option of every name; a choice among one thing is none yet."""
    known = distinct() if kind == "model" else registry.names(kind)  # a variant has the options of another
    every_one = [(name, option) for name in known for option in registry.schema(kind, name)]
    once = {(registry.entry(kind, name).make, option.name): (name, option) for name, option in reversed(every_one)}
    found = [pair for pair in every_one if kind != "model" or pair in once.values()]
    return [(name, o) for name, o in found if o.kind is None or len(registry.names(o.kind)) > 1]


def named(found: list[tuple[str, registry.Option]]) -> dict[str, Any]:
    return {"argvalues": found, "ids": [f"{name}-{option.name}" for name, option in found]}


def seen(make: Callable[[], Any]) -> Any:
    """What comes of it; None where it is refused, for data or other options may not suit."""
    try:
        return make()
    except (ConfigError, UnsuitableError):
        return None


def acts(kind: str, name: str, option: registry.Option, observe: Callable[[Options], Any]) -> bool:
    """Whether one of the values that are not refused changes what is observed."""
    known = {o.name for o in registry.schema(kind, name)}
    needed = BESIDE.get((name, option.name), BESIDE.get((kind, option.name), {}))
    beside = {key: value for key, value in needed.items() if key in known}
    tried = [beside.pop(option.name)] if option.name in beside else candidates(kind, option)
    before = seen(lambda: observe(beside))
    after = (seen(lambda value=value: observe({**beside, option.name: value})) for value in tried)
    return before is not None and any(found not in (None, before) for found in after)


def hashed(*tensors: Tensor) -> str:
    """A hash of numbers and shapes."""
    h = hashlib.sha256()
    for t in tensors:
        h.update(str(tuple(t.shape)).encode() + t.detach().contiguous().numpy().tobytes())
    return h.hexdigest()


def trained(model: Model, data: Dataset) -> str:
    """The losses of three updates of every stage at different times, then weights, samples, completions, densities."""
    losses = []
    for stage in model.stages():
        if stage.fit is not None:
            stage.fit(lambda: [data.train.batch(slice(0, 24))], None)
        stepper = Stepper(model, stage, Training(device="cpu", lr=0.01))
        stepper.train()
        loader = Loader(data.train, 8, seed=0)
        for step in range(3 * bool(stage.phases)):
            stepper(loader.batch(step), Clock(step, 3, torch.tensor(step / 2), torch.tensor(200.0 * step)), 1.0)
            losses += [torch.tensor(list(reading.means.values())) for reading in stepper.meter.read().values()]
    some = in_order(data.train, 3)[0]()
    given = given_of(some)
    with rng.forked("cpu", 5), torch.no_grad():
        samples = model.eval().sample(3, given), model.sample(3, given, noise=True)
        filled = [model.complete(some).x] if some.mask is not None and "complete" in model.provides else []
        densities = [model.log_prob(some, 3)] if "log_prob" in model.provides else []
    return hashed(*losses, *model.state_dict().values(), *samples, *filled, *densities)


@pytest.mark.parametrize(("name", "option"), **named(every("model")))
def test_every_option_of_a_model_acts(name: str, option: registry.Option) -> None:
    known = {o.name for o in registry.schema("model", name)}
    gaps = "complete" not in registry.declared(name).needs

    def observe(options: Options, kind: str) -> str:
        net = {"net": {"name": "mlp", "widths": [8]}} if "net" in known else {}
        spec = spec_for(name, kind)
        spec = replace(spec, classes=3, given={**spec.given, "other": replace(SPECS[kind], classes=0)})
        data = dataset(spec, gaps=gaps)
        return trained(fresh(name, data, **{**small(name), **net, **options}), data)

    kinds = [kind for kind in ("grey", "row") if suits(name, kind)]
    assert any(acts("model", name, option, lambda o, kind=kind: observe(o, kind)) for kind in kinds)


SMALL: Options = {"latent_dim": 2, "net": {"name": "mlp", "widths": [8]}}

SMALL_NETS: dict[str, Options] = {
    "conv": {"width": 4, "hidden": 8},
    "resnet": {"width": 4},
    "vit": {"width": 8, "heads": 2, "depth": 1},
}


@pytest.mark.parametrize(("name", "option"), **named(every("net")))
def test_every_option_of_a_net_acts(name: str, option: registry.Option) -> None:
    def observe(options: Options, data: Dataset) -> str:
        choice = {"name": name, **SMALL_NETS.get(name, {}), **options}
        return trained(fresh("ae", data, latent_dim=2, net=choice), data)

    assert any(acts("net", name, option, lambda o, d=data: observe(o, d)) for data in (DATA["colour"], DATA["row"]))


@pytest.mark.parametrize(("name", "option"), **named(every("likelihood")))
def test_every_option_of_a_likelihood_acts(name: str, option: registry.Option) -> None:
    def observe(options: Options, spec: Spec) -> str:
        likelihood = registry.resolve("likelihood", {"name": name, **options}, spec)
        with rng.forked("cpu", 1):
            x = torch.rand(4, *spec.shape).round()
            p = likelihood(torch.randn(4, likelihood.channels(spec), *spec.shape[1:]))
            return hashed(p.log_prob(x), p.mean, p.sample(), *likelihood.state_dict().values())

    specs = [Spec(shape, support, levels=9) for shape in ((1, 4, 4), (6,)) for support in ("unit", "real")]  # type: ignore[arg-type]
    columns = (Column("a", "categorical", 4, ("p", "q", "r", "s")), Column("b"), Column("c", "count"))
    specs.append(Spec((6,), columns=columns))
    assert any(acts("likelihood", name, option, lambda o, s=spec: observe(o, s)) for spec in specs)


@pytest.mark.parametrize(("name", "option"), **named(every("prior")))
def test_every_option_of_a_prior_acts(name: str, option: registry.Option) -> None:
    def observe(options: Options) -> str:
        with rng.forked("cpu", 1):
            p = with_prior({"name": name, **options}, 4).prior()
            z = p.sample((5,))
            return hashed(z, p.log_prob(z))

    assert acts("prior", name, option, observe)


@pytest.mark.parametrize(("name", "option"), **named(every("posterior")))
def test_every_option_of_a_posterior_acts(name: str, option: registry.Option) -> None:
    def observe(options: Options) -> str:
        with rng.forked("cpu", 1):
            family = registry.resolve("posterior", {"name": name, **options}, 4)
            q = family(torch.randn(5, family.width))
            z = q.sample()
            return hashed(z, q.log_prob(z), q.mean)

    assert acts("posterior", name, option, observe)


@pytest.mark.parametrize(("name", "option"), **named(every("sampler")))
def test_every_option_of_a_sampler_acts(name: str, option: registry.Option) -> None:
    def observe(options: Options) -> str:
        with rng.forked("cpu", 1):
            sampler = registry.resolve("sampler", {"name": name, **options}, 2)
            sampler.fit(codes_of([torch.randn(300, 2)]))
            return hashed(sampler.sample(5), *sampler.state_dict().values())

    assert acts("sampler", name, option, observe)


@pytest.mark.parametrize(("name", "option"), **named(every("quantiser")))
def test_every_option_of_a_quantiser_acts(name: str, option: registry.Option) -> None:
    def observe(options: Options) -> str:
        with rng.forked("cpu", 1):
            made = registry.resolve("quantiser", {"name": name, **options}, 8, 3).train()
            h = torch.randn(6, 5, made.dim)
            for _ in range(3 * hasattr(made, "follow")):
                made.follow({key: value[None] for key, value in made(h).statistics.items()})
            found = made(h)
            terms = [t for t in (found.commitment, found.penalty) if t is not None]
            return hashed(found.values, found.codes, *terms, *made.state_dict().values())

    assert acts("quantiser", name, option, observe)


@pytest.mark.parametrize(("name", "option"), **named(every("schedule")))
def test_every_option_of_a_schedule_acts(name: str, option: registry.Option) -> None:
    def observe(options: Options) -> list[float]:
        schedule = registry.resolve("schedule", {"name": name, **options})
        return [schedule(k / 3) for k in range(100)]

    assert acts("schedule", name, option, observe)


MADE = [(name, o) for name, o in every("dataset") if not name.startswith("stl10")]
"""Of STL-10, which is gigabytes, tests/system/test_data_download.py shows the option on an archive in its form."""


@pytest.mark.parametrize(("name", "option"), **named(MADE))
def test_every_option_of_a_data_set_acts(name: str, option: registry.Option, monkeypatch: pytest.MonkeyPatch) -> None:
    digits = Part(torch.randint(256, (90, 1, 28, 28), dtype=torch.uint8), torch.arange(90) % 10)
    few = Raw({"train": digits, "test": digits}, ImageTransform((28, 28), 1))
    monkeypatch.setattr("sandglass.data.sets.idx.Mnist.read", lambda self: few)

    def observe(options: Options) -> str:
        return hashed(registry.resolve("dataset", {"name": name, **options}).read().parts["train"].x)

    assert acts("dataset", name, option, observe)


def evaluation(data: Dataset) -> Evaluation:
    """Examples of four classes, with all else that a measure may ask for, and others to train on."""
    n = len(data.train)
    split = dataclasses.replace(data.train, y=torch.arange(n) % 4, factors=torch.arange(2 * n).view(-1, 2) % 3)
    mixture = None if data.spec.is_image else Mixture(torch.eye(*data.spec.shape), 1.0)
    train = dataclasses.replace(split, x=split.x.flip(1))
    return Evaluation(split=split, spec=data.spec, train=train, factors=("a", "b"), mixture=mixture)


@pytest.mark.parametrize(("name", "option"), **named(every("metric")))
def test_every_option_of_a_metric_acts(name: str, option: registry.Option) -> None:
    make = registry.entry("metric", name).make
    calls: list[int] = []

    def observe(options: Options, data: Dataset) -> Any:
        model = fresh("vae", data, **SMALL).eval()
        if not getattr(make, "repeats", True):  # then what it does is seen, and not what it finds
            sample = model.sample
            model.sample = lambda n, *o: calls.append(n) or sample(n, *o)  # type: ignore[assignment, func-returns-value, method-assign]
            calls.clear()
        given = registry.resolve("metric", {"name": name, **QUICK.get(name, {}).get(name, {}), **options})
        with torch.no_grad():
            found = given(model, evaluation(data))
        return list(calls) or [(r.name, r.value, r.stderr, r.n) for r in found]

    suited = [data for data in DATA.values() if all(map(evaluation(data).has, getattr(make, "requires", ())))]
    try:
        assert any(acts("metric", name, option, lambda o, d=data: observe(o, d)) for data in suited)
    except MissingPackageError as error:
        pytest.skip(f"its own test puts something in the place of the package: {error}")


@pytest.mark.parametrize(("name", "option"), **named(every("features")))
def test_every_option_of_features_acts(name: str, option: registry.Option) -> None:
    def observe(options: Options) -> str:
        extract = registry.resolve("features", {"name": name, **options})(
            evaluation(DATA["image"]), torch.device("cpu")
        )
        return hashed(extract(DATA["image"].train.batch(torch.arange(24)).x))

    assert acts("features", name, option, observe)


# training


@functools.cache
def run_of(options: str, full: bool) -> tuple[object, ...]:
    """What a short run leaves: weights, log, kept model, checkpoints written and kept, threads, files, or a refusal.

    Args:
        options: of the training, as JSON.
        full: whether the second checkpoint finds no room on the disk.
    """
    data = pictures(24)
    assert data.train.y is not None
    few = replace(data.train, y=torch.where(torch.arange(24) < 4, data.train.y, -1))  # for a share of labelled ones
    data = replace(data, splits={**data.splits, "train": few})
    with tempfile.TemporaryDirectory() as folder:
        given = {"epochs": 4, "batch_size": 8, **json.loads(options)}
        try:
            spec = spec_of(data, Training.of(given))
            loop, run = make_loop(fresh("vae", replace(data, spec=spec), **SMALL), data, Path(folder) / "run", **given)
        except ConfigError as error:
            return (str(error),)
        written: list[int] = []
        save = run.save_checkpoint

        def saving(step: int, *parts: Any) -> None:
            written.append(step)
            if full and len(written) == 2:
                raise SaveError("The disk is full.")
            save(step, *parts)

        run.save_checkpoint = saving  # type: ignore[method-assign, assignment]
        ended = ""
        try:
            loop.fit()
        except SaveError as error:
            ended = str(error)
        kept = run.load_model().state_dict().values() if (run.path / "model").exists() else ()
        copies = sorted(path.name for path in run.path.iterdir())
        return digest(loop.model, run), hashed(*kept), ended, written, run.steps(), loop.options.threads, copies


@pytest.mark.parametrize("name", [f.name for f in dataclasses.fields(Training)])
def test_every_training_option_acts(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    assert name in TRAINING, f"add a value of '{name}' to try to TRAINING"
    monkeypatch.setattr("os.fsync", lambda descriptor: None)
    without = {key: value for key, value in TRAINING[name].items() if key != name}
    found = [run_of(json.dumps(options), name == "on_save_error") for options in (TRAINING[name], without)]
    assert found[0] != found[1]


def test_the_tables_name_only_options_there_are() -> None:
    assert set(TRAINING) == {f.name for f in dataclasses.fields(Training)}
    for kind, option in (*VALUES, *BESIDE):
        options = registry.schema("model", kind) if kind in registry.names("model") else [o for _, o in every(kind)]
        assert option in {o.name for o in options}, f"{kind} {option}"


def test_an_option_that_does_nothing_is_found() -> None:
    idle = registry.Option("idle", float, 1.0, "Nothing.")
    assert not acts("schedule", "linear", idle, lambda options: "the same")
    assert not acts("schedule", "linear", idle, lambda options: None)
    with pytest.raises(pytest.fail.Exception, match="VALUES"):
        acts("schedule", "linear", registry.Option("idle", Mapping, None, ""), lambda options: "the same")


def test_what_is_observed_repeats() -> None:
    """Otherwise every option would seem to act."""
    data = DATA["image"]
    one, again = (trained(fresh("cyclical-vae", data, **SMALL, **o), data) for o in ({}, {"beta": 1.0}))
    assert one == again
    assert run_of("{}", False) == run_of(json.dumps({"lr_warmup": 0.0}), False)

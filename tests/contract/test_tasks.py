"""What every registered task owes: help, examples that parse, and an outcome of every model that can be asked."""

from __future__ import annotations

import shlex
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import made
from sandglass import registry
from sandglass.app.commands import commands
from sandglass.app.main import main
from sandglass.app.tasks import form_of, parser_of, task_of
from sandglass.core import Batch, Model, Phase, Spec
from sandglass.data.dataset import Dataset, Split
from sandglass.data.transform import ArrayTransform
from sandglass.errors import CapabilityError, ConfigError, SandglassError
from sandglass.tasks import outcome as outcomes
from sandglass.tasks.condition import Condition
from sandglass.tasks.task import Outcome, Task, perform
from sandglass.tasks.trained import Trained

TASKS = registry.names("task")
FEW: dict[str, dict[str, Any]] = {
    "generate": {"number": 6},
    "interpolate": {"number": 2, "steps": 3},
    "manifold": {"side": 3},
    "reconstruct": {"number": 4},
    "complete": {"number": 4},
    "translate": {"number": 4},
}


@cache
def trained(name: str, kind: str, gaps: bool = False) -> Trained:
    """A model of few weights and its data, as a finished run would have them."""
    spec = made.spec_for(name, kind)
    options: dict[str, Any] = {}
    if any(option.kind == "net" for option in registry.schema("model", name)):
        net = "conv" if spec.is_image else "mlp"
        options["net"] = {"name": net, **made.NETS[net]}
    model = registry.build(name, spec, **made.small(name), **options).eval()
    data = made.dataset(spec, gaps=gaps)
    return Trained(model, {"transform": data.transform, "classes": data.classes}, None, name, data)


def codes_file(found: Trained, folder: Path) -> Path:
    """Codes of the model's own, and the classes they are of, as ``encode`` writes them."""
    codes = torch.cat([torch.zeros(5, latent.size) for latent in found.model.latents], 1).numpy()
    labels = {"labels": np.arange(5) % found.model.spec.classes} if found.model.spec.classes else {}
    np.savez(folder / "codes.npz", codes=codes, **labels)
    return folder / "codes.npz"


@pytest.mark.parametrize("name", TASKS)
def test_a_task_has_a_help_page(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        main([name, "--help"])
    out = capsys.readouterr().out
    assert stop.value.code == 0 and "examples:\n  sandglass" in out
    for option in registry.schema("task", name):
        assert option.help, f"{name}: {option.name} is not explained"
        assert (option.name.upper() if option.required else form_of(option)) in out


@pytest.mark.parametrize("name", TASKS)
def test_the_examples_of_a_task_parse(name: str) -> None:
    make: Any = registry.entry("task", name).make
    options = registry.schema("task", name)
    assert make.examples and make.file and make.makes in ("examples", "arrays", "either")
    for line in make.examples:
        command, *words = shlex.split(line)
        assert command == name
        assert isinstance(task_of(name, options, parser_of(name, make, options).parse(words)), Task)


def test_every_task_is_a_command_that_is_known_without_it() -> None:
    listed = {command.name: command for command in commands()}
    for name in TASKS:
        summary = registry.entry("task", name).summary
        assert listed[name].summary == summary[:1].lower() + summary[1:]


@pytest.mark.parametrize("kind", ["row", "grey"])
@pytest.mark.parametrize("model", made.MODELS)
@pytest.mark.parametrize("name", TASKS)
def test_a_task_uses_every_model_that_can(name: str, model: str, kind: str, tmp_path: Path) -> None:
    if not made.suits(model, kind):
        pytest.skip("not for such data")
    gaps = name == "complete"
    found = trained(model, kind, gaps)
    options = dict(FEW.get(name, {}))
    if name == "translate" and found.model.modelled:  # the target must be named
        with pytest.raises(ConfigError, match=r"Choose what to translate to.*sandglass classify"):
            registry.resolve("task", {"name": name})(found)
        with pytest.raises(ConfigError, match="sandglass classify"):
            registry.resolve("task", {"name": name, "to": "labels"})(found)
        options["to"] = "x"  # from the labels
    if name == "decode" and found.model.latents:
        options["codes"] = codes_file(found, tmp_path)
    make: Any = registry.entry("task", name).make
    if (name == "decode" and not found.model.latents) or not all(registry.can(found.model, c) for c in make.needs):
        with pytest.raises(CapabilityError):
            for capability in make.needs:
                registry.require(found.model, capability)
        return
    torch.manual_seed(0)
    before = torch.get_rng_state()
    try:
        outcome: Outcome = perform(registry.resolve("task", {"name": name, **options}), found)
    except ConfigError as error:
        assert name in ("generate", "decode", "manifold"), error
        assert any(":" in need for need in found.model.needs), f"a condition is missing: {error}"
        return
    assert torch.equal(before, torch.get_rng_state()), "the global generator moved"
    assert outcome.said and "\n" not in outcome.said
    if outcome.x is not None:
        assert outcome.x.device.type == "cpu" and not outcome.x.requires_grad and torch.isfinite(outcome.x).all()
        assert all(part.shape == outcome.x.shape for part in outcome.parts.values())
        assert all(len(values) == len(outcome.x) for values in outcome.columns.values())
    else:
        assert outcome.arrays and len({len(a) for a in outcome.arrays.values()}) == 1
    assert outcome.transform is not None
    makes = "examples" if outcome.x is not None else "arrays"
    path = outcomes.destination(str(tmp_path / "made.npz"), make.file, makes, outcome.transform)
    assert outcomes.write(outcome, path).stat().st_size > 0


# labels


def labelled(model: str = "cvae") -> Trained:
    return trained(model, "grey")


def test_classes_are_drawn_in_the_proportions_of_the_training_data() -> None:
    found = labelled()
    data = found.own
    skewed = Split(data.train.x, torch.zeros(50, dtype=torch.int64).index_fill(0, torch.arange(5), 2))
    found = Trained(found.model, found.reading, None, "skewed", made_of(data, skewed))
    outcome = registry.resolve("task", {"name": "generate", "number": 400})(found)
    counts = {name: list(outcome.columns["class"]).count(name) for name in "abc"}
    assert counts["b"] == 0 and 20 < counts["c"] < 60
    assert "proportions of the training data" in outcome.notes[0]


def made_of(data: Dataset, train: Split) -> Dataset:
    return Dataset(data.name, data.spec, data.transform, {"train": train}, classes=data.classes)


def test_a_model_without_its_data_draws_all_classes_and_says_so() -> None:
    found = labelled()
    alone = Trained(found.model, found.reading, None, "alone")
    outcome = registry.resolve("task", {"name": "generate", "number": 60})(alone)
    assert set(outcome.columns["class"]) == set("abc") and "not available" in outcome.notes[0]


def test_labels_by_name_number_and_each() -> None:
    found = labelled()
    for label in ("b", "1"):
        (given,) = Condition(label=label)(found, 4)
        assert given.batch is not None and given.batch.y is not None
        assert given.batch.y.tolist() == [1] * 4 and given.name == "b"
    outcome = registry.resolve("task", {"name": "generate", "label": "each", "number": 4})(found)
    assert outcome.x.shape[0] == 12 and outcome.width == 4 and list(outcome.rows) == ["a", "b", "c"]
    assert list(outcome.columns["class"]) == ["a"] * 4 + ["b"] * 4 + ["c"] * 4
    alone = registry.resolve("task", {"name": "generate", "label": "b", "number": 4})(found)
    assert torch.equal(alone.x, outcome.x[4:8]), "the rows of a sheet are what each label draws by itself"


@pytest.mark.parametrize(
    ("model", "options", "says"),
    [
        ("vae", {"label": "1"}, "is not conditional on labels"),
        ("cvae", {"label": "9"}, "Known: a, b, c"),
        ("cvae", {"label": "each", "number": 0}, "at least 1"),
        ("vae", {"given": "source=x.png"}, "has no companion 'source'"),
        ("vae", {"given": "x.png"}, "NAME=FILE"),
    ],
)
def test_a_condition_that_makes_no_sense_is_one_line(model: str, options: dict[str, Any], says: str) -> None:
    with pytest.raises(SandglassError, match=says) as caught:
        registry.resolve("task", {"name": "generate", **options})(trained(model, "grey"))
    assert "\n" not in str(caught.value)


# translation, and the files it becomes


class Negative(Model):
    """Turns the companion ``source`` into its negative."""

    provides = ("translate",)
    needs = ("source:image",)

    def __init__(self, spec: Spec) -> None:
        super().__init__()
        self.spec, self.one, self.config = spec, nn.Parameter(torch.ones(())), {"name": "negative", "options": {}}

    def phases(self) -> tuple[Phase, ...]:
        return ()

    def sample(self, n: int, given: Batch | None = None, *, noise: bool = False) -> Tensor:
        if given is None or "source" not in given.given:
            raise ConfigError("This model is conditioned on source: give --given source=FILE.")
        return 1 - given.given["source"]

    def translate(self, batch: Batch, to: str | None = None) -> Tensor:
        return 1 - batch.given["source"] * self.one


def negative() -> Trained:
    spec = Spec((1, 4, 4), "unit", given={"source": Spec((1, 4, 4), "unit")})
    return Trained(Negative(spec), {"transform": ArrayTransform((1, 4, 4)), "classes": None}, None, "negative")


def test_companions_are_translated_under_their_own_names(tmp_path: Path) -> None:
    source = torch.rand(3, 1, 4, 4)
    task = registry.resolve("task", {"name": "translate"})
    task.source.data = Split(source, names=("a/one.png", "a/two.jpg", "b/one.png"))
    outcome = perform(task, negative())
    assert torch.allclose(outcome.x, 1 - source) and torch.equal(outcome.before["source"], source)
    assert outcomes.file_names(outcome.names) == ["one", "two", "one-2"]
    assert outcomes.write(outcome, tmp_path / "out").is_dir()
    assert sorted(f.name for f in (tmp_path / "out").iterdir()) == ["one-2.png", "one.png", "two.png"]


def test_samples_are_drawn_given_companions() -> None:
    source = torch.rand(3, 1, 4, 4)
    outcome = registry.resolve("task", {"name": "generate", "given": {"source": source}})(negative())
    assert torch.equal(outcome.x, 1 - source), "one for each companion"
    outcome = registry.resolve("task", {"name": "generate", "given": {"source": source}, "number": 5})(negative())
    assert torch.equal(outcome.x[3], 1 - source[0]), "and round again"
    with pytest.raises(ConfigError, match="--given source=FILE"):
        registry.resolve("task", {"name": "generate"})(negative())


# completion


def test_a_completion_keeps_what_was_there() -> None:
    found = trained("vae", "row", True)
    outcome = registry.resolve("task", {"name": "complete", "split": "train"})(found)
    split = found.own.train
    assert outcome.x.shape == split.x.shape and split.mask is not None
    assert torch.equal(outcome.x[split.mask], split.x[split.mask])
    drawn = registry.resolve("task", {"name": "complete", "split": "train", "number": 4, "draws": 3})(found)
    assert drawn.x.shape[0] == 12 and drawn.columns["draw"] == [0, 1, 2] * 4
    assert len({tuple(row.tolist()) for row in drawn.x[:3]}) == 3, "draws differ"


def test_a_part_of_a_picture_is_hidden_and_filled_in() -> None:
    found = trained("vae", "grey")
    outcome = registry.resolve("task", {"name": "complete", "hide": "left", "number": 4})(found)
    seen = outcome.before["seen"]
    assert (seen[..., :3] == 0).all() and torch.equal(outcome.x[..., 3:], seen[..., 3:])
    assert (outcome.x[..., :3] > 0).all()
    with pytest.raises(SandglassError, match="Nothing is missing"):
        registry.resolve("task", {"name": "complete"})(found)


def test_a_grey_source_is_shown_above_its_colour_translation() -> None:
    spec = Spec((3, 8, 8), "unit", given={"source": Spec((1, 8, 8), "unit")})
    model = registry.build("pix2pix", spec, net={"name": "conv", **made.NETS["conv"]}).eval()
    data = made.dataset(spec)
    found = Trained(model, {"transform": data.transform, "classes": data.classes}, None, "pix2pix", data)
    outcome = registry.resolve("task", {"name": "translate", "number": 2})(found)
    assert outcome.before["source"].shape == outcome.x.shape == (2, 3, 8, 8)

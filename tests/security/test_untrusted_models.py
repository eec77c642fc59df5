"""A model folder, a run or a configuration from anybody: it says what to build, and nothing else."""

from __future__ import annotations

import json
import shutil
import socket
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from safetensors.torch import load_file, save

import sandglass
from offer import GOLDEN, command, outcome, sealed
from sandglass import api, registry
from sandglass.app.main import main
from sandglass.core import Spec
from sandglass.errors import CheckpointError, ConfigError, SandglassError
from sandglass.runs.plain import read_yaml, to_yaml
from sandglass.runs.run import Run
from sandglass.runs.verify import verify

EVIL = (
    "os.system", "builtins.eval", "sandglass.models.vae.VAE", "torch.hub.load", "__import__('os').system('true')",
    "../../../../etc/passwd", "/etc/passwd", "file:///etc/passwd", "http://127.0.0.1:9/x", "owner/repository",
    "{{ 7 * 7 }}", "!!python/object/apply:os.system", "", "\x00", "\udcff".encode("utf-8", "replace").decode(),
)  # fmt: skip
GUARDS = (
    "allow_nonfinite",
    "allow_pickle",
    "weights_only",
    "trust_remote_code",
    "safe",
    "safe_mode",
    "_target_",
    "verify",
)


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return Path(shutil.copytree(GOLDEN / "vae" / "model", tmp_path / "model"))


@pytest.fixture
def run(tmp_path: Path) -> Run:
    shutil.copytree(GOLDEN / "vae", tmp_path / "run")
    (tmp_path / "run" / "golden.safetensors").unlink()
    return Run(tmp_path / "run")


def places(values: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """The way to every text and every key in nested values."""
    items = values.items() if isinstance(values, Mapping) else enumerate(values) if isinstance(values, list) else ()
    for key, value in items:
        yield (*path, key)
        yield from places(value, (*path, key))


def put(values: Any, path: tuple[Any, ...], new: Any) -> Any:
    """A copy with one value replaced."""
    copy = json.loads(json.dumps(values))
    place = copy
    for key in path[:-1]:
        place = place[key]
    place[path[-1]] = new
    return copy


class Watch:
    """Counts new modules and sockets."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.sockets: list[object] = []
        monkeypatch.setattr(socket.socket, "connect", lambda *words: self.sockets.append(words))
        monkeypatch.setattr(socket, "getaddrinfo", lambda *words, **more: self.sockets.append(words) or [])
        self.before = set(sys.modules)

    def found(self) -> tuple[list[str], list[object]]:
        return sorted(set(sys.modules) - self.before), self.sockets


def test_no_text_of_a_model_configuration_is_imported_or_downloaded(
    model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = json.loads((model / "config.json").read_text())
    monkeypatch.setattr("os.fsync", lambda descriptor: None)
    sandglass.load(model), api.transform_of(model), outcome(lambda: sandglass.load(model / "no"))
    for kind in ("model", "net", "likelihood", "prior", "schedule"):
        registry.names(kind)
    watch = Watch(monkeypatch)
    for number, path in enumerate(places(config)):
        for turn in range(2):
            evil = EVIL[(number + turn * 7) % len(EVIL)]
            sealed(model, "config.json", json.dumps(put(config, path, evil)).encode())
            for read in (sandglass.load, api.transform_of):
                assert outcome(lambda read=read: read(model)) in ("read", "refused"), (path, evil)  # type: ignore[misc]
    assert watch.found() == ([], [])


@pytest.mark.parametrize("share", [4, pytest.param(1, marks=pytest.mark.slow)])
def test_no_text_of_a_run_configuration_is_ever_imported_or_asked_for(
    share: int, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = run.config
    monkeypatch.setattr("os.fsync", lambda descriptor: None)
    file = run.path / "config.yaml"

    def read() -> None:
        found = Run(run.path)
        found.load_model("last")
        api.transform_of(found)
        list(verify(found))
        api.run_data(found)

    read()
    command("train", "--config", str(file), "--print_config")
    watch = Watch(monkeypatch)
    for number, path in enumerate(list(places(config))[::share]):
        evil = EVIL[number % len(EVIL)]
        file.write_bytes(yaml.safe_dump(put(config, path, evil)).encode())
        assert outcome(read) in ("read", "refused"), (path, evil)
        if number % 3 == 0:
            assert outcome(lambda: command("train", "--config", str(file), "--print_config")) in ("read", "refused")
    assert watch.found() == ([], [])


def test_the_watch_sees(monkeypatch: pytest.MonkeyPatch) -> None:
    """The control: a reader that imports what a file names is caught at it."""
    import importlib

    sys.modules.pop("this", None)
    watch = Watch(monkeypatch)
    importlib.import_module("xml.dom.expatbuilder")
    with socket.socket() as one:
        one.connect(("127.0.0.1", 9))
    modules, sockets = watch.found()
    assert "xml.dom.expatbuilder" in modules and sockets


@pytest.mark.parametrize("guard", GUARDS)
def test_a_file_cannot_switch_a_guard_off(guard: str, model: Path) -> None:
    """Weights that are not finite stay refused whatever the configuration says about it."""
    tensors = load_file(model / "model.safetensors")
    next(t for t in tensors.values() if t.is_floating_point()).view(-1)[0] = float("nan")
    sealed(model, "model.safetensors", save(tensors))
    config = json.loads((model / "config.json").read_text())
    net = config["model"]["options"]["net"]
    for changed in (
        {**config, guard: True},
        put(config, ("model", guard), True),
        put(config, ("model", "options", guard), True),
        put(config, ("model", "options", "net"), {**net, guard: True}),
        put(config, ("spec", guard), True),
        put(config, ("transform", guard), True),
    ):
        sealed(model, "config.json", json.dumps(changed).encode())
        assert outcome(lambda: sandglass.load(model)) == "refused"


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
def test_nonfinite_weights_are_named_and_need_allow_nonfinite(
    bad: float, model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tensors = load_file(model / "model.safetensors")
    name = sorted(n for n, t in tensors.items() if t.is_floating_point())[0]
    tensors[name].view(-1)[-1] = bad
    sealed(model, "model.safetensors", save(tensors))
    with pytest.raises(CheckpointError, match=f"'{name}' has values that are not finite"):
        sandglass.load(model)
    with pytest.warns(UserWarning, match=f"'{name}'"):
        assert not torch.isfinite(sandglass.load(model, allow_nonfinite=True).state_dict()[name]).all()
    words = ["generate", str(model), "-n", "2", "-o", str(tmp_path / "x.npy"), "--device", "cpu"]
    assert main(words) == CheckpointError.exit_code
    assert name in capsys.readouterr().err and not (tmp_path / "x.npy").exists()
    assert main([*words, "--allow-nonfinite"]) == 0
    assert name in capsys.readouterr().err and (tmp_path / "x.npy").exists()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.int32, torch.float64, torch.uint8, torch.bool])
def test_weights_of_another_type_are_named(dtype: torch.dtype, model: Path) -> None:
    tensors = load_file(model / "model.safetensors")
    name = sorted(n for n, t in tensors.items() if t.is_floating_point())[0]
    tensors[name] = tensors[name].to(dtype)
    sealed(model, "model.safetensors", save(tensors))
    with pytest.raises(CheckpointError, match=f"'{name}' has the type"):
        sandglass.load(model)


def test_the_smallest_numbers_are_numbers(model: Path) -> None:
    tensors = load_file(model / "model.safetensors")
    name = sorted(n for n, t in tensors.items() if t.is_floating_point())[0]
    tensors[name].fill_(1e-45)
    sealed(model, "model.safetensors", save(tensors))
    assert (sandglass.load(model).state_dict()[name] > 0).all()


# what is swapped is found


def test_every_swapped_file_of_a_run_is_found(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each file in turn comes from another run of the same kind, sound in itself."""
    other = sandglass.train("vae", "digits", out=tmp_path / "other", epochs=1, seed=1, lr=0.01, threads=1, keep=1,
                            batch_size=run.config["training"]["batch_size"],
                            model_options=run.config["model"]["options"])  # fmt: skip
    assert [p for _, p in verify(run) if p] == [] == [p for _, p in verify(other) if p]
    sealed_by_themselves = {"events.jsonl", "results.json"}  # no run is proven by them
    swapped = 0
    for file in sorted(f for f in run.path.rglob("*") if f.is_file()):
        twin = other.path / file.relative_to(run.path)
        if file.name in sealed_by_themselves or twin.read_bytes() == file.read_bytes():
            continue
        before = file.read_bytes()
        shutil.copy(twin, file)
        problems = [p for _, p in verify(Run(run.path)) if p]
        assert problems and any(file.name in p or file.parent.name in p for p in problems), file
        file.write_bytes(before)
        swapped += 1
    assert swapped >= 8
    for folder in ("model", "checkpoints/step-00000011"):  # a folder as a whole, with its manifest
        shutil.move(run.path / folder, tmp_path / "kept")
        shutil.copytree(other.path / folder, run.path / folder)
        assert [p for _, p in verify(Run(run.path)) if p], folder
        shutil.rmtree(run.path / folder)
        shutil.move(tmp_path / "kept", run.path / folder)
    assert [p for _, p in verify(Run(run.path)) if p] == []


def test_a_manifest_cannot_point_elsewhere(model: Path) -> None:
    from sandglass.runs import storage

    manifest = {k: v for k, v in storage.read_manifest(model).items() if k != "seal"}
    for name in ("../config.json", "/etc/passwd", "a\\b", "c:x", "", ".."):
        files = {**manifest["files"], name: {"size": 1, "sha256": "0"}}
        (model / storage.MANIFEST).write_bytes(storage.seal({**manifest, "files": files}))
        with pytest.raises(CheckpointError, match=r"the entry '.*' is invalid"):
            sandglass.load(model)
    for broken in ([], {"format": 1}, {"format": "1", "files": {}}, {"format": 1, "files": {"a": 3}}):
        (model / storage.MANIFEST).write_bytes(
            storage.seal(broken) if isinstance(broken, dict) else json.dumps(broken).encode()
        )
        assert outcome(lambda: sandglass.load(model)) == "refused"


# YAML


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: &x [1]\nb: *x", "aliases"),
        ("a: !!python/name:os.system", "tags"),
        ("a: !custom 1", "tags"),
        ("a: !!binary aGk=", "tags"),
        ("a: 1\nb: 2\na: 3", "duplicate key 'a'"),
        ("model: {name: vae, name: gan}", "duplicate key 'name'"),
        ("<<: {a: 1}\nb: 2", "merge"),
        (f"a: {'x' * 2**20}", "1,048,576 characters"),
        ("a: " + "[" * 5000, "nested too deeply"),
        ("- 1\n- 2", "mapping"),
        ("a: b: c", "mapping values"),
        ("a: \x00", "special characters"),
        (f"a: {'9' * 5000}", "digits"),
        ("#" * 5 * 2**20, "more than 4 MiB"),
        ("a: 'x", "cannot be read"),
    ],
)
def test_yaml_is_plain_values_once(text: str, message: str, tmp_path: Path) -> None:
    (tmp_path / "x.yaml").write_text(text)
    with pytest.raises(ConfigError, match=message) as caught:
        read_yaml(tmp_path / "x.yaml")
    assert len(str(caught.value)) < 600 and "\n" not in str(caught.value)


def test_too_many_values_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sandglass.runs.plain._MOST", 1000)
    (tmp_path / "x.yaml").write_text("a: [" + "1," * 990 + "]")
    assert len(read_yaml(tmp_path / "x.yaml")["a"]) == 990
    (tmp_path / "x.yaml").write_text("a: [" + "1," * 1001 + "]")
    with pytest.raises(ConfigError, match="more than 1,000 values"):
        read_yaml(tmp_path / "x.yaml")


def test_an_alias_bomb_is_refused_and_the_plain_loader_would_take_it(tmp_path: Path) -> None:
    bomb = "a: &a [x,x,x,x,x,x,x,x,x]\n" + "".join(
        f"{b}: &{b} [{','.join(['*' + a] * 9)}]\n" for a, b in zip("abcdefg", "bcdefgh", strict=True)
    )
    (tmp_path / "x.yaml").write_text(bomb)
    with pytest.raises(ConfigError, match="aliases"):
        read_yaml(tmp_path / "x.yaml")
    assert len(yaml.safe_load(bomb)["h"]) == 9  # the control: 43 million elements by name, and no complaint


def test_what_is_written_is_read(tmp_path: Path) -> None:
    values = {
        "a": "2001-01-01",
        "b": ["yes", "1e5", "*x", "&x", "!!int 3", "<<"],
        "c": {"d": None, "e": 1.5, "f": True},
    }
    (tmp_path / "x.yaml").write_bytes(to_yaml(values))
    assert read_yaml(tmp_path / "x.yaml") == values


def test_an_unknown_key_is_an_error_with_the_nearest_name(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "x.yaml").write_text("trainings: {epochs: 1}\n")
    assert main(["train", "--config", str(tmp_path / "x.yaml")]) == ConfigError.exit_code
    assert "Did you mean 'training'?" in capsys.readouterr().err


# models that are too large


@pytest.mark.parametrize(
    "options",
    [
        {"net": {"name": "mlp", "widths": [10**6, 10**6]}},
        {"net": {"name": "mlp", "widths": [10**12]}},
        {"net": "mlp", "latent_dim": 10**12},
        {"net": {"name": "conv", "width": 10**6, "max_width": 10**6}},
        {"net": {"name": "conv", "stages": 10**9}},
    ],
)
def test_a_model_of_a_million_million_parameters_is_refused(options: dict[str, Any]) -> None:
    with pytest.raises(SandglassError, match=r"memory|GiB|stages|tensors|could not be built"):
        registry.build("vae", Spec((1, 28, 28), "unit"), **options)


def test_a_model_of_very_many_tensors_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sandglass.registry.limits._MOST_TENSORS", 50)
    registry.build("vae", Spec((4,)), net={"name": "mlp", "widths": [1] * 5})
    with pytest.raises(ConfigError, match="more than 50 tensors"):
        registry.build("vae", Spec((4,)), net={"name": "mlp", "widths": [1] * 50})


def test_laying_a_model_out_moves_no_generator() -> None:
    torch.manual_seed(0)
    before = torch.get_rng_state()
    registry.outline("vae", Spec((1, 28, 28), "unit"))
    assert torch.equal(before, torch.get_rng_state())


def test_every_model_can_be_laid_out() -> None:
    for name in registry.names("model"):
        found = registry.outline(name, registry.declared(name).spec)
        assert found is not None, name

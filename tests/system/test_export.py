"""Exported graphs: they are the model at any batch size, say what a stranger needs, or are not written."""

from __future__ import annotations

import dataclasses
import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnx import numpy_helper

import sandglass
from helpers import fresh, pictures, rows
from made import MODELS, small, suits
from sandglass import registry
from sandglass.app.main import main
from sandglass.core import Batch, Model, Spec
from sandglass.data.dataset import Dataset
from sandglass.data.transform import Transform
from sandglass.errors import CapabilityError, ConfigError, MissingPackageError
from sandglass.exports import graph, parity, write
from sandglass.runs.model_folder import write_model_folder
from sandglass.runs.specification import from_plain, to_plain

REFINED = "semi-amortized-vae"  # its encoder computes gradients
ABLE = [n for n in MODELS if {"encode", "decode"} & set(registry.declared(n).provides) and suits(n, "row")]
ABLE.remove(REFINED)
BY_GRADIENTS = ("hamiltonian-vae", "rh-vae")
"""Models whose encoder follows gradients of the decoder, for which ONNX has no operator."""
QUICK = ("vae", "gan", "ladder-vae", "joint-vae", "vq-vae")
CONV = {"name": "conv", "width": 4, "hidden": 8}
MLP = {"name": "mlp", "widths": [8]}


def stored(name: str, data: Dataset, path: Path, **options: Any) -> Model:
    """A model folder with fresh weights."""
    model = fresh(name, data, **{**small(name), **options}).eval()
    config = {"model": model.config, "spec": to_plain(data.spec), "transform": data.transform.to_dict(), "step": 0}
    write_model_folder(path, config, model.state_dict(), "card")
    return model


def session(file: Path) -> Any:
    return onnxruntime.InferenceSession(str(file), providers=["CPUExecutionProvider"])


def agree(model: Model, folder: Path) -> None:
    """The graphs in a folder put out what the model does, at sizes and inputs that the export did not try."""
    generator = torch.Generator().manual_seed(1)
    for n in (1, 2, 5, 64, 100):
        x = torch.rand(n, *model.spec.shape, generator=generator)
        z = torch.randn(n, model.code_size, generator=generator)
        if not registry.can(model, "codes"):
            z = torch.randint(model.latents[0].levels, z.shape, generator=generator)
        y = torch.arange(n) % max(1, model.spec.classes)
        batch, given = (Batch(x, y), {"y": y.numpy()}) if "labels" in model.conditions else (Batch(x), {})
        with torch.no_grad():
            if "encode" in model.provides:
                (code,) = session(folder / "encoder.onnx").run(["code"], {"x": x.numpy(), **given})
                assert np.abs(code - model.encode(batch).numpy()).max() < 1e-5
            if "decode" in model.provides:
                (made,) = session(folder / "decoder.onnx").run(None, {"z": z.numpy(), **given})
                assert made.shape == x.shape and np.abs(made - model.decode(z, batch).numpy()).max() < 1e-5


@pytest.mark.parametrize("name", [n if n in QUICK else pytest.param(n, marks=pytest.mark.slow) for n in ABLE])
def test_every_model_that_encodes_or_decodes_is_exported(name: str, tmp_path: Path) -> None:
    data = rows(torch.randn(20, 6, generator=torch.Generator().manual_seed(0)))
    data = dataclasses.replace(data, spec=dataclasses.replace(data.spec, classes=3))
    net = {"net": MLP} if "net" in registry.declared(name).config["options"] else {}
    model = stored(name, data, tmp_path / "model", **net)
    if name in BY_GRADIENTS:
        with pytest.raises(CapabilityError, match="gradients of the decoder"):
            sandglass.export(tmp_path / "model", tmp_path / "onnx")
        assert sandglass.export(tmp_path / "model", tmp_path / "onnx", parts=["decoder"]).parts == ("decoder",)
        return
    done = sandglass.export(tmp_path / "model", tmp_path / "onnx")
    assert set(done.parts) == {p for p, c in write.PARTS.items() if c in model.provides}
    assert all(d.relative < 1e-5 for d in done.differences)
    agree(model, done.path)


def test_an_encoder_that_computes_gradients_is_refused(tmp_path: Path) -> None:
    stored(REFINED, rows(torch.randn(20, 6)), tmp_path / "model", net=MLP)
    with pytest.raises(CapabilityError, match="The encoder cannot be exported to ONNX"):
        sandglass.export(tmp_path / "model", tmp_path / "onnx")
    done = sandglass.export(tmp_path / "model", tmp_path / "decoder", parts=["decoder"])
    assert done.parts == ("decoder",)


@pytest.mark.parametrize("shape", [(1, 9, 7), pytest.param((3, 13, 17), marks=pytest.mark.slow)], ids=str)
@pytest.mark.parametrize("norm", ["batch", pytest.param("group", marks=pytest.mark.slow)])
def test_pictures_of_odd_sizes(shape: tuple[int, ...], norm: str, tmp_path: Path) -> None:
    model = stored("vae", pictures(shape=shape), tmp_path / "model", net={**CONV, "norm": norm})
    done = sandglass.export(tmp_path / "model", tmp_path / "onnx")
    agree(model, done.path)
    x = torch.rand(4, *shape)
    code, scale = session(done.path / "encoder.onnx").run(["code", "scale"], {"x": x.numpy()})
    with torch.no_grad():
        q = model.posterior(x)
    assert np.allclose(code, q.mean, atol=1e-5) and np.allclose(scale, q.stddev, atol=1e-5)
    (made,) = session(done.path / "decoder.onnx").run(None, {"z": code})
    assert made.min() >= 0 and made.max() <= 1


@pytest.mark.slow
@pytest.mark.parametrize(
    "likelihood",
    [n for n in registry.names("likelihood") if n not in ("bce", "cce", "mse", "mae", "mixed", "multinomial")],
)
def test_the_mean_of_every_likelihood(likelihood: str, tmp_path: Path) -> None:
    model = stored("vae", pictures(shape=(1, 5, 4)), tmp_path / "model", net=MLP, likelihood=likelihood)
    agree_on = sandglass.export(tmp_path / "model", tmp_path / "onnx").path
    agree(model, agree_on)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("exported") / "digits"
    options = {"latent_dim": 2, "net": MLP}
    sandglass.train("vae", "digits", out=path, epochs=1, model_options=options, data_options={"limit": 100})
    return path


@pytest.fixture(scope="module")
def done(run: Path) -> write.Exported:
    return sandglass.export(run, run.parent / "onnx")


def test_a_stranger_finds_what_to_do(run: Path, done: write.Exported) -> None:
    assert done.examples == "64 test examples of digits"
    for part in ("encoder", "decoder"):
        about = session(done.path / f"{part}.onnx").get_modelmeta().custom_metadata_map
        assert about["sandglass.part"] == part and about["sandglass.version"] == sandglass.__version__
        config = sandglass.Run(run).config
        assert Transform.from_dict(json.loads(about["sandglass.transform"])).to_dict() == config["transform"]
        assert from_plain(json.loads(about["sandglass.spec"])) == from_plain(config["spec"])
        assert json.loads(about["sandglass.model"]) == config["model"]
    encoder = session(done.path / "encoder.onnx")
    assert [(i.name, i.type, i.shape) for i in encoder.get_inputs()] == [("x", "tensor(float)", ["batch", 1, 8, 8])]
    assert [o.name for o in encoder.get_outputs()] == ["code", "scale"]
    decoder = session(done.path / "decoder.onnx")
    assert [(i.name, i.shape) for i in decoder.get_inputs()] == [("z", ["batch", 2])]
    assert [(o.name, o.shape) for o in decoder.get_outputs()] == [("x", ["batch", 1, 8, 8])]
    agree(sandglass.load(run), done.path)


def test_nothing_of_this_machine_is_in_a_graph(done: write.Exported) -> None:
    for file in done.path.glob("*.onnx"):
        onnx.checker.check_model(onnx.load(file), full_check=True)
        data = file.read_bytes()
        for word in (str(Path(sandglass.__file__).parent), str(Path.home()), "site-packages", ".py", "stack_trace"):
            assert word.encode() not in data, word


@pytest.mark.parametrize("part", ["decoder"])
def test_twice_is_the_same_bytes(part: str, run: Path, done: write.Exported, tmp_path: Path) -> None:
    again = sandglass.export(run, tmp_path / "again", parts=[part])
    assert (again.path / f"{part}.onnx").read_bytes() == (done.path / f"{part}.onnx").read_bytes()


def test_labels_are_an_input(tmp_path: Path) -> None:
    model = stored("cvae", pictures(), tmp_path / "model", net=MLP)
    path = sandglass.export(tmp_path / "model", tmp_path / "onnx").path
    agree(model, path)
    for part, name in (("encoder", "x"), ("decoder", "z")):
        inputs = [(i.name, i.type, i.shape[0]) for i in session(path / f"{part}.onnx").get_inputs()]
        assert inputs == [(name, "tensor(float)", "batch"), ("y", "tensor(int64)", "batch")]
    run_readme(path, "assert made.shape == x.shape\n")


def test_the_readme_runs_without_sandglass(done: write.Exported) -> None:
    run_readme(done.path, "assert made.shape == x.shape and about['kind'] == 'image'\n")


def run_readme(path: Path, check: str) -> None:
    text = (path / "README.md").read_text()
    (code,) = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    assert "sandglass" not in code.replace("sandglass.transform", "") and code.count("\n") <= 13
    code += f"{check}import sys\nassert 'torch' not in sys.modules\n"
    subprocess.run([sys.executable, "-W", "error", "-c", code], cwd=path, check=True)


@pytest.mark.parametrize(
    ("data", "word"), [("images", "divided by 255"), ("rows", "(raw - 0.0) / 1.0"), ("table", "one-hot")]
)
def test_the_readme_says_how_data_is_prepared(data: str, word: str) -> None:
    from sandglass.data.transform import ArrayTransform, ImageTransform, TableTransform
    from sandglass.exports.readme import prepared

    kinds = {"images": ImageTransform((8, 6), 3), "rows": ArrayTransform((4,)), "table": TableTransform(())}
    assert word in prepared(kinds[data])


def broken(part: str, change: Any) -> Any:
    """``convert`` with one weight of a part changed."""

    def convert(module: Any, given: Any, name: str, opset: Any) -> Any:
        made = graph.convert(module, given, name, opset)
        if name == part:
            weight = max(made.graph.initializer, key=lambda w: np.prod(w.dims))
            values = numpy_helper.to_array(weight).copy()
            change(values)
            weight.CopyFrom(numpy_helper.from_array(values, weight.name))
        return made

    return convert


@pytest.mark.parametrize("value", [0.5, float("nan")])
def test_a_graph_that_is_not_the_model_is_refused(
    value: float, run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def change(values: Any) -> None:
        values[-1] += value
        values[:, -1] += value

    monkeypatch.setattr(write, "convert", broken("decoder", change))
    with pytest.raises(CapabilityError, match=r"decoder differs from the model by .* at x\[.*nothing was written"):
        sandglass.export(run, tmp_path / "onnx", parts=["decoder"])
    assert list(tmp_path.iterdir()) == []


def test_the_largest_difference_and_its_place_are_told() -> None:
    class Off(torch.nn.Module):
        outputs = ("code",)

        def forward(self, x: torch.Tensor) -> tuple[torch.Tensor]:
            return (2 * x,)

    with graph.quiet():
        program = torch.onnx.export(
            Off().eval(),
            (torch.zeros(3, 4),),
            dynamo=True,
            dynamic_shapes=({0: torch.export.Dim("batch")},),
            verbose=False,
        )
    assert program is not None
    data = program.model_proto.SerializeToString()

    class Shifted(Off):
        def forward(self, x: torch.Tensor) -> tuple[torch.Tensor]:
            y = 2 * x
            if len(y) == 7:
                y[5, 2] += 0.25
            return (y,)

    found = parity.compare(data, Shifted(), {"x": torch.zeros(64, 4)}, "encoder")
    assert (found.value, found.index, found.batch, found.output) == (0.25, (5, 2), 7, "code")
    assert str(found) == "0.25 at code[5, 2] in a batch of 7"
    large = parity.Difference("encoder", "code", 0.05, 1000.0, (0, 0), 1)
    parity.check(large, 1e-4)  # of a value that reaches 1,000 the last digits are as large
    with pytest.raises(CapabilityError, match="tolerance"):
        parity.check(large, 1e-5)


def test_data_that_is_not_at_hand_is_replaced_by_random_examples(tmp_path: Path) -> None:
    x = np.random.default_rng(0).normal(size=(30, 5))
    run = sandglass.train("ae", x, out=tmp_path / "run", epochs=1, model_options={"latent_dim": 2, "net": "linear"})
    assert sandglass.export(run, tmp_path / "own", parts=["encoder"]).examples != "64 random examples"
    assert sandglass.export(run.path, tmp_path / "onnx", parts=["encoder"]).examples == "64 random examples"
    for support, levels in (("binary", 2), ("unit", 17)):
        made = write.inputs(tmp_path / "none", Spec((1, 4, 5), support, levels))[0].x  # type: ignore[arg-type]
        assert made.shape == (64, 1, 4, 5) and len(made.unique()) == levels and made.min() == 0 and made.max() == 1


def test_the_command(run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["export", str(run), "--parts", "decoder", "--opset", "18"]) == 0
    said = capsys.readouterr()
    assert "digits-onnx: decoder.onnx" in said.out and "64 test examples" in said.out and said.err == ""
    assert re.search(r"decoder: [\d.e-]+ at x\[\d+, 0, \d, \d\] in a batch of \d+", said.out)
    assert onnx.load(tmp_path / "digits-onnx" / "decoder.onnx").opset_import[0].version == 18
    assert write.folder_for(run, None) == Path("digits-onnx-2")

    def refused(*words: str) -> str:
        assert main(["export", *words]) in (2, 64)
        (line,) = capsys.readouterr().err.strip().split("\n")
        return str(line)

    assert "not empty" in refused(str(run), "-o", "digits-onnx")
    assert "Did you mean 'encoder'" in refused(str(run), "--parts", "encodr")
    assert "invalid choice" in refused(str(run), "--format", "tflite")
    assert "opset" in refused(str(run), "--opset", "3")


def test_a_model_in_double_precision_is_exported_in_single(tmp_path: Path) -> None:
    data = rows(torch.randn(20, 6))
    model = fresh("ae", data, latent_dim=3, net=MLP).double().eval()
    config = {"model": model.config, "spec": to_plain(data.spec), "transform": data.transform.to_dict(), "step": 0}
    write_model_folder(tmp_path / "model", config, model.state_dict(), "card")
    done = sandglass.export(tmp_path / "model", tmp_path / "onnx", parts=["encoder"])
    x = torch.randn(5, 6)
    (code,) = session(done.path / "encoder.onnx").run(["code"], {"x": x.numpy()})
    assert code.dtype == np.float32 and np.abs(code - model.encode(x.double()).detach().numpy()).max() < 1e-5


def test_a_part_that_is_not_there_is_refused(tmp_path: Path) -> None:
    stored("gan", pictures(), tmp_path / "gan", net=MLP)
    with pytest.raises(CapabilityError, match="does not provide 'encode'"):
        sandglass.export(tmp_path / "gan", tmp_path / "onnx", parts=["encoder"])
    with pytest.raises(ConfigError, match="format"):
        sandglass.export(tmp_path / "gan", tmp_path / "onnx", format="coreml")


def test_without_the_extra_it_says_which(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "onnxscript", None)
    with pytest.raises(MissingPackageError, match=r"sandglass-ml\[export\]"):
        sandglass.export(run)


def test_what_onnx_has_no_operator_for_is_refused_in_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = rows(torch.randn(20, 6))
    stored("ae", data, tmp_path / "model", net=MLP)

    def decode(self: Any, z: torch.Tensor, given: Any = None) -> torch.Tensor:
        return torch.zeros(len(z), 6) if float(z.sum()) > 0 else torch.ones(len(z), 6)

    monkeypatch.setattr(registry.entry("model", "ae").make, "decode", decode)
    with pytest.raises(CapabilityError, match="cannot be exported to ONNX") as caught:
        sandglass.export(tmp_path / "model", tmp_path / "onnx", parts=["decoder"])
    assert "\n" not in str(caught.value) and not (tmp_path / "onnx").exists()

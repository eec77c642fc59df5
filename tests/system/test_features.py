"""Where features come from: learnt once and kept, random, raw, and Inception behind an extra."""

from __future__ import annotations

import dataclasses
import math
import os
import sys
import types
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from artefacts import checkerboard, soft
from sandglass import registry
from sandglass.app.main import main
from sandglass.core import Spec
from sandglass.data import cache
from sandglass.data.dataset import Split
from sandglass.data.load import load_data
from sandglass.errors import DataError, MissingPackageError, NotFoundError
from sandglass.metrics.evaluation import Evaluation
from sandglass.metrics.features import own
from sandglass.metrics.features._network import Network
from sandglass.metrics.features.own import Own
from sandglass.runs import storage

CPU = torch.device("cpu")


def digits(labels: bool = True, fingerprint: str = "") -> Evaluation:
    data = load_data("digits")
    train = data.train if labels else dataclasses.replace(data.train, y=None)
    return Evaluation(split=data.splits["test"], spec=data.spec, train=train, fingerprint=fingerprint)


def neighbours_agree(features: Tensor, y: Tensor) -> float:
    """Share of examples whose nearest other one is of their class."""
    return float((y[torch.cdist(features, features).fill_diagonal_(torch.inf).argmin(1)] == y).double().mean())


def test_a_classifier_is_learnt_where_there_are_labels() -> None:
    evaluation = digits()
    extractor = Own()(evaluation, CPU)
    batch = evaluation.split.batch(slice(None))
    features = extractor(batch.x)
    assert features.shape == (len(evaluation.split), 32 + 16) and features.dtype == torch.float64
    features = features[:, : extractor.content]
    right = float((extractor.classify(features).argmax(1) == batch.y).double().mean())
    assert right > 0.93
    said = float(extractor.about.split("with ")[1].split("%")[0]) / 100
    assert abs(said - right) < 0.05, "what it says of itself is what it does on others"
    assert float(extractor.classify(features).exp().sum(1)[0]) == pytest.approx(1, abs=1e-5)
    assert neighbours_agree(features, batch.y) > 0.93


def test_without_labels_views_are_told_apart() -> None:
    evaluation = digits(labels=False)
    extractor = Own(updates=150)(evaluation, CPU)
    assert extractor.classify is None and "contrastive" in extractor.about
    said = float(extractor.about.split("matches ")[1].split("%")[0]) / 100
    assert said > 0.3, "by chance it is one in 128"
    batch = evaluation.split.batch(slice(None))
    assert neighbours_agree(extractor(batch.x)[:, : extractor.content], batch.y) > 0.9


def test_it_is_tried_on_examples_that_it_did_not_learn_from() -> None:
    """Labels by chance can be learnt by heart and not foretold: of 30, 25 are right by chance once in 6,000 times."""
    generator = torch.Generator().manual_seed(0)
    x, y = torch.rand(300, 1, 8, 8, generator=generator), torch.randint(2, (300,), generator=generator)
    extractor = Own()(Evaluation(split=Split(x, y), spec=Spec((1, 8, 8), "unit")), CPU)
    assert float(extractor.about.split("with ")[1].split("%")[0]) < 83
    assert float((extractor.classify(extractor(x)[:, : extractor.content]).argmax(1) == y).double().mean()) > 0.83, (
        "by heart"
    )


def test_the_contrast_of_views_in_closed_form() -> None:
    z = 7 * torch.eye(3, 5).double()
    # The other view is at similarity 1 / T, four others at 0; an example is not compared with itself.
    expected = math.log(math.exp(1 / own._TEMPERATURE) + 4) - 1 / own._TEMPERATURE
    assert float(own.contrast(z, 2 * z)) == pytest.approx(expected, abs=1e-12)


def test_rows_are_learnt_from_too() -> None:
    draws = torch.randn(300, 70, generator=torch.Generator().manual_seed(0))
    draws[:, 35:] = draws[:, :35]
    evaluation = Evaluation(split=Split(draws), spec=Spec((70,)))
    extractor = Own()(evaluation, CPU)
    assert float(extractor.about.split("matches ")[1].split("%")[0]) > 50, "by chance it is one in 30"
    assert registry.settle("features", {"name": "auto"}, evaluation.spec)["name"] == "own"
    assert registry.settle("features", {"name": "auto"}, Spec((64,)))["name"] == "pixels"
    assert registry.settle("features", {"name": "auto"}, Spec((1, 8, 8)))["name"] == "own"


def test_texture_is_seen_after_the_content() -> None:
    """Under a faint grid the content, bright or dark, is nearly what it was, and the texture is not."""
    x, y = soft(400), torch.arange(400) % 2
    x = (x + 0.3 * y.view(-1, 1, 1, 1) - 0.15).clamp(0, 1)
    extractor = Own(updates=60)(Evaluation(split=Split(x, y), spec=Spec((1, 32, 32), "unit")), CPU)
    gridded = checkerboard(0.05)(x, y, torch.Generator())
    moved = (extractor(gridded) - extractor(x)).mean(0).abs()
    assert float(moved[extractor.content :].max()) > max(1.0, 2 * float(moved[: extractor.content].max())), moved


def test_the_same_data_learns_the_same_and_the_generator_is_left_alone() -> None:
    evaluation, x = digits(), digits().split.batch(slice(0, 20)).x
    state = torch.get_rng_state()
    one = Own(updates=5)(evaluation, CPU)(x)
    assert torch.equal(state, torch.get_rng_state())
    torch.manual_seed(5)
    assert torch.equal(one, Own(updates=5)(evaluation, CPU)(x))
    assert not torch.equal(one, Own(updates=6)(evaluation, CPU)(x))


def test_features_have_mean_zero_and_variance_one_over_what_was_learnt_from() -> None:
    evaluation = digits()
    for name in ("own", "random"):
        extractor = registry.resolve("features", {"name": name, **({"updates": 5} if name == "own" else {})})(
            evaluation, CPU
        )
        features = extractor(evaluation.train.batch(slice(None)).x)
        assert float(features.mean(0).abs().max()) < 0.15
        for part in (features[:, : extractor.content], features):
            assert float(part.var(0).mean()) == pytest.approx(1, 0.05)
        assert float(features.var(0).min()) > 1e-3, "every feature tells something"


def test_what_was_learnt_is_kept_and_read_again(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("SANDGLASS_CACHE", str(tmp_path))
    evaluation, x = digits(fingerprint="kept"), digits().split.batch(slice(0, 20)).x
    first = Own(updates=5)(evaluation, CPU)
    (folder,) = [p for p in storage.cache_folder("features").iterdir() if (p / "net.safetensors").is_file()]

    def learn(*_: object) -> None:
        raise AssertionError("it is learnt again")

    with monkeypatch.context() as patched:
        patched.setattr(own, "_learn", learn)
        again = Own(updates=5)(evaluation, CPU)
        assert torch.equal(first(x), again(x)) and first.about == again.about
        for other in (digits(fingerprint="other"), digits(False, "kept"), dataclasses.replace(evaluation, train=None)):
            with pytest.raises(AssertionError, match="again"):
                Own(updates=5)(other, CPU)
        with pytest.raises(AssertionError, match="again"):
            Own(updates=4)(evaluation, CPU)
    for damage in (b"", b"x" * 100, (folder / "net.safetensors").read_bytes()[:-1] + b"\x07"):
        (folder / "net.safetensors").write_bytes(damage)
        assert torch.equal(first(x), Own(updates=5)(evaluation, CPU)(x)), "made again"
        storage.verify_folder(folder)
    other = Network(evaluation.spec, dim=32, outputs=10, size=32)
    nn.init.constant_(other.head[1].bias, torch.inf)
    own._write(folder, other)  # whole, and of no use
    assert torch.equal(first(x), Own(updates=5)(evaluation, CPU)(x))
    assert cache.clear() > 0 and not folder.exists()


def test_a_cache_that_cannot_be_written_is_done_without(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setenv("SANDGLASS_CACHE", str(tmp_path / "file"))
    assert Own(updates=2)(digits(fingerprint="kept"), CPU).about.startswith("own features, 32 of a classifier")


def test_long_learning_says_so(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    Own(updates=2)(digits(), CPU)
    assert capsys.readouterr().err == ""
    monkeypatch.setattr(own, "_PATIENCE", -1.0)
    Own(updates=2)(digits(), CPU)
    assert capsys.readouterr().err == "", "nothing in a pipe"
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    Own(updates=3)(digits(), CPU)
    assert (
        capsys.readouterr().err
        == "Training a feature network on the data to compare samples, once: 1 of 3 updates done\n"
    )


def test_large_pictures_are_averaged_down() -> None:
    net = Network(Spec((1, 64, 40), "unit"), dim=4, outputs=2, size=32)
    x = torch.rand(2, 1, 64, 40)
    assert net.shrink(x).shape == (2, 1, 32, 32)
    assert torch.allclose(net.shrink(x).mean((2, 3)), x.mean((2, 3)), atol=0.02)
    square = Network(Spec((1, 64, 64), "unit"), dim=4, outputs=2, size=32)
    x = torch.rand(2, 1, 64, 64)
    assert torch.allclose(square.shrink(x), torch.nn.functional.avg_pool2d(x, 2))
    assert Network(Spec((1, 8, 8)), dim=4, outputs=2, size=32).shrink(x[..., :8, :8]).shape == (2, 1, 8, 8)


@pytest.mark.parametrize("shape", [(3, 37, 53), (2, 1, 90), (4, 5, 5), (1, 1, 1), (6,), (2, 3)], ids=str)
@pytest.mark.parametrize("name", ["own", "random", "pixels"])
def test_features_of_any_shape_and_few_examples(name: str, shape: tuple[int, ...]) -> None:
    x = torch.rand(5, *shape)
    evaluation = Evaluation(split=Split(x), spec=Spec(shape, "unit"))
    options = {"updates": 2} if name == "own" else {}
    features = registry.resolve("features", {"name": name, **options})(evaluation, CPU)(x)
    assert len(features) == 5 and features.dim() == 2 and torch.isfinite(features).all()
    alone = Evaluation(split=Split(x[:1]), spec=Spec(shape, "unit"))
    assert torch.isfinite(registry.resolve("features", {"name": name, **options})(alone, CPU)(x)).all()


# Inception


class FakeInception(nn.Module):
    """What torch-fidelity hands out, without its weights."""

    def __init__(self, name: str, features: list[str]) -> None:
        super().__init__()
        assert features == ["2048"]
        assert os.environ["TORCH_FORCE_WEIGHTS_ONLY_LOAD"] == "1", "its weights could run code"
        self.fc = nn.Linear(2048, 1008)

    def forward(self, x: Tensor) -> tuple[Tensor]:
        assert x.dtype == torch.uint8 and x.shape[1] == 3
        assert torch.equal(x[:, 0], x[:, 2]), "grey is the same in all three"
        return (x.float().mean((1, 2, 3), keepdim=True).flatten(1).expand(-1, 2048),)


def fake(monkeypatch: pytest.MonkeyPatch, extractor: type) -> None:
    module = types.ModuleType("torch_fidelity.feature_extractor_inceptionv3")
    module.FeatureExtractorInceptionV3 = extractor  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "torch_fidelity", types.ModuleType("torch_fidelity"))
    monkeypatch.setitem(sys.modules, module.__name__, module)


def test_inception_looks_at_bytes_in_three_channels(monkeypatch: pytest.MonkeyPatch) -> None:
    fake(monkeypatch, FakeInception)
    monkeypatch.setenv("TORCH_FORCE_WEIGHTS_ONLY_LOAD", "0")
    evaluation = Evaluation(split=Split(torch.rand(3, 1, 8, 8)), spec=Spec((1, 8, 8), "unit"))
    extractor = registry.resolve("features", "inception")(evaluation, CPU)
    assert os.environ["TORCH_FORCE_WEIGHTS_ONLY_LOAD"] == "0", "as it was"
    features = extractor(torch.tensor([0.0, 0.5, 1.2]).view(3, 1, 1, 1).expand(3, 1, 8, 8))
    assert features[:, 0].tolist() == [0, 128, 255]
    probabilities = extractor.classify(features).exp()
    assert probabilities.shape == (3, 1008) and torch.allclose(probabilities.sum(1), torch.ones(3).double())
    assert torch.allclose(probabilities[0], torch.full((1008,), 1 / 1008).double()), "the bias is left out"
    assert "8x8 images resized to 299x299" in extractor.about


def test_inception_s_refusals(monkeypatch: pytest.MonkeyPatch) -> None:
    inception = registry.resolve("features", "inception")
    for shape, support in (((6,), "real"), ((1, 8, 8), "real"), ((4, 8, 8), "unit")):
        with pytest.raises(DataError, match="one or three channels"):
            inception(Evaluation(split=Split(torch.rand(3, *shape)), spec=Spec(shape, support)), CPU)
    evaluation = Evaluation(split=Split(torch.rand(3, 1, 8, 8)), spec=Spec((1, 8, 8), "unit"))
    monkeypatch.setitem(sys.modules, "torch_fidelity", None)
    with pytest.raises(MissingPackageError, match=r"pip install 'sandglass-ml\[inception\]'"):
        inception(evaluation, CPU)

    def no_network(name: str, features: list[str]) -> None:
        raise OSError("the network is away\nand more")

    fake(monkeypatch, no_network)  # type: ignore[arg-type]
    with pytest.raises(NotFoundError, match=r"could not be loaded: the network is away\.$"):
        inception(evaluation, CPU)


def test_on_the_command_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    train = ["train", "gan", "--data", "digits", "--epochs", "1", "--net", "mlp", "--out", "gan"]
    assert main(train) == 0
    out = capsys.readouterr().out
    assert "fid" in out and "precision" in out and "coverage" in out, "an adversarial network has figures, too"
    words = ["evaluate", "gan", "--metrics", "kid", "--kid.samples", "100"]
    assert main([*words, "--kid.features", "random"]) == 0
    assert "32 features of a random network" in " ".join(capsys.readouterr().out.split())
    assert main([*words, "--kid.features", '{"name": "random", "dim": 5}']) == 0
    assert "5 features of a random network" in " ".join(capsys.readouterr().out.split())
    assert main([*words, "--kid.features", "sandglass.metrics.features.random.Random"]) == 2
    assert "There is no features" in capsys.readouterr().err
    assert main(["metrics", "fid"]) == 0
    out = " ".join(capsys.readouterr().out.split())
    assert "own, pixels, random" in out and "for suitable models and data" in out
    assert main(["metrics", "kid"]) == 0
    assert "computed: when requested by name" in capsys.readouterr().out

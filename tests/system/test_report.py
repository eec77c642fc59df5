"""The report: whole, self-contained, the same every time, and without a trace on the model."""

from __future__ import annotations

import io
import re
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from sandglass import api
from sandglass.data.dataset import Dataset
from sandglass.data.load import load_data
from sandglass.data.pixels import enlarge, grid, png, to_images
from sandglass.data.transform import ImageTransform
from sandglass.metrics.mig import information_shares
from sandglass.reports import facts, history
from sandglass.reports.page import write_report
from sandglass.runs.history import curves
from sandglass.runs.run import Run
from sandglass.tasks.latent_space import embed, manifold, plane, principal

HOSTILE = "<img src=x onerror=1>"
Trained = Callable[..., tuple[Run, Dataset]]


class Page(HTMLParser):
    """Tags, ids and whatever a browser would fetch."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.ids: list[str] = []
        self.links: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        for name, value in attrs:
            assert not name.startswith("on"), f"an event handler on <{tag}>"
            if name == "id":
                self.ids.append(value or "")
            if name in ("src", "href", "xlink:href", "srcset", "poster", "data"):
                self.links.append(value or "")


@pytest.fixture
def trained(tmp_path: Path) -> Trained:
    """A run of one epoch, and its data."""

    def make(model: str, source: Any, epochs: int = 1, **options: Any) -> tuple[Run, Dataset]:
        data = source if isinstance(source, Dataset) else load_data(source)
        run = api.train(
            model, data, out=tmp_path / "run", epochs=epochs, threads=1,
            model_options={"net": {"name": "mlp", "widths": [32]}, **options},
        )  # fmt: skip
        return run, data

    return make


def write(run: Run, data: Dataset | None, results: Any = None) -> str:
    path = write_report(run, run.load_model(), data, results)
    assert path == run.path / "report.html"
    return path.read_text()


def check_whole(text: str) -> Page:
    """What holds of every page."""
    page = Page(text)
    assert all(link.startswith(("#", "data:image/png;base64,")) for link in page.links)
    assert "script" not in page.tags
    assert "link" not in page.tags
    assert "iframe" not in page.tags
    assert not re.search(r"@import|url\((?!#)", text)
    assert len(page.ids) == len(set(page.ids)), "two elements share an id"
    inside = {link[1:] for link in page.links if link.startswith("#")} | set(re.findall(r"url\(#([^)]+)\)", text))
    assert inside <= set(page.ids)
    assert "nan" not in re.findall(r"[a-z]+", re.sub(r"base64,[^\"]*", "", text))
    return page


def test_every_section_of_a_vae_with_two_latent_dimensions(trained: Trained) -> None:
    run, data = trained("vae", "digits", latent_dim=2, likelihood="bernoulli")
    results = api.evaluate(run, data=data)
    text = write(run, data, results)
    page = check_whole(text)
    wanted = ["curves", "reconstructions", "samples", "manifold", "interpolations", "codes", "dimensions", "metrics",
              "data", "timings", "configuration"]  # fmt: skip
    assert [i for i in page.ids if i in wanted] == wanted
    elbo = results["metrics"]["elbo"]["value"]
    assert f"test ELBO {facts.figure(elbo, results['metrics']['elbo']['stderr'])} nats" in text
    assert "of 2 latent dimensions active" in text
    assert "comparable with other cross-entropies only" in text
    assert all(line in text for line in ("nats per example", ">epoch<", ">validation<", ">train<"))
    figures = {f.name for f in (run.path / "figures").iterdir()}
    assert {"samples.png", "manifold.png", "originals.png", "reconstructions.png", "interpolations.png", "codes.svg",
            "data-classes.svg", "curve-elbo-loss.svg", "curve-elbo-rate.svg",
            "curve-elbo-distortion.svg"} <= figures  # fmt: skip
    assert "var(--" not in (run.path / "figures" / "codes.svg").read_text()
    with Image.open(run.path / "figures" / "manifold.png") as image:
        assert image.width == image.height
        assert image.width % (20 * 8) == 0


@pytest.mark.parametrize(("options", "moved"), [
    ({"beta_schedule": "linear", "capacity": 3.0}, {"beta", "capacity"}),
    ({"beta": 2.0, "beta_schedule": "constant"}, set()),
], ids=["scheduled", "constant"])  # fmt: skip
def test_weights_that_moved_are_drawn_apart_from_the_objective(
    options: dict[str, Any], moved: set[str], trained: Trained
) -> None:
    run, _ = trained("vae", "digits", epochs=2, latent_dim=2, **options)
    found = curves(run.metrics())
    drawn = {panel.name: panel for panel in history.upkeep(found)}
    assert set(drawn) == {"curve-grad-norm", "curve-lr", *(f"curve-{name}" for name in moved)}
    for name in moved:
        first, second = drawn[f"curve-{name}"].lines[0].curve.values
        assert 0 < first < second
    objective = history.panels(run.load_model().stages()[0], found)
    assert [panel.name for panel in objective] == [f"curve-elbo-{t}" for t in ("loss", "distortion", "rate")]
    assert {panel.unit for panel in objective} == {"nats per example"}


@pytest.mark.parametrize(("name", "objective"), [("factor-vae", "elbo"), ("aae", "reconstruction"), ("gan", "")])
def test_a_critic_of_codes_makes_no_game(name: str, objective: str, trained: Trained) -> None:
    """A model whose loss has a distortion is no GAN, whatever else it trains."""
    run, data = trained(name, "digits")
    found, stage = curves(run.metrics()), run.load_model().stages()[0]
    drawn = [panel.name for panel in history.panels(stage, found)]
    assert history.is_game(stage, found) == (not objective) == ("curve-players" in drawn)
    text = write(run, data)
    assert ("has no likelihood" in text) == ("Neither player should dominate" in text) == (not objective)
    if objective:
        assert {f"curve-{objective}-loss", f"curve-{objective}-distortion", "curve-critic-loss"} <= set(drawn)
        assert "curve-critic-critic" not in drawn
    units = {panel.name: panel.unit for panel in history.panels(stage, found)}
    if name == "factor-vae":
        assert units["curve-elbo-total_correlation"] == units["curve-elbo-loss"] == "nats per example"


def test_two_writes_are_the_same_bytes_and_leave_no_trace(trained: Trained) -> None:
    run, data = trained("vae", "digits", latent_dim=5)
    model = run.load_model()
    model.train()
    weights = {k: v.clone() for k, v in model.state_dict().items()}
    torch.manual_seed(3)
    np.random.seed(3)  # noqa: NPY002
    states = torch.get_rng_state(), np.random.get_state()[1].copy()  # noqa: NPY002
    import matplotlib

    settings = dict(matplotlib.rcParams)
    first = write_report(run, model, data).read_bytes()
    files = {f.name: f.read_bytes() for f in (run.path / "figures").iterdir() if f.is_file()}
    assert write_report(run, model, data).read_bytes() == first
    assert {f.name: f.read_bytes() for f in (run.path / "figures").iterdir() if f.is_file()} == files
    check_whole(first.decode())
    assert "t-SNE" in first.decode()
    assert "PCA" in first.decode()
    assert model.training
    assert all(torch.equal(v, weights[k]) for k, v in model.state_dict().items())
    assert torch.equal(torch.get_rng_state(), states[0])
    assert (np.random.get_state()[1] == states[1]).all()  # noqa: NPY002
    assert dict(matplotlib.rcParams) == settings


def test_a_gan_shows_what_it_has(trained: Trained) -> None:
    run, data = trained("gan", "digits", latent_dim=4)
    page = check_whole(text := write(run, data, api.evaluate(run, data=data)))
    assert {"curves", "samples", "manifold", "timings", "configuration"} <= set(page.ids)
    assert not {"reconstructions", "codes", "dimensions", "interpolations"} & set(page.ids)
    assert "Losses of the players" in text
    assert "critic" in text
    assert "score (logit)" in text


def test_a_curve_of_the_test_split_is_called_so(tmp_path: Path) -> None:
    said = "which exercises often call validation"
    for watch, select in (("test", "last"), ("validation", "best")):
        run = api.train(
            "ae", "digits", out=tmp_path / watch, epochs=1, max_steps=3, watch=watch, select=select, net="mlp", sheets=0
        )
        assert (said in write(run, load_data("digits"))) == (watch == "test")


def test_an_autoencoder_has_no_rates(trained: Trained) -> None:
    page = check_whole(write(*trained("ae", "digits", latent_dim=2)))
    assert {"manifold", "codes", "interpolations"} <= set(page.ids)
    assert "dimensions" not in page.ids


def test_known_factors_have_a_table_of_who_knows_them(trained: Trained) -> None:
    data = load_data({"name": "shapes", "side": 8, "scales": 1, "rotations": 2, "positions": 4})
    run, data = trained("ae", data, latent_dim=20)
    text = write(run, data)
    assert "factors" in check_whole(text).ids
    chart = (run.path / "figures" / "factors.svg").read_text()
    assert all(f">{name}<" in chart for name in ("shape", "rotation", "x", "y")) and ">scale<" not in chart
    assert "The 16 most informative of 20 dimensions" in text and "Codes in 20 bins" in text
    model, split = run.load_model(), data.splits["test"]
    with torch.no_grad():
        shares, names = information_shares(
            model.encode(split.batch(slice(0, len(split))).x), split.factors, data.factors
        )
    assert names == ("shape", "rotation", "x", "y") and shares.shape == (20, 4)
    assert all(f">{share:.2f}<" in chart for share in shares[shares.max(1).argmax()]), (
        "the one that knows most is shown"
    )


@pytest.mark.parametrize(
    ("shape", "dim"),
    [((37, 53, 3), 3), *(pytest.param(*case, marks=pytest.mark.slow) for case in (((28, 20), 1), ((9, 5, 4), 2)))],
)
def test_odd_pictures_with_hostile_names(trained: Trained, shape: tuple[int, ...], dim: int) -> None:
    r = np.random.default_rng(0)
    x = r.integers(0, 256, (40, *shape), dtype=np.uint8)
    y = np.array([HOSTILE, "$x^2$ & co", "日本語 with a very long name indeed", "plain"])[np.arange(40) % 4]
    run, data = trained("vae", load_data({"train": (x, y), "test": (x[:12], y[:12])}), latent_dim=dim)
    text = write(run, data)
    check_whole(text)
    assert HOSTILE not in text
    assert "<img src=x" not in text
    if dim > 1:
        assert "&lt;img src=x onerror=1&gt;" in text
        assert "<img src=x" not in (run.path / "figures" / ("codes.svg" if dim == 2 else "codes-pca.svg")).read_text()


def test_a_table_gets_histograms_and_errors(trained: Trained) -> None:
    pandas = pytest.importorskip("pandas")
    r = np.random.default_rng(0)
    k = r.integers(0, 3, 300)
    frame = pandas.DataFrame(
        {
            "height (cm)": 160 + 10 * k + r.normal(size=300),
            HOSTILE: r.normal(size=300),
            "city": np.array(["a", "b", HOSTILE])[k],
        }
    )
    run, data = trained("vae", load_data(frame), latent_dim=2)
    text = write(run, data)
    page = check_whole(text)
    assert {"columns", "errors", "codes", "dimensions"} <= set(page.ids)
    assert "samples" not in page.ids
    assert HOSTILE not in text
    assert "height (cm)" in text
    assert "predicting the mean" in text
    assert {"column-1.svg", "column-3.svg", "errors-numeric.svg"} <= {f.name for f in (run.path / "figures").iterdir()}


def test_without_data_or_results_and_with_skipped_updates(trained: Trained) -> None:
    run, _ = trained("vae", "digits", latent_dim=2)
    run.event("skipped", step=4, phase="elbo", term=HOSTILE, count=2)
    text = write(run, None)
    page = check_whole(text)
    assert {"curves", "samples", "manifold"} <= set(page.ids)
    assert "reconstructions" not in page.ids
    assert "2 updates were skipped" in text
    assert "at step 5" in text
    assert HOSTILE not in text
    assert "The data is not available" in text
    assert "Not evaluated yet" in text


def test_mosaics_are_exact() -> None:
    x = torch.rand(5, 3, 7, 4)
    images = to_images(x, ImageTransform((7, 4), 3))
    assert images.shape == (5, 7, 4, 3)
    assert images.dtype == np.uint8
    assert (images == np.moveaxis((x * 255).round().numpy().astype(np.uint8), 1, -1)).all()
    large = enlarge(images, 3)
    assert (large[:, ::3, ::3] == images).all()
    assert (large[:, 2::3, 1::3] == images).all()
    canvas = grid(images, columns=3, pad=1)
    assert canvas.shape == (2 * 8 + 1, 3 * 5 + 1, 3)
    assert (canvas[9:16, 6:10] == images[4]).all()
    assert (canvas[9:, 11:] == 255).all()
    assert (canvas[0] == 255).all()


@pytest.mark.parametrize("channels", [1, 2, 3, 4])
def test_png_files_give_back_their_pixels(channels: int) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (6, 11, channels), dtype=np.uint8)
    with Image.open(io.BytesIO(png(pixels))) as image:
        assert (np.asarray(image).reshape(pixels.shape) == pixels).all()


def test_planes_through_the_latent_space() -> None:
    from sandglass.core import Spec

    model = api.build("vae", Spec((1, 4, 4), "unit"), latent_dim=2, net="mlp", seed=0)
    z = plane(model, side=4).z.view(4, 4, 2)
    assert torch.allclose(z[0, :, 0], torch.special.ndtri(torch.tensor([0.125, 0.375, 0.625, 0.875]).double()))
    assert (z[0, :, 1] > z[-1, :, 1]).all()
    assert (z[:, 0, 0] == z[0, 0, 0]).all()
    with torch.no_grad():
        assert torch.allclose(manifold(model, 4)[5], model.decode(z[1, 1].float()[None])[0], atol=1e-6)
    wide = api.build("vae", Spec((1, 4, 4), "unit"), latent_dim=6, net="mlp", seed=0)
    codes = torch.randn(500, 6).double() * torch.tensor([1, 5, 1, 1, 3, 1]) + 2
    grid_z = plane(wide, side=5, codes=codes).z
    assert torch.allclose(grid_z[12], codes.mean(0))
    found = principal(codes)
    assert torch.allclose(found.project(grid_z)[4], 2.5 * found.scale)
    assert plane(wide, side=3, axes=(1, 4)).z.ne(0).any(0).tolist() == [False, True, False, False, True, False]
    assert embed(torch.zeros(50, 3), seed=0) is None
    assert embed(torch.randn(5, 3), seed=0) is None

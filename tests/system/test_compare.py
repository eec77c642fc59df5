"""Comparing runs: common examples and noise, what must not be compared apart, and a page that stands alone."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from test_report import Page

import sandglass
from helpers import Cli
from sandglass.comparing.sides import names_of
from sandglass.errors import CapabilityError, ConfigError, DataError

SMALL: dict[str, Any] = {"epochs": 2, "batch_size": 64, "threads": 1, "data_options": {"limit": 300}}
MLP = {"net": {"name": "mlp", "widths": [16]}}


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, Path]:
    """Runs that compare, and some that do not."""
    folder = tmp_path_factory.mktemp("compare")
    made: dict[str, tuple[str, dict[str, Any], dict[str, Any]]] = {
        "two": ("vae", {"latent_dim": 2}, {}),
        "eight": ("vae", {"latent_dim": 8}, {}),
        "again": ("vae", {"latent_dim": 8}, {"seed": 1}),
        "normal": ("vae", {"latent_dim": 8, "likelihood": "gaussian"}, {}),
        "<b>other": ("vae", {"latent_dim": 8}, {"data_options": {"limit": 300, "size": 6}}),
        "fewer": ("vae", {"latent_dim": 2}, {"data_options": {"limit": 250}}),
        "gan": ("gan", {}, {}),
    }
    for name, (model, options, more) in made.items():
        sandglass.train(model, "digits", out=folder / name, model_options={**MLP, **options}, **{**SMALL, **more})
    return {name: folder / name for name in made}


def content(path: Path) -> str:
    """A hash of every file under a folder."""
    digest = hashlib.sha256()
    for file in sorted(p for p in path.rglob("*") if p.is_file()):
        digest.update(str(file.relative_to(path)).encode() + file.read_bytes())
    return digest.hexdigest()


def twin(run: Path, folder: Path) -> Path:
    """A copy of a run."""
    return Path(shutil.copytree(run, folder / f"{run.name}-twin"))


def test_figures_are_those_of_evaluate_and_the_runs_stay_as_they_were(runs: Mapping[str, Path], tmp_path: Path) -> None:
    before = content(runs["two"])
    found = sandglass.compare([runs["two"], runs["eight"]], out=tmp_path / "page.html").to_dict()
    assert content(runs["two"]) == before
    figures = found["comparable"][0]["runs"]["two"][0]["figures"]
    assert figures == sandglass.evaluate(runs["two"], quick=True)["metrics"]
    assert list(found["differences"]) == ["latent_dim"]
    assert found["split"] == "test" and found["warnings"] == []


def test_a_copy_of_a_run_is_neither_better_nor_worse(runs: Mapping[str, Path], tmp_path: Path) -> None:
    [block] = sandglass.compare([runs["two"], twin(runs["two"], tmp_path)]).blocks
    for ranking in block.rankings:
        if ranking.first is not None:
            assert ranking.best is None
            found = ranking.difference("two", "two-twin")
            assert found.value == 0 and (found.stderr == 0 or not found.paired)
            assert found.paired or ranking.results["two"][0].each is None


def test_differences_are_paired(runs: Mapping[str, Path]) -> None:
    [block] = sandglass.compare([runs["eight"], runs["again"]], metrics=["elbo", "mse"]).blocks
    for ranking in block.rankings:
        a, b = (ranking.results[n][0].each for n in ("eight", "again"))
        found = ranking.difference("eight", "again")
        assert a is not None and b is not None and found.paired and len(a) == ranking.results["eight"][0].n
        assert found.stderr == pytest.approx(float((a - b).std()) / len(a) ** 0.5)


def test_the_same_examples_after_other_training_compare_with_a_word(runs: Mapping[str, Path]) -> None:
    found = sandglass.compare([runs["two"], runs["fewer"]], metrics=["mse"])
    assert len(found.blocks) == 1 and "trained on different ones" in found.warnings[0]


def test_different_examples_are_not_ranked_together(runs: Mapping[str, Path]) -> None:
    found = sandglass.compare([runs["two"], runs["<b>other"]], metrics=["mse"])
    assert [[s.name for s in block.sides] for block in found.blocks] == [["two"], ["<b>other"]]
    assert all(ranking.best is None for block in found.blocks for ranking in block.rankings)
    assert "not all runs" in found.warnings[0].lower()


def test_kinds_of_likelihood_are_not_ranked_together(runs: Mapping[str, Path]) -> None:
    found = sandglass.compare([runs["eight"], runs["normal"]])
    rankings = {(c.figure, c.kind): list(c.results) for c in found.blocks[0].rankings}
    assert rankings["elbo", "mass"] == ["eight"] and rankings["elbo", "density"] == ["normal"]
    assert rankings["mse", ""] == ["eight", "normal"]
    assert "different kinds" in found.warnings[0]


def test_seeds_are_grouped_when_asked(runs: Mapping[str, Path]) -> None:
    three = [runs["two"], runs["eight"], runs["again"]]
    [block] = sandglass.compare(three, metrics=["elbo"], group=True).blocks
    assert {name: [s.name for s in sides] for name, sides in block.groups.items()} == {
        "two": ["two"],
        "eight and 1 more": ["eight", "again"],
    }
    values = [r.value for r in block.rankings[0].results["eight and 1 more"]]
    assert block.rankings[0].value("eight and 1 more") == pytest.approx(sum(values) / 2)
    assert len(sandglass.compare(three, metrics=["elbo"]).blocks[0].measured) == 3


def test_of_what_one_model_alone_has_only_the_unusual_is_named(runs: Mapping[str, Path]) -> None:
    def named(*runs_: str) -> list[str]:
        return [name for name, _ in sandglass.compare([runs[r] for r in runs_], metrics=["mse"]).differences]

    assert named("two", "gan") == ["model", "latent_dim", "training.ema"], (
        "a GAN's adversary and a VAE's beta are as usual"
    )
    likelihood = [f"likelihood.{name}" for name in ("name", "scale", "learn", "bounded")]
    assert named("normal", "gan") == ["model", "latent_dim", *likelihood, "training.ema"]


def test_a_metric_is_left_out_where_a_model_cannot(runs: Mapping[str, Path], tmp_path: Path) -> None:
    found = sandglass.compare([runs["two"], runs["gan"]], metrics=["mse"])
    assert [list(c.results) for c in found.blocks[0].rankings] == [["two"]]
    with pytest.raises(CapabilityError, match="None of these models"):
        sandglass.compare([runs["gan"], twin(runs["gan"], tmp_path)], metrics=["mse"])


@pytest.mark.parametrize(
    ("names", "options", "error", "message"),
    [
        (["two"], {}, ConfigError, "two or more runs"),
        (["two", "two"], {}, ConfigError, "given twice"),
        (["two", "eight"], {"split": "tset"}, DataError, "no split 'tset'"),
        (["two", "eight"], {"metrics": ["elob"]}, ConfigError, "Did you mean 'elbo'"),
        (["two", "eight"], {"elbo": {"k": 3}}, ConfigError, "'elbo' is a figure of the metric 'bound'"),
        (["two", "eight"], {"out": "page.pdf"}, ConfigError, r"\.html"),
        (["two", "eight"], {"log_prob": {"k": 0}, "metrics": ["log_prob"]}, ConfigError, "k >= 1"),
    ],
)
def test_mistakes_are_one_line(
    names: list[str], options: dict[str, Any], error: type[Exception], message: str, runs: Mapping[str, Path]
) -> None:
    with pytest.raises(error, match=message) as caught:
        sandglass.compare([runs[n] for n in names], **options)
    assert "\n" not in str(caught.value)


def test_an_option_of_a_metric_asks_for_it(runs: Mapping[str, Path]) -> None:
    options: dict[str, Any] = {"log_prob": {"k": 3}}
    [block] = sandglass.compare([runs["two"], runs["eight"]], metrics=["mse"], **options).blocks
    assert [ranking.figure for ranking in block.rankings] == ["mse", "log_prob", "log_prob_bits_per_dim"]
    sides = sandglass.compare([runs["two"], runs["gan"]], **options).sides
    assert ["log_prob" in side.results for side in sides] == [True, False], "a model that cannot is left out of it"


def test_the_page_stands_alone(runs: Mapping[str, Path], tmp_path: Path) -> None:
    file = tmp_path / "deep" / "page.html"
    names = ("two", "<b>other", "gan")
    sandglass.compare([runs[n] for n in names], out=file)
    text = file.read_text()
    page = Page(text)
    assert [link for link in page.links if not link.startswith(("data:", "#"))] == []
    assert len(page.ids) == len(set(page.ids))
    assert "script" not in page.tags and "<b>other" not in text and "&lt;b&gt;other" in text
    for said in (
        "Learning curves",
        "Samples",
        "Reconstructions",
        "Configuration differences",
        "latent_dim",
        "Size and time",
    ):
        assert said in text, said
    sandglass.compare([runs[n] for n in names], out=tmp_path / "again.html")
    assert (tmp_path / "again.html").read_text() == text


def test_tables_compare_too(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("a,b\n" + "".join(f"{i % 17},{i * i % 7}\n" for i in range(200)))
    for seed in (0, 1):
        sandglass.train("vae", str(tmp_path / "t.csv"), out=tmp_path / str(seed), epochs=1, threads=1, seed=seed)
    found = sandglass.compare([tmp_path / "0", tmp_path / "1"], out=tmp_path / "page.html")
    assert {"elbo", "mse"} <= {c.figure for c in found.blocks[0].rankings}
    assert "Samples" not in (tmp_path / "page.html").read_text()


def test_on_the_command_line(cli: Cli, runs: Mapping[str, Path]) -> None:
    two, eight = runs["two"], runs["eight"]
    code, out, err = cli("compare", two, eight, "-o", "page.html", "--metrics", "elbo,mse")
    assert code == 0 and err == "" and Path("page.html").is_file()
    assert "elbo, nats  higher" in out and "paired by example" in out and "latent_dim" in out and "±" in out
    best = [c.best for c in sandglass.compare([two, eight], metrics=["elbo", "mse"]).blocks[0].rankings]
    assert out.count(" *") == 2 - best.count(None)
    code, out, _ = cli("compare", two, eight, "--metrics", "log_prob", "--log_prob.k", "3", "--json")
    figures = json.loads(out)["comparable"][0]["runs"]["two"][0]["figures"]
    assert code == 0 and list(figures) == ["log_prob", "log_prob_bits_per_dim"] and "k=3" in figures["log_prob"]["note"]
    code, out, err = cli("compare", two, "nowhere")
    assert code == 66 and out == "" and err.count("\n") == 1


def test_runs_are_named_as_short_as_tells_them_apart(runs: Mapping[str, Path], tmp_path: Path) -> None:
    shutil.copytree(runs["two"], tmp_path / "b" / "two")
    found = names_of([sandglass.Run(runs["two"]), sandglass.Run(tmp_path / "b" / "two")])
    assert found == [f"{runs['two'].parent.name}/two", "b/two"]


def test_a_figure_that_not_every_model_has_is_compared_where_it_is(tmp_path: Path) -> None:
    options = {"epochs": 1, "latent_dim": 2, "net": "mlp", "sheets": 0}
    runs = [sandglass.train("vae", "digits", out=tmp_path / name, likelihood=name, **options)
            for name in ("bernoulli", "logistic-mixture")]  # fmt: skip
    told: list[str] = []
    found = sandglass.compare(runs, metrics=["elbo", "bits_per_dim"], progress=told.append)
    assert [list(side.results) for side in found.sides] == [["elbo"], ["elbo", "bits_per_dim"]]
    assert told == ["bernoulli, bound, 1 of 1 metrics", "logistic-mixture, bound, 1 of 1 metrics"]

"""Training with few labels: which are kept, how often a batch has them, and what is refused."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

import sandglass
from helpers import Cli
from sandglass.core import Spec
from sandglass.data.dataset import Dataset, Split
from sandglass.data.loading import Loader
from sandglass.data.trained_on import run_data
from sandglass.data.transform import ArrayTransform
from sandglass.engine.options import Training
from sandglass.engine.train import check_changes, stages_for
from sandglass.errors import ConfigError
from sandglass.metrics.evaluation import Evaluation
from sandglass.metrics.extractor import Extractor
from sandglass.metrics.features.own import Own
from sandglass.reports.plots import colour_of_classes, scatter_chart
from sandglass.runs.run import Run


def test_so_many_labels_are_kept_evenly_and_no_others() -> None:
    whole, few = (sandglass.load_data("digits", labelled=n) for n in (None, 50))
    y, truth = few.train.y, whole.train.y
    assert y is not None and truth is not None and whole.splits["test"].y is not None
    known = y >= 0
    assert y[known].bincount().tolist() == [5] * 10 and torch.equal(y[known], truth[known])
    assert few.splits["validation"].y.unique().tolist() == [-1]  # type: ignore[union-attr]
    assert torch.equal(few.splits["test"].y, whole.splits["test"].y)  # type: ignore[arg-type]
    assert few.spec == whole.spec and few.fingerprint != whole.fingerprint
    again, other = (sandglass.load_data("digits", labelled=50, seed=seed) for seed in (0, 1))
    assert torch.equal(again.train.y, y) and not torch.equal(other.train.y, y)  # type: ignore[arg-type]
    assert few.source is not None and few.source["labelled"] == 50
    all_of_them = sandglass.load_data("digits", labelled=10**6)
    assert torch.equal(all_of_them.train.y, truth) and "which are all 1,294" in all_of_them.notes[-1]  # type: ignore[arg-type]


def test_what_cannot_be_is_refused() -> None:
    x = np.zeros((30, 3))
    for options, match in (
        ({"labelled": 10}, "the data has none"),
        ({"labelled": 2, "labels": np.arange(30) % 3}, "give 3 or more"),
        ({"labelled": 0}, "whole number of at least 1"),
    ):
        with pytest.raises(ConfigError, match=match):
            sandglass.load_data(x, **options)  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="all have one"):
        sandglass.train("vae", "digits", labelled_share=0.5, epochs=1)


def test_a_batch_has_its_share_of_labels_and_every_label_its_turn() -> None:
    """Over whole turns each labelled example is drawn equally often, whatever the steps an epoch has."""
    y = torch.full((50,), -1)
    y[::10] = torch.arange(5)
    loader = Loader(Split(torch.zeros(50, 1), y), 8, seed=3, labelled_share=0.25)
    batches = [loader.batch(step) for step in range(70)]  # ten epochs of seven steps
    drawn = torch.cat([b.index[b.y >= 0] for b in batches])  # type: ignore[index, operator]
    always = torch.cat([b.index[[0, 4]] for b in batches if len(b) == 8])  # type: ignore[index]
    assert bool((y[always] >= 0).all())
    last = torch.cat([b.index[:1] for b in batches if len(b) == 2])  # type: ignore[index]
    counts = torch.cat([always, last]).bincount(minlength=50)[::10]
    assert int(counts.sum()) == 130 and int(counts.max()) == int(counts.min()) == 26 and len(drawn) >= 130
    assert all(torch.equal(loader.batch(s).index, b.index) for s, b in reversed(list(enumerate(batches))))  # type: ignore[arg-type]
    plain = [Loader(Split(torch.zeros(50, 1), labels), 8, seed=3, labelled_share=0.25) for labels in (None, y * 0)]
    assert all(torch.equal(one.indices(5), plain[0].indices(5)) for one in plain)


def test_the_command_line_says_it_and_the_run_keeps_it(cli: Cli, tmp_path: Path) -> None:
    words = ["--net", "mlp", "--model.net.widths", "8", "--latent-dim", "2", "--threads", "1", "--limit", "200"]
    code, _, err = cli(
        *("train", "m2", "--data", "digits", "--labelled", "20", "--labelled-share", "0.5", "--epochs", "1", *words),
        *("--out", str(tmp_path / "run")),
    )
    assert code == 0 and "labels of 20 of the 200 training examples were kept" in err
    config = Run(tmp_path / "run").config
    assert config["data"]["source"]["labelled"] == 20 and config["training"]["labelled_share"] == 0.5
    again = run_data(Run(tmp_path / "run"))
    assert int((again.train.y >= 0).sum()) == 20  # type: ignore[operator]
    page = (tmp_path / "run" / "report.html").read_text()
    assert "without a label" in page and "found without looking" in page and ">180<" in page
    for command in (("evaluate", "--split", "all", "--metrics", "elbo,probe,clustering"), ("report",)):
        code, _, err = cli(command[0], str(tmp_path / "run"), *command[1:])
        assert code == 0, err


def test_no_label_is_no_class() -> None:
    """In a census, a legend of classes, and the features that samples are compared by."""
    y = torch.full((60,), -1)
    y[:8] = torch.arange(8) % 2
    generator = torch.Generator().manual_seed(0)
    rows = Split(torch.rand(60, 70, generator=generator), y)
    data = Dataset("few", Spec((70,), classes=2), ArrayTransform((70,)), {"train": rows}, classes=("a", "b"))
    assert sandglass.inspect(data).facts["splits"]["train"]["classes"] == {"a": 4, "b": 4}
    pictures = replace(rows, x=(255 * rows.x[:, :64].reshape(60, 1, 8, 8)).to(torch.uint8))
    spec = Spec((1, 8, 8), "unit", classes=2)
    seen = replace(data, spec=spec, transform=ArrayTransform((1, 8, 8)), splits={"train": pictures})
    assert sandglass.inspect(seen).facts["splits"]["train"]["classes"] == {"a": 4, "b": 4}
    assert colour_of_classes(y, data.classes)[-1] == (-1, "no label", "muted")
    chart = scatter_chart("codes", "Codes", rows.x[:, :2].double(), y, colour_of_classes(y, data.classes), ("a", "b"))
    assert chart.file

    def features(split: Split) -> Extractor:
        return Own(dim=4, updates=2)(Evaluation(split=split, spec=data.spec, train=split), torch.device("cpu"))

    assert not features(rows).labels and "contrastive" in features(rows).about
    mostly = replace(rows, y=torch.where(torch.arange(60) % 3 > 0, torch.arange(60) % 2, -1))
    assert features(mostly).labels and "nan" not in features(mostly).about


@pytest.mark.parametrize("name", ["m2", "m1-m2"])
def test_a_run_with_every_label_is_repeated_from_its_own_settings(name: str) -> None:
    data = replace(sandglass.load_data("digits", limit=200), classes=())
    model = sandglass.build(name, data.spec, net="mlp", latent_dim=1)
    assert data.train.y is not None
    some = replace(data.train, y=data.train.y.where(data.train.y > 4, -1))
    few = replace(data, splits={**data.splits, "train": some})
    for of, share in ((data, 0.0), (few, 0.25)):
        first = Training()
        for _ in range(2):
            check_changes(model, of, first)
            first = first.settled(["validation"], 200, stages_for(model, of, first))
            assert first.of_stage(model.stages()[-1].name).labelled_share == share
    last = model.stages()[-1].name
    with pytest.raises(ConfigError, match="all have one"):
        check_changes(model, data, Training(stage={last: {"labelled_share": 0.5}}))

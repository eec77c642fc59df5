"""Training with few labels: which are kept, how often a batch has them, and what is refused."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

import sandglass
from helpers import Cli
from sandglass.data.dataset import Split
from sandglass.data.loading import Loader
from sandglass.data.trained_on import run_data
from sandglass.errors import ConfigError
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
    words = ["--net", "mlp", "--model.net.widths", "8", "--latent-dim", "2", "--threads", "1", "--no-report"]
    code, _, err = cli(
        *("train", "m2", "--data", "digits", "--labelled", "20", "--labelled-share", "0.5", "--epochs", "1", *words),
        *("--out", str(tmp_path / "run")),
    )
    assert code == 0 and "labels of 20 of the 1,294 training examples were kept" in err
    config = Run(tmp_path / "run").config
    assert config["data"]["source"]["labelled"] == 20 and config["training"]["labelled_share"] == 0.5
    again = run_data(Run(tmp_path / "run"))
    assert int((again.train.y >= 0).sum()) == 20  # type: ignore[operator]

"""A small table of several kinds of column, whose structure is known, is learnt: frequencies, means and categories."""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
import pandas as pd
import scipy.stats
import torch
from torch import Tensor

from helpers import fit, fresh
from people import with_gaps
from sandglass import rng
from sandglass.core import Model
from sandglass.data.dataset import Dataset
from sandglass.data.load import load_data

TOWNS = ("Bern", "Graz", "Ulm")
SHARE = np.array([0.5, 0.3, 0.2])
LOG_INCOME, SPREAD = np.array([9.5, 10.3, 11.1]), 0.4
VISITS, R = np.array([4.0, 20.0, 4.0]), 2.0
MEMBER = np.array([0.8, 0.5, 0.1])


def drawn(n: int, seed: int) -> pd.DataFrame:
    """Rows whose town decides all the rest."""
    r = np.random.default_rng(seed)
    town = r.choice(3, n, p=SHARE)
    return pd.DataFrame(
        {
            "town": np.array(TOWNS)[town],
            "income": np.exp(r.normal(LOG_INCOME[town], SPREAD)),
            "visits": r.negative_binomial(R, R / (R + VISITS[town])),
            "member": r.random(n) < MEMBER[town],
        }
    )


@cache
def learnt(likelihood: str) -> tuple[Model, Dataset]:
    """A model of rows of which a tenth of the cells is missing."""
    data = load_data(with_gaps(drawn(4000, 0), 0.1), validation=0, test=0, types="income=positive,visits=count")
    options: dict[str, Any] = {"latent_dim": 2, "net": {"name": "mlp", "widths": [64]}}
    model = fresh("vae", data, likelihood=likelihood, **options)
    assert model.config["options"]["likelihood"]["name"] == likelihood.replace("auto", "mixed")
    fit(model, data, epochs=30, batch_size=200, lr=1e-2, schedule="cosine")
    return model.eval(), data


def test_generated_rows_have_the_frequencies_and_conditional_means_of_the_data() -> None:
    model, data = learnt("auto")
    with rng.forked("cpu", 3):
        rows = data.transform.inverse(model.sample(8000, noise=True))
    for i, town in enumerate(TOWNS):
        own = rows[rows["town"] == town]
        assert abs(len(own) / len(rows) - SHARE[i]) < 0.06, town
        assert abs(np.log(own["income"]).mean() - LOG_INCOME[i]) < 0.35, town  # towns are 0.8 apart
        assert np.log(own["income"]).std() < SPREAD + 0.25, town  # without the town it is 0.73
        assert abs(own["visits"].mean() / VISITS[i] - 1) < 0.6, town  # without the town: 1.2 for two
        assert abs(own["member"].mean() - MEMBER[i]) < 0.12, town
    assert rows["visits"].dtype == np.int64 and rows["visits"].min() == 0 and rows["income"].min() > 0


def category_given_the_rest(model: Model, data: Dataset, frame: pd.DataFrame) -> Tensor:
    """``(N, 3)`` log p(town | other columns): the joint with each town in turn, over their sum.

    So a density of one-hot codes gives probabilities of categories, too.
    """
    joint = []
    for town in TOWNS:
        with torch.no_grad(), rng.forked("cpu", 5):
            joint.append(model.log_prob(data.transform.apply(frame.assign(town=town)), 50))
    return torch.stack(joint, 1).double().log_softmax(1)


def test_held_out_categories_are_likelier_than_under_a_gaussian_on_one_hot_codes() -> None:
    held_out = drawn(1000, 1)
    which = torch.tensor([TOWNS.index(t) for t in held_out["town"]])[:, None]
    reached = {}
    for likelihood in ("auto", "gaussian"):
        found = category_given_the_rest(*learnt(likelihood), held_out)
        reached[likelihood] = float(found.gather(1, which).mean())
    log_visits = scipy.stats.nbinom.logpmf(held_out["visits"].to_numpy()[:, None], R, R / (R + VISITS))
    member = np.where(held_out["member"].to_numpy()[:, None], MEMBER, 1 - MEMBER)
    log_income = scipy.stats.norm.logpdf(np.log(held_out["income"].to_numpy())[:, None], LOG_INCOME, SPREAD)
    truth = torch.tensor(np.log(SHARE) + log_visits + np.log(member) + log_income).log_softmax(1)
    best = float(truth.gather(1, which).mean())
    assert best - 0.12 < reached["auto"] < best + 0.02
    assert reached["gaussian"] < reached["auto"] - 0.3  # little above the -1.03 of the bare frequencies

"""Topic models on word counts: VAEs with Dirichlet and Gaussian codes beside latent Dirichlet allocation.

A tenth of the words of every test document, at least one, is held out at random; from the others each model infers the
document, and says how likely the held-out words are. Columns: perplexity of held-out words; coherence of topics, the
mean normalised pointwise mutual information of the ten first words of a topic in the documents (Lau, Newman and Baldwin
2014, "Machine Reading Tea Leaves"); error of five nearest neighbours on the codes, which find a document's package.
The trivial baseline is the frequency of words. Before the table, the first words of the topics of the first VAE:
``python reproductions/topics.py``.
"""

from __future__ import annotations

import argparse
import itertools
import statistics
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
from sklearn.decomposition import LatentDirichletAllocation
from sklearn.neighbors import KNeighborsClassifier

import sandglass

Array = Any

KINDS = {
    "dirichlet-vae": {"posterior": "dirichlet"},
    "logistic-normal": {"posterior": "logistic-normal"},
    "stick-breaking": {"posterior": "stick-breaking"},
    "gaussian": {},
}


def main() -> None:
    """Trains and measures each."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--words", type=int, default=1000, help="of the vocabulary")
    parser.add_argument("--topics", type=int, default=20)
    parser.add_argument("--concentration", type=float, default=0.2, help="of the priors on the simplex")
    parser.add_argument("--epochs", type=int, default=100)
    parser.add_argument("--seeds", type=int, nargs="+", default=[10, 11, 12], help="of trainings")
    options = parser.parse_args()
    data = sandglass.load_data({"name": "docstrings", "words": options.words}, validation=0)
    words = [column["name"] for column in data.transform.columns]
    train, test = (data.transform.inverse(data.splits[name].x) for name in ("train", "test"))
    labels = tuple(data.splits[name].y.numpy() for name in ("train", "test"))
    held = held_out(test, np.random.default_rng(0))
    shown = False
    found: dict[str, list[tuple[float, ...]]] = {}
    for seed in options.seeds:
        frequency = (train.sum(0) + 0.01) / (train.sum(0) + 0.01).sum()
        perplexity = np.exp(-(held * np.log(frequency)).sum() / held.sum())
        found.setdefault("frequency of words", []).append((perplexity, float("nan"), float("nan")))
        lda = LatentDirichletAllocation(
            options.topics, doc_topic_prior=options.concentration, topic_word_prior=0.01, random_state=seed, max_iter=50
        ).fit(train)
        topics = lda.components_ / lda.components_.sum(1, keepdims=True)
        codes = lda.transform(train), lda.transform(test - held)
        found.setdefault("LDA of scikit-learn", []).append(
            measured(held, codes[1] @ topics, train, top(topics, frequency), codes, labels)
        )
        for name, own in KINDS.items():
            model, transform = trained(data, own, seed, options)
            with torch.no_grad():
                codes = tuple(model.encode(transform.apply(x)).numpy() for x in (train, test - held))
                shares = model.observation(torch.from_numpy(codes[1]), None).log_share.exp().numpy()
                corners = torch.eye(options.topics) * (1 if own else 2)  # of the simplex, or two deviations out
                topics = model.observation(corners, None).log_share.exp().numpy()
            firsts = top(topics, frequency)
            found.setdefault(name, []).append(measured(held, shares, train, firsts, codes, labels))
            if not shown:
                shown = True
                for topic in firsts:
                    print(" ".join(words[i] for i in topic[:8]))
        for name in found:
            print(f"seed {seed}  {name:22}" + "  ".join(f"{v:9.4g}" for v in found[name][-1]), flush=True)
    print(f"\n{'':22}{'perplexity':>12}{'coherence':>12}{'kNN error':>12}   medians; range of the perplexity")
    for name, values in found.items():
        each = list(zip(*values, strict=True))
        medians = "".join(f"{statistics.median(v):12.4g}" for v in each)
        print(f"{name:22}{medians}   {min(each[0]):.1f} to {max(each[0]):.1f}")


def held_out(counts: Array, chance: np.random.Generator) -> Array:
    """``(N, V)`` a tenth of the words of each document, at least one."""
    return np.stack([chance.multivariate_hypergeometric(row, max(1, row.sum() // 10)) for row in counts.astype(int)])


def trained(data: Any, own: dict[str, Any], seed: int, options: argparse.Namespace) -> tuple[Any, Any]:
    """The model of these options, and its transform."""
    net = {"name": "mlp", "widths": [128], "decoder_widths": []}
    prior = {"name": own["posterior"], "concentration": options.concentration} if own else "standard"
    training: dict[str, Any] = {"epochs": options.epochs, "batch_size": 64, "lr": 0.01, "schedule": "cosine"}
    with tempfile.TemporaryDirectory() as folder:
        run = sandglass.train(
            "vae",
            data,
            out=Path(folder) / "run",
            latent_dim=options.topics,
            likelihood="multinomial",
            net=net,
            prior=prior,
            seed=seed,
            sheets=0,
            select="last",
            **own,
            **training,
        )
        return run.load_model(), data.transform


def top(topics: Array, frequency: Array) -> list[list[int]]:
    """The ten words of each topic ``(K, V)`` that are likely in it and rarer elsewhere."""
    return [list(np.argsort(-(topic * np.log(topic / frequency)))[:10]) for topic in topics]


def measured(
    held: Array,
    shares: Array,
    train: Array,
    firsts: list[list[int]],
    codes: tuple[Array, ...],
    labels: tuple[Array, ...],
) -> tuple[float, ...]:
    """The columns of the table."""
    perplexity = np.exp(-(held * np.log(shares + 1e-12)).sum() / held.sum())
    near = KNeighborsClassifier(5).fit(codes[0], labels[0])
    return float(perplexity), coherence(train > 0, firsts), 1 - float(near.score(codes[1], labels[1]))


def coherence(present: Array, firsts: list[list[int]]) -> float:
    """Mean normalised pointwise mutual information of pairs of words of a topic, in documents ``(N, V)``."""
    n, found = len(present), []
    for topic in firsts:
        for a, b in itertools.combinations(topic, 2):
            both = (present[:, a] & present[:, b]).sum() / n
            alone = present[:, a].mean() * present[:, b].mean()
            found.append(-1.0 if both == 0 else 1.0 if both == 1 else np.log(both / alone) / -np.log(both))
    return float(np.mean(found))


if __name__ == "__main__":
    main()

"""Agreement of clusters of the codes with the classes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from sandglass.core import Model
from sandglass.errors import ConfigError
from sandglass.metrics._bootstrap import bootstrap, sklearn_seed
from sandglass.metrics._information import contingency, entropy, mutual_information
from sandglass.metrics._subset import marked, points_and_inputs, scarce, subset
from sandglass.metrics.evaluation import Better, Evaluation, UnsuitableError
from sandglass.registry import register
from sandglass.runs.result import Result


def accuracy(table: np.ndarray) -> float:
    """Clustering accuracy from a ``(K, K)`` contingency table, under the best one-to-one assignment to classes.

    Kuhn 1955, "The Hungarian Method for the Assignment Problem".

    Example:
        >>> accuracy(np.array([[0, 3], [5, 2]]))
        0.8
    """
    from scipy.optimize import linear_sum_assignment  # type: ignore[import-untyped]

    return float(table[linear_sum_assignment(table, maximize=True)].sum() / table.sum())


def normalised_information(table: np.ndarray) -> float:
    """Mutual information of clusters and classes over the mean of their entropies; 1 where both are constant.

    Example:
        >>> normalised_information(np.eye(3)), normalised_information(np.ones((3, 3)))
        (1.0, 0.0)
    """
    entropies = float(entropy(table.sum(0)) + entropy(table.sum(1)))
    return float(2 * mutual_information(table) / entropies) if entropies else 1.0


def adjusted_rand(table: np.ndarray) -> float:
    """Rand index of clusters and classes, adjusted so that chance gives 0 and identical partitions give 1.

    Hubert and Arabie 1985, "Comparing Partitions".

    Example:
        >>> adjusted_rand(np.array([[2, 0], [0, 3]]))
        1.0
    """
    pairs, rows, columns, all_pairs = (
        float((n * (n - 1)).sum() / 2) for n in (table, table.sum(1), table.sum(0), table.sum())
    )
    chance = rows * columns / all_pairs if all_pairs else 0.0
    most = (rows + columns) / 2
    return (pairs - chance) / (most - chance) if most != chance else 1.0


@register("clustering", kind="metric")
class Clustering:
    """k-means on the codes with one cluster per class: accuracy, normalised mutual information, adjusted Rand index.

    On at most 10,000 examples with a label, which is not looked at for their codes. As in Xie, Girshick and Farhadi
    2016, "Unsupervised Deep Embedding for Clustering Analysis" (arXiv 1511.06335).

    Args:
        starts: number of k-means++ initialisations; the run with the lowest inertia is kept.

    Raises:
        ConfigError: ``starts`` is below 1.
    """

    needs = ("encode",)
    requires = ("labels",)
    figures = ("cluster_accuracy", "cluster_nmi", "cluster_ari")
    better: Mapping[str, Better] = {"cluster_accuracy": "higher", "cluster_nmi": "higher", "cluster_ari": "higher"}
    by_default = False

    def __init__(self, *, starts: int = 10) -> None:
        if starts < 1:
            raise ConfigError(f"clustering needs starts >= 1, not {starts}.")
        self.starts = starts

    def __call__(self, model: Model, evaluation: Evaluation) -> Sequence[Result]:
        """The three scores; bootstrap standard errors keep the clusters fixed.

        Raises:
            DataError: all examples are of one class.
        """
        known = marked(evaluation.split)
        split = subset(known, evaluation.seed, "clustering")
        assert split.y is not None
        found, y = np.unique(split.y.cpu().numpy(), return_inverse=True)
        if len(found) < 2:
            raise UnsuitableError("The metric 'clustering' needs examples of at least two classes.")
        codes, inputs = points_and_inputs(model, evaluation, split)
        seed = sklearn_seed(evaluation.seed, "clustering")
        on_codes, on_inputs = (self.clusters(x, len(found), seed) for x in (codes, inputs))

        def three(clusters: np.ndarray, weights: np.ndarray) -> np.ndarray:
            table = contingency(clusters, y, (len(found), len(found)), weights)
            return np.array([accuracy(table), normalised_information(table), adjusted_rand(table)])

        values, errors = bootstrap(lambda weights: three(on_codes, weights), len(y), evaluation.seed, "clustering")
        of = f" of {len(known):,} examples" if len(split) < len(known) else ""
        how = f"k-means with k = {len(found)}, the best of {self.starts} starts{of}{scarce(y)}"
        figures = zip(self.figures, values, errors, three(on_inputs, np.ones(len(y))), strict=True)
        return [
            Result(name, float(value), float(error), len(y), "1", f"on the inputs {plain:.3f}; {how}")
            for name, value, error, plain in figures
        ]

    def clusters(self, x: np.ndarray, k: int, seed: int) -> np.ndarray:
        """``(N,)`` cluster indices; all 0 where there are fewer than k distinct points."""
        from sklearn.cluster import KMeans

        if len(np.unique(x, axis=0)) < k:
            return np.zeros(len(x), np.int64)
        labels: np.ndarray = KMeans(k, n_init=self.starts, random_state=seed).fit(x).labels_
        return labels.astype(np.int64)

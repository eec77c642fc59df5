"""Evaluation of a model on a split with the registered metrics."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any, Protocol

from torch import Tensor

from sandglass import registry
from sandglass.core import Batch, Model
from sandglass.data.dataset import Dataset, Mixture, Split
from sandglass.errors import ConfigError
from sandglass.metrics.evaluation import FEW, Evaluation, Requirement, UnsuitableError
from sandglass.running import observing, over
from sandglass.runs.result import Result


class Measure(Protocol):
    """A metric, registered as kind ``metric``.

    Attributes:
        needs: the capabilities a model must have, with ``"codes"`` for real-valued codes and ``"labels"`` for
            class-conditional samples.
        figures: the names of the figures it may return.

    Optional attributes: ``requires``, what the examples must have (see
    :data:`~sandglass.metrics.evaluation.Requirement`); ``by_default = False`` for a metric that is only computed when
    requested by name, or a function of the :class:`~sandglass.metrics.evaluation.Evaluation` that decides this;
    ``quick = True`` for a metric that is also computed at the end of training, where only seconds are to be spent;
    ``repeats = False`` for a metric that also depends on the machine, so that its figures are not reproducible;
    ``limits``, what figures need that are not always returned; and ``better``, which maps figures to ``"higher"`` or
    ``"lower"``. Models are not ranked by other figures.
    """

    needs: tuple[str, ...]
    figures: tuple[str, ...]

    def __call__(self, model: Model, evaluation: Evaluation) -> Sequence[Result]:
        """Figures of the model on the examples."""
        ...


def measure(
    model: Model,
    split: Split,
    *,
    names: Sequence[str] = (),
    seed: int = 0,
    train: Split | None = None,
    factors: Sequence[str] = (),
    classes: Sequence[str] = (),
    mixture: Mixture | None = None,
    fingerprint: str = "",
    most: int | None = None,
    quick: bool = False,
    exact: bool = False,
    progress: Callable[[str], None] | None = None,
    **options: Any,
) -> list[Result]:
    """Figures of a model in eval mode; reproducible for the same seed, except timings.

    Args:
        model: the model, on the device to compute on.
        split: the examples.
        names: names of metrics or of single figures; when empty, all that the model and the examples allow, except
            the slow ones.
        seed: of the noise.
        train: the training examples, for metrics that compare with them.
        factors: names of the columns of ``split.factors``.
        classes: names of the classes, where known.
        mixture: the mixture the examples were drawn from, where known.
        fingerprint: of the data, the cache key of feature networks learnt from it; empty for no caching.
        most: maximum number of samples that no option asks for; None for that of the model.
        quick: whether to spend seconds only, as at the end of training: the metrics marked ``quick``, at most 1,000
            samples, one fold of the two-sample test.
        exact: whether nothing may be computed in bf16, as where models are compared.
        progress: is told which metric is being computed.
        options: options per metric, such as ``log_prob={"k": 1000}``; a metric with options is always computed.

    Raises:
        ConfigError: an unknown metric.
        CapabilityError: the model lacks a capability that a requested metric needs, or the examples lack something
            that the model needs: labels, a companion, or complete values.
        DataError: the examples lack something that a requested metric requires.

    Example:
        >>> import torch
        >>> from sandglass.core import Spec
        >>> model = registry.build("vae", Spec((6,)), latent_dim=2)
        >>> results = measure(model, Split(torch.randn(100, 6)), names=["bound"])
        >>> [(r.name, r.n, r.unit) for r in results]
        [('elbo', 100, 'nats'), ('rate', 100, 'nats'), ('distortion', 100, 'nats')]
        >>> [r.name for r in measure(model, Split(torch.randn(100, 6)), names=["elbo"])]
        ['elbo']
    """
    if len(split) == 0:
        raise ConfigError("There are no examples to evaluate on.")
    check(model, split)
    known: dict[str, Any] = {"factors": tuple(factors), "classes": tuple(classes), "mixture": mixture}
    known |= {"fingerprint": fingerprint, "most": most, "quick": quick, "exact": exact}
    evaluation = Evaluation(split=split, spec=model.spec, seed=seed, train=train, **known)
    named = wanted(names, options)
    chosen = named if names else wanted([name for name in _usual() if _applies(name, model, evaluation)], options)
    results: list[Result] = []
    made: dict[str, Measure] = {  # build all metrics first, so that a bad option fails before minutes of work
        name: registry.resolve("metric", {"name": name, **options.get(name, {})}) for name in chosen
    }
    for place, (name, figures) in enumerate(chosen.items(), 1):
        if progress is not None:
            progress(f"{name}, {place} of {len(chosen)} metrics")
        for capability in _needs(name):
            registry.require(model, capability)
        for requirement in _requires(name):
            evaluation.require(requirement, name)
        with observing(model, seed, "measure", name):
            try:
                results += [_warned(result) for result in made[name](model, evaluation) if result.name in figures]
            except UnsuitableError:
                if name in named:
                    raise
    return results


def check_found(asked: str, found: Collection[str]) -> None:
    """Checks that a metric or figure that was requested by name was computed.

    Raises:
        UnsuitableError: it was not; the message says what it needs.
    """
    ((metric, figures),) = wanted([asked]).items()
    if not figures & set(found):
        limits: Mapping[str, str] = getattr(registry.entry("metric", metric).make, "limits", {})
        need = f"needs {limits[asked]}" if asked in limits else "cannot be computed here"
        raise UnsuitableError(f"The figure '{asked}' {need}; this model and these examples do not allow it.")


def check(model: Model, split: Split) -> None:
    """Checks that the examples have what a model needs.

    Raises:
        CapabilityError: they lack something, which the message names.
    """
    first = split.batch(slice(0, 1))
    given = {name: spec for name, spec in model.spec.given.items() if name in first.given}
    beside = {name: spec for name, spec in model.spec.beside.items() if name in split.beside}
    classes = 0 if first.y is None else model.spec.classes
    found = replace(model.spec, classes=classes, given=given, beside=beside)
    registry.check_needs(model, found, gaps=split.mask is not None)


def context_of(data: Dataset) -> dict[str, Any]:
    """Arguments of :func:`measure` from a dataset: training examples, factors, classes, mixture and fingerprint."""
    known = {"factors": data.factors, "classes": data.classes, "mixture": data.mixture, "fingerprint": data.fingerprint}
    return {"train": data.train, **known}


def listed(names: str | Sequence[str]) -> list[str]:
    """Names of metrics or figures, which may be one text with commas, as on the command line.

    Example:
        >>> listed("elbo, mse"), listed(["elbo"])
        (['elbo', 'mse'], ['elbo'])
    """
    return [part.strip() for part in names.split(",") if part.strip()] if isinstance(names, str) else list(names)


def wanted(names: Sequence[str], options: Iterable[str] = ()) -> dict[str, set[str]]:
    """The requested figures of each metric; the name of a metric stands for all of its figures.

    Args:
        names: of metrics and of figures.
        options: names of metrics that have options.

    Raises:
        ConfigError: a name that is neither a metric nor a figure, or options for a figure.

    Example:
        >>> wanted(["rate", "active_units"])
        {'bound': {'rate'}, 'active_units': {'active_units'}}
    """
    measures = {name: _figures(name) for name in registry.names("metric")}
    of = {figure: name for name, figures in measures.items() for figure in figures}
    chosen: dict[str, set[str]] = {}
    for name in names:
        if name not in measures and name not in of:
            known = sorted({*measures, *of})
            raise ConfigError(f"There is no metric '{name}'.{registry.nearest(name, known)}")
        chosen.setdefault(name if name in measures else of[name], set()).update(measures.get(name, (name,)))
    for name in options:
        if isinstance(options, Mapping) and not isinstance(options[name], Mapping):
            raise ConfigError(f"The options of the metric '{name}' must be a mapping, such as {name}=dict(...).")
        if name in of and name not in measures:
            raise ConfigError(f"'{name}' is a figure of the metric '{of[name]}'; give options to that metric.")
        registry.entry("metric", name)  # raises for an unknown name, and suggests the nearest one
        chosen.setdefault(name, set(measures[name]))
    return chosen


def per_example(model: Model, evaluation: Evaluation, name: str, f: Callable[[Batch], Tensor]) -> Tensor:
    """``f`` of every batch, concatenated: ``(N, ...)`` on the CPU in float64; random numbers are keyed by ``name``."""
    return over(model, evaluation.split, f, key=(evaluation.seed, "measure", name)).double()


def mean_result(name: str, values: Tensor, unit: str, note: str = "", *, by_example: bool = False) -> Result:
    """The mean of ``(N,)`` values with its standard error; see :class:`~sandglass.runs.result.Result`.

    Example:
        >>> import torch
        >>> mean_result("a", torch.tensor([1.0, 3.0]).double(), "1").stderr
        1.0
    """
    n = len(values)
    stderr = float(values.std() / n**0.5) if n > 1 else None
    return Result(name, float(values.mean()), stderr, n, unit, note, each=values, by_example=by_example)


def share_result(name: str, hits: Tensor, note: str = "") -> Result:
    """The share of True among ``(N,)`` values, with its standard error.

    Two successes and two failures are added for the standard error, so that it is not 0 where all examples agree:
    Agresti and Coull 1998, "Approximate is Better than 'Exact' for Interval Estimation of Binomial Proportions".

    Example:
        >>> import torch
        >>> found = share_result("a", torch.tensor([True, True, True, True]))
        >>> found.value, round(found.stderr, 4)
        (1.0, 0.1531)
    """
    n, each = len(hits), hits.double()
    share = (float(each.sum()) + 2) / (n + 4)
    stderr = (share * (1 - share) / (n + 4)) ** 0.5
    return Result(name, float(each.mean()), stderr, n, "1", note, each=each)


def _needs(name: str) -> tuple[str, ...]:
    return registry.entry("metric", name).make.needs  # type: ignore[attr-defined]


def _figures(name: str) -> tuple[str, ...]:
    return registry.entry("metric", name).make.figures  # type: ignore[attr-defined]


def _requires(name: str) -> tuple[Requirement, ...]:
    return getattr(registry.entry("metric", name).make, "requires", ())


def _warned(result: Result) -> Result:
    """The result, with a warning in its note where there are too few examples for a reliable standard error."""
    if result.n >= FEW or "few" in result.note:
        return result
    return replace(result, note="; ".join(filter(None, (result.note, "few examples"))))


def _usual() -> list[str]:
    """All metrics, the most important first."""
    first = ("bound", "reconstruction", "two_sample", "prdc", "fid", "class_shares", "sharpness", "spectrum", "patches")
    return [*first, *(name for name in registry.names("metric") if name not in first)]


def _applies(name: str, model: Model, evaluation: Evaluation) -> bool:
    """Whether the metric is computed by default."""
    make = registry.entry("metric", name).make
    if evaluation.quick and not getattr(make, "quick", False):
        return False
    by_default = getattr(make, "by_default", True)
    able = all(registry.can(model, need) for need in _needs(name))
    able = able and all(map(evaluation.has, _requires(name)))
    return able and bool(by_default(evaluation) if callable(by_default) else by_default)

"""The scikit-learn interface: a generative model as a transformer and a density estimator.

The file is long because an estimator is one class, whose methods scikit-learn looks up on it.

Example:
    >>> from sklearn.pipeline import make_pipeline
    >>> from sklearn.preprocessing import StandardScaler
    >>> X = np.random.default_rng(0).normal(size=(100, 5))
    >>> pipeline = make_pipeline(StandardScaler(), GenerativeModel(latent_dim=2, epochs=1, random_state=0))
    >>> pipeline.fit_transform(X).shape
    (100, 2)
"""

from __future__ import annotations

import inspect
import tempfile
import warnings
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal, Self

import numpy as np
import torch
from sklearn.base import BaseEstimator, ClassNamePrefixFeaturesOutMixin, DensityMixin, TransformerMixin
from sklearn.exceptions import ConvergenceWarning
from sklearn.utils import check_random_state
from sklearn.utils.metaestimators import available_if
from sklearn.utils.validation import check_is_fitted, validate_data
from torch import Tensor

from sandglass import api, registry, running
from sandglass.core import Batch, Model
from sandglass.data.dataset import Split
from sandglass.data.load import load_data
from sandglass.data.sources import arrays, tables
from sandglass.data.transform import TableTransform
from sandglass.engine.device import settle_device
from sandglass.engine.progress import Silent, default_progress
from sandglass.errors import ConfigError, DataError
from sandglass.estimator import labels, layout, state, trained
from sandglass.estimator.alone import alone
from sandglass.estimator.options import check_model, joined, offers, takes_gaps
from sandglass.registry.limits import is_own
from sandglass.runs.run import Run

Array = np.ndarray[Any, Any]

_ELEMENTS = 2**22  # values of model output in memory at once


class GenerativeModel(ClassNamePrefixFeaturesOutMixin, TransformerMixin, DensityMixin, BaseEstimator):
    """A generative model with scikit-learn's interface: codes by ``transform``, log densities by ``score_samples``.

    A method is only available if the model supports it: ``transform`` needs an encoder (not a GAN),
    ``inverse_transform`` a decoder, ``score_samples`` and ``score`` a bound on log p(x) (not a plain autoencoder).

    ``X`` is a numeric array ``(n, d)``, with NaN for missing values if the model supports them; a DataFrame with
    numeric, string, categorical, boolean and date columns; or images, ``(n, H, W)``, ``(n, H, W, C)`` or
    ``(n, C, H, W)``, as bytes, floats in [0, 1], or values of ``value_range``. Other arrays of these shapes are
    standardised internally, as columns are. Outputs have the unit, layout and type of ``X``. Training leaves nothing
    on disk; :meth:`save` writes a model folder without pickle. A pickled estimator contains only plain values and
    arrays, from which the model is rebuilt.

    Args:
        model: name of the model, see ``sandglass models``.
        latent_dim: size of the code; None for the model's default.
        net: network family: a name, a mapping with its options, or an object; None for the model's default.
        epochs: passes over the examples; None to choose by the size of the data.
        batch_size: examples per update; None to choose by the size of the data.
        lr: learning rate; None for the model's default.
        image_shape: ``(H, W)`` or ``(C, H, W)``, for images flattened to rows ``(n, C * H * W)``.
        value_range: values of black and white in images, such as ``(-1, 1)`` or ``(0, 4095)``.
        channels_at: whether the channels of images come ``"first"`` or ``"last"``; needed only if their shape has two
            readings.
        validation_fraction: fraction of the examples held out to select the best weights; 0 keeps the last weights.
        score_draws: latent draws per log density; more draws tighten the bound on log p(x).
        model_options: further options of the model.
        training_options: further options of :class:`~sandglass.engine.options.Training`.
        device: auto, cpu, cuda, cuda:N or mps.
        random_state: determines the initial weights, the order of the data and all noise.
        verbose: show progress.

    Attributes:
        model_: the trained :class:`~sandglass.core.Model`, in eval mode.
        input_transform_: preprocessing of examples for the model, and its inverse.
        classes_: the classes of ``y``, for a model that is conditional on labels.
        seed_: the seed derived from ``random_state``.
        n_features_in_: columns (the second axis) of ``X``.
        feature_names_in_: column names of a DataFrame, if all are strings.

    Example:
        >>> X = np.random.default_rng(0).normal(size=(80, 3))
        >>> vae = GenerativeModel("vae", latent_dim=2, epochs=2, random_state=0).fit(X)
        >>> vae.transform(X).shape, vae.inverse_transform(vae.transform(X)).shape, vae.score_samples(X).shape
        ((80, 2), (80, 3), (80,))
        >>> vae.get_feature_names_out().tolist()
        ['generativemodel0', 'generativemodel1']
    """

    _shape: tuple[int, ...]  # of one example of X

    def __init__(
        self,
        model: str = "vae",
        *,
        latent_dim: int | None = None,
        net: Any = None,
        epochs: int | None = None,
        batch_size: int | None = None,
        lr: float | None = None,
        image_shape: tuple[int, ...] | None = None,
        value_range: tuple[float, float] | None = None,
        channels_at: Literal["first", "last"] | None = None,
        validation_fraction: float = 0.0,
        score_draws: int = 100,
        model_options: Mapping[str, Any] | None = None,
        training_options: Mapping[str, Any] | None = None,
        device: str = "auto",
        random_state: Any = None,
        verbose: bool = False,
    ) -> None:
        self.model = model
        self.latent_dim = latent_dim
        self.net = net
        self.epochs = epochs
        self.batch_size = batch_size
        self.lr = lr
        self.image_shape = image_shape
        self.value_range = value_range
        self.channels_at = channels_at
        self.validation_fraction = validation_fraction
        self.score_draws = score_draws
        self.model_options = model_options
        self.training_options = training_options
        self.device = device
        self.random_state = random_state
        self.verbose = verbose

    def fit(self, X: Any, y: Any = None) -> Self:  # noqa: N803 - scikit-learn's name
        """Trains on ``X``.

        Args:
            X: the examples; see the class.
            y: ``(n,)`` classes for a model that is conditional on labels, such as ``cvae``; ignored by others.

        Raises:
            ConfigError: an option is invalid or given twice, or there is no ``y`` and the model needs it.
            DataError: the examples cannot be read.
            CapabilityError: the model does not support missing values, or needs companions.
            DivergedError: training diverged to values that are not finite.
        """
        check_model(self.model)
        if self.score_draws < 1:
            raise ConfigError(f"score_draws must be at least 1, not {self.score_draws}.")
        seed = int(check_random_state(self.random_state).randint(2**31 - 1))
        source = self._read(X, reset=True)
        grey = 1 if getattr(source, "ndim", 2) == 3 else None  # never a single picture
        known: dict[str, Any] = {"labels": False}
        if labels.conditional(self.model):
            self.classes_, numbers = labels.numbered(self.model, y, len(source))
            known = {"labels": numbers, "classes": [str(k) for k in range(len(self.classes_))]}
        data = load_data(
            source, **known, validation=self.validation_fraction, test=0.0, seed=seed,
            value_range=self.value_range, channels=grey, channels_at=self.channels_at,
        )  # fmt: skip
        options = self._model_options()
        flat = {"epochs": self.epochs, "batch_size": self.batch_size, "lr": self.lr, "device": self.device}
        training = joined(flat, self.training_options, "training_options")
        progress = default_progress() if self.verbose else _Quiet()
        with tempfile.TemporaryDirectory(prefix="sandglass-") as folder:
            run = api.train(
                self.model, data, out=Path(folder) / "run", model_options=options, progress=progress,
                **{"seed": seed, "sheets": 0, **training},
            )  # fmt: skip
            own = {name: value for name, value in options.items() if is_own(value)}
            self.model_: Model = run.load_model(device=settle_device(self.device), **own)
        self.seed_, self.input_transform_ = seed, data.transform
        for text in progress.messages if isinstance(progress, _Quiet) else ():
            warnings.warn(text, ConvergenceWarning, stacklevel=2)
        return self

    def fit_transform(self, X: Any, y: Any = None, **options: Any) -> Array:  # noqa: N803
        """Trains on ``X`` and returns its codes; see :meth:`fit` and :meth:`transform`."""
        return self.fit(X, y, **options).transform(X, y)

    def transform(self, X: Any, y: Any = None) -> Array:  # noqa: N803
        """``(n, latent_dim)`` codes, in the precision of the model (float32); missing values are set to the mean.

        Here and below ``y`` are the ``(n,)`` classes for a model that is conditional on labels; others ignore it.
        """
        return self._over(self._prepared(X, y), self.model_.encode).numpy()

    def inverse_transform(self, X: Any, y: Any = None) -> Any:  # noqa: N803
        """Codes ``(n, latent_dim)`` to examples in the unit and layout of ``X``; a DataFrame if fitted to one."""
        check_is_fitted(self, "model_")
        z = torch.from_numpy(np.array(X, np.float64, ndmin=2))
        if z.shape[1:] != (self._n_features_out,):
            raise DataError(f"Codes must be (n, {self._n_features_out}), not {tuple(z.shape)}.")
        return self._inverted(running.decode(self.model_, z, self._given(y, len(z)), fixed=True))

    def reconstruct(self, X: Any, y: Any = None) -> Any:  # noqa: N803
        """Reconstructions in the unit, layout and row labels of ``X``; missing values are imputed."""
        found = self._inverted(self._over(self._prepared(X, y), self.model_.reconstruct))
        framed = hasattr(X, "columns") and hasattr(X, "index")  # a list has a method of the name index
        return found.set_axis(X.index) if hasattr(found, "set_axis") and framed else found

    def score_samples(self, X: Any, y: Any = None) -> Array:  # noqa: N803
        """``(n,)`` lower bounds on log p(x) in nats, from ``score_draws`` importance-weighted draws.

        For rows it is a density in the unit of ``X``, for images in that of [0, 1]; for an example with missing values
        it is that of the observed values. All examples share the same noise, so that the score of an example does not
        depend on the others. Therefore errors do not average out: for a mean with a standard error use
        :func:`sandglass.evaluate`. With ``y``, a model that is conditional on labels gives log p(x|y).
        """
        examples = self._prepared(X, y)
        values = self._over(examples, alone(self.model_, self.score_draws, self.seed_), draws=self.score_draws)
        likelihood = self.model_.config["options"].get("likelihood")
        mixed = isinstance(likelihood, Mapping) and likelihood.get("name") == "mixed"
        whole = examples.batch(slice(None))
        return (values.double() - layout.log_unit(self.input_transform_, whole.x, whole.mask, mixed=mixed)).numpy()

    def score(self, X: Any, y: Any = None) -> float:  # noqa: N803
        """The mean of :meth:`score_samples`, in nats per example; higher is better."""
        return float(self.score_samples(X, y).mean())

    def sample(self, n_samples: int = 1, random_state: Any = None, *, noise: bool = True, y: Any = None) -> Any:
        """New examples in the unit and layout of the training data.

        Args:
            n_samples: number of samples.
            random_state: of the draws; the estimator's own when None.
            noise: sample x with observation noise; otherwise its mean given the latent, which looks better for images.
            y: the class of every sample, or one for all, for a model that is conditional on labels.

        Raises:
            ConfigError: there is no ``y`` and the model needs it, or there is one and the model is not conditional.
        """
        check_is_fitted(self, "model_")
        if n_samples < 1:
            raise ConfigError(f"n_samples must be at least 1, not {n_samples}.")
        source = self.random_state if random_state is None else random_state
        seed = int(check_random_state(source).randint(2**31 - 1))
        if y is not None and not labels.conditional(self.model):
            raise ConfigError(f"The model '{self.model}' is not conditional on labels; leave y out, or choose 'cvae'.")
        given = self._given(y, n_samples)
        return self._inverted(running.sample(self.model_, n_samples, key=(seed, "sample"), given=given, noise=noise))

    # persistence

    @classmethod
    def from_run(cls, run: Run | str | Path, **parts: Any) -> Self:
        """The estimator of a trained model: of a run, a model folder or a hub id.

        Images of X have the size of the model, as bytes or floats in [0, 1]. Outputs are floats in [0, 1], or, of a
        model of arrays, in the layout, type and range of these.

        Args:
            run: the run, its folder, a model folder, or a hub id.
            parts: custom objects that the model was built with, such as ``net=...``.

        Raises:
            NotFoundError, CheckpointError: the model does not exist, or is damaged.
            CapabilityError: the model needs companions, which X does not have.

        Example:
            >>> X = np.random.default_rng(0).normal(size=(80, 3))
            >>> run = api.train("vae", X, out=tempfile.mkdtemp() + "/run", epochs=1, latent_dim=2)
            >>> vae = GenerativeModel.from_run(run)
            >>> vae.transform(X).shape, vae.score_samples(X[:5]).shape
            ((80, 2), (5,))
        """
        parts = {**(run.parts if isinstance(run, Run) else {}), **parts}
        params = trained.parameters(run, parts)
        check_model(params["model"])
        self = cls(**params)
        self.model_ = api.load(run, device=settle_device(self.device), **parts)
        self.input_transform_ = trained.for_arrays(api.transform_of(run))
        self._shape = trained.shape_of(self.input_transform_)
        self.seed_ = int(check_random_state(self.random_state).randint(2**31 - 1))
        self.n_features_in_ = self._shape[0]
        if labels.conditional(self.model):
            self.classes_ = trained.classes_of(run)
        if (names := trained.names_of(self.input_transform_)) is not None:
            self.feature_names_in_ = names
        return self

    def save(self, folder: str | Path) -> Path:
        """Writes a model folder (safetensors and JSON), which :meth:`load` and :func:`sandglass.load` read.

        Raises:
            ConfigError: the folder exists and is not empty.
            SaveError: the folder could not be written.
        """
        check_is_fitted(self, "model_")
        return state.write(self, Path(folder))

    @classmethod
    def load(cls, folder: str | Path, **parts: Any) -> Self:
        """Loads an estimator saved by :meth:`save`; no code in the folder is executed.

        Args:
            folder: the folder.
            parts: custom objects that the model was built with, such as ``net=...``.

        Raises:
            NotFoundError: the folder does not exist.
            CheckpointError: it is damaged, or was not written by :meth:`save`.
        """
        loaded: Self = state.read(cls, Path(folder), parts)
        return loaded

    def __getstate__(self) -> dict[str, Any]:
        """Replaces the model by plain values and arrays, so that unpickling runs no code of ours."""
        values: dict[str, Any] = super().__getstate__()
        if "model_" in values:
            values = {k: v for k, v in values.items() if k not in ("model_", "input_transform_")}
            values["_stored"] = state.plain(self.model_, self.input_transform_)
        return values

    def __setstate__(self, values: dict[str, Any]) -> None:
        values = dict(values)
        stored, top = values.pop("_stored", None), values.pop("_top", 1.0)
        usual = {name: p.default for name, p in inspect.signature(type(self)).parameters.items()}
        super().__setstate__({**usual, **values})  # an earlier version may lack parameters
        if stored is not None:
            own = {name: value for name, value in self._model_options().items() if is_own(value)}
            model, transform = state.built(stored, own)
            self.input_transform_ = state.laid_out(self, transform, top)
            self.model_ = model.to(settle_device(self.device))

    # of scikit-learn

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.three_d_array = True
        tags.input_tags.allow_nan = takes_gaps(self.model)
        if offers("encode")(self):
            tags.transformer_tags.preserves_dtype = []  # codes come in the precision of the model
        else:
            tags.transformer_tags = None
        return tags

    @property
    def _n_features_out(self) -> int:
        return self.model_.code_size

    def _model_options(self) -> dict[str, Any]:
        return joined({"latent_dim": self.latent_dim, "net": self.net}, self.model_options, "model_options")

    # from X to examples and back

    def _read(self, x: Any, *, reset: bool) -> Any:
        """``X`` validated like in scikit-learn: a DataFrame, an array ``(n, d)``, or images in any layout."""
        if hasattr(x, "columns"):
            validate_data(self, x, skip_check_array=True, reset=reset)
            frame = tables.check_frame(tables.as_frame(x))
            if reset:
                self._shape = (frame.shape[1],)
            return frame if reset or getattr(self.input_transform_, "frame", False) else frame.to_numpy()
        tensor = isinstance(x, Tensor)
        x = arrays.plain(x) if tensor else x
        flat = getattr(x, "ndim", 2) < 3 and self.image_shape is None
        finite: bool | str = "allow-nan" if flat and takes_gaps(self.model) else True
        array = validate_data(self, x, reset=reset, allow_nd=True, dtype="numeric", ensure_all_finite=finite)
        if array.dtype.kind == "c":
            raise DataError("Complex data not supported; give real numbers.")
        if reset:
            self._shape = array.shape[1:]
        elif array.shape[1:] != self._shape:
            raise DataError(f"X has examples of shape {array.shape[1:]}; the model was fitted to {self._shape}.")
        if self.image_shape is not None:
            return layout.unfolded(array, self.image_shape)
        return torch.from_numpy(array) if tensor and array.ndim == 4 else array

    def _inverted(self, x: Tensor) -> Any:
        back = self.input_transform_.inverse(x)
        return back if hasattr(back, "columns") else back.reshape(len(back), *self._shape)

    def _over(self, examples: Split, f: Callable[[Batch], Tensor], *, draws: int = 1) -> Tensor:
        """``f`` of every example, independent of the other examples in the batch."""
        size = max(1, min(running.ROWS, _ELEMENTS // (draws * self.model_.spec.size)))
        return running.over(self.model_, examples, f, size=size, fixed=True)

    def _given(self, y: Any, n: int) -> Batch | None:
        """The classes as a condition; None for a model that is not conditional on labels."""
        if not labels.conditional(self.model):
            return None
        return Batch(y=labels.as_tensor(labels.numbered(self.model, y, n, self.classes_)[1]))

    def _prepared(self, x: Any, y: Any = None) -> Split:
        """``X`` with its classes, preprocessed for the model."""
        check_is_fitted(self, "model_")
        raw, transform = self._read(x, reset=False), self.input_transform_
        if not isinstance(transform, TableTransform):
            split = load_data(raw, transform=transform, validation=0.0, test=0.0).train
            given = self._given(y, len(split))
            return split if given is None else replace(split, y=given.y)
        made, mask = transform.observe(raw)
        registry.check_needs(self.model_, self.model_.spec, gaps=mask is not None)
        given = self._given(y, len(made))
        return Split(made, None if given is None else given.y, mask=mask)


# Set after class creation, since scikit-learn wraps ``transform`` then and would hide ``available_if``.
for _method, _capability in {
    "transform": "encode",
    "fit_transform": "encode",
    "inverse_transform": "decode",
    "reconstruct": "reconstruct",
    "score_samples": "log_prob",
    "score": "log_prob",
}.items():
    setattr(GenerativeModel, _method, available_if(offers(_capability))(getattr(GenerativeModel, _method)))


class _Quiet(Silent):
    """Collects the messages of training."""

    def __init__(self) -> None:
        self.messages: list[str] = []

    def say(self, text: str) -> None:
        self.messages.append(text)

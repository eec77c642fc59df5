"""The scikit-learn interface: a generative model as a transformer and a density estimator.

Example:
    >>> from sklearn.pipeline import make_pipeline
    >>> from sklearn.preprocessing import StandardScaler
    >>> X = np.random.default_rng(0).normal(size=(100, 5))
    >>> pipeline = make_pipeline(StandardScaler(), GenerativeModel(latent_dim=2, epochs=1, random_state=0))
    >>> pipeline.fit_transform(X).shape
    (100, 2)
"""

from __future__ import annotations

import tempfile
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch
from sklearn.base import BaseEstimator, ClassNamePrefixFeaturesOutMixin, DensityMixin, TransformerMixin
from sklearn.exceptions import ConvergenceWarning
from sklearn.utils import check_random_state
from sklearn.utils.metaestimators import available_if
from sklearn.utils.validation import check_is_fitted, validate_data
from torch import Tensor

from sandglass import __version__, api, registry, running
from sandglass.core import Batch, Model
from sandglass.data.dataset import Split
from sandglass.data.load import load_data
from sandglass.data.sources import tables
from sandglass.data.transform import ImageTransform
from sandglass.engine.options import settle_device
from sandglass.engine.progress import Silent, default_progress
from sandglass.errors import CheckpointError, ConfigError, DataError
from sandglass.estimator import layout, state
from sandglass.estimator.alone import alone
from sandglass.estimator.options import check_model, joined, offers, takes_gaps
from sandglass.registry.limits import is_own
from sandglass.runs import storage
from sandglass.runs.run import load_model, read_model_config, write_model_folder

Array = np.ndarray[Any, Any]

_ELEMENTS = 2**22  # values of model output in memory at once


class GenerativeModel(ClassNamePrefixFeaturesOutMixin, TransformerMixin, DensityMixin, BaseEstimator):
    """A generative model with scikit-learn's interface: codes by ``transform``, log densities by ``score_samples``.

    A method is only available if the model supports it: ``transform`` needs an encoder (not a GAN),
    ``inverse_transform`` a decoder, ``score_samples`` and ``score`` a bound on log p(x) (not a plain autoencoder).

    ``X`` is a numeric array ``(n, d)``, with NaN for missing values if the model supports them; a DataFrame with
    numeric, string, categorical, boolean and date columns; or images, ``(n, H, W)``, ``(n, H, W, C)`` or
    ``(n, C, H, W)``, as bytes or floats in [0, 1]. Columns are standardised internally, and outputs are in the unit and
    layout of ``X``. Training leaves nothing on disk; :meth:`save` writes a model folder without pickle. A pickled
    estimator contains only plain values and arrays, from which the model is rebuilt.

    Args:
        model: name of the model, see ``sandglass models``.
        latent_dim: size of the code; None for the model's default.
        net: network family: a name, a mapping with its options, or an object; None for the model's default.
        epochs: passes over the examples; None to choose by the size of the data.
        batch_size: examples per update; None to choose by the size of the data.
        lr: learning rate; None for the model's default.
        image_shape: ``(H, W)`` or ``(C, H, W)``, for images flattened to rows ``(n, C * H * W)``.
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
    _top: float  # the value in images of X that corresponds to 1

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
            y: ignored.

        Raises:
            ConfigError: an option is invalid or given twice.
            DataError: the examples cannot be read.
            CapabilityError: the model does not support missing values, or needs labels.
            DivergedError: training diverged to values that are not finite.
        """
        check_model(self.model)
        if self.score_draws < 1:
            raise ConfigError(f"score_draws must be at least 1, not {self.score_draws}.")
        seed = int(check_random_state(self.random_state).randint(2**31 - 1))
        source = self._read(X, reset=True)
        data = load_data(source, labels=False, validation=self.validation_fraction, test=0.0, seed=seed)
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

    def transform(self, X: Any) -> Array:  # noqa: N803
        """``(n, latent_dim)`` codes, in the precision of the model (float32); missing values are set to the mean."""
        return self._over(self._prepared(X), self.model_.encode).numpy()

    def inverse_transform(self, X: Any) -> Any:  # noqa: N803
        """Codes ``(n, latent_dim)`` to examples in the unit and layout of ``X``; a DataFrame if fitted to one."""
        check_is_fitted(self, "model_")
        z = torch.from_numpy(np.array(X, np.float64, ndmin=2))
        if z.shape[1:] != (self._n_features_out,):
            raise DataError(f"Codes must be (n, {self._n_features_out}), not {tuple(z.shape)}.")
        return self._inverted(running.decode(self.model_, z, fixed=True))

    def reconstruct(self, X: Any) -> Any:  # noqa: N803
        """Reconstructions in the unit, layout and row labels of ``X``; missing values are imputed."""
        found = self._inverted(self._over(self._prepared(X), self.model_.reconstruct))
        return found.set_axis(X.index) if hasattr(found, "set_axis") and hasattr(X, "index") else found

    def score_samples(self, X: Any) -> Array:  # noqa: N803
        """``(n,)`` lower bounds on log p(x) in nats, from ``score_draws`` importance-weighted draws.

        For rows it is a density in the unit of ``X``, for images in that of [0, 1]; for an example with missing values
        it is that of the observed values. All examples share the same noise, so that the score of an example does not
        depend on the others. Therefore errors do not average out: for a mean with a standard error use
        :func:`sandglass.evaluate`.
        """
        examples = self._prepared(X)
        values = self._over(examples, alone(self.model_, self.score_draws, self.seed_), draws=self.score_draws)
        likelihood = self.model_.config["options"].get("likelihood")
        mixed = isinstance(likelihood, Mapping) and likelihood.get("name") == "mixed"
        whole = examples.batch(slice(None))
        return (values.double() - layout.log_unit(self.input_transform_, whole.x, whole.mask, mixed=mixed)).numpy()

    def score(self, X: Any, y: Any = None) -> float:  # noqa: N803
        """The mean of :meth:`score_samples`, in nats per example; higher is better."""
        return float(self.score_samples(X).mean())

    def sample(self, n_samples: int = 1, random_state: Any = None, *, noise: bool = True) -> Any:
        """New examples in the unit and layout of the training data.

        Args:
            n_samples: number of samples.
            random_state: of the draws; the estimator's own when None.
            noise: sample x with observation noise; otherwise its mean given the latent, which looks better for images.
        """
        check_is_fitted(self, "model_")
        if n_samples < 1:
            raise ConfigError(f"n_samples must be at least 1, not {n_samples}.")
        given = self.random_state if random_state is None else random_state
        seed = int(check_random_state(given).randint(2**31 - 1))
        return self._inverted(running.sample(self.model_, n_samples, key=(seed, "sample"), noise=noise))

    # persistence

    def save(self, folder: str | Path) -> Path:
        """Writes a model folder (safetensors and JSON), which :meth:`load` and :func:`sandglass.load` read.

        Raises:
            ConfigError: the folder exists and is not empty.
            SaveError: the folder could not be written.
        """
        check_is_fitted(self, "model_")
        path = Path(folder)
        if path.exists() and (not path.is_dir() or any(path.iterdir())):
            raise ConfigError(f"{path} already exists and is not empty; name another folder.")
        with storage.saving(path):
            path.parent.mkdir(parents=True, exist_ok=True)
        stored = state.plain(self.model_, self.input_transform_)
        params = {name: state.parameter(value) for name, value in self.get_params(deep=False).items()}
        names = getattr(self, "feature_names_in_", None)
        about = {
            "params": params,
            "seed": self.seed_,
            "n_features_in": self.n_features_in_,
            "feature_names_in": None if names is None else list(names),
            "shape": list(self._shape),
            "top": self._top,
        }
        config = {k: stored[k] for k in ("model", "spec", "transform")} | {"classes": [], "sandglass": __version__}
        card = f"# {self.model}\n\nRead it with `sandglass.estimator.GenerativeModel.load(folder)`.\n"
        write_model_folder(path, {**config, "step": 0, "estimator": about}, self.model_.state_dict(), card)
        return path

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
        path = Path(folder)
        config = read_model_config(path)
        about = config.get("estimator")
        if about is None:
            raise CheckpointError(f"{path} contains no estimator; load its model with sandglass.load.")
        model = load_model(path, **parts)
        try:
            self = cls(**{**about["params"], **parts})
            self.seed_, self.n_features_in_ = int(about["seed"]), int(about["n_features_in"])
            self._shape, self._top = tuple(int(n) for n in about["shape"]), float(about["top"])
            if about["feature_names_in"] is not None:
                self.feature_names_in_ = np.array([str(n) for n in about["feature_names_in"]], dtype=object)
            self.model_, self.input_transform_ = model.to(settle_device(self.device)), api.transform_of(path)
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise CheckpointError(f"{path}: the estimator's configuration is damaged ({error}).") from error
        return self

    def __getstate__(self) -> dict[str, Any]:
        """Replaces the model by plain values and arrays, so that unpickling runs no code of ours."""
        values: dict[str, Any] = super().__getstate__()
        if "model_" in values:
            values = {k: v for k, v in values.items() if k not in ("model_", "input_transform_")}
            values["_stored"] = state.plain(self.model_, self.input_transform_)
        return values

    def __setstate__(self, values: dict[str, Any]) -> None:
        values = dict(values)
        stored = values.pop("_stored", None)
        super().__setstate__(values)
        if stored is not None:
            own = {name: value for name, value in self._model_options().items() if is_own(value)}
            model, self.input_transform_ = state.built(stored, own)
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
        """``X`` validated like in scikit-learn: a DataFrame, an array ``(n, d)``, or images ``(n, C, H, W)``."""
        if hasattr(x, "columns"):
            validate_data(self, x, skip_check_array=True, reset=reset)
            frame = tables.check_frame(tables.as_frame(x))
            if reset:
                self._shape, self._top = (frame.shape[1],), 1.0
            return frame if reset or getattr(self.input_transform_, "frame", False) else frame.to_numpy()
        x = x.detach().cpu().numpy() if isinstance(x, Tensor) else x
        flat = getattr(x, "ndim", 2) < 3 and self.image_shape is None
        finite: bool | str = "allow-nan" if flat and takes_gaps(self.model) else True
        array = validate_data(self, x, reset=reset, allow_nd=True, dtype="numeric", ensure_all_finite=finite)
        if array.dtype.kind == "c":
            raise DataError("Complex data not supported; give real numbers.")
        is_image = array.ndim > 2 or self.image_shape is not None
        if reset:
            self._shape, self._top = array.shape[1:], layout.top_of(array) if is_image else 1.0
        elif array.shape[1:] != self._shape:
            raise DataError(f"X has examples of shape {array.shape[1:]}; the model was fitted to {self._shape}.")
        return layout.images(array, self.image_shape, self._top) if is_image else array

    def _inverted(self, x: Tensor) -> Any:
        return layout.inverted(self.input_transform_, self._shape, self._top, x)

    def _over(self, examples: Split, f: Callable[[Batch], Tensor], *, draws: int = 1) -> Tensor:
        """``f`` of every example, independent of the other examples in the batch."""
        size = max(1, min(running.ROWS, _ELEMENTS // (draws * self.model_.spec.size)))
        return running.over(self.model_, examples, f, size=size, fixed=True)

    def _prepared(self, x: Any) -> Split:
        """``X``, preprocessed for the model."""
        check_is_fitted(self, "model_")
        raw, transform = self._read(x, reset=False), self.input_transform_
        made, mask = transform.observe(raw)
        registry.check_needs(self.model_, self.model_.spec, gaps=mask is not None)
        if isinstance(transform, ImageTransform) and made.dtype == torch.uint8:
            made = made.float() / (transform.levels - 1)
        return Split(made, mask=mask)


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

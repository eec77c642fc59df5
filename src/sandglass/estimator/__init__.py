"""The scikit-learn interface; import it explicitly, ``import sandglass`` does not."""

from sandglass.estimator.generative import GenerativeModel

__all__ = ["GenerativeModel"]

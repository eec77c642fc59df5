"""The scikit-learn face; imported by name, never by ``import sandglass``."""

from sandglass.estimator.generative import GenerativeModel

__all__ = ["GenerativeModel"]

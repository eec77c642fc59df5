"""The scikit-learn face; imported when it is asked for, never by ``import sandglass``."""

from sandglass.estimator.generative import GenerativeModel

__all__ = ["GenerativeModel"]

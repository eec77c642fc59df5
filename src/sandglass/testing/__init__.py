"""Checks of a model of one's own: what every model of Sandglass keeps, on every kind of data that suits it."""

from __future__ import annotations

from sandglass.testing.check import check_model

__all__ = ["check_model"]

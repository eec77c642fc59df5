"""Tables in memory."""

from __future__ import annotations

from typing import Any

from sandglass.errors import MissingPackageError


def pandas() -> Any:
    """The module pandas.

    Raises:
        MissingPackageError: it is not installed.
    """
    try:
        import pandas
    except ImportError as error:
        raise MissingPackageError("Tables need pandas: pip install 'sandglass-ml[tables]'.") from error
    return pandas

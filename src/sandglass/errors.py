"""Everything that can go wrong by name; part of the vocabulary, and importable without PyTorch.

Each class carries the exit code that the command line ends with.
"""

from __future__ import annotations


class SandglassError(Exception):
    """Base of every error that a user can cause or must know of."""

    exit_code = 1


class ConfigError(SandglassError, ValueError):
    """An unknown name, an unknown option or a value that makes no sense."""

    exit_code = 2


class CapabilityError(SandglassError, AttributeError):
    """A model was asked for something it cannot do."""

    exit_code = 64


class DataError(SandglassError, ValueError):
    """A source that cannot be read, or does not fit the model."""

    exit_code = 65


class NotFoundError(SandglassError, FileNotFoundError):
    """A file or folder that is not there."""

    exit_code = 66


class MissingPackageError(SandglassError, ImportError):
    """An optional package is needed; the message says which extra brings it."""

    exit_code = 69


class SaveError(SandglassError, OSError):
    """Something could not be written."""

    exit_code = 73


class ProcessError(SandglassError):
    """Another process of the same training, or a worker of the same task, ended.

    Args:
        message: in one line.
        reported: whether the other one gave its reason, so that this one need not be shown.
    """

    exit_code = 77

    def __init__(self, message: str, *, reported: bool = False) -> None:
        super().__init__(message)
        self.reported = reported


class CheckpointError(SandglassError):
    """A checkpoint or model folder that is damaged, incomplete or not ours."""

    exit_code = 74


class LockedError(SandglassError):
    """Another process is training in this run folder."""

    exit_code = 75


class DivergedError(SandglassError):
    """Training produced numbers that are not finite and could not go on."""

    exit_code = 76


def named_type(value: object) -> str:
    """The type of a value with its article, for a message.

    Example:
        >>> named_type(3), named_type("x"), named_type(None)
        ('an int', 'a str', 'a NoneType')
    """
    name = type(value).__name__
    return f"{'an' if name[0] in 'aeioAEIO' or name == 'ndarray' else 'a'} {name}"

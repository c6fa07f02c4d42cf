"""Errors a user can mend. The CLI prints them without a traceback and exits 2; anything else is a bug.

TrainError
|-- ConfigError    a recipe or an option is wrong: says file, field, value
|-- DataError      the exported data is missing, changed since its manifest, or not fit to train on
|-- TemplateError  the chat template would train something else than inference generates
|-- ModelError     a student cannot be loaded
|-- Diverged       the loss of a step is no number; the guard of DPO and KTO takes it as its own
`-- ServingError   an endpoint cannot start, or its log cannot be used
"""

from collections.abc import Mapping
from typing import Any


class TrainError(Exception):
    """Something the user can mend; the message says what was found, where, and what to do."""


class ConfigError(TrainError):
    """A recipe or an option is wrong."""


class DataError(TrainError):
    """The exported data is missing, changed, or not fit to train on."""


class TemplateError(TrainError):
    """The chat template would train something else than inference generates; `proof` is the record of what was shown so far."""

    def __init__(self, message: str, proof: Mapping[str, Any] | None = None) -> None:
        super().__init__(message)
        self.proof = proof


class ModelError(TrainError):
    """A student cannot be loaded."""


class Diverged(TrainError):
    """The loss of a step is no number; what stands before that step is kept."""


class ServingError(TrainError):
    """An endpoint cannot start, or its log cannot be used."""

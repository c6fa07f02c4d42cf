"""JSON schemas: whether a value is of one, and where and how it is not.

jsonschema-rs (compiled, draft 2020-12) does the work: a pure Python validator was measured at a fifth of all that a row costs.
"""

from collections.abc import Mapping
from functools import lru_cache
from typing import Any

from jsonschema_rs import Draft202012Validator, ValidationError

from datagen.records import shared_json

_SHOWN = 300


def violation(value: object, schema: Mapping[str, Any]) -> str | None:
    """Where and how `value` breaks the schema, the error nearest to the top; None when it is of the schema.

    Raises ValueError for a schema that is none.
    """
    validator = _validator(shared_json(schema))
    try:
        if validator.is_valid(value):
            return None
        error = min(validator.iter_errors(value), key=lambda found: len(found.instance_path))
    except UnicodeEncodeError:
        return "(top): half of a surrogate pair, which is no text"
    where = ".".join(map(str, error.instance_path)) or "(top)"
    return f"{where}: {error.message[:_SHOWN]}"


@lru_cache(maxsize=64)
def _validator(schema: str) -> Draft202012Validator:
    try:
        return Draft202012Validator(schema)
    except ValidationError as error:
        where = ".".join(map(str, error.instance_path)) or "(top)"
        raise ValueError(f"{where}: {error.message[:_SHOWN]}") from error


def check(schema: Mapping[str, Any]) -> None:
    """Raises ValueError, saying where and why, for what is no JSON schema of draft 2020-12."""
    _validator(shared_json(schema))

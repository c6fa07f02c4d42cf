"""Keys come from the environment, late, and go nowhere but to the provider: what counts as one, and how a text is kept clean of them.

A recipe may say `api_key: ${MY_KEY}`, or `none` for a server that wants no key; the value itself is never in a recipe. What is stored,
logged or printed of an error goes through `redact`, because providers repeat keys in their messages.
"""

import os
import re
from collections.abc import Iterator, Mapping
from typing import Any

from datagen.errors import ConfigError

_FIELD = re.compile(
    r"(^|[_-])(api[_-]?key|access[_-]?key(_id)?|secret|password|authorization|credentials?|bearer)$"
    r"|secret_access_key$|(access|session|auth|ad|hf|hub)[_-]token$|^(token|key)$",
    re.IGNORECASE,
)
_VARIABLE = re.compile(r"(^|_)(API_?KEY|KEY|TOKEN|SECRET|PASSWORD|PASS|CREDENTIALS?)(_|$)", re.IGNORECASE)
_REFERENCE = re.compile(r"\$\{(\w+)\}")
_NO_KEY = {"", "none", "null", "empty", "not-needed", "dummy"}
# forms that no ordinary word has: prefixes of OpenAI, Anthropic, OpenRouter; Google; Groq, xAI, Hugging Face, Replicate, GitHub; AWS
_SHAPE = re.compile(r"\b(?:sk-[\w-]{16,}|AIza[\w-]{20,}|(?:gsk|xai|hf|r8|ghp|nvapi|pplx|fw)[_-]\w{20,}|AKIA[0-9A-Z]{16})", re.ASCII)
_STARRED = re.compile(r"[\w-]*\*{3,}[\w-]*")
_REDACTED = "[key]"
_LEAST = 8  # characters; a shorter value is no key, and would be found inside ordinary words
_SHOWN = 6  # characters of a key that a message may not begin or end with


def known(environ: Mapping[str, str]) -> list[str]:
    """The values of the environment's variables whose names are those of keys, the longest first."""
    values = {value.strip() for name, value in environ.items() if _VARIABLE.search(name)}
    return sorted((value for value in values if len(value) >= _LEAST and not value.startswith("/")), key=lambda value: (-len(value), value))


def redact(text: str, environ: Mapping[str, str] | None = None) -> str:
    """`text` without the keys of the environment, whole or in part, and without what has the form of a key."""
    for value in known(os.environ if environ is None else environ):
        text = text.replace(value, _REDACTED)
        text = re.sub(rf"{re.escape(value[:_SHOWN])}[\w*.…-]*|[\w*.…-]*{re.escape(value[-_SHOWN:])}\b", _REDACTED, text)
    return _STARRED.sub(_REDACTED, _SHAPE.sub(_REDACTED, text))


def looks_like_key(text: str) -> bool:
    """Whether a text holds what has the form of a model provider's key."""
    return _SHAPE.search(text) is not None


def refuse_literals(data: object, where: str) -> None:
    """Raise ConfigError, without the value, for a key that is written out anywhere in a recipe's data."""
    for path, name, value in _leaves(data, ()):
        field = ".".join(path)
        if _SHAPE.search(value):
            raise ConfigError(
                f"{where}: {field} holds what looks like a key. Take it out: a key belongs in the environment, never in a file."
            )
        if not _FIELD.search(name) or value.strip().lower() in _NO_KEY:
            continue
        references = _REFERENCE.findall(value)
        if not references:
            raise ConfigError(
                f"{where}: {field} holds a key as text. Put it into an environment variable and write `{path[-1]}: ${{MY_API_KEY}}`, "
                "or `none` for a server that wants no key."
            )
        for variable in references:
            if not _VARIABLE.search(variable):
                raise ConfigError(
                    f"{where}: {field} names the variable {variable}. Call it ..._KEY, ..._TOKEN, ..._SECRET or ..._PASSWORD, so that its "
                    "value is known for one that must not be shown."
                )


def _leaves(data: object, path: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], str, str]]:
    """Path, nearest name and text of every string in nested data."""
    if isinstance(data, Mapping):
        for name, value in data.items():
            yield from _leaves(value, (*path, str(name)))
    elif isinstance(data, (list, tuple)):
        for number, value in enumerate(data):
            yield from _leaves(value, (*path, str(number)))
    elif isinstance(data, str):
        yield path, next((name for name in reversed(path) if not name.isdigit()), ""), data


def without(params: Mapping[str, Any]) -> dict[str, Any]:
    """`params` as they may be hashed and stored: entries that hold a key are left out, also inside mappings."""
    return {name: without(value) if isinstance(value, Mapping) else value for name, value in params.items() if not _FIELD.search(str(name))}


def resolved(params: Mapping[str, Any], where: str, environ: Mapping[str, str] | None = None) -> dict[str, Any]:
    """The entries of `params` that hold a key, with their `${VARIABLE}`s filled in, for the call alone.

    Raises ConfigError for a variable that is not set.
    """
    variables = os.environ if environ is None else environ
    return {name: _fill(value, f"{where}.{name}", variables) for name, value in params.items() if _holds(name, value)}


def _holds(name: str, value: object) -> bool:
    if isinstance(value, Mapping):
        return any(_holds(str(inner), entry) for inner, entry in value.items())
    return bool(_FIELD.search(name))


def _fill(value: Any, where: str, environ: Mapping[str, str]) -> Any:
    if isinstance(value, Mapping):
        return {name: _fill(entry, f"{where}.{name}", environ) for name, entry in value.items()}
    if not isinstance(value, str):
        return value
    for variable in _REFERENCE.findall(value):
        if not environ.get(variable):
            raise ConfigError(f"{where} needs {variable} in the environment. Set it and run again.")
    return _REFERENCE.sub(lambda found: environ[found.group(1)], value)

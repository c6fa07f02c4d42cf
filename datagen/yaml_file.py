"""YAML files into pydantic models, with errors that say file, field, value and the nearest known name."""

import difflib
import re
from collections.abc import Hashable, Mapping
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import BaseModel, ValidationError

from datagen.errors import ConfigError

M = TypeVar("M", bound=BaseModel)


class _StrictLoader(getattr(yaml, "CSafeLoader", yaml.SafeLoader)):  # type: ignore[misc]  # in C where PyYAML has it: ten times as fast
    """A SafeLoader that refuses a key written twice: YAML would silently keep the last."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        seen: set[Hashable] = set()
        for key_node, _ in node.value:
            plain = key_node.tag == "tag:yaml.org,2002:str"  # nearly all are, and need not be made twice
            key = key_node.value if plain else self.construct_object(key_node, deep=True)
            if key in seen:
                raise yaml.constructor.ConstructorError(None, None, f"the key {key!r} is written twice", key_node.start_mark)
            seen.add(key)
        made: dict[Hashable, Any] = super().construct_mapping(node, deep)
        return made


def read_yaml(path: Path) -> dict[str, Any]:
    """The mapping in a YAML file. Raises ConfigError for a missing file, bad YAML, or a file that is no mapping."""
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read ({error.strerror}). Give the path of a YAML file.") from error
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path}: is no text in UTF-8 (byte {error.start}). Give a YAML file, or save it as UTF-8.") from error
    try:
        data = yaml.load(text, Loader=_StrictLoader)  # a subclass of SafeLoader: builds plain values only
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark
        where = f"{path}:{mark.line + 1}:{mark.column + 1}" if mark else str(path)
        rest = "".join(text.split("\n")[mark.line : mark.line + 1])[mark.column :] if mark is not None else ""
        tab = rest.startswith("\t")
        problem = "a tab, and YAML indents with spaces alone" if tab else error.problem
        raise ConfigError(f"{where}: not valid YAML: {problem}. Mend the line and run again.") from error
    except yaml.reader.ReaderError as error:
        line = text.count("\n", 0, error.position) + 1
        raise ConfigError(f"{path}:{line}: holds the character U+{error.character:04X}, which no YAML file may. Take it out.") from error
    except (yaml.YAMLError, RecursionError, ValueError) as error:
        what = "it is nested too deeply" if isinstance(error, RecursionError) else " ".join(str(error).split())
        raise ConfigError(f"{path}: not valid YAML: {what}. Mend it and run again.") from error
    if data is None:
        raise ConfigError(f"{path}: is empty. Give the path of a YAML file that says something.")
    if not isinstance(data, dict):
        raise ConfigError(f"{path}: holds a {type(data).__name__}, not a mapping of names to values.")
    return data


def validate(model: type[M], data: object, path: Path, prefix: str = "") -> M:
    """`data` as a `model`; a violation becomes one ConfigError that names file, field and value."""
    try:
        return model.model_validate(data)
    except ValidationError as error:
        first = error.errors()[0]
        field = ".".join([prefix] * bool(prefix) + [str(part) for part in first["loc"]]) or "(top)"
        more = f" ({error.error_count() - 1} more after it)" if error.error_count() > 1 else ""
        if first["type"] == "extra_forbidden":
            near = nearest(str(first["loc"][-1]), _field_names(model))
            hint = f" Did you mean {near!r}?" if near else " Remove it."
            raise ConfigError(f"{path}: {field} is not a known key.{hint}{more}") from error
        if first["loc"] and first["loc"][-1] == "[key]":  # a name of a mapping whose names are given
            near = nearest(str(first["input"]), re.findall(r"'([^']*)'", first["msg"]))
            hint = f"Did you mean {near!r}?" if near else f"{first['msg']}."
            raise ConfigError(f"{path}: {field.removesuffix('.[key]')} is not a known key. {hint}{more}") from error
        if first["type"] == "missing":
            raise ConfigError(f"{path}: {field} is missing. Add it.{more}") from error
        message = first["msg"].removeprefix("Value error, ")
        if isinstance(first["input"], Mapping):  # what is wrong is how its parts go together, and the message names them
            raise ConfigError(f"{path}: {f'{field}: ' if first['loc'] else ''}{message}.{more}") from error
        raise ConfigError(f"{path}: {field} is {first['input']!r}; {message}.{more}") from error


def nearest(name: str, known: list[str]) -> str | None:
    """The known name most like `name`, or None when none is near."""
    found = difflib.get_close_matches(name, known, n=1, cutoff=0.6)
    return found[0] if found else None


def _field_names(model: type[BaseModel]) -> list[str]:
    """Every field name of a model and of the models inside it."""
    schema = model.model_json_schema()
    parts = [schema, *schema.get("$defs", {}).values()]
    return sorted({name for part in parts for name in part.get("properties", {})})

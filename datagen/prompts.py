"""Prompt files to chat messages: one Jinja2 file per ask, a missing variable is an error, and the text's hash is kept.

A file has a `[system]` and a `[user]` part, each on a line of its own, after an optional comment that says what it asks.
"""

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import jinja2

from datagen.errors import ConfigError
from datagen.records import Message, PlanItem

PROMPTS = Path(__file__).resolve().parent.parent / "prompts"
_PART = re.compile(r"^\[(system|user)\]\n", re.MULTILINE)
_ENVIRONMENT = jinja2.Environment(undefined=jinja2.StrictUndefined, autoescape=False)
# tojson escapes for HTML by default; a prompt is plain text
_ENVIRONMENT.filters["tojson"] = lambda value: json.dumps(value, ensure_ascii=False)


# What each prompt is given beside the run's variables and the item
GIVEN = {
    "write_inputs": (), "rewrite_input": (), "write_adversarial": (), "answer": ("input",), "reason": ("input",),
    "judge": ("input", "answer"), "compare": ("input", "first", "second"),
}  # fmt: skip


class Prompt(NamedTuple):
    """A prompt file made ready: `ref` is name@hash of its text."""

    ref: str
    parts: tuple[tuple[str, jinja2.Template], ...]


@cache
def load_prompt(name: str, folder: Path = PROMPTS) -> Prompt:
    """The prompt `name`. Raises ConfigError for a missing file, bad Jinja or a missing part."""
    path = folder / f"{name}.md"
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        known = ", ".join(sorted(p.stem for p in folder.glob("*.md")))
        raise ConfigError(f"{path}: there is no prompt {name!r}; known: {known}.") from error
    pieces = _PART.split(text)[1:]
    roles = pieces[0::2]
    if roles != ["system", "user"]:
        raise ConfigError(f"{path}: needs one [system] and one [user] part in this order; found {roles}.")
    try:
        parts = tuple((role, _ENVIRONMENT.from_string(body)) for role, body in zip(roles, pieces[1::2], strict=True))
    except jinja2.TemplateSyntaxError as error:
        raise ConfigError(f"{path}: not valid Jinja: {error.message}.") from error
    return Prompt(f"{name}@{hashlib.sha256(text.encode()).hexdigest()[:8]}", parts)


def render(name: str, variables: dict[str, Any], folder: Path = PROMPTS) -> tuple[str, tuple[Message, ...]]:
    """The prompt's ref and its messages. Raises ConfigError naming a variable that the prompt uses and nobody gave."""
    prompt = load_prompt(name, folder)
    try:
        return prompt.ref, tuple(
            Message(role=role, content=template.render(variables).strip())  # type: ignore[arg-type]
            for role, template in prompt.parts
        )
    except jinja2.UndefinedError as error:
        raise ConfigError(f"{folder / name}.md: {error.message}; given: {', '.join(sorted(variables))}. Mend the prompt.") from error


def check_prompts(variables: Mapping[str, Any], items: Sequence[PlanItem], folder: Path = PROMPTS) -> None:
    """Render every prompt that a plan may need for one item of each form, so that a mistake is found before anybody is asked.

    Raises ConfigError as `render` does.
    """
    for item in {(item.generator, item.kind is None, bool(item.facts)): item for item in items}.values():
        writes = "rewrite_input" if item.generator == "seed" else "write_adversarial" if item.kind else "write_inputs"
        for name in (writes, "answer", "reason", "judge", "compare"):
            render(name, {**variables, "item": item, **dict.fromkeys(GIVEN[name], "...")}, folder)

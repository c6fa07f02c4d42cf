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
import jinja2.meta

from datagen.errors import ConfigError
from datagen.records import Message, PlanItem

PROMPTS = Path(__file__).resolve().parent.parent / "prompts"
_PART = re.compile(r"^\[(system|user)\]\n", re.MULTILINE)
_ENVIRONMENT = jinja2.Environment(undefined=jinja2.StrictUndefined, autoescape=False)
# tojson escapes for HTML by default; a prompt is plain text
_ENVIRONMENT.filters["tojson"] = lambda value: json.dumps(value, ensure_ascii=False)


# What each prompt is given beside the run's variables and the item
GIVEN = {
    "write_inputs": (), "rewrite_input": (), "write_adversarial": (), "answer": ("input",), "reason": ("input",), "student": ("input",),
    "write_ambiguous": (), "write_harm": (), "write_rules": (), "write_injection": (), "write_failures": (),
    "judge": ("input", "answer"), "judge_rubric": ("input", "answer"), "compare": ("input", "first", "second"),
    "write_turn": ("transcript",), "write_questions": (), "quote": ("input",),
}  # fmt: skip
# The prompts of generators that ask in their own way; others write inputs and answer them
_OWN = {"conversation": ("write_turn", "answer", "judge"), "grounded": ("write_questions", "quote", "judge")}


class Part(NamedTuple):
    """One message of a prompt, with the names of the variables that it uses."""

    role: str
    template: jinja2.Template
    uses: frozenset[str]


class Prompt(NamedTuple):
    """A prompt file made ready: `ref` is name@hash of its text."""

    ref: str
    parts: tuple[Part, ...]


@cache
def load_prompt(name: str, folder: Path = PROMPTS, wanted: tuple[str, ...] = ("system", "user")) -> Prompt:
    """The prompt `name` with its `wanted` parts. Raises ConfigError for a missing file, bad Jinja or a missing part."""
    path = folder / f"{name}.md"
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        known = ", ".join(sorted(p.stem for p in folder.glob("*.md")))
        raise ConfigError(f"{path}: there is no prompt {name!r}; known: {known}.") from error
    pieces = _PART.split(text)[1:]
    roles = pieces[0::2]
    if roles != list(wanted):
        needs = " and ".join(f"one [{role}]" for role in wanted)
        raise ConfigError(f"{path}: needs {needs} part{' in this order' if len(wanted) > 1 else ''}; found {roles}.")
    try:
        parts = tuple(_part(role, body) for role, body in zip(roles, pieces[1::2], strict=True))
    except jinja2.TemplateSyntaxError as error:
        raise ConfigError(f"{path}: not valid Jinja: {error.message}.") from error
    return Prompt(f"{name}@{hashlib.sha256(text.encode()).hexdigest()[:8]}", parts)


def _part(role: str, body: str) -> Part:
    return Part(role, _ENVIRONMENT.from_string(body), frozenset(jinja2.meta.find_undeclared_variables(_ENVIRONMENT.parse(body))))


def own_texts(domain: str, folder: Path = PROMPTS) -> dict[str, tuple[str, ...]]:
    """Of each prompt file what it says itself, between the variables, and the domain's description, which all show.

    Raises ConfigError for a file that cannot be read or parsed.
    """
    found: dict[str, tuple[str, ...]] = {"domain": (domain,)}
    for path in sorted(folder.glob("*.md")):
        try:
            tree = _ENVIRONMENT.parse(path.read_text(encoding="utf-8"))
        except (OSError, UnicodeDecodeError, jinja2.TemplateSyntaxError) as error:
            raise ConfigError(f"{path}: cannot be read as a prompt ({error}). Mend or remove it.") from error
        found[path.stem] = tuple(piece.data for piece in tree.find_all(jinja2.nodes.TemplateData))
    return found


def render(
    name: str,
    variables: dict[str, Any],
    folder: Path = PROMPTS,
    *,
    own: frozenset[str] = frozenset(),
    memory: dict[tuple[str, str], Message] | None = None,
) -> tuple[str, tuple[Message, ...]]:
    """The prompt's ref and its messages. Raises ConfigError naming a variable that the prompt uses and nobody gave.

    `own` names the variables that change from call to call; a message that uses none of them is made once and kept in `memory`.
    """
    prompt = load_prompt(name, folder)
    if memory is None:
        return prompt.ref, _render(name, prompt.parts, variables, folder)
    messages: list[Message] = []
    for part in prompt.parts:
        message = memory.get((prompt.ref, part.role))
        if message is None:
            (message,) = _render(name, (part,), variables, folder)
            if not part.uses & own:
                memory[prompt.ref, part.role] = message
        messages.append(message)
    return prompt.ref, tuple(messages)


def render_repair(error: str, folder: Path = PROMPTS) -> tuple[str, Message]:
    """The ref of `repair.md`, and the message that follows an answer that could not be used because of `error`."""
    prompt = load_prompt("repair", folder, ("user",))
    (message,) = _render("repair", prompt.parts, {"error": error}, folder)
    return prompt.ref, message


def _render(name: str, parts: tuple[Part, ...], variables: dict[str, Any], folder: Path) -> tuple[Message, ...]:
    try:
        return tuple(Message.model_construct(role=part.role, content=part.template.render(variables).strip()) for part in parts)
    except jinja2.UndefinedError as error:
        raise ConfigError(f"{folder / name}.md: {error.message}; given: {', '.join(sorted(variables))}. Mend the prompt.") from error


def check_prompts(variables: Mapping[str, Any], items: Sequence[PlanItem], folder: Path = PROMPTS) -> None:
    """Render every prompt that a plan may need for one item of each form, so that a mistake is found before anybody is asked.

    Raises ConfigError as `render` does.
    """
    for item in {(item.generator, item.writes, bool(item.facts)): item for item in items}.values():
        for name in _OWN.get(item.generator, (item.writes, "answer", "student", "reason", "judge", "compare")):
            render(name, {**variables, "item": item, **dict.fromkeys(GIVEN[name], "...")}, folder)
    rubric = variables.get("rubric")
    if rubric is not None and items:
        render(rubric.prompt_name, {**variables, "item": items[0], **dict.fromkeys(GIVEN["judge"], "...")}, folder)

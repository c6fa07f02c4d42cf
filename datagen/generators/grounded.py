"""Document-grounded: questions that a passage answers, answered with a quotation from it (as in SQuAD, arXiv 1606.05250)."""

import re
from collections.abc import Mapping
from typing import Any, NamedTuple

from datagen.errors import ParseError
from datagen.generators._example import inputs_of, make_example, task_in
from datagen.parse import Ask, parse_object, parse_strings
from datagen.records import Example, Grounding, Passage, PlanItem


class Quoted(NamedTuple):
    """An answer with the words of the passage that prove it; the answer is None where the passage does not give it."""

    answer: Any
    quote: str


class Span(NamedTuple):
    """Where a quotation stands in a passage's text."""

    start: int | None
    end: int | None


async def grounded(item: PlanItem, ask: Ask) -> list[Example]:
    """Examples whose answers rest on the item's passage. Whether the quotation really occurs there is for the filter to decide."""
    passage = item.passage
    if passage is None:
        raise ParseError(f"{item.id} has no passage")
    written = await ask("write_questions", parse_strings)

    def parse(text: str) -> Quoted:
        found = parse_object(text)
        answer, quote = found.get("answer"), found.get("quote")
        if not isinstance(quote, str) or "answer" not in found:
            raise ParseError("`answer` or `quote` is missing")
        if answer is not None and ((ask.output_schema is None) != isinstance(answer, str) or not answer):
            raise ParseError(f"`answer` is {answer!r}, not what the task's output is")
        return Quoted(answer, quote)

    async def answered(index: int, text: str) -> Example | None:
        asked = await ask("quote", parse, draw=str(index), schema=_quoted_schema(ask.output_schema), input=text)
        answer, quote = asked.value
        if answer is None:
            ask.short(1, "the passage does not answer it", f"input {index}: the passage does not answer it")
            return None
        grounding = Grounding(passage=passage, shown=item.shown, quote=quote, **find(quote, passage)._asdict())
        family = f"passage:{passage.id}" if item.shown else None
        return make_example(item, ask, text, answer, (written.call_id, asked.call_id), grounding=grounding, family=family)

    return await ask.each(inputs_of(item, ask, written), answered)


def find(quote: str, passage: Passage) -> Span:
    """The first place of `quote` in the passage's text; any run of white space equals any other."""
    words = quote.split()
    place = re.search(r"\s+".join(map(re.escape, words)), passage.text) if words else None
    return Span(*place.span()) if place else Span(None, None)


def _quoted_schema(task_schema: Mapping[str, Any] | None) -> dict[str, Any]:
    answer, shared = task_in(task_schema)
    return {
        "type": "object",
        "properties": {"answer": {"anyOf": [answer, {"type": "null"}]}, "quote": {"type": "string"}},
        "required": ["answer", "quote"],
        "additionalProperties": False,
        **shared,
    }

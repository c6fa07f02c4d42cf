"""Preference: answers to one input, every two compared by the judge in both orders (order-swapped, arXiv 2306.05685), best against worst.

The best is taken against the worst because there are at most six. With more and more answers that pair teaches less, and a rejected one two
standard deviations below the mean was measured to be best (arXiv 2502.16825); the lowest of six lies 1.3 below it on average.
What the judge prefers is not yet what is right: an answer that known truth contradicts is never chosen while there is another, and one that
is known to be right is not rejected while there is a wrong one. The filter `preference` has the last word on every pair.
"""

from collections.abc import Mapping, Sequence
from itertools import combinations
from typing import Any, NamedTuple

from datagen.errors import ParseError
from datagen.generators._example import ask_task, completion_text, inputs_of, make_example
from datagen.parse import Answer, Ask, parse_better, parse_object, parse_strings, parse_text
from datagen.records import Draw, Example, PlanItem

_POINTS = {"A": 1.0, "B": -1.0, "tie": 0.0}
_ONE_OF_EACH = (Draw(prompt="answer", role="teacher"), Draw(prompt="answer", role="weak"))


class _Candidate(NamedTuple):
    """An answer that may be chosen or rejected. `value` is None where the task wants JSON and the text is none."""

    name: str
    draw: Draw
    text: str
    value: Any
    call_id: str


async def preference(item: PlanItem, ask: Ask) -> list[Example]:
    """Pairs with `chosen_margin` from -1 to 1: the mean of both orders' verdicts. Curation keeps those above 0.

    Without draws of its own, an item has the teacher's answer as chosen and the weak model's as rejected, whoever the judge prefers. A weak
    answer is taken as it is, also when it is no JSON: what a student must not write is not always well formed.
    """
    written = await ask(item.writes, parse_strings)

    async def pair(index: int, text: str) -> Example:
        candidates = await _candidates(item, ask, index, text)
        margins, comparisons = await _compare(candidates, ask, index, text)
        if item.draws:
            chosen, rejected = _best_and_worst(candidates, margins, item, ask, text)
        else:
            chosen, rejected = candidates
        scores = {"chosen_margin": margins.get((chosen.name, rejected.name), 0.0)}
        if item.draws:
            scores |= {
                "candidates": float(len(candidates)),
                "identical": float(chosen.text == rejected.text),
                "length_difference": float(len(chosen.text) - len(rejected.text)),
                "chosen_is_weak": float(chosen.draw.role == "weak"),
            }
        others = [candidate.call_id for candidate in candidates if candidate is not chosen]
        calls = (written.call_id, *others, *comparisons, chosen.call_id)
        return make_example(item, ask, text, chosen.value, calls, rejected=rejected.text, scores=scores)

    return await ask.each(inputs_of(item, ask, written), pair)


async def _candidates(item: PlanItem, ask: Ask, index: int, text: str) -> list[_Candidate]:
    """The answers that came, the teacher's first. Raises ParseError where too few could be read to make a pair."""
    draws = item.draws or _ONE_OF_EACH
    names: list[str] = []
    for draw in draws:
        name = "chosen" if draw.role == "teacher" else "rejected"
        before = sum(known.startswith(name) for known in names)
        names.append(f"{name} {before + 1}" if before else name)

    async def answer(draw: Draw, name: str) -> Answer | ParseError:
        try:
            if draw.role == "teacher":
                return await ask_task(ask, text, draw=f"{index}/{name}", temperature=draw.temperature)
            return await ask(draw.prompt, parse_text, role="weak", draw=f"{index}/{name}", temperature=draw.temperature, input=text)
        except ParseError as error:
            if not item.draws:
                raise
            return error  # it costs the other candidates nothing

    outcomes = await ask.together(*(answer(draw, name) for draw, name in zip(draws, names, strict=True)))
    failed = [outcome for outcome in outcomes if isinstance(outcome, ParseError)]
    candidates = [
        _Candidate(name, draw, *_read(outcome, draw, ask.output_schema), outcome.call_id)
        for draw, name, outcome in zip(draws, names, outcomes, strict=True)
        if not isinstance(outcome, ParseError)
    ]
    if failed and (len(candidates) < 2 or not any(candidate.value is not None for candidate in candidates)):
        raise failed[0]
    return candidates


def _read(answer: Answer, draw: Draw, schema: Mapping[str, Any] | None) -> tuple[str, Any]:
    """An answer as the judge sees it, and as data where the task's output is JSON."""
    if draw.role == "teacher":
        return completion_text(answer.value, schema), answer.value
    if schema is None:
        return answer.value, answer.value
    try:
        return answer.value, parse_object(answer.value)
    except ParseError:
        return answer.value, None


class _Compared(NamedTuple):
    """Margins by (name, name), both ways round, and the calls of the judge."""

    margins: dict[tuple[str, str], float]
    calls: list[str]


async def _compare(candidates: Sequence[_Candidate], ask: Ask, index: int, text: str) -> _Compared:
    """Every two candidates in both orders. With more than two, those that are the same text are not compared: that is a tie."""
    pairs = list(combinations(candidates, 2))
    if len(candidates) > 2:
        pairs = [(one, other) for one, other in pairs if one.text != other.text]
    questions = []
    for one, other in pairs:
        for first, second in ((one, other), (other, one)):
            against = f", {second.name}" if len(candidates) > 2 else ""
            draw = f"{index}/{first.name} first{against}"
            questions.append(ask("compare", parse_better, role="judge", draw=draw, input=text, first=first.text, second=second.text))
    verdicts = await ask.together(*questions)
    margins: dict[tuple[str, str], float] = {}
    for (one, other), there, back in zip(pairs, verdicts[::2], verdicts[1::2], strict=True):
        margin = (_POINTS[there.value] - _POINTS[back.value]) / 2
        margins[one.name, other.name], margins[other.name, one.name] = margin, -margin
    return _Compared(margins, [verdict.call_id for verdict in verdicts])


def _best_and_worst(
    candidates: Sequence[_Candidate], margins: Mapping[tuple[str, str], float], item: PlanItem, ask: Ask, text: str
) -> tuple[_Candidate, _Candidate]:
    """The best answer that may be chosen and the worst of the others; of equals, the one that was asked for first.

    A candidate's rank is the sum of its margins over all others (Copeland's count, with halves for a win in one order alone).
    """
    rank = {one.name: sum(margins.get((one.name, other.name), 0.0) for other in candidates) for one in candidates}
    readable = [candidate for candidate in candidates if candidate.value is not None]
    wrong = {candidate.name for candidate in readable if ask.wrong(candidate.value, text) is not None}
    able = [candidate for candidate in readable if item.take == "any" or candidate.draw.role == "teacher"] or readable
    chosen = max(able, key=lambda candidate: (candidate.name not in wrong, rank[candidate.name]))
    others = [candidate for candidate in candidates if candidate is not chosen]
    different = [candidate for candidate in others if candidate.text != chosen.text] or others
    plausible = [candidate for candidate in different if candidate.value is not None] or different
    rejected = min(plausible, key=lambda candidate: (candidate.name not in wrong, rank[candidate.name]))
    return chosen, rejected

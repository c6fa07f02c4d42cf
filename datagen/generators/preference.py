"""Preference: the teacher's answer against a weak model's, ranked by the judge in both orders (order-swapped, arXiv 2306.05685)."""

from datagen.generators._example import ask_task, completion_text, inputs_of, make_example
from datagen.parse import Ask, parse_better, parse_strings, parse_text
from datagen.records import Example, PlanItem

_POINTS = {"A": 1.0, "B": -1.0, "tie": 0.0}


async def preference(item: PlanItem, ask: Ask) -> list[Example]:
    """Pairs with `chosen_margin` from -1 to 1: the mean of both orders' verdicts. Curation keeps those above 0.

    The weak answer is taken as it is, also when it is no JSON: what a student must not write is not always well formed.
    """
    written = await ask("write_adversarial" if item.kind else "write_inputs", parse_strings)

    async def pair(index: int, text: str) -> Example:
        chosen, weak = await ask.together(
            ask_task(ask, text, draw=f"{index}/chosen"),
            ask("answer", parse_text, role="weak", draw=f"{index}/rejected", input=text),
        )
        right = completion_text(chosen.value, ask.output_schema)
        first, second = await ask.together(
            ask("compare", parse_better, role="judge", draw=f"{index}/chosen first", input=text, first=right, second=weak.value),
            ask("compare", parse_better, role="judge", draw=f"{index}/rejected first", input=text, first=weak.value, second=right),
        )
        margin = (_POINTS[first.value] - _POINTS[second.value]) / 2
        calls = (written.call_id, weak.call_id, first.call_id, second.call_id, chosen.call_id)
        return make_example(item, ask, text, chosen.value, calls, rejected=weak.value, scores={"chosen_margin": margin})

    return await ask.each(inputs_of(item, ask, written), pair)

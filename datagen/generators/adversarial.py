"""Adversarial: inputs of one kind of difficulty, whose right answer is known by the kind."""

from datagen.generators._example import answer_inputs
from datagen.parse import Ask, parse_strings
from datagen.records import Example, PlanItem


async def adversarial(item: PlanItem, ask: Ask) -> list[Example]:
    """Hard inputs near a topic; the plan says what label a right answer has, or None where the kind leaves it open."""
    return await answer_inputs(item, ask, await ask("write_adversarial", parse_strings))

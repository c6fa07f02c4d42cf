"""Adversarial: inputs of one kind of difficulty, whose right answer is known by the kind.

A kind of a family has a prompt of its own (`write_ambiguous`, `write_harm`, `write_rules`, `write_injection`, `write_failures`), and the
filter `adversarial` holds the answer to what the family asks for. Whoever answers is told neither the kind nor the family.
"""

from datagen.generators._example import answer_inputs
from datagen.parse import Ask, parse_strings
from datagen.records import Example, PlanItem


async def adversarial(item: PlanItem, ask: Ask) -> list[Example]:
    """Hard inputs near a topic; the plan says what label a right answer has, or None where the kind leaves it open."""
    return await answer_inputs(item, ask, await ask(item.writes, parse_strings))

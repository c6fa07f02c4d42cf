"""Seed-based: one real input grows into several along the dimensions, then the teacher's answers (Self-Instruct, arXiv 2212.10560)."""

from datagen.generators._example import answer_inputs
from datagen.parse import Ask, parse_strings
from datagen.records import Example, PlanItem


async def seed(item: PlanItem, ask: Ask) -> list[Example]:
    """Rewrites of the item's seed; each must still be answered with the seed's label."""
    return await answer_inputs(item, ask, await ask("rewrite_input", parse_strings))

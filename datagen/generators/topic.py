"""Topic-guided: new inputs for a topic under drawn dimension values, then the teacher's answers."""

from datagen.generators._example import answer_inputs
from datagen.parse import Ask, parse_strings
from datagen.records import Example, PlanItem


async def topic(item: PlanItem, ask: Ask) -> list[Example]:
    """Inputs by topic and dimensions; each is answered blind, so a label that disagrees with the topic shows."""
    return await answer_inputs(item, ask, await ask("write_inputs", parse_strings))

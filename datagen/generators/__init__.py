"""Table of contents: a generator is `async (PlanItem, Ask) -> list[Example]`, a line here, and its prompts."""

from collections.abc import Awaitable, Callable

from datagen.generators.adversarial import adversarial
from datagen.generators.conversation import conversation
from datagen.generators.grounded import grounded
from datagen.generators.preference import preference
from datagen.generators.reasoning import reasoning
from datagen.generators.seed import seed
from datagen.generators.topic import topic
from datagen.parse import Ask
from datagen.records import Example, PlanItem

Generator = Callable[[PlanItem, Ask], Awaitable[list[Example]]]

GENERATORS: dict[str, Generator] = {
    "seed": seed,
    "topic": topic,
    "adversarial": adversarial,
    "reasoning": reasoning,
    "preference": preference,
    "conversation": conversation,
    "grounded": grounded,
}

"""The filters on what a judge and a second teacher measured. They never ask: scores were bought in `generate` and are stored."""

from datagen.filters.context import FilterContext
from datagen.records import Example


def judge(example: Example, context: FilterContext) -> str | None:
    """The judge's scores (1-5) reach the recipe's bounds. An example that no judge saw passes."""
    for score, bound, what in (("judge_answer", "min", "answer"), ("judge_input", "min_input", "input")):
        value, least = example.scores.get(score), context.setting("judge", bound)
        if value is not None and value < least:
            return f"judge_{what}: scored {value:g}, at least {least:g}"
    return None


def agreement(example: Example, context: FilterContext) -> str | None:
    """A second teacher's answer agrees by `min` or more (0 to 1). An example that no second teacher answered passes."""
    value, least = example.scores.get("agreement"), context.setting("agreement", "min")
    return f"agreement: {value:g} with the second teacher, at least {least:g}" if value is not None and value < least else None

"""The filter on what a judge measured. It never asks: scores were bought in `generate` and are stored with the example."""

from datagen.filters.context import FilterContext
from datagen.records import Example


def judge(example: Example, context: FilterContext) -> str | None:
    """The judge's scores (1-5) reach the recipe's bounds. An example that no judge saw passes."""
    for score, bound, what in (("judge_answer", "min", "answer"), ("judge_input", "min_input", "input")):
        value, least = example.scores.get(score), context.setting("judge", bound)
        if value is not None and value < least:
            return f"judge_{what}: scored {value:g}, at least {least:g}"
    return None

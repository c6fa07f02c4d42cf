"""The filters on what a judge and a second teacher measured. They never ask: scores were bought in `generate` and are stored."""

from datagen.filters.context import FilterContext
from datagen.records import Example, Rubric


def judge(example: Example, context: FilterContext) -> str | None:
    """The judge's scores (1-5) reach the recipe's bounds. An example that no judge saw passes.

    Without a rubric: `min` for the answer, `min_input` for the input. With one: `min_NAME` for each criterion, else `min`, and
    `min_mean` for their weighted mean.
    """
    if context.rubric is not None:
        return _by_rubric(example, context.rubric, context)
    for score, bound, what in (("judge_answer", "min", "answer"), ("judge_input", "min_input", "input")):
        value, least = example.scores.get(score), context.setting("judge", bound)
        if value is not None and value < least:
            return f"judge_{what}: scored {value:g}, at least {least:g}"
    return None


def _by_rubric(example: Example, rubric: Rubric, context: FilterContext) -> str | None:
    scores = {name: example.scores.get(f"judge_{name}") for name in rubric.criteria}
    known = {name: score for name, score in scores.items() if score is not None}
    if len(known) < len(scores):
        if not any(name.startswith("judge_") for name in example.scores):
            return None
        missing = ", ".join(name for name in scores if name not in known)
        return f"judge_missing: no score for {missing}, which an earlier rubric did not ask; run generate again"
    own = context.settings.get("judge", {})
    for name, score in known.items():
        least = float(own.get(f"min_{name}", context.setting("judge", "min")))
        if score < least:
            return f"judge_{name}: scored {score:g}, at least {least:g}"
    weights = {name: criterion.weight for name, criterion in rubric.criteria.items()}
    mean = sum(score * weights[name] for name, score in known.items()) / sum(weights.values())
    least = context.setting("judge", "min_mean")
    return f"judge_mean: scored {mean:.2f} on average, at least {least:g}" if mean < least else None


def agreement(example: Example, context: FilterContext) -> str | None:
    """A second teacher's answer agrees by `min` or more (0 to 1). An example that no second teacher answered passes."""
    value, least = example.scores.get("second_agreement"), context.setting("agreement", "min")
    return f"agreement: {value:g} with the second teacher, at least {least:g}" if value is not None and value < least else None

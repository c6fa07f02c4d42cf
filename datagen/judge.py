"""The judge: an example to scores from 1 to 5, asked once and stored. It measures; the filter `judge` decides."""

from datagen.parse import Ask, parse_scores, scores_of
from datagen.records import Example


async def judge(example: Example, ask: Ask, draw: str) -> Example:
    """The example with a `judge_NAME` among its scores for each criterion, and the judge's call first among its calls.

    The criteria are the rubric's, asked by its prompt; without one they are `answer` and `input`. Raises ParseError, TeacherError.
    """
    rubric = ask.rubric
    prompt, parse = ("judge", parse_scores) if rubric is None else (rubric.prompt_name, scores_of(rubric.criteria))
    answer = await ask(prompt, parse, role="judge", draw=f"judge/{draw}", input=_asked(example), answer=example.completion)
    scores = {**example.scores, **{f"judge_{name}": score for name, score in answer.value.items()}}
    return example.model_copy(update={"scores": scores, "calls": (answer.call_id, *example.calls)})


def _asked(example: Example) -> str:
    """What was asked, with all that an answer may rest on: earlier turns, and the passage that was shown or that only the teacher saw."""
    grounding = example.grounding
    hidden = "" if grounding is None or grounding.shown else f"{grounding.passage.block}The passage above was not shown. Asked was:\n\n"
    return hidden + example.transcript

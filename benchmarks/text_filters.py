"""The filters on wording over real text: false alarms by set, planted and real defects found, personal data by kind, time per example.

    REAL_DATA=FOLDER python benchmarks/text_filters.py

A false alarm is a drop on text that people or good models wrote. Not all are false: what was looked at and is a defect indeed (loops and
placeholders of small models in `pandalm`) is said in docs/curation.md. Cut answers are real answers that end with a full stop, cut at a
random character.
"""

import json
import os
import random
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from results_file import Result, machine, publish
from scipy.stats import binomtest

from datagen.filters import EXAMPLE_FILTERS, FilterContext
from datagen.prompts import own_texts
from datagen.records import Example, Message, Task

FILTERS = ("refusal", "language", "pii", "repetition", "placeholder", "leak", "truncated")
DATA = Path(os.environ["REAL_DATA"])
NO_ANSWER = "Yes."
Pair = tuple[str, str]


def rows(name: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (DATA / f"{name}.jsonl").read_text(encoding="utf-8").splitlines()]


def with_input(row: dict[str, Any], text: str) -> str:
    return f"{row['instruction']}\n{text}".strip()


def real_sets() -> Iterator[tuple[str, list[Pair]]]:
    """Pairs of a question and its answer; sets of questions alone have an answer that no filter looks at."""
    yield "medquad", [(row["question"], row["answer"]) for row in rows("medquad_300")]
    yield "gsm8k", [(row["question"], row["answer"]) for row in rows("gsm8k_train_200")]
    yield (
        "gsm8k_models",
        [
            (row["question"], said["solution"])
            for row in rows("gsm8k_graded_solutions_100")
            for said in row.values()
            if isinstance(said, dict)
        ],
    )
    yield (
        "self_instruct",
        [(with_input(row, found["input"]), found["output"]) for row in rows("self_instruct_seeds_175") for found in row["instances"]],
    )
    answers = [(with_input(row, row["input"]), row[key]) for row in rows("pandalm_200") for key in ("response1", "response2")]
    yield "pandalm", [pair for pair in answers if isinstance(pair[1], str)]
    yield "alpaca_zh", [(with_input(row, row["input"]), row["output"]) for row in rows("alpaca_zh_100")]
    yield "pubmedqa", [("\n".join([row["QUESTION"], *row["CONTEXTS"]]), NO_ANSWER) for row in rows("pubmedqa_60")]
    yield "xstest", [(row["prompt"], NO_ANSWER) for row in rows("xstest_450")]
    yield "ifeval", [(row["prompt"], NO_ANSWER) for row in rows("ifeval_120")]
    yield "banking77", [(row["text"], NO_ANSWER) for row in rows("banking77_train_sample")]


def share(bar: str, count: int, total: int, about: str) -> Result:
    bounds = binomtest(count, total).proportion_ci(method="exact")
    return Result(bar, count / total, "share", float(bounds.low), float(bounds.high), f"{count} of {total} {about}; {machine()}")


def example(text: str, answer: str = NO_ANSWER) -> Example:
    return Example(item_id="t:topic:0", topic="t", generator="topic", prompt=(Message(role="user", content=text),), completion=answer)


def context(language: str = "en") -> FilterContext:
    task = Task(type="generation", system="You answer.", input="a question", instructions="Answer in plain words.", language=language)
    return FilterContext(task=task, prompts=own_texts("a service that answers questions"))


def false_alarms() -> Iterator[Result]:
    spent: Counter[str] = Counter()
    chars = examples = 0
    for name, pairs in real_sets():
        made = [example(*pair) for pair in pairs]
        examples += len(made)
        chars += sum(len(text) + len(answer) for text, answer in pairs)
        own = context("zh" if name == "alpaca_zh" else "en")
        for filter_name in FILTERS:
            decide = EXAMPLE_FILTERS[filter_name]
            decide(made[0], own)  # what is loaded at the first call is not counted
            started = time.process_time()
            dropped = sum(decide(one, own) is not None for one in made)
            spent[filter_name] += time.process_time() - started
            yield share(f"{name}: dropped by {filter_name}", dropped, len(made), "examples")
    for filter_name in FILTERS:
        each = spent[filter_name] / examples * 1e6
        yield Result(f"time of {filter_name}", each, "us", each, each, f"an example of {chars / examples:.0f} characters; {machine()}")


def cut_answers() -> Iterator[Result]:
    rng = random.Random(3)
    for name, pairs in real_sets():
        if name not in ("medquad", "self_instruct", "pandalm", "alpaca_zh"):
            continue
        own = context("zh" if name == "alpaca_zh" else "en")
        whole = [answer.rstrip() for _, answer in pairs if len(answer) > 120 and answer.rstrip()[-1] in ".!?。！？"]
        cut = [text[: rng.randrange(len(text) // 3, len(text) * 95 // 100)].rstrip() for text in whole]
        cut = [text for text in cut if text[-1] not in ".!?。！？"]
        decide = EXAMPLE_FILTERS["truncated"]
        yield share(f"{name}: cut answers found", sum(decide(example("q", text), own) is not None for text in cut), len(cut), "cut")
        yield share(
            f"{name}: whole answers dropped", sum(decide(example("q", text), own) is not None for text in whole), len(whole), "whole"
        )


def personal_data() -> Iterator[Result]:
    """By kind of entity: texts that hold one and are dropped. And texts that hold none with a form of its own."""
    found: Counter[str] = Counter()
    total: Counter[str] = Counter()
    formed = {"CREDIT_CARD", "IBAN_CODE", "EMAIL_ADDRESS", "PHONE_NUMBER", "US_SSN"}
    own = context()
    drops = right = 0
    for row in rows("presidio_pii_150"):
        kinds = {span["entity_type"] for span in row["spans"]}
        dropped = EXAMPLE_FILTERS["pii"](example(row["full_text"]), own) is not None
        drops += dropped
        right += dropped and bool(kinds & formed)
        for kind in kinds:
            total[kind] += 1
            found[kind] += dropped
        if not kinds & formed:
            total["none of these"] += 1
            found["none of these"] += dropped
    for kind in (*sorted(formed), "PERSON", "STREET_ADDRESS", "none of these"):
        yield share(f"pii: texts with {kind} dropped", found[kind], total[kind], "texts")
    yield share("pii: dropped texts that hold one of these", right, drops, "dropped")


def main() -> None:
    publish("text_filters", [*cut_answers(), *personal_data(), *false_alarms()])


if __name__ == "__main__":
    main()

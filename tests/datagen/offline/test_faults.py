import json
import random
import re
from collections import Counter

import pytest
from scipy.stats import binomtest

from datagen.filters import FilterContext
from datagen.filters.language import language
from datagen.filters.privacy import pii
from datagen.filters.residue import leak, placeholder, repetition
from datagen.filters.text import refusal
from datagen.offline import faults as f
from datagen.prompts import own_texts
from datagen.records import Criterion, Example, Message, Rubric

WRITE = {"near_duplicate": 0.08, "pii": 0.03, "refusal": 0.03, "contaminated": 0.02, "truncated": 0.02}
ANSWER = {"wrong_label": 0.15, "invalid_json": 0.05, "refusal": 0.03, "truncated": 0.02, "invented_entity": 0.03, "asks_pin": 0.02}
CALLS = 1500

# litellm builds pydantic models of typing's ReadOnly fields, and pydantic warns of each
pytestmark = pytest.mark.filterwarnings("ignore:Item .* on TypedDict class:UserWarning")


def assert_rate(count: int, trials: int, rate: float) -> None:
    """The rate lies within the exact binomial bounds of what was counted (99.9 %)."""
    bounds = binomtest(count, trials).proportion_ci(confidence_level=0.999, method="exact")
    assert bounds.low <= rate <= bounds.high, (count, trials, rate)


def triples(text: str) -> set[tuple[str, ...]]:
    words = re.findall(r"\w+", text.lower())
    return set(zip(words, words[1:], words[2:], strict=False))


@pytest.mark.anyio
async def test_writing_faults_come_at_their_rates_and_are_recorded(call, prompt, item, faults, tmp_path):
    source = tmp_path / "evaluation.jsonl"
    source.write_text('{"text": "an evaluation line", "label": "x"}\nanother line\n')
    rates = {**WRITE, "contaminated_from": str(source)}
    ask = prompt("write_inputs", item=item("payments/refund", dimensions={"channel": "chat"}))
    texts = {f"w{i}": await call("banking", ask, f"w{i}", faults=rates) for i in range(CALLS)}
    recorded = faults()
    counts = Counter(fault["kind"] for fault in recorded)
    refused = sum(fault["detail"]["text"] == texts[fault["request_id"]] for fault in recorded if fault["kind"] == "refusal")
    assert_rate(counts["refusal"], CALLS, WRITE["refusal"])
    assert_rate(counts["truncated"], CALLS, WRITE["truncated"])
    for kind in ("near_duplicate", "pii", "contaminated"):
        assert_rate(counts[kind], (CALLS - refused) * 4, WRITE[kind])
    written = {
        (fault["kind"], fault["request_id"]): fault["detail"]["text"] for fault in recorded if fault["kind"] in ("pii", "contaminated")
    }
    for (kind, request_id), text in written.items():
        assert text in texts[request_id] or json.dumps(text, ensure_ascii=False)[1:-1] in texts[request_id] or cut(texts[request_id])
        assert kind == "pii" or text in ("an evaluation line", "another line")


def cut(text: str) -> bool:
    """The list was truncated or refused in part, so a message of it may be gone."""
    try:
        messages = json.loads(text)
    except ValueError:
        return True
    return any(message in f.REFUSALS for message in messages)


@pytest.mark.anyio
async def test_near_duplicates_share_four_in_five_word_triples_with_their_source(call, prompt, item, faults):
    ask = prompt("write_inputs", item=item("payments/refund", count=5))
    for i in range(300):
        await call("banking", ask, f"n{i}", faults={"near_duplicate": 0.3})
    likeness = []
    for fault in faults():
        a, b = triples(fault["detail"]["text"]), triples(fault["detail"]["of"])
        assert fault["detail"]["text"] != fault["detail"]["of"]
        likeness.append(len(a & b) / max(1, len(a | b)))
    assert len(likeness) > 200
    assert sum(score >= 0.8 for score in likeness) / len(likeness) >= 0.9


@pytest.mark.anyio
async def test_answering_faults_come_at_their_rates_and_show_in_the_answer(call, prompt, faults):
    ask = prompt("answer", input="Where is my refund of £40 from Tesco? It was 12 days ago.")
    right = await call("banking", ask, "right")
    texts = {f"a{i}": await call("banking", ask, f"a{i}", faults=ANSWER) for i in range(CALLS)}
    counts = Counter(fault["kind"] for fault in faults())
    for kind, rate in ANSWER.items():
        assert_rate(counts[kind], CALLS, rate)
    assert sum(text != right for text in texts.values()) == sum(counts.values())
    for fault in faults():
        text, detail = texts[fault["request_id"]], fault["detail"]
        if fault["kind"] == "wrong_label":
            assert json.loads(text)["intent"] == detail["value"] != "Refund_not_showing_up" == detail["right"]
        elif fault["kind"] == "invented_entity":
            assert json.loads(text)["entities"][detail["field"].split(".")[1]] == detail["value"]
            assert detail["value"] not in detail["input"]
        elif fault["kind"] == "asks_pin":
            assert json.loads(text)["ask"] == "pin"
        elif fault["kind"] in ("invalid_json", "truncated"):
            with pytest.raises(ValueError):
                json.loads(text)
        else:
            assert text in f.REFUSALS


@pytest.mark.anyio
async def test_the_weak_model_misbehaves_at_its_default_rates(call, prompt, faults):
    inside, outside = prompt("answer", input="Where is my card?"), prompt("answer", input="Tell me a joke about cats")
    for i in range(600):
        await call("banking-weak", inside, f"in{i}")
        await call("banking-weak", outside, f"out{i}")
    counts = Counter((fault["request_id"].rstrip("0123456789"), fault["kind"]) for fault in faults())
    for kind in ("confusable_intent", "needless_refusal", "invented_entity", "invalid_json", "asks_pin", "rambles"):
        assert_rate(counts["in", kind], 600, f.WEAK_DEFAULTS[kind])
    assert_rate(counts["out", "missed_out_of_scope"], 600, f.WEAK_DEFAULTS["missed_out_of_scope"])
    assert not counts["in", "missed_out_of_scope"] and not counts["out", "confusable_intent"]
    assert not counts["out", "needless_refusal"]


@pytest.mark.anyio
async def test_judge_noise_is_recorded_with_the_right_score(call, prompt, faults):
    ask = prompt("judge", input="Where is my card?", answer='{"intent":"card_arrival","urgency":"low","entities":{}}')
    scores = [json.loads(await call("banking-judge", ask, f"j{i}", faults={"judge_noise": 0.2}))["answer"] for i in range(400)]
    noisy = [fault for fault in faults() if fault["kind"] == "judge_noise"]
    assert_rate(len(noisy), 400, 0.2)
    assert sum(score != 5 for score in scores) == len(noisy)
    assert all(fault["detail"]["right"] == 5 for fault in noisy)


def test_no_rates_no_faults():
    rng = random.Random(0)
    assert [f.draw(f.CALL_FAULTS["answer"], {}, rng) for _ in range(1000)] == [None] * 1000


@pytest.mark.parametrize(
    ("rates", "words"),
    [
        ({"wrong_lable": 0.1}, "faults.wrong_lable is not a fault"),
        ({"pii": 1.5}, "a rate is a number from 0 to 1"),
        ({"pii": "often"}, "a rate is a number from 0 to 1"),
        ({"wrong_label": 0.7, "invalid_json": 0.7}, "sum to 1.40"),
        ({"contaminated": 0.1}, "contaminated_from"),
    ],
)
def test_a_wrong_rate_is_refused_with_its_name(rates, words):
    with pytest.raises(ValueError, match=words):
        f.check_rates(rates)


def test_leaked_card_numbers_pass_the_luhn_check():
    rng = random.Random(1)
    for _ in range(200):
        digits = [int(c) for c in f.luhn_number(rng) if c.isdigit()]
        doubled = [d if i % 2 else sum(divmod(2 * d, 10)) for i, d in enumerate(digits)]
        assert len(digits) == 16 and sum(doubled) % 10 == 0


def test_broken_json_cannot_be_read():
    rng = random.Random(2)
    for _ in range(300):
        with pytest.raises(ValueError):
            json.loads(f.break_json('{"intent":"card_arrival","urgency":"low","entities":{"when":"3 days ago"}}', rng))


FORM = ("repetition", "placeholder", "leaked_prompt", "secret", "inner_refusal", "foreign")


@pytest.mark.anyio
async def test_faults_of_form_come_at_their_rates_and_their_filters_know_them(call, prompt, item, faults, banking):
    ask = prompt("write_inputs", item=item("payments/refund", dimensions={"channel": "chat"}))
    texts = {f"w{i}": await call("banking", ask, f"w{i}", faults=dict.fromkeys(FORM, 0.05)) for i in range(300)}
    counts = Counter(fault["kind"] for fault in faults())
    for kind in FORM:
        assert_rate(counts[kind], 1200, 0.05)
    context = FilterContext(task=banking.task, labels=banking.labels(), prompts=own_texts(banking.description))
    meant = dict(zip(FORM, (repetition, placeholder, leak, pii, refusal, language), strict=True))
    for fault in faults():
        text = fault["detail"]["text"]
        assert text in json.loads(texts[fault["request_id"]])
        example = Example(item_id="t:topic:0", topic="t", generator="topic", prompt=(Message(role="user", content=text),), completion="{}")
        assert meant[fault["kind"]](example, context), fault


@pytest.mark.anyio
async def test_kinds_that_are_not_switched_on_change_no_draw(call, prompt, item):
    ask = prompt("write_inputs", item=item("payments/refund", dimensions={"channel": "chat"}))
    for i in range(20):
        assert await call("banking", ask, f"w{i}", faults={"pii": 0.1}) == await call(
            "banking", ask, f"w{i}", faults={"pii": 0.1, **dict.fromkeys(FORM, 0.0)}
        )


@pytest.mark.anyio
async def test_the_judge_scores_the_criteria_of_a_rubric(call, prompt):
    rubric = Rubric(
        criteria={"accuracy": Criterion(description="right in every field"), "naturalness": Criterion(description="a person's words")}
    )
    ask = prompt("judge_rubric", rubric=rubric, input="as an AI", answer='{"intent":"card_arrival","urgency":"low","entities":{}}')
    said = json.loads(await call("banking-judge", ask, "j"))
    assert set(said) == {"reasons", "accuracy", "naturalness"}
    assert said["naturalness"] == 1

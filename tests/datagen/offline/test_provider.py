import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from datagen.offline.messages import LABELS
from datagen.offline.provider import UnreadablePrompt, parse_order, parse_rule, parse_system, score_answer, score_input
from datagen.parse import parse_better, parse_object, parse_scores, parse_steps, parse_strings
from datagen.policy import decide, read_facts

ROOT = Path(__file__).resolve().parents[3]

# litellm builds pydantic models of typing's ReadOnly fields, and pydantic warns of each
pytestmark = pytest.mark.filterwarnings("ignore:Item .* on TypedDict class:UserWarning")


def ask_litellm(**kwargs):
    import litellm

    return litellm.acompletion(temperature=1.0, max_tokens=500, timeout=10, num_retries=0, **kwargs)


@pytest.mark.anyio
async def test_litellm_reaches_the_teacher_and_calls_it_simulated(side_file, prompt, item):
    messages = prompt("write_inputs", item=item("cards/pin", dimensions={"channel": "chat", "persona": "angry"}))
    response = await ask_litellm(model="offline/banking", messages=messages, metadata={"request_id": "r1"})
    assert len(parse_strings(response.choices[0].message.content)) == 4
    assert response.choices[0].finish_reason == "stop"
    assert "offline" in response.model and "simulated" in response.model
    assert response.usage.prompt_tokens == sum(len(message["content"]) for message in messages) // 4
    assert response.usage.completion_tokens == len(response.choices[0].message.content) // 4


@pytest.mark.anyio
async def test_a_truncated_answer_says_so(side_file, prompt):
    response = await ask_litellm(
        model="offline/banking",
        messages=prompt("answer", input="Where is my card?"),
        metadata={"request_id": "t"},
        faults={"truncated": 1.0},
    )
    assert response.choices[0].finish_reason == "length"


@pytest.mark.anyio
async def test_a_rate_limit_passes_when_tried_again(side_file, prompt, faults):
    import litellm

    messages = prompt("answer", input="Where is my card?")
    limited = 0
    for i in range(40):
        for _ in range(20):
            try:
                await ask_litellm(
                    model="offline/banking", messages=messages, metadata={"request_id": f"r{i}"}, faults={"rate_limited": 0.5}
                )
                break
            except litellm.RateLimitError:
                limited += 1
        else:
            pytest.fail("never got through")
    assert 10 < limited < 90
    assert len([fault for fault in faults() if fault["kind"] == "rate_limited"]) == limited


@pytest.mark.anyio
async def test_a_slow_answer_takes_longer(side_file, prompt, faults):
    started = time.monotonic()
    await ask_litellm(
        model="offline/banking", messages=prompt("answer", input="Where is my card?"), metadata={"request_id": "s"}, faults={"slow": 1.0}
    )
    assert time.monotonic() - started >= 0.2
    assert [fault["kind"] for fault in faults()] == ["slow"]


@pytest.mark.anyio
async def test_an_unknown_model_prompt_or_fault_is_a_bad_request(side_file, prompt):
    import litellm

    good = prompt("answer", input="Where is my card?")
    other = [{"role": "system", "content": "You write realistic inputs for a law firm"}, {"role": "user", "content": "Topic: x"}]
    for model, messages, params, words in (
        ("offline/banquing", good, {}, "unknown model offline/banquing"),
        ("offline/banking", other, {}, "only knows the banking support domain"),
        ("offline/banking", good, {"faults": {"typo": 0.1}}, "faults.typo is not a fault"),
        ("offline/banking", good, {"faults": {"contaminated": 1.0, "contaminated_from": "/nowhere"}}, None),
    ):
        if words is None:
            await ask_litellm(model=model, messages=messages, metadata={"request_id": "x"}, **params)  # answers copy no lines
            continue
        with pytest.raises(litellm.BadRequestError, match=words):
            await ask_litellm(model=model, messages=messages, metadata={"request_id": "x"}, **params)


@pytest.mark.anyio
async def test_a_file_to_copy_from_that_is_missing_is_a_bad_request(call, prompt, item):
    import litellm

    with pytest.raises(litellm.BadRequestError, match="nowhere"):
        await call(
            "banking",
            prompt("write_inputs", item=item("cards/pin")),
            "x",
            faults={"contaminated": 1.0, "contaminated_from": "nowhere.jsonl"},
        )


@pytest.mark.anyio
async def test_every_topic_is_written_and_answered_by_the_policy(call, prompt, item, banking):
    right = total = 0
    for path in sorted(LABELS):
        for i in range(4):
            texts = parse_strings(await call("banking", prompt("write_inputs", item=item(path, index=i)), f"{path}{i}"))
            assert len(set(texts)) == 4
            for text in texts:
                answer = parse_object(await call("banking", prompt("answer", input=text), text))
                assert list(answer)[:3] == ["intent", "urgency", "entities"]
                assert all(value in text for value in answer["entities"].values())
                fields, _ = decide(banking.policy, {"intent": answer["intent"], **read_facts(answer["entities"], banking.facts)})
                assert {name: answer[name] for name in banking.task.decision_fields if name in answer} == fields
                right += answer["intent"] == LABELS[path]
                total += 1
    assert right / total >= 0.97


@pytest.mark.anyio
async def test_reasoning_states_the_facts_names_the_rules_and_ends_in_the_answer(call, prompt, item):
    messages = prompt("write_inputs", item=item("payments/refund", facts={"days": "12 days ago"}))
    for text in parse_strings(await call("banking", messages, "facts")):
        steps = parse_steps(await call("banking", prompt("reason", input=text), text))
        assert steps.answer == parse_object(await call("banking", prompt("answer", input=text), text))
        assert steps.answer["decision"] == "escalate" and steps.answer["reason"] == "R3"
        assert any("days = 12" in step for step in steps.steps) and any(step.startswith("R3") for step in steps.steps)


@pytest.mark.anyio
async def test_rewrites_keep_the_label_of_the_seed_and_are_not_the_seed(call, prompt, item, banking):
    from datagen.offline.reading import read

    kept = total = 0
    for leaf in banking.leaves():
        for seed in leaf.seeds[:3]:
            texts = parse_strings(await call("banking", prompt("rewrite_input", item=item(leaf.path, seed=seed)), seed))
            assert seed not in texts
            kept += sum(read(text).label == leaf.label for text in texts)
            total += len(texts)
    assert kept / total >= 0.95


@pytest.mark.parametrize("kind", ["near_miss", "two_intents", "prompt_injection", "empty"])
@pytest.mark.anyio
async def test_adversarial_inputs_are_written_for_each_kind(call, prompt, item, kind):
    asked = item("cards/arrival", kind=kind, neighbours=("cards/lost",), dimensions={"channel": "chat", "difficulty": "plain"})
    assert len(set(parse_strings(await call("banking", prompt("write_adversarial", item=asked), kind)))) == 4


@pytest.mark.anyio
async def test_the_judge_prefers_the_right_answer_in_either_order(call, prompt):
    text = "Where is my refund of £40? It was 12 days ago."
    right = await call("banking", prompt("answer", input=text), "right")
    wrong = right.replace("escalate", "wait")
    first = await call("banking-judge", prompt("compare", input=text, first=right, second=wrong), "c1")
    second = await call("banking-judge", prompt("compare", input=text, first=wrong, second=right), "c2")
    same = await call("banking-judge", prompt("compare", input=text, first=right, second=right), "c3")
    assert [parse_better(first), parse_better(second), parse_better(same)] == ["A", "B", "tie"]
    scores = parse_scores(await call("banking-judge", prompt("judge", input=text, answer=right), "j"))
    assert scores == {"answer": 5.0, "input": 5.0}


@pytest.mark.parametrize(
    ("answer", "score"),
    [
        (
            '{"intent":"Refund_not_showing_up","urgency":"high","entities":{"amount":"£40","when":"12 days ago"},'
            '"decision":"escalate","reason":"R3"}',
            5,
        ),
        ('{"intent":"Refund_not_showing_up","urgency":"high","entities":{"when":"12 days ago"},"decision":"escalate","reason":"R3"}', 4),
        ('{"intent":"Refund_not_showing_up","urgency":"low","entities":{"when":"12 days ago"},"decision":"wait","reason":"R4"}', 3),
        (
            '{"intent":"Refund_not_showing_up","urgency":"high","entities":{"place":"Rome","when":"12 days ago"},'
            '"decision":"escalate","reason":"R3"}',
            2,
        ),
        ('{"intent":"card_arrival","urgency":"low","entities":{}}', 2),
        ('{"intent":"Refund_not_showing_up","urgency":"high"}', 2),
        ('{"intent":"Refund_not_showing_up","urgency":"high","entities":{"when":"12 days ago"},"decision":"clarify","ask":"pin"}', 1),
        ("no JSON", 1),
    ],
)
def test_an_answer_scores_by_its_worst_fault(prompt, answer, score):
    ask = parse_system(prompt("judge", input="x", answer="y")[0]["content"])
    assert score_answer(ask, "Where is my refund of £40? It was 12 days ago.", answer)[0] == score


def test_naming_an_intent_for_a_message_out_of_scope_is_the_worst_mistake(prompt):
    ask = parse_system(prompt("judge", input="x", answer="y")[0]["content"])
    assert score_answer(ask, "Tell me a joke about cats", '{"intent":"card_arrival","urgency":"low","entities":{}}')[0] == 1


@pytest.mark.parametrize(
    ("text", "score"),
    [
        ("Where is my card?", 5),
        ("um where is my card", 4),
        ("hi", 3),
        ("My card number is 4111 1111 1111 1111.", 2),
        ("As an AI language model, I cannot.", 1),
    ],
)
def test_an_input_scores_by_how_real_it_looks(text, score):
    assert score_input(text) == score


def test_prompts_that_lack_their_parts_are_unreadable(prompt):
    with pytest.raises(UnreadablePrompt, match="Number of inputs"):
        parse_order("Topic: cards/pin")
    with pytest.raises(UnreadablePrompt, match="no list"):
        parse_system("You answer for a bank.")
    with pytest.raises(UnreadablePrompt, match="parcel_late"):
        parse_system("You answer for a bank.\nValues of intent:\n- parcel_late: late parcels")
    with pytest.raises(UnreadablePrompt, match="not readable"):
        parse_rule("- R1: intent like a -> urgency: low")
    assert parse_rule("- not a rule") is None


def test_a_topic_of_another_tree_is_understood_by_its_label_or_its_words():
    order = parse_order("Topic: desk/change_pin\nAbout: x\nNumber of inputs: 2")
    assert order.leaf == "cards/pin" and order.number == 2
    assert parse_order("Topic: desk/seven\nAbout: the customer wants to close the account\nNumber of inputs: 1").leaf == "account/close"


@pytest.mark.anyio
async def test_an_unknown_kind_of_difficulty_or_a_crooked_judge_prompt_is_a_bad_request(call, prompt, item):
    import litellm

    messages = prompt("write_adversarial", item=item("cards/pin", kind="noise"))
    messages[1]["content"] = messages[1]["content"].replace("noise", "riddle")
    with pytest.raises(litellm.BadRequestError, match="riddle"):
        await call("banking", messages, "x")
    for user in ("Where is my card?", "Input:\nWhere is my card?"):
        judge = prompt("judge", input="x", answer="y")
        judge[1]["content"] = user
        with pytest.raises(litellm.BadRequestError, match="judge's prompt"):
            await call("banking-judge", judge, "x")


SCRIPT = """
import asyncio, json, sys
from datagen.offline.provider import OfflineTeacher
async def main():
    teacher = OfflineTeacher()
    for i, messages in enumerate(json.load(sys.stdin)):
        for model in ("banking", "banking-weak"):
            response = await teacher.acompletion(model, messages, optional_params={}, litellm_params={"metadata": {"request_id": str(i)}})
            print(json.dumps(response.choices[0].message.content))
asyncio.run(main())
"""


def test_the_same_request_gives_the_same_text_in_every_process(prompt, item):
    asks = [prompt("write_inputs", item=item(path)) for path in sorted(LABELS)]
    asks += [
        prompt("answer", input=text) for text in ("Where is my card?", "I sent £40 to the wrong person yesterday", "Is it going to rain?")
    ]
    outputs = {
        subprocess.run(
            [sys.executable, "-c", SCRIPT], input=json.dumps(asks), capture_output=True, text=True, check=True, cwd=ROOT,
            env={**os.environ, "PYTHONHASHSEED": seed, "LITELLM_LOCAL_MODEL_COST_MAP": "True"},
        ).stdout
        for seed in ("1", "2")
    }  # fmt: skip
    assert len(outputs) == 1
    assert len(outputs.pop().splitlines()) == 2 * len(asks)


def test_importing_the_package_does_not_import_litellm():
    code = "import sys, datagen.offline; assert 'litellm' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT)


def test_registering_twice_keeps_one_provider_and_takes_the_new_file(tmp_path):
    import litellm

    from datagen.offline import register

    register(tmp_path / "a")
    register(tmp_path / "b")
    offline = [entry["custom_handler"] for entry in litellm.custom_provider_map if entry["provider"] == "offline"]
    assert len(offline) == 1 and offline[0].side_file == tmp_path / "b"


@pytest.mark.anyio
async def test_an_ask_costs_little_time(call, prompt, item):
    from datagen.offline.reading import read

    read("warm")
    read("Where is my card?")
    writing = prompt("write_inputs", item=item("cards/arrival"))
    answering = [prompt("answer", input=f"Where is my card, it has been {i} days?") for i in range(200)]
    started = time.process_time()
    for i in range(200):
        await call("banking", writing, f"w{i}")
        await call("banking", answering[i], f"a{i}")
    assert (time.process_time() - started) / 400 < 0.002 * 3  # three times the aim, for busy machines

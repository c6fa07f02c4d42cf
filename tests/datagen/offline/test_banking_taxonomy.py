from collections import Counter

from datagen.json_schema import violation
from datagen.offline.messages import ADVERSARIAL_KINDS, LABELS
from datagen.offline.provider import FACTS, answer_of, parse_rule, parse_system
from datagen.policy import decide, parse_days, parse_number


def test_every_leaf_has_the_label_that_the_teacher_gives_it(banking):
    assert {leaf.path: leaf.label for leaf in banking.leaves()} == LABELS


def test_every_leaf_has_six_to_twelve_seeds_and_no_seed_is_an_evaluation_message(banking, handwritten):
    texts = {row["text"].lower() for row in handwritten}
    for leaf in banking.leaves():
        assert 6 <= len(leaf.seeds) <= 12, leaf.path
        assert not {seed.lower() for seed in leaf.seeds} & texts


def test_the_evaluation_set_has_ten_messages_of_every_label(banking, handwritten):
    counts = Counter(row["label"] for row in handwritten)
    assert set(counts) == set(banking.labels())
    assert min(counts.values()) >= 10 and sum(counts.values()) >= 130


def test_the_teacher_knows_every_adversarial_kind_and_both_facts(banking):
    assert set(banking.adversarial) == set(ADVERSARIAL_KINDS)
    assert dict(banking.facts) == FACTS


def test_the_policy_gives_every_label_an_urgency_and_a_reason_with_each_decision(banking):
    for label in banking.labels():
        for facts in ({}, {"days": 0.0, "amount": 10.0}, {"days": 30.0, "amount": 900.0}):
            fields, used = decide(banking.policy, {"intent": label, **facts})
            assert fields["urgency"] in ("low", "normal", "high")
            assert ("decision" in fields) == ("reason" in fields)
            if "reason" in fields:
                assert fields["reason"] in used
                assert "decision" in next(rule.then for rule in banking.policy if rule.id == fields["reason"])
            assert ("ask" in fields) == (fields.get("decision") == "clarify")


def test_rules_read_from_the_prompt_decide_like_the_taxonomy(banking):
    read = tuple(parse_rule(f"- {line}") for line in banking.policy_lines())
    for label in banking.labels():
        for facts in ({}, {"days": 2.0}, {"days": 12.0, "amount": 99.0}, {"amount": 100.0}):
            assert decide(read, {"intent": label, **facts}) == decide(banking.policy, {"intent": label, **facts})


def test_every_answer_by_the_policy_obeys_the_output_schema(banking, prompt):
    ask = parse_system(prompt("answer", input="x")[0]["content"])
    for label in banking.labels():
        for entities in ({}, {"when": "12 days ago", "amount": "£40"}):
            assert violation(answer_of(ask, label, entities)[0], banking.task.output_schema) is None


def test_the_system_message_is_short_and_each_stated_fact_can_be_read(banking):
    assert len(banking.task.system.split()) <= 25
    for case in banking.reasoning:
        for name, texts in case.facts.items():
            for text in texts:
                assert (parse_days if name == "days" else parse_number)(text) is not None, text

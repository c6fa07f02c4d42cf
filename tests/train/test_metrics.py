"""Each metric by hand, intervals against simulation, comparisons where the answer is known."""

import json
import random
from typing import Any

import numpy as np
import pytest

from train import metrics
from train.metrics import METRICS, Answer, TaskSpec, apart, detectable, holm, mcnemar, number_right, read_answer, score

LABELS = ("card", "pin_change", "other")
TASK = TaskSpec(
    label_field="intent",
    labels=LABELS,
    abstain_label="other",
    entities_field="entities",
    decision_fields=("urgency", "decision", "reason"),
    forbidden=("pin", "security code"),
    output_schema={
        "type": "object",
        "required": ["intent", "urgency", "entities"],
        "properties": {"intent": {"enum": list(LABELS)}},
    },
)
TEXT = TaskSpec(output="text")


def dumps(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)


def reply(intent: str = "card", entities: Any = None, **more: Any) -> dict[str, Any]:
    return {"intent": intent, "urgency": "low", "entities": entities or {}, **more}


def answer(completion: Any, reference: Any = None, *, text: str = "I paid £40 at Tesco", label: str | None = None) -> Answer:
    completion = completion if isinstance(completion, str) else dumps(completion)
    reference = reference if reference is None or isinstance(reference, str) else dumps(reference)
    return read_answer(TASK, text, completion, reference, label)


def text_answer(completion: str, reference: str) -> Answer:
    return read_answer(TEXT, "", completion, reference)


def value(name: str, *answers: Answer) -> float:
    return float(METRICS[name].statistic(METRICS[name].tally(answers).sum(0)))


def labelled(pairs: list[tuple[str, str]]) -> list[Answer]:
    """From (right label, given label)."""
    return [answer(reply(given), label=right) for right, given in pairs]


# --- reading


@pytest.mark.parametrize(
    "text", ['```json\n{"a":1}\n```', '{"a":1} {"b":2}', '{"a":1', "[1]", '"a"', "", '{"a": NaN}', 'Sure: {"a":1}', "{" * 9999]
)
def test_only_one_whole_json_object_is_valid(text: str) -> None:
    assert metrics.parse_object(text) is None


def test_white_space_around_an_object_is_valid() -> None:
    assert metrics.parse_object(' {"a": 1}\n') == {"a": 1}


def test_a_missing_label_is_read_from_the_reference() -> None:
    assert answer(reply(), reply("other")).label == "other"


def test_a_label_that_is_not_text_is_no_label() -> None:
    assert answer({"intent": ["card"]}).predicted is None


# --- metrics by hand


def test_json_validity_is_the_share_of_objects() -> None:
    assert value("json_validity", answer(reply()), answer("no"), answer("{}"), answer("[]")) == 0.5


def test_schema_validity_refuses_an_unknown_label_and_a_missing_field() -> None:
    good, unknown, missing = answer(reply()), answer(reply("loan")), answer({"intent": "card"})
    assert value("schema_validity", good, unknown, missing) == pytest.approx(1 / 3)


def test_label_accuracy_counts_an_unreadable_answer_as_wrong() -> None:
    assert value("label_accuracy", answer(reply(), label="card"), answer("card", label="card")) == 0.5


def test_macro_f1_of_a_hand_computed_case() -> None:
    # card: tp 2 fp 1 fn 0 -> 0.8; pin_change: tp 1 fp 0 fn 1 -> 2/3; other: tp 0 fp 0 fn 1 -> 0
    answers = [*labelled([("card", "card"), ("card", "card"), ("pin_change", "pin_change"), ("pin_change", "card")])]
    answers += [answer("not json", label="other")]
    assert value("macro_f1", *answers) == pytest.approx((0.8 + 2 / 3 + 0) / 3)


def test_macro_f1_does_not_average_a_label_that_no_reference_has() -> None:
    # card: tp 1 fn 1 -> 2/3; "other" is only predicted
    assert value("macro_f1", *labelled([("card", "card"), ("card", "other")])) == pytest.approx(2 / 3)


def test_macro_f1_equals_scikit_learn_on_random_cases() -> None:
    sklearn = pytest.importorskip("sklearn.metrics")
    rng = np.random.default_rng(0)
    for _ in range(50):
        pairs = [(str(rng.choice(LABELS)), str(rng.choice(LABELS))) for _ in range(int(rng.integers(1, 40)))]
        right, given = zip(*pairs, strict=True)
        expected = sklearn.f1_score(right, given, labels=sorted(set(right)), average="macro", zero_division=0)
        assert value("macro_f1", *labelled(pairs)) == pytest.approx(expected)


def test_entity_f1_counts_pairs_over_all_rows() -> None:
    one = answer(reply(entities={"amount": "£40"}), reply(entities={"amount": "£40", "merchant": "Tesco"}))  # tp 1 fn 1
    two = answer(reply(entities={"amount": "£4"}), reply(entities={"amount": "£40"}))  # fp 1 fn 1
    assert value("entity_f1", one, two) == pytest.approx(2 * 1 / (2 * 1 + 1 + 2))


def test_entity_f1_wants_the_name_as_well_as_the_value() -> None:
    assert value("entity_f1", answer(reply(entities={"merchant": "£40"}), reply(entities={"amount": "£40"}))) == 0


def test_entities_of_an_unreadable_answer_are_missed() -> None:
    assert value("entity_f1", answer("?", reply(entities={"amount": "£40"}))) == 0


def test_entity_f1_of_rows_without_entities_is_undefined() -> None:
    assert np.isnan(value("entity_f1", answer(reply(), reply())))


def test_decision_match_wants_every_decision_field() -> None:
    wanted = reply(decision="refund", reason="R7")
    assert value("decision_match", answer(wanted, wanted), answer(reply(decision="refund", reason="R6"), wanted)) == 0.5


def test_decision_match_leaves_out_rows_without_a_decision() -> None:
    assert np.isnan(value("decision_match", answer(reply(), reply())))


def test_a_decision_that_nobody_asked_for_is_wrong() -> None:
    assert value("decision_match", answer(reply(decision="refund"), reply())) == 0


def test_abstention_recall_and_precision_by_hand() -> None:
    answers = labelled([("other", "other"), ("other", "card"), ("card", "other"), ("card", "other"), ("card", "card")])
    assert value("abstention_recall", *answers) == 1 / 2
    assert value("abstention_precision", *answers) == pytest.approx(1 / 3)


def test_abstention_precision_is_left_out_where_nothing_calls_for_abstaining() -> None:
    answers = labelled([("card", "other"), ("card", "card")])
    assert np.isnan(value("abstention_precision", *answers))
    assert value("false_abstention", *answers) == 0.5


def test_exact_match_of_json_ignores_the_order_of_keys() -> None:
    assert value("exact_match", answer('{"b":1,"a":2}', '{"a":2,"b":1}')) == 1


def test_exact_match_of_text_ignores_case_and_white_space() -> None:
    assert value("exact_match", text_answer(" It is\n GREEN", "it is green"), text_answer("green", "it is green")) == 0.5


def test_token_f1_by_hand_ignores_articles_and_punctuation() -> None:
    # "cat sat" and "cat sat down": common 2, lengths 2 and 3
    assert value("token_f1", text_answer("The cat sat.", "a cat sat down")) == pytest.approx(4 / 5)


@pytest.mark.parametrize(
    ("completion", "reference", "expected"),
    [  # as sacrebleu 2.6 scores them
        ("the cat sat on the mat", "the cat is on the mat", 0.645779),
        ("It opens at nine.", "The library opens at nine o'clock.", 0.364942),
        ("ab", "abc", 0.636364),
        ("猫は座る", "猫が座った", 0.104167),
        ("x", "y", 0.000000),
    ],
)
def test_chrf_equals_sacrebleu_s(completion: str, reference: str, expected: float) -> None:
    assert value("chrf", text_answer(completion, reference)) == pytest.approx(expected, abs=1e-6)


def test_chrf_of_an_empty_answer_is_zero() -> None:
    assert value("chrf", text_answer(" ", "a")) == 0


def test_rouge_l_by_hand_follows_the_order_of_words() -> None:
    # longest common subsequence of "b a c" and "a b c" is 2 of 3
    assert value("rouge_l", text_answer("b a c", "a b c")) == pytest.approx(2 / 3)


def test_an_entity_that_is_not_in_the_input_is_invented() -> None:
    answers = [answer(reply(entities={"amount": "£41"})), answer(reply(entities={"merchant": "tesco"}))]
    assert value("invented_entity", *answers) == 0.5


def test_a_forbidden_word_counts_whole_and_in_any_case() -> None:
    said = [answer(reply(ask=word)) for word in ("your PIN", "spinning", "the Security Code")]
    assert value("asks_forbidden", *said) == pytest.approx(2 / 3)


def test_a_label_may_hold_a_forbidden_word() -> None:
    task = TASK.model_copy(update={"labels": ("pin",)})
    assert METRICS["asks_forbidden"].tally([read_answer(task, "", dumps(reply("pin")))])[0, 0] == 0


def test_a_forbidden_word_counts_in_an_answer_that_is_not_json() -> None:
    assert value("asks_forbidden", answer("Please tell me your PIN")) == 1


def test_missed_abstention_is_a_label_where_it_must_decline() -> None:
    answers = [*labelled([("other", "card"), ("other", "other"), ("card", "other")]), answer("?", label="other")]
    assert value("missed_abstention", *answers) == pytest.approx(1 / 3)


def test_bad_behaviour_is_any_of_them_once() -> None:
    bad = answer(reply(entities={"amount": "£999"}, ask="PIN"), label="other")
    assert value("bad_behaviour", bad, answer(reply(), label="card")) == 0.5


def test_rows_with_only_a_label_get_only_what_a_label_can_tell() -> None:
    found = {m.metric for m in score({"x": labelled([("card", "card"), ("other", "card")])}).measures["x"]}
    assert found == {
        "json_validity",
        "schema_validity",
        "label_accuracy",
        "macro_f1",
        "abstention_recall",
        "false_abstention",
        "invented_entity",
        "asks_forbidden",
        "missed_abstention",
        "bad_behaviour",
    }


def test_a_free_text_task_gets_only_text_metrics() -> None:
    found = {m.metric for m in score({"x": [text_answer("a", "b")]}).measures["x"]}
    assert found == {"exact_match", "token_f1", "rouge_l", "chrf"}


def test_failed_metrics_names_what_is_wrong_with_a_row() -> None:
    wrong = answer(reply("pin_change", entities={"amount": "£9"}), reply("card"))
    assert metrics.failed_metrics(wrong) == ["label_accuracy", "entity_f1", "exact_match", "invented_entity", "bad_behaviour"]
    assert metrics.failed_metrics(answer(reply(), reply())) == []


@pytest.mark.parametrize("name", METRICS)
def test_every_metric_is_in_the_glossary(name: str) -> None:
    assert metrics.GLOSSARY[name].sentence.endswith(".")


@pytest.mark.parametrize("name", [name for name in METRICS if name != "embedding_similarity"])  # that one takes a model
def test_every_metric_stays_between_0_and_1_and_inside_its_interval(name: str) -> None:
    rng = np.random.default_rng(3)
    task = TEXT if name in ("token_f1", "rouge_l", "chrf", "numeric_match") else TASK
    texts = (
        ["a b c", "a c", "d"] if task is TEXT else [dumps(reply(x, {"amount": y}, decision="wait")) for x in LABELS for y in ("£40", "£7")]
    )
    texts = ["<think>a</think>b", "<think>a"] if name == "endless_reasoning" else texts
    texts = ["3", "4"] if name == "numeric_match" else texts
    answers = [read_answer(task, "£40", str(rng.choice(texts)), str(rng.choice(texts))) for _ in range(60)]
    (found,) = score({"x": answers}, [name]).measures["x"]
    assert 0 <= found.low <= found.value <= found.high <= 1
    assert 0 < found.n <= 60


# --- intervals


def test_wilson_of_a_published_case() -> None:
    # Newcombe (1998), table 1: 81 of 263 gives 0.2553 to 0.3662
    assert metrics.wilson(81, 263) == pytest.approx((0.2553, 0.3662), abs=5e-5)


def test_mcnemar_is_the_binomial_test_of_discordant_rows() -> None:
    # 1 against 5: 2 * (C(6,0) + C(6,1)) / 2^6
    assert metrics.mcnemar(1, 5) == pytest.approx(2 * 7 / 64)
    assert metrics.mcnemar(0, 0) == 1


def test_bonett_price_of_a_published_case_without_discordant_rows_is_not_a_point() -> None:
    low, high = metrics.bonett_price(0, 0, 30)
    assert low == pytest.approx(-high)
    assert high == pytest.approx(1.959964 * np.sqrt(2 / 32) / np.sqrt(32), rel=1e-6)


def test_all_right_is_not_certain() -> None:
    answers = [answer(reply(entities={"amount": "£40"}), reply(entities={"amount": "£40"}))] * 30
    for found in score({"x": answers}, ["label_accuracy", "macro_f1", "entity_f1"]).measures["x"]:
        assert found.value == found.high == 1
        assert found.low == pytest.approx(metrics.wilson(30, 30)[0])


def test_the_same_seed_gives_the_same_interval() -> None:
    answers = labelled([("card", "card"), ("card", "other"), ("other", "other")] * 10)
    assert score({"x": answers}, seed=4) == score({"x": answers}, seed=4)


def test_resampling_in_pieces_is_a_bootstrap_of_the_mean() -> None:
    data = np.random.default_rng(1).random((1500, 1))
    times = metrics.resampled_rows(1500, seed=2)
    assert times.shape == (2000, 1500)
    assert (times.sum(1, dtype=int) == 1500).all()
    means = (times @ data)[:, 0] / 1500
    assert means.mean() == pytest.approx(data.mean(), abs=3e-3)
    assert means.std() == pytest.approx(data.std() / np.sqrt(1500), rel=0.06)


def test_newcombe_of_published_cases() -> None:
    # Newcombe (1998), Statistics in Medicine 17, 2635: 36, 12, 2, 0. Fagerland, Lydersen & Laake (2017), chapter 8: 1, 1, 7, 12.
    assert metrics.newcombe(36, 2, 12, 0) == pytest.approx((0.0569, 0.3404), abs=5e-5)
    assert metrics.newcombe(1, 7, 1, 12) == pytest.approx((-0.507, -0.026), abs=5e-4)


def test_newcombe_turns_around_with_its_models_and_is_never_a_point() -> None:
    low, high = metrics.newcombe(20, 3, 8, 9)
    assert metrics.newcombe(20, 8, 3, 9) == pytest.approx((-high, -low))
    for table in ((30, 0, 0, 0), (0, 0, 0, 30), (15, 0, 0, 15)):
        assert metrics.newcombe(*table)[0] < 0 < metrics.newcombe(*table)[1]


def test_the_error_of_a_mean_is_its_standard_error() -> None:
    scores_ = np.random.default_rng(2).random(400)
    mean = metrics.Metric(tally=lambda _: np.empty(0), ratios=metrics.METRICS["token_f1"].ratios, kind="mean")
    values, errors = metrics._estimates(mean, [(1.0, np.column_stack([scores_, np.ones(400)]))], np.ones((1, 400)))
    assert values[0] == pytest.approx(scores_.mean())
    assert errors[0] == pytest.approx(scores_.std() / 20)


def test_few_wrong_rows_do_not_make_an_interval_narrow() -> None:
    answers = labelled([("card", "card")] * 58 + [("other", "other")] * 40 + [("card", "other"), ("other", "card")])
    (found,) = score({"x": answers}, ["macro_f1"]).measures["x"]
    assert found.low <= metrics.wilson(98, 100)[0]
    assert found.high >= metrics.wilson(98, 100)[1]


def test_macro_f1_of_many_rare_labels_still_holds_the_truth() -> None:
    """Percentiles of resampled values held it in 77 % of such evaluations."""
    rng = np.random.default_rng(3)
    names = [f"l{i:02d}" for i in range(30)]
    task = TaskSpec(output="text", labels=tuple(names))
    reads = {(w, s): read_answer(task, "", s, w) for w in names for s in names}
    hits = 0
    for trial in range(60):
        wanted = rng.integers(0, 30, 300)
        said = np.where(rng.random(300) < 0.6, wanted, (wanted + 1) % 30)
        answers = [reads[names[w], names[s]] for w, s in zip(wanted, said, strict=True)]
        (found,) = score({"x": answers}, ["macro_f1"], seed=trial, resamples=400).measures["x"]
        hits += found.low <= 0.6 <= found.high
    assert hits >= 52


def test_rouge_l_takes_an_underscore_for_a_gap_between_words() -> None:
    (found,) = score({"x": [read_answer(TEXT, "", "old_cat", "old cat")]}, ["rouge_l"]).measures["x"]
    assert found.value == 1


def test_95_percent_intervals_cover_the_truth_of_simulated_evaluations() -> None:
    # 200 evaluations of 150 rows: accuracy (Wilson) and entity F1 (bootstrap) with known truths, and a known difference.
    rng = np.random.default_rng(5)
    outcomes = {"right": (1, 0, 0), "wrong": (0, 1, 1), "missed": (0, 0, 1)}
    texts = {"right": {"amount": "£40"}, "wrong": {"amount": "£4"}, "missed": {}}
    reads = {k: answer(reply(entities=v), reply(entities={"amount": "£40"})) for k, v in texts.items()}
    chances = {"a": [0.7, 0.2, 0.1], "b": [0.8, 0.1, 0.1]}
    truth = {}
    for model, p in chances.items():
        tp, fp, fn = (sum(q * outcomes[k][j] for k, q in zip(outcomes, p, strict=True)) for j in range(3))
        truth[model] = {"entity_f1": 2 * tp / (2 * tp + fp + fn), "exact_match": p[0]}
    hits = dict.fromkeys(["entity_f1", "exact_match", "entity_f1 difference", "exact_match difference"], 0)
    for trial in range(200):
        models = {m: [reads[str(k)] for k in rng.choice(list(texts), 150, p=p)] for m, p in chances.items()}
        scores = score(models, ["entity_f1", "exact_match"], [("a", "b")], seed=trial, resamples=600)
        for found in scores.measures["a"]:
            hits[found.metric] += found.low <= truth["a"][found.metric] <= found.high
        for change in scores.comparisons:
            expected = truth["b"][change.metric] - truth["a"][change.metric]
            hits[f"{change.metric} difference"] += change.low <= expected <= change.high
    assert all(0.90 <= count / 200 <= 0.985 for count in hits.values()), hits


# --- comparisons


def test_a_real_difference_excludes_0() -> None:
    better = labelled([("card", "card")] * 90 + [("card", "other")] * 10)
    worse = labelled([("card", "card")] * 60 + [("card", "other")] * 40)
    (change,) = score({"a": worse, "b": better}, ["label_accuracy"], [("a", "b")]).comparisons
    assert change.difference == pytest.approx(0.3)
    assert change.low > 0
    assert change.clear
    assert change.p is not None
    assert change.p < 0.001


def test_no_difference_does_not_exclude_0() -> None:
    one = labelled([("card", "card")] * 50 + [("card", "other")] * 50)
    two = labelled([("card", "other")] * 4 + [("card", "card")] * 50 + [("card", "other")] * 46)
    (change,) = score({"a": one, "b": two}, ["label_accuracy"], [("a", "b")]).comparisons
    assert change.low < 0 < change.high
    assert not change.clear


def test_pairing_sees_what_separate_intervals_hide() -> None:
    # 7 more of 100 right, none lost: the models' own intervals overlap, the paired one excludes 0.
    one = labelled([("card", "card")] * 70 + [("card", "other")] * 30)
    two = labelled([("card", "card")] * 77 + [("card", "other")] * 23)
    scores = score({"a": one, "b": two}, ["label_accuracy"], [("a", "b")])
    assert scores.measures["a"][0].high > scores.measures["b"][0].low
    assert scores.comparisons[0].clear


def test_equal_answers_do_not_prove_that_models_are_equal() -> None:
    answers = labelled([("card", "card"), ("other", "card")] * 20)
    for change in score({"a": answers, "b": answers}, ["label_accuracy", "macro_f1"], [("a", "b")]).comparisons:
        assert change.difference == 0
        assert change.low < 0 < change.high


def test_models_with_different_rows_are_refused() -> None:
    with pytest.raises(ValueError, match="same rows"):
        score({"a": labelled([("card", "card")]), "b": []})


def test_the_primary_metric_follows_the_task() -> None:
    assert metrics.primary_metric(TASK) == "macro_f1"
    assert metrics.primary_metric(TEXT) == "exact_match"
    assert metrics.primary_metric(TASK.model_copy(update={"labels": (), "label_field": None})) == "entity_f1"
    kinds = {"question_answering": "token_f1", "generation": "rouge_l", "conversation": "chrf"}
    assert {kind: metrics.primary_metric(TEXT.model_copy(update={"type": kind})) for kind in kinds} == kinds


@pytest.mark.parametrize(("n", "discordant"), [(50, 10), (200, 40), (600, 5)])
def test_the_detectable_difference_is_found_in_four_of_five_sets(n: int, discordant: int) -> None:
    difference = detectable(n, discordant)
    assert difference is not None
    share = max(discordant / n, difference)
    drawn = np.random.default_rng(0).multinomial(n, [(share + difference) / 2, (share - difference) / 2, 1 - share], 1500)
    shown = sum(mcnemar(int(only_a), int(only_b)) <= 0.05 for only_b, only_a, _ in drawn) / len(drawn)
    assert 0.75 <= shown <= 0.84


def test_more_rows_see_smaller_differences_and_more_discord_hides_them() -> None:
    assert detectable(1000, 100) < detectable(300, 30) < detectable(300, 120)  # type: ignore[operator]


def test_five_rows_can_show_nothing() -> None:
    assert detectable(5, 2) is None


def test_adjusted_p_values_are_those_of_holms_example() -> None:
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([]) == []


def test_a_comparison_says_what_it_could_have_seen() -> None:
    rng = random.Random(0)
    task = TaskSpec(output="text", labels=("a", "b"))
    told = {m: [read_answer(task, "", rng.choice(("a", "a", "b")), "a", "a") for _ in range(100)] for m in "xy"}
    share, mean = score(told, ["label_accuracy", "token_f1"], [("x", "y")]).comparisons
    assert share.detectable is not None and 0.1 < share.detectable < 0.3
    assert mean.detectable == pytest.approx((mean.high - mean.low) / 2 / 1.96 * 2.802, rel=1e-3)


@pytest.mark.parametrize(
    ("text", "reasoning", "answer"),
    [
        ("4", None, "4"),
        ("<think>\nTwo and two.\n</think>\n4", "Two and two.", "4"),
        ("\n<think></think>\n\n{}", "", "{}"),
        ("Two and two.\n</think>\n4", "Two and two.", "4"),
        ("<think>\nTwo and", "Two and", None),
        ("Write <think> and </think> around it.", None, "Write <think> and </think> around it."),
    ],
)
def test_reasoning_is_taken_off_an_answer(text: str, reasoning: str | None, answer: str | None) -> None:
    assert apart(text) == (reasoning, answer)


@pytest.mark.parametrize(
    ("task", "said", "wanted"),
    [
        (TaskSpec(output="json", label_field="intent", labels=("a", "b")), '{"intent":"a"}', '{"intent":"a"}'),
        (TaskSpec(output="text", labels=("a", "b")), "a", "a"),
        (TaskSpec(output="text", type="generation"), "a long answer", "a long answer"),
        (TaskSpec(output="json", entities_field="e"), '{"e":{"x":"1"}}', '{"e":{"x":"1"}}'),
    ],
)
@pytest.mark.parametrize("reference", ["<think>\nso\n</think>\n", ""])
def test_every_kind_of_answer_is_scored_after_its_reasoning(task: TaskSpec, said: str, wanted: str, reference: str) -> None:
    answers = {
        "ended": [read_answer(task, "1", f"<think>\nhm, b? no\n</think>\n{said}", reference + wanted)],
        "endless": [read_answer(task, "1", f"<think>\n{said}", reference + wanted)],
    }
    scores = score(answers, resamples=10).measures
    ended, endless = ({m.metric: m.value for m in scores[name]} for name in ("ended", "endless"))
    assert ended["exact_match"] == 1.0
    assert endless["exact_match"] == 0.0
    assert (ended["endless_reasoning"], endless["endless_reasoning"]) == (0.0, 1.0)
    for metric in {"label_accuracy", "macro_f1", "rouge_l", "entity_f1"} & ended.keys():
        assert (ended[metric], endless[metric]) == (1.0, 0.0), metric


def test_a_set_without_reasoning_says_nothing_of_it() -> None:
    answers = {"x": [read_answer(TaskSpec(output="text"), "", "4", "4")]}
    assert "endless_reasoning" not in {m.metric for m in score(answers, resamples=10).measures["x"]}


@pytest.mark.parametrize(
    ("said", "wanted", "right"),
    [
        ("42", "42", 1.0),
        ("First 6 times 7, so it is 42.", "42", 1.0),
        ("1,042.50 EUR", "1042.5 EUR", 1.0),
        ("It is -3", "3", 0.0),
        ("I do not know", "42", 0.0),
        ("41", "$42", 0.0),
        ("anything", "between 3 and 5", None),
        ("7", "a text about the year 1984 and what followed", None),
        ("7", "no number", None),
        ("version 1.2.3", "2.3", 0.0),
    ],
)
def test_a_number_is_right_whatever_stands_around_it(said: str, wanted: str, right: float | None) -> None:
    assert number_right(read_answer(TaskSpec(output="text"), "", said, wanted)) == right

"""The advice follows the interval, prefers the honest set, and says what the set could not have shown."""

from typing import Any

import pytest

from train.advice import advice, verdict


def comparison(name: str, a: str, difference: float, half: float, b: str = "dpo", **more: Any) -> dict[str, Any]:
    line = {"set": name, "metric": "label_accuracy", "a": a, "b": b, "difference": difference, "n": 100, "detectable": 0.06}
    return {**line, "low": difference - half, "high": difference + half, "p": None, **more}


def measures(*keys: tuple[str, str]) -> list[dict[str, Any]]:
    return [{"set": s, "model": m, "metric": "label_accuracy", "value": 0.7, "low": 0.6, "high": 0.8, "n": 100} for s, m in keys]


EVERYONE = measures(*((s, m) for s in ("test", "mine") for m in ("base", "few_shot", "teacher", "dpo")))


@pytest.mark.parametrize(
    ("difference", "said", "words"),
    [(0.1, "better", "Tuning is worth it here"), (-0.1, "worse", "use the base with examples"), (0.01, "unclear", "No clear gain")],
)
def test_the_verdict_is_that_of_the_interval(difference: float, said: str, words: str) -> None:
    (found,) = advice(EVERYONE, [comparison("mine", "few_shot", difference, 0.05)])
    assert found["verdict"] == said
    assert words in found["sentence"]
    assert ("cannot be relied on to show a difference below 6.0 points" in found["sentence"]) == (said == "unclear")


def test_an_external_set_comes_before_held_out_rows() -> None:
    (found,) = advice(EVERYONE, [comparison("test", "few_shot", 0.3, 0.05), comparison("mine", "few_shot", -0.1, 0.05)])
    assert (found["set"], found["verdict"]) == ("mine", "worse")


def test_the_base_stands_in_where_there_is_no_few_shot() -> None:
    (found,) = advice(measures(("mine", "base"), ("mine", "sft")), [comparison("mine", "base", 0.2, 0.05, b="sft")])
    assert found["sentence"].startswith("The untuned base reaches 70.0 % on mine. Tuning is worth it here (+20.0 points")


def test_a_teacher_is_no_rival_where_its_own_answers_are_the_reference() -> None:
    assert advice(EVERYONE, [comparison("test", "teacher", -0.1, 0.02)]) == []


def test_the_teacher_comes_with_both_prices() -> None:
    costs = {"per": 1000, "students": [{"model": "dpo", "usd": 0.5, "why": ""}], "teacher": {"model": "x", "usd": 12.0, "why": ""}}
    (found,) = advice(EVERYONE, [comparison("mine", "teacher", -0.1, 0.02)], costs)
    assert "not yet as good as its teacher" in found["sentence"]
    assert "1,000 requests cost $0.50 by the student and $12.00 by the teacher." in found["sentence"]
    costs["teacher"]["usd"] = None  # type: ignore[index]
    assert "$" not in advice(EVERYONE, [comparison("mine", "teacher", -0.1, 0.02)], costs)[0]["sentence"]


def test_lower_is_better_for_bad_behaviour() -> None:
    assert verdict(comparison("mine", "base", -0.1, 0.02, metric="bad_behaviour")) == "better"


def test_free_text_that_is_never_exactly_right_is_weighed_by_its_overlap() -> None:
    def lines(metric: str, value: float) -> list[dict[str, Any]]:
        return [{**m, "metric": metric, "value": value} for m in measures(("mine", "few_shot"), ("mine", "dpo"))]

    same = comparison("mine", "few_shot", 0.0, 0.01, metric="exact_match")
    gain = comparison("mine", "few_shot", 0.2, 0.05, metric="rouge_l")
    (found,) = advice([*lines("exact_match", 0.01), *lines("rouge_l", 0.5)], [same, gain])
    assert (found["metric"], found["verdict"]) == ("rouge_l", "better")
    (found,) = advice([*lines("exact_match", 0.4), *lines("rouge_l", 0.5)], [same, gain])
    assert found["metric"] == "exact_match"

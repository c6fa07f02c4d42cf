"""The confidence sequence covers however often one looks, sees what is there, and is told in plain words."""

import json
import math
from pathlib import Path

import numpy as np
import pytest

from train import cli
from train.serving.ab import compare
from train.serving.journal import Journal
from train.serving.sequential import LEAST, answers_needed, difference, mean, radius, summarise

LOOKS, TESTS = 1000, 2000


def ever_seen(p: float, q: float, share: float, seed: int = 0) -> np.ndarray:
    """Of TESTS A/B tests that are looked at after each answer, those that saw a difference once."""
    rng = np.random.default_rng(seed)
    in_b = rng.random((TESTS, LOOKS)) < share
    good = rng.random((TESTS, LOOKS)) < np.where(in_b, q, p)
    n_b, s_b = in_b.cumsum(1), (good & in_b).cumsum(1)
    n_a, s_a = (~in_b).cumsum(1), (good & ~in_b).cumsum(1)
    m_a, m_b = (s_a + 1) / (n_a + 2), (s_b + 1) / (n_b + 2)
    variance = m_a * (1 - m_a) / (n_a + 1) + m_b * (1 - m_b) / (n_b + 1)
    seen = (np.abs(m_b - m_a) > radius(variance)) & (np.minimum(n_a, n_b) >= LEAST)
    return np.asarray(seen.any(1))


@pytest.mark.parametrize(("p", "share"), [(0.2, 0.1), (0.5, 0.5), (0.8, 0.1), (0.95, 0.5)])
def test_equal_arms_are_called_different_in_at_most_five_of_a_hundred_tests_however_often_one_looks(p: float, share: float) -> None:
    assert ever_seen(p, p, share).mean() <= 0.05


def test_a_difference_that_is_there_is_seen() -> None:
    assert ever_seen(0.6, 0.8, 0.5).mean() > 0.95


def test_a_fixed_interval_would_have_failed() -> None:
    rng = np.random.default_rng(0)
    scores = (rng.random((400, LOOKS)) < 0.5) * 1.0
    n = np.arange(1, LOOKS + 1)
    z = np.abs(scores.cumsum(1) / n - 0.5) / np.sqrt(0.25 / n)
    assert (z[:, 20:] > 1.96).any(1).mean() > 0.25


def test_users_who_rate_often_count_by_their_number() -> None:
    rng = np.random.default_rng(1)
    kind = rng.random((300, 30, 2)) * 0.8 + 0.1  # how content each user is, with either arm alike
    seen = []
    for test in kind:
        arms = []
        for users in test.T:
            scores = [(float(rng.random() < p), f"u{n}") for n, p in enumerate(users) for _ in range(20)]
            arms.append(summarise([s for s, _ in scores], [u for _, u in scores]))
        seen.append(difference(*arms).excludes_zero)
    assert np.mean(seen) <= 0.05
    assert arms[0].rated == 600 and arms[0].users == 30


def test_the_sums_are_those_of_the_formula() -> None:
    found = summarise([1, 1, 0, 1], [None] * 4)
    assert (found.rated, found.users, found.rate, found.mean) == (4, 4, 0.75, 4 / 6)
    assert found.variance == pytest.approx(4 / 6 * 2 / 6 / 5)
    assert float(radius(0.01, 0.05)) == pytest.approx(math.sqrt(200 / 100**2 * math.log(200 / (100 * 0.05**2))))


def test_as_many_more_answers_as_it_says_are_enough() -> None:
    a, b = summarise([1, 0] * 50, [None] * 100), summarise([1, 1, 1, 0, 0] * 20, [None] * 100)
    assert not difference(a, b).excludes_zero
    more = answers_needed(a, b, 0.1)
    assert more is not None and 200 < more < 3000
    times = 1 + more / 200
    assert float(radius((a.variance + b.variance) / times)) == pytest.approx(0.1, rel=0.01)
    assert answers_needed(a, b, 0.0) is None and answers_needed(a, b, 1e-6) is None
    nobody = summarise([], [])
    assert answers_needed(nobody, nobody, 0.05) is None and mean(nobody).low == 0 and mean(nobody).high == 1


def fill(path: Path, rates: dict[str, tuple[int, int]]) -> None:
    """A log with so many answers of each version, of which the first ones were found good."""
    journal = Journal(path)
    for fingerprint, (good, n) in rates.items():
        for number in range(n):
            id = f"{fingerprint}-{number}"
            row = {"id": id, "created": "2026-01-02T03:04:05", "served": "retort", "arm": fingerprint.split("@")[0], "latency_s": 0.5}
            journal.write("answers", {**row, "fingerprint": fingerprint, "finish": "stop", "completion_tokens": 5})
            score = {"id": "f" + id, "answer_id": id, "created": "2026-01-02T04:00:00", "score": float(number < good)}
            journal.write("feedback", score)
    journal.close()


@pytest.mark.parametrize(
    ("rates", "words"),
    [
        ({"dpo@1": (450, 500), "sft@1": (40, 100)}, "sft@1 is worse than dpo@1: -50.0 points, 95 % confidence sequence"),
        ({"dpo@1": (60, 100), "sft@1": (55, 99)}, "No difference seen yet between sft@1 and dpo@1 (-4.4 points"),
        ({"dpo@1": (60, 100), "sft@1": (3, 4)}, "sft@1 has 4 rated answers, and 10 are the least"),
        ({"dpo@1": (6, 10)}, "dpo@1 is the only arm of retort so far"),
    ],
)
def test_the_verdict_is_in_plain_words(rates: dict[str, tuple[int, int]], words: str, tmp_path: Path) -> None:
    fill(tmp_path / "a.duckdb", rates)
    (test,) = compare(tmp_path / "a.duckdb", "retort")
    assert words in test["sentences"][0]
    assert [arm["rated"] for arm in test["arms"]] == [n for _, n in rates.values()]
    if "yet" in words:
        assert "more rated answers needed to show one of 5 points" in test["sentences"][0]


def test_train_ab_prints_a_table_or_json(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    log = tmp_path / "a.duckdb"
    fill(log, {"dpo@1": (20, 30), "sft@1": (10, 20), "sft@2": (11, 19)})
    for extra in ([], ["--json"]):
        with pytest.raises(SystemExit) as code:
            cli.main(["ab", "--log", str(log), *extra])
        assert code.value.code == 0
    shown, _, raw = capsys.readouterr().out.partition("[\n")
    assert "sft@2" in shown and "66.7 (" in shown and shown.count("No difference seen yet") == 2
    assert [line["b"] for line in json.loads("[" + raw)[0]["differences"]] == ["sft@1", "sft@2"]
    with pytest.raises(SystemExit) as code:
        cli.main(["ab", "--log", str(tmp_path / "none.duckdb")])
    assert code.value.code == 2

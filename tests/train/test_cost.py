"""Speed and cost: what is known is computed, and what is not is said to be unknown."""

import pytest

from train.cost import costs, speed


def fast() -> dict[str, object]:
    return speed("dpo", [1.0, 2.0, 3.0, 10.0], [10, 10, 20, 20], [100, 100, 100, 100], total=10.0, batch_size=4, device="cpu")


def test_speed_counts_rows_and_answer_tokens_over_the_whole_time() -> None:
    found = fast()
    assert (found["rows_per_second"], found["tokens_per_second"]) == (0.4, 6.0)
    assert (found["median_s"], found["completion_tokens"], found["prompt_tokens"]) == (2.5, 15.0, 100.0)
    assert 3.0 < float(found["p95_s"]) < 10.0  # type: ignore[arg-type]


def test_a_thousand_requests_cost_the_machines_time() -> None:
    found = costs([fast()], usd_per_hour=0.72, teacher={"model": "gpt", "requests": 200, "cost_usd": 0.4}, simulated=False)
    assert found["students"][0]["usd"] == pytest.approx(1000 / 0.4 / 3600 * 0.72)
    assert found["teacher"]["usd"] == pytest.approx(2.0)
    assert "200 answers" in found["teacher"]["why"]


def test_what_is_not_known_is_said() -> None:
    found = costs([fast()], usd_per_hour=None, teacher=None, simulated=False)
    assert found["students"][0]["usd"] is None
    assert "train.evaluation.usd_per_hour" in found["students"][0]["why"]
    assert found["teacher"]["usd"] is None


def test_a_simulated_teacher_has_no_price() -> None:
    found = costs([], usd_per_hour=1.0, teacher={"model": "offline/x", "requests": 9, "cost_usd": 0.0}, simulated=True)
    assert "simulated" in found["teacher"]["why"]

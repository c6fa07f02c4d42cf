"""Confidence against being right: the figures are those of their definitions, and their intervals hold the truth."""

from typing import Any

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from train.calibration import calibration, separation, squared_error


def drawn(count: int, seed: int, shift: float = 0.0) -> tuple[Any, Any]:
    """Confidences and whether right: the true chance is the confidence less `shift`."""
    rng = np.random.default_rng(seed)
    held = rng.uniform(0.5, 1.0, count)
    return held, rng.random(count) < np.clip(held - shift, 0, 1)


def test_separation_is_the_area_under_the_roc_curve() -> None:
    held, right = drawn(300, 0)
    assert separation(held, right.astype(float)) == pytest.approx(roc_auc_score(right, held))


def test_separation_of_answers_that_are_all_right_is_not_defined() -> None:
    found = calibration([0.9] * 40, [True] * 40)
    assert found is not None
    assert found["separation"] is None
    assert found["curve"][0]["risk"] == 0.0


def test_calibration_error_of_constant_confidence_is_its_distance_from_accuracy() -> None:
    right = np.array([1.0, 0.0] * 50)
    assert squared_error(np.full(100, 0.9), right) == pytest.approx(0.4**2 - 0.25 / 9)


def test_risk_falls_with_coverage_where_confidence_is_worth_something() -> None:
    held, right = drawn(2000, 1)
    found = calibration(held, right)
    assert found is not None
    risks = {point["coverage"]: point["risk"] for point in found["curve"]}
    assert risks[1.0] == pytest.approx(1 - right.mean())
    assert risks[0.2] < risks[0.6] < risks[1.0]
    assert all(p["low"] <= p["risk"] <= p["high"] for p in found["curve"])


def test_too_few_rows_are_no_curve() -> None:
    assert calibration([0.9] * 29, [True] * 29) is None


@pytest.mark.parametrize("shift", [0.0, 0.15])
def test_over_confidence_is_found_and_its_interval_holds_it(shift: float) -> None:
    held_by = 0
    for seed in range(40):
        found = calibration(*drawn(300, seed, shift), resamples=300)
        assert found is not None
        value = found["over_confidence"]
        held_by += value["low"] <= shift <= value["high"]
    assert held_by >= 34


@pytest.mark.parametrize("shift", [0.0, 0.15])
def test_the_interval_of_the_calibration_error_holds_it_also_where_there_is_none(shift: float) -> None:
    holds, values = 0, []
    for seed in range(40):
        found = calibration(*drawn(300, seed, shift), resamples=300)
        assert found is not None
        error = found["calibration_error"]
        holds += error["low"] <= shift <= error["high"]
        values.append(error["value"])
    assert holds >= 36
    assert np.mean(values) == pytest.approx(shift, abs=0.03)

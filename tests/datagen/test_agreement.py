"""Kappa, rank correlation and their intervals, held against scipy, scikit-learn and simulated truth."""

import numpy as np
import pytest
from scipy.stats import spearmanr
from sklearn.metrics import cohen_kappa_score

from datagen.agreement import draw_tables, interval, kappa, kappa_interval, spearman


def table(first: list[int], second: list[int], shape: tuple[int, int]) -> np.ndarray:
    counts = np.zeros(shape)
    for one, other in zip(first, second, strict=True):
        counts[one, other] += 1
    return counts / len(first)


def test_kappa_and_spearman_are_those_of_scikit_learn_and_scipy() -> None:
    rng = np.random.default_rng(2)
    for _ in range(20):
        first = rng.integers(0, 4, 30).tolist()
        second = [min(3, max(0, one + int(rng.integers(-1, 2)))) for one in first]
        shares = table(first, second, (4, 4))
        assert float(kappa(shares)) == pytest.approx(cohen_kappa_score(first, second))
        assert float(spearman(shares)) == pytest.approx(spearmanr(first, second).statistic)


def test_what_is_constant_has_neither_kappa_nor_correlation() -> None:
    assert np.isnan(kappa(np.array([[0.0, 0.0], [0.0, 1.0]])))
    assert np.isnan(spearman(np.array([[0.0, 0.4], [0.0, 0.6]])))


@pytest.mark.parametrize("rows", [20, 100])
def test_the_interval_of_kappa_holds_the_truth_nineteen_times_in_twenty(rows: int) -> None:
    rng = np.random.default_rng(5)
    truth = np.array([[0.15, 0.05], [0.1, 0.7]])
    hits = 0
    for trial in range(200):
        counts = rng.multinomial(rows, truth.ravel()).reshape(2, 2).astype(float)
        low, high = interval(kappa(draw_tables([counts], [1.0], draws=1000, seed=trial)))
        hits += low <= float(kappa(truth)) <= high
    assert hits / 200 > 0.9


def test_few_rows_that_all_agree_do_not_make_kappa_certain() -> None:
    low, high = kappa_interval([(True, True)] * 8 + [(False, False)] * 4)
    assert low < 0.75
    assert high > 0.95


def test_strata_are_weighed_by_what_there_is_of_each() -> None:
    dropped, kept = np.array([[5.0, 5.0], [-1, -1]]), np.array([[-1, -1], [0.0, 40.0]])
    drawn = draw_tables([dropped, kept], [100, 900])
    assert drawn.sum(axis=(1, 2)) == pytest.approx(1)
    assert drawn[:, 0].sum(axis=1) == pytest.approx(0.1)
    assert drawn[:, 1, 1].mean() == pytest.approx(0.9, abs=0.02)

"""Whether a model knows when it is wrong: its confidence in an answer against the answer being right.

    found = calibration(confidences, right, seed=7)

Confidence is the mean probability of an answer's tokens, in the geometric sense: exp(mean log-probability). It costs nothing, and a
student that is unsure can hand its row to a larger model or a person: the risk-coverage curve (El-Yaniv and Wiener 2010) says what
that gains.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.stats import rankdata

from train.metrics import CONFIDENCE, resampled_rows, wilson

BINS = 10
COVERAGES = (1.0, 0.95, 0.9, 0.8, 0.7, 0.6, 0.5, 0.4, 0.3, 0.2, 0.1)
SMALLEST = 30  # rows; with fewer, three to a bin, nothing can be said
Floats = NDArray[np.float64]


def calibration(confidences: Sequence[float], right: Sequence[bool], *, seed: int = 0, resamples: int = 1000) -> dict[str, Any] | None:
    """Risk-coverage curve, calibration error, over-confidence and how well confidence tells right from wrong.

    Each with its 95 % interval, from resampled rows. None with fewer than SMALLEST rows.

    calibration_error   root mean square distance of confidence and accuracy over BINS bins of equal size, without what chance
                        alone adds to it (Kumar et al. 2019); the plain mean distance is never 0, also where nothing is wrong
    over_confidence     mean confidence less accuracy: positive where the model thinks too well of itself
    separation          share of (right, wrong) pairs of answers in which the right one is held with more confidence; 0.5 is chance
    """
    held, correct = np.asarray(confidences, dtype=float), np.asarray(right, dtype=float)
    if len(held) < SMALLEST:
        return None
    order = np.argsort(-held, kind="stable")
    curve = []
    for coverage in COVERAGES:
        count = max(1, round(coverage * len(held)))
        wrong = int(count - correct[order[:count]].sum())
        low, high = wilson(wrong, count)
        least = float(held[order[count - 1]])
        curve.append({"coverage": coverage, "rows": count, "risk": wrong / count, "low": low, "high": high, "confidence": least})
    times = resampled_rows(len(held), seed=seed, resamples=resamples)
    drawn = [np.repeat(np.arange(len(held)), t) for t in times]
    found: dict[str, Any] = {"rows": len(held), "accuracy": float(correct.mean()), "confidence": float(held.mean()), "curve": curve}
    gaps = [over_confidence(held[i], correct[i]) for i in drawn]
    found["over_confidence"] = _interval(over_confidence(held, correct), gaps)
    found["calibration_error"] = _root(squared_error(held, correct), [squared_error(held[i], correct[i]) for i in drawn])
    apart, again = separation(held, correct), [separation(held[i], correct[i]) for i in drawn]
    found["separation"] = None if apart is None else _interval(apart, [value for value in again if value is not None])
    return found


def over_confidence(held: Floats, correct: Floats) -> float:
    """Mean confidence less accuracy."""
    return float(held.mean() - correct.mean())


def squared_error(held: Floats, correct: Floats) -> float:
    """Mean squared distance of confidence and accuracy over the bins, less the variance of each bin's accuracy; may be below 0."""
    order = np.argsort(held, kind="stable")
    total = 0.0
    for rows in np.array_split(order, BINS):
        share = correct[rows].mean()
        total += len(rows) * ((held[rows].mean() - share) ** 2 - share * (1 - share) / max(1, len(rows) - 1))
    return float(total / len(held))


def separation(held: Floats, correct: Floats) -> float | None:
    """The area under the ROC curve of confidence for being right (Mann and Whitney 1947); None where all are right, or all wrong."""
    hits = int(correct.sum())
    misses = len(correct) - hits
    if not hits or not misses:
        return None
    return float((rankdata(held)[correct > 0].sum() - hits * (hits + 1) / 2) / (hits * misses))


def _interval(value: float, resampled: Sequence[float]) -> dict[str, float]:
    low, high = np.quantile(resampled, [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2])
    return {"value": value, "low": float(min(low, value)), "high": float(max(high, value))}


def _root(value: float, resampled: Sequence[float]) -> dict[str, float]:
    """The root of a squared error with its interval. Rows that are drawn twice raise the resampled ones: their mean is moved back."""
    low, high = np.quantile(resampled, [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2]) - (float(np.mean(resampled)) - value)
    return {name: float(max(0.0, square) ** 0.5) for name, square in (("value", value), ("low", low), ("high", high))}

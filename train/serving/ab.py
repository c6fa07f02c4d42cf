"""The arms of A/B tests compared by what people said of their answers, in plain words.

    for test in compare(Path("runs/serving.duckdb")): test["sentences"]

Only answers that the split gave count: who asks an arm by its own name was not drawn. An arm is a version (name and hash), so answers of an
adapter that was replaced under its name stay apart. Every arm is compared with the one that answered most, and alpha is shared between the
comparisons (Bonferroni).
"""

from pathlib import Path
from typing import Any

from train.serving.journal import read_arms, read_rated
from train.serving.sequential import LEAST, Sequence95, Summary, answers_needed, difference, mean, summarise

ALPHA = 0.05
# What to ask for where the arms are alike so far: the difference that an A/B test should be able to see.
EFFECT = 0.05


def compare(log: Path, served: str | None = None) -> list[dict[str, Any]]:
    """Compare the arms of each served name with several, or of `served` alone. Raises ServingError where there is no log."""
    given, rated = read_arms(log), read_rated(log)
    tests = []
    for name in sorted({arm["served"] for arm in given}):
        arms = [arm for arm in given if arm["served"] == name]
        if name == served or (served is None and len(arms) > 1):
            tests.append(_compare(name, arms, [row for row in rated if row["served"] == name]))
    return tests


def _compare(name: str, given: list[dict[str, Any]], rated: list[dict[str, Any]]) -> dict[str, Any]:
    given = sorted(given, key=lambda arm: (-arm["answers"], arm["fingerprint"]))
    sums: dict[str, Summary] = {}
    arms = []
    for arm in given:
        rows = [row for row in rated if row["fingerprint"] == arm["fingerprint"]]
        sums[arm["fingerprint"]] = found = summarise([row["score"] for row in rows], [row["user"] for row in rows])
        rate = mean(found, ALPHA)
        arms.append(
            {
                "arm": arm["fingerprint"],
                **{key: arm[key] for key in ("answers", "users", "failed", "median_s", "p95_s", "tokens")},
                "rated": found.rated,
                "rate": rate.value if found.rated else None,
                "low": rate.low,
                "high": rate.high,
            }
        )
    control, *others = sums
    alpha = ALPHA / max(1, len(others))
    differences = [_difference(control, sums[control], other, sums[other], alpha) for other in others]
    sentences = [line["sentence"] for line in differences] or [f"{control} is the only arm of {name} so far: nothing to compare."]
    return {"served": name, "arms": arms, "differences": differences, "sentences": sentences}


def _difference(name_a: str, a: Summary, name_b: str, b: Summary, alpha: float) -> dict[str, Any]:
    found = difference(a, b, alpha)
    enough = min(a.rated, b.rated) >= LEAST
    effect = max(abs(found.value), EFFECT) if enough else EFFECT
    needed = None if found.excludes_zero else answers_needed(a, b, effect, alpha)
    return {
        "a": name_a,
        "b": name_b,
        **({"value": found.value} if enough else {"value": None}),
        "low": found.low,
        "high": found.high,
        "seen": found.excludes_zero,
        "more_rated_answers": needed,
        "sentence": _sentence(name_a, a, name_b, b, found, effect, needed),
    }


def _sentence(name_a: str, a: Summary, name_b: str, b: Summary, found: Sequence95, effect: float, needed: int | None) -> str:
    points = (
        f"{100 * found.value:+.1f} points, {100 * (1 - ALPHA):.0f} % confidence sequence {100 * found.low:.1f} to {100 * found.high:.1f}"
    )
    if found.excludes_zero:
        verb = "better" if found.value > 0 else "worse"
        return f"{name_b} is {verb} than {name_a}: {points}. This holds however often it is looked at."
    fewest, least = min((a.rated, name_a), (b.rated, name_b))
    if fewest < LEAST:
        return f"No difference seen yet between {name_b} and {name_a}: {least} has {fewest} rated answers, and {LEAST} are the least."
    asks = "of that size" if effect == abs(found.value) else f"of {100 * effect:.0f} points"
    more = f"about {needed:,} more rated answers needed" if needed else "more answers than can be asked for"
    return f"No difference seen yet between {name_b} and {name_a} ({points}): {more} to show one {asks}."

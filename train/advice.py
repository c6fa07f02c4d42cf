"""What to do, in plain words: whether tuning was worth it here, against examples in the prompt and against the teacher.

    for said in advice(measures, comparisons, costs): print(said["sentence"])

A verdict follows the interval of the difference on the same rows. Where it is unclear, the smallest difference that the set could
have shown is said too: no clear gain on a small set is not the same as no gain.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from train.metrics import GLOSSARY, RARELY, ROW_METRICS

TUNED = ("dpo", "kto", "sft", "merged")  # the first that there is, is what the run is about
FEW_SHOT, TEACHER, BASE = "few_shot", "teacher", "base"
HELD_OUT = "test"
Line = Mapping[str, Any]


def verdict(comparison: Line) -> str:
    """`better` or `worse` where the interval excludes 0, by the metric's own direction; else `unclear`."""
    if comparison["low"] <= 0 <= comparison["high"]:
        return "unclear"
    higher = GLOSSARY[comparison["metric"].split("/")[0]].higher_is_better
    return "better" if (comparison["difference"] > 0) == higher else "worse"


def advice(measures: Sequence[Line], comparisons: Sequence[Line], costs: Line | None = None) -> list[dict[str, Any]]:
    """One entry per rival (few-shot, else base; then the teacher), on the most honest set that compares them.

    External sets come before held-out rows of the same generators. On held-out rows the references are the teacher's own answers,
    so the teacher is a rival only where its answers to an external set were given.
    """
    values = {(m["set"], m["model"], m["metric"]): m["value"] for m in measures}
    found = []
    for rivals in ((FEW_SHOT, BASE), (TEACHER,)):
        c = next((c for rival in rivals if (c := _against(rival, measures, comparisons))), None)
        if c is not None:
            sentence = _sentence(c, verdict(c), values[c["set"], c["a"], c["metric"]], costs)
            found.append({**c, "rival": c["a"], "verdict": verdict(c), "sentence": sentence})
    return found


def _against(rival: str, measures: Sequence[Line], comparisons: Sequence[Line]) -> Line | None:
    sets = sorted(dict.fromkeys(m["set"] for m in measures if m["set"] != "general"), key=lambda name: name == HELD_OUT)
    tuned = next((m for m in TUNED if any(x["model"] == m for x in measures)), None)
    for name in sets:
        if rival == TEACHER and name == HELD_OUT:
            continue
        found = {c["metric"]: c for c in comparisons if (c["set"], c["a"], c["b"]) == (name, rival, tuned)}
        best = {metric: max((m["value"] for m in measures if (m["set"], m["metric"]) == (name, metric)), default=0.0) for metric in found}
        listed = [metric for metric in ROW_METRICS if metric in found]
        if listed[:2] == ["exact_match", "rouge_l"] and best["exact_match"] < RARELY:
            return found["rouge_l"]
        if listed:
            return found[listed[0]]
    return None


def _sentence(c: Line, said: str, value: float, costs: Line | None) -> str:
    small = ""
    if said == "unclear" and c.get("detectable"):
        least = f"{100 * c['detectable']:.1f}"
        small = f" A set of {c['n']:,} rows cannot be relied on to show a difference below {least} points."
    if c["a"] == TEACHER:
        who = "The teacher"
        words = {
            "better": "The student is better than its teacher here",
            "worse": "The student is not yet as good as its teacher here",
            "unclear": "No clear difference between student and teacher here",
        }[said]
        small += _price(c["b"], costs)
    else:
        shown = " with examples" if c["a"] == FEW_SHOT else ""
        who = "The untuned base" + (f"{shown} in its prompt" if shown else "")
        words = {
            "better": "Tuning is worth it here",
            "worse": f"Tuning made it worse: use the base{shown}",
            "unclear": "No clear gain from tuning: try examples in the prompt before you pay for more data",
        }[said]
    points = f"{100 * c['difference']:+.1f} points, interval {100 * c['low']:+.1f} to {100 * c['high']:+.1f}"
    return f"{who} reaches {100 * value:.1f} % on {c['set']}. {words} ({points}).{small}"


def _price(model: str, costs: Line | None) -> str:
    """What student and teacher cost, where both are known."""
    if not costs or costs["teacher"]["usd"] is None:
        return ""
    mine = next((s["usd"] for s in costs["students"] if s["model"] == model), None)
    if not mine:
        return ""
    return f" {costs['per']:,} requests cost ${mine:,.2f} by the student and ${costs['teacher']['usd']:,.2f} by the teacher."

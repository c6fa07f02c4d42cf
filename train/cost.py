"""What an answer costs and how long it takes: a student on its machine against its teacher by the token.

speed("dpo", written, seconds=41.2, batch_size=64, device="cpu")
costs(speeds, usd_per_hour=0.35, teacher=manifest_entry, own=answers_of_the_teacher)
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

PER = 1000  # requests


def speed(
    model: str, seconds: Sequence[float], tokens: Sequence[int], prompt_tokens: Sequence[int], *, total: float, batch_size: int, device: str
) -> dict[str, Any]:
    """How fast a model answered: seconds from the begin of its batch to a row's last token, and rows and tokens a second over all.

    `total` are the seconds of the whole. All rows are asked at once here, so `p95_s` is that of a busy server with such batches.
    """
    return {
        "model": model,
        "device": device,
        "batch_size": batch_size,
        "rows": len(seconds),
        "median_s": float(np.quantile(seconds, 0.5)),
        "p95_s": float(np.quantile(seconds, 0.95)),
        "rows_per_second": len(seconds) / max(total, 1e-9),
        "tokens_per_second": sum(tokens) / max(total, 1e-9),
        "prompt_tokens": float(np.mean(prompt_tokens)),
        "completion_tokens": float(np.mean(tokens)),
    }


def costs(
    speeds: Sequence[Mapping[str, Any]], *, usd_per_hour: float | None, teacher: Mapping[str, Any] | None, simulated: bool
) -> dict[str, Any]:
    """Dollars for PER requests, of each model that was timed and of the teacher; None, with the reason, where it is not known.

    `teacher` is {"model", "requests", "cost_usd", ...}: what was paid, and for how many requests.
    """
    if usd_per_hour is None:
        why = "the price of the machine is not known: set train.evaluation.usd_per_hour"
    else:
        why = f"at ${usd_per_hour:g} an hour, if the machine is kept busy as it was here"
    students = [
        {
            "model": s["model"],
            "usd": None if usd_per_hour is None else PER / s["rows_per_second"] / 3600 * usd_per_hour,
            "why": why,
        }
        for s in speeds
    ]
    paid: dict[str, Any] = {"model": None, "usd": None, "why": "the manifest does not say what an answer of the teacher cost"}
    if simulated:
        paid = {"model": None, "usd": None, "why": "the teacher was simulated and has no price"}
    elif teacher and teacher.get("requests") and teacher.get("cost_usd"):
        each = teacher["cost_usd"] / teacher["requests"]
        paid = {
            "model": teacher.get("model"),
            "usd": PER * each,
            "why": f"from {teacher['requests']:,} answers that were paid for",
        }
    return {"per": PER, "students": students, "teacher": paid}

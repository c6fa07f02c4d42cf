"""The report shows what a run left, loads nothing from elsewhere, and says what is missing."""

import hashlib
import json
import random
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from train.dataset import Row
from train.errors import DataError
from train.evaluate import TEXT, EvaluationRows, write_evaluation
from train.metrics import TaskSpec
from train.report import SECTIONS, headline, read_run, write_report

LABELS = ("card_arrival", "change_pin", "exchange_rate", "lost_or_stolen_card", "top_up_failed", "out_of_scope")
TASK = TaskSpec(
    system="You read messages to a bank's support desk. Reply with one JSON object.",
    label_field="intent",
    labels=LABELS,
    abstain_label="out_of_scope",
    entities_field="entities",
    decision_fields=("decision",),
    forbidden=("pin", "cvv"),
    output_schema={"type": "object", "required": ["intent", "entities"]},
)
SKILLS = ("copying", "counting", "sorting", "yes or no")


def dumps(value: object) -> str:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))


def rows_of(name: str, count: int, rng: random.Random, *, only_labels: bool) -> list[Row]:
    rows = []
    for i in range(count):
        label = rng.choice(LABELS)
        answer: dict[str, Any] = {"intent": label, "entities": {"amount": f"£{10 + i}"} if i % 3 == 0 else {}}
        if i % 5 == 0:
            answer["decision"] = rng.choice(["refund", "wait", "block"])
        text = f"Message {i} to {name}: I paid £{10 + i} & <b>waited</b> 3 days, what about my {label.replace('_', ' ')}?"
        rows.append(
            Row(
                id=f"{name}-{i:04d}",
                prompt=[{"role": "system", "content": TASK.system}, {"role": "user", "content": text}],
                completion=None if only_labels else dumps(answer),
                label=label,
                kind=None,
                topic=f"cards/{label}",
                group_id=None,
            )
        )
    return rows


def answer_of(row: Row, skill: float, bad: float, rng: random.Random) -> str:
    answer = json.loads(row.completion or dumps({"intent": row.label, "entities": {}}))
    if rng.random() > skill:
        answer["intent"] = rng.choice([label for label in LABELS if label != row.label])
    if rng.random() < bad:
        answer["entities"] = {"amount": "£999999"}
    if rng.random() < bad / 3:
        answer["ask"] = "your PIN"
    return dumps(answer)


def make_run(folder: Path, *, rows: int = 120, seed: int = 0) -> Path:
    """A run folder as the trainer leaves it, with made-up answers."""
    rng = random.Random(seed)
    sets = [
        EvaluationRows("test", rows_of("test", rows, rng, only_labels=False), TASK),
        EvaluationRows("real messages", rows_of("real", rows, rng, only_labels=True), TASK),
        EvaluationRows(
            "general",
            [
                Row(f"general/{i}", [{"role": "user", "content": f"Say {i}"}], str(i), None, SKILLS[i % 4], None, None)
                for i in range(rows)
            ],
            TEXT,
            ("exact_match",),
            slices=True,
        ),
    ]
    skill = {"base": 0.05, "sft": 0.86, "dpo": 0.9}
    bad = {"base": 0.1, "sft": 0.12, "dpo": 0.03}
    completions: dict[str, dict[str, list[str]]] = {}
    for s in sets:
        completions[s.name] = {}
        for model in skill:
            if s.slices:
                texts = [row.completion if rng.random() < 0.93 else "?" for row in s.rows]
            elif model == "base":
                texts = [f"I think {row.id} is about a bank." for row in s.rows]
            else:
                texts = [answer_of(row, skill[model], bad[model], rng) for row in s.rows]
            completions[s.name][model] = [str(text) for text in texts]
        completions[s.name]["merged"] = list(completions[s.name]["dpo"])
    write_evaluation(folder, sets, completions)

    history: list[dict[str, Any]] = []
    for step in range(1, 121):
        history.append({"stage": "sft", "step": step, "tokens": step * 4000, "loss": 3.2 * 0.96**step + rng.random() / 8})
        if step % 15 == 0:
            value = 0.9 - 0.8 * 0.95**step
            point = {"metric": "macro_f1", "value": value, "low": value - 0.04, "high": value + 0.03, "n": 200}
            history.append({"stage": "sft", "step": step, "tokens": step * 4000, **point})
    for step in range(1, 41):
        numbers = {"loss": 0.69 * 0.97**step, "margin": 0.08 * step, "chosen_logp": -4 - 0.02 * step, "rejected_logp": -9 - step / 3}
        history.append({"stage": "dpo", "step": step, "tokens": step * 4000, **numbers})
        if step % 10 == 0:
            point = {"metric": "macro_f1", "value": 0.9, "low": 0.86, "high": 0.93, "n": 200}
            history.append({"stage": "dpo", "step": step, "tokens": step * 4000, **point})
    (folder / "history.json").write_text(json.dumps(history))

    data = folder / "data"
    data.mkdir()
    manifest = {
        "format": 1,
        "name": "banking",
        "seed": 7,
        "recipe_sha256": "ab" * 32,
        "taxonomy": {"name": "banking_support", "path": "taxonomies/banking_support.yaml", "sha256": "cd" * 32},
        "teachers": [{"role": "teacher", "model": "offline/banking", "simulated": True, "terms": {}}],
        "decontamination": {"passed": True, "sets": [{"name": "real messages", "rows": rows, "dropped": 61, "sha256": "e"}]},
        "data": {
            "examples": 4100,
            "accepted": 3212,
            "rejected": 888,
            "reasons": [
                {"by": "filter:truth", "reason": "label differs from the rule engine", "count": 512},
                {"by": "filter:near_duplicate", "reason": "near-duplicate", "count": 301},
            ],
            "generators": [
                {"generator": "seed", "examples": 1000, "accepted": 801},
                {"generator": "adversarial", "examples": 700, "accepted": 512},
            ],
            "topics": [
                {"topic": f"cards/{x}", "target": 200, "examples": 260, "accepted": 180 + 10 * i, "low": 0.62, "high": 0.9}
                for i, x in enumerate(LABELS)
            ],
            "costs": [
                {
                    "role": "teacher",
                    "model": "offline/banking",
                    "calls": 5120,
                    "prompt_tokens": 2400000,
                    "completion_tokens": 310000,
                    "cost_usd": 0.0,
                }
            ],
            "review": {
                "rates": [
                    {"reviewer": "ana", "stratum": "all", "reviewed": 200, "defects": 9, "rate": 0.045, "low": 0.02, "high": 0.084}
                ]
            },
        },
    }
    text = json.dumps(manifest)
    (data / "manifest.json").write_text(text)
    record = {
        "id": "20261124-081500-banking",
        "name": "banking",
        "created": "2026-11-24T08:15:00+00:00",
        "status": "done",
        "student": "train/students/tiny",
        "method": "lora",
        "seed": 7,
        "data": str(data),
        "manifest_sha256": hashlib.sha256(text.encode()).hexdigest(),
        "config_sha256": "ef" * 32,
        "versions": {"python": "3.11.9", "torch": "2.13.0"},
        "stages": {
            "sft": {
                "rows": 2480,
                "general_rows": 248,
                "rows_dropped": 3,
                "steps": 120,
                "trainable": 210000,
                "parameters": 5400000,
                "tokens_per_second": 5100,
                "seconds": 140.0,
                "best": {"step": 105, "value": 0.896},
            },
            "dpo": {"pairs": 610, "steps": 40, "kept": "last", "guard": None, "seconds": 60.0},
        },
    }
    (folder / "run.json").write_text(json.dumps(record))
    return folder

"""The quality of a data set, against teachers that misbehave in known ways.

    python benchmarks/quality.py [BAR ...]     all bars, or those whose name begins with one of the words given

Results of a part take the place of its own lines in results/quality.json and leave the others. A bar is a function in BARS; its lines begin
with its name and a colon.
"""

import asyncio
import hashlib
import json
import random
import re
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from results_file import RESULTS, Result, publish

ROOT = Path(__file__).resolve().parents[1]
SEEDS = (1, 2, 3)
sys.path.insert(0, str(ROOT))  # the benchmark is run as a file


# -- preference pairs

PAIRS = 1000  # emitted, over three seeds; about twice and three times as many are made
DEPOT = """
name: depot
description: a depot that answers about parcels
task:
  type: {type}
  system: Sort the message.
  input: a message
  instructions: Sort the message.
{schema}
topics:
  late: {{description: a parcel is late{label}}}
"""
SCHEMA = """\
  label_field: intent
  entities_field: entities
  decision_fields: [decision, reason]
  output_schema:
    type: object
    required: [intent, entities, decision, reason]
    properties: {intent: {enum: [late, broken]}, entities: {type: object}, decision: {enum: [wait, act]}, reason: {type: string}}
facts: {days: {entity: when, parse: days}}
policy:
  - {id: R1, when: {intent: late, days: ">= 5"}, then: {decision: act, reason: R1}}
  - {id: R2, when: {intent: late}, then: {decision: wait, reason: R2}}
  - {id: R3, when: {}, then: {decision: wait, reason: R3}}"""


class Candidate(NamedTuple):
    """An answer with what this benchmark knows of it and the product does not: how good it is, 0 for wrong."""

    text: str
    good: int


def answers_to(message: str, free: bool, rng: random.Random) -> Candidate:
    """One of the answers that a model may give: right, right in another spelling, wrong in one of four ways, broken, a refusal."""
    days = int(re.search(r"(\d+) days ago", message).group(1))  # type: ignore[union-attr]
    if free:
        good = rng.randrange(1, 5)
        return Candidate(f"Answer of quality {good}: your parcel of {days} days ago is on its way.", good)
    act = days >= 5
    right = {
        "intent": "late",
        "entities": {"when": f"{days} days ago"},
        "decision": "act" if act else "wait",
        "reason": "R1" if act else "R2",
    }
    wrong = [
        {**right, "decision": "wait" if act else "act"},
        {**right, "intent": "broken"},
        {**right, "entities": {"when": f"{days + 9} days ago"}},
        {**right, "reason": "R3"},
    ]
    kind = rng.choices(["right", "spelled", "wrong", "broken", "refusal"], [5, 2, 4, 1, 1])[0]
    if kind == "right":
        return Candidate(json.dumps(right), 3)
    if kind == "spelled":
        return Candidate(json.dumps(dict(reversed(list(right.items()))), indent=1), 3)
    if kind == "wrong":
        return Candidate(json.dumps(rng.choice(wrong)), 0)
    return Candidate(json.dumps(right)[:-9], 0) if kind == "broken" else Candidate("I'm sorry, but I cannot help with that.", 0)


class Judge:
    """Knows how good each answer is; is wrong or names a tie in a fifth of its verdicts, and in another fifth takes the first."""

    def __init__(self) -> None:
        self.known: dict[str, int] = {}

    def better(self, first: str, second: str, rng: random.Random) -> str:
        one, other = (self.known.get(_as_data(text), 0) for text in (first, second))
        true = "tie" if one == other else "A" if one > other else "B"
        chance = rng.random()
        return rng.choice(["A", "B", "tie"]) if chance < 0.2 else "A" if chance < 0.4 else true


def _as_data(text: str) -> str:
    """The same key for the same data however it is spelled; for what is no JSON, the text."""
    try:
        return json.dumps(json.loads(text), sort_keys=True)
    except ValueError:
        return text.strip()


def emitted(seed: int, free: bool) -> dict[str, float]:
    """Ranked pairs of four candidates each, through the store and all filters; the rows of the view `preference` against what is known."""
    from datagen.ask import Asker
    from datagen.config import ModelConfig
    from datagen.curate import curate
    from datagen.filters import FilterContext
    from datagen.generate import generate
    from datagen.plan import make_plan
    from datagen.records import Draw, Request, Response, Several
    from datagen.store import Store
    from datagen.taxonomy import load_taxonomy

    judge = Judge()
    words = [hashlib.sha256(f"{seed}/{n}".encode()).hexdigest()[:6] for n in range(4000)]

    def reply(request: Request) -> str:
        rng = random.Random(f"{seed}/{request.id}")
        step = request.prompt.partition("@")[0]
        if step == "write_inputs":
            text = f"My parcel, sent {rng.randrange(1, 10)} days ago, has not come: {' '.join(rng.choices(words, k=14))}."
            return json.dumps([text])
        user = request.messages[-1].content
        if step == "compare":
            first, second = user.split("\n\nAnswer A:\n")[1].split("\n\nAnswer B:\n")
            return json.dumps({"better": judge.better(first, second, rng)})
        candidate = answers_to(request.messages[1].content, free, rng)
        judge.known[_as_data(candidate.text)] = candidate.good
        return candidate.text

    class Teacher:
        async def complete(self, request: Request) -> Response:
            return Response(request_id=request.id, text=reply(request))

        def worst_case_usd(self, request: Request) -> float:
            return 0.0

    with tempfile.TemporaryDirectory() as name:
        path = Path(name) / "depot.yaml"
        path.write_text(
            DEPOT.format(type="generation", schema="", label="")
            if free
            else DEPOT.format(type="extraction", schema=SCHEMA, label=", label: late")
        )
        taxonomy, _ = load_taxonomy(path)
        context = FilterContext(
            task=taxonomy.task, labels=taxonomy.labels(), facts=taxonomy.facts, policy=taxonomy.policy,
            settings={"language": {"min_stop_word_share": 0.0}, "preference": {"min_margin": 0.5}},
        )  # fmt: skip
        variables = {
            "domain": taxonomy.description, "task": taxonomy.task, "labels": taxonomy.labels(), "policy": taxonomy.policy_lines(),
            "dimensions": {}, "kinds": {}, "truth": context,
        }  # fmt: skip
        draws = [Draw(prompt="answer", role="teacher", temperature=warmth) for warmth in (0.3, 1.0)]
        several = {"preference": Several(draws=(*draws, *[Draw(prompt="answer", role="weak")] * 2), take="any")}
        mix = {"preference": PAIRS if free else PAIRS * 3 // 4}
        items = make_plan(taxonomy, mix, per_call=1, seed=seed, seeds={}, replace_seeds=False, several=several)
        store = Store(Path(name) / "depot.duckdb")
        roles = {role: ModelConfig(model=f"bench/{role}") for role in ("teacher", "weak", "judge")}
        asker = Asker(store, Teacher(), roles, variables, attempts=3, budget_usd=None)
        with store.writing():
            asyncio.run(generate(items, asker, store, judged=False, concurrency=8, progress=lambda item, status: None))
        curate(store, context)
        rows: list[dict[str, Any]] = store.query(
            "SELECT a.completion AS chosen, a.rejected, (a.scores->>'chosen_margin')::DOUBLE AS margin, "
            "(a.scores->>'chosen_is_weak')::DOUBLE AS weak FROM accepted a JOIN preference p ON p.id = a.id ORDER BY a.id"
        )
        made = store.query("SELECT count(*) AS n FROM current_examples")[0]["n"]
    good = [(judge.known[_as_data(row["chosen"])], judge.known[_as_data(row["rejected"])]) for row in rows]
    return {
        "made": made,
        "emitted": len(rows),
        "same": sum(_as_data(row["chosen"]) == _as_data(row["rejected"]) for row in rows),
        "ties": sum(row["margin"] <= 0 or (not free and one == other) for row, (one, other) in zip(rows, good, strict=True)),
        "wrong": sum(one == 0 for one, _ in good) if not free else 0,
        "turned": sum(one < other for one, other in good),
        "weak": sum(row["weak"] or 0 for row in rows),
    }


def preference() -> list[Result]:
    """Pairs that reach the training set with chosen = rejected, a tie, or a wrong chosen."""
    from datagen.review import exact_interval

    where = (
        "4 candidates (2 teacher, 2 weak; 54 % right), chosen: any, a judge that is random in 20 % and takes the first in 20 % of its verdicts, "
        "min_margin 0.5; 3 seeds together, exact 95 % interval"
    )
    results = []
    for what, free in (("truth known", False), ("free text", True)):
        seeds = [emitted(seed, free) for seed in SEEDS]
        counts = {name: sum(seed[name] for seed in seeds) for name in seeds[0]}
        told = {"same": "chosen = rejected", "ties": "a tie"}
        told |= {"turned": "rejected is the better, by the judge's errors"} if free else {
            "wrong": "wrong chosen", "turned": "rejected is the better", "weak": "chosen is the weak model's",
        }  # fmt: skip
        made, rows = counts["made"], counts["emitted"]
        results.append(Result(f"preference: {what}: emitted of {made}", rows, "pairs", rows, rows, where))
        for name, words in told.items():
            low, high = exact_interval(int(counts[name]), int(rows))
            results.append(Result(f"preference: {what}: {words}", counts[name], "pairs", low * rows, high * rows, where))
    return results


BARS: dict[str, Callable[[], list[Result]]] = {"preference": preference}


def main() -> None:
    wanted = tuple(sys.argv[1:]) or ("",)
    chosen = {name: bar for name, bar in BARS.items() if name.startswith(wanted)}
    path = RESULTS / "quality.json"
    stored = [Result(**entry) for entry in json.loads(path.read_text())] if path.exists() else []
    lines = {name: bar() for name, bar in chosen.items()}
    for result in stored:
        name = result.bar.partition(":")[0]
        if name not in chosen:
            lines.setdefault(name, []).append(result)
    publish("quality", [result for name in BARS for result in lines.pop(name, [])] + [result for rest in lines.values() for result in rest])


if __name__ == "__main__":
    main()

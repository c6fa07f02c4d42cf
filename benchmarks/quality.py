"""The quality of a data set, against teachers that misbehave in known ways.

    python benchmarks/quality.py [BAR ...]     all bars, or those whose name begins with one of the words given

Results of a part take the place of its own lines in results/quality.json and leave the others. A bar is a function in BARS; its lines begin
with its name and a colon.
"""

import asyncio
import hashlib
import json
import os
import random
import re
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple

import scipy.sparse
from results_file import RESULTS, Result, machine, publish

ROOT = Path(__file__).resolve().parents[1]
SEEDS = (1, 2, 3)
RECIPE = ROOT / "recipes/banking.yaml"
LINEAGE = "teacher prompt_hash rendered_prompt teacher_text topic item_id call_id prompt_tokens completion_tokens cost_usd verdicts asked"

sys.path.insert(0, str(ROOT))  # the benchmark is run as a file


def line(bar: str, values: list[float], unit: str, conditions: str) -> Result:
    """The median of the seeds, with the smallest and the largest as its interval."""
    ordered = sorted(values)
    return Result(
        bar, ordered[len(ordered) // 2], unit, ordered[0], ordered[-1], f"{conditions}; {len(values)} seeds, smallest and largest"
    )


def datagen(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """A command of datagen, as a user runs it."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    return subprocess.run(
        [sys.executable, "-m", "datagen", *arguments], cwd=folder, env=environment, capture_output=True, text=True, check=False
    )


# -- quotas on accepted rows

LEAVES, ROWS = 60, 20
REFUSING = frozenset(f"leaf{number:02d}" for number in range(0, LEAVES, 12))  # 5 leaves
STOP = ("the", "and", "is", "to", "my", "of", "it", "for", "that", "with")
SYLLABLES = ("ba", "co", "du", "fe", "gi", "ho", "ka", "lu", "me", "ni", "po", "ra", "so", "tu", "ve", "wi")
WORD = re.compile(r"\w+")


def invented(rng: random.Random) -> str:
    """A text of 50 words that no other is like."""
    return " ".join(rng.choice(STOP) if n % 3 == 1 else "".join(rng.choices(SYLLABLES, k=3)) for n in range(50))


def retouched(text: str, rng: random.Random) -> str:
    """The text with one word changed: a Jaccard similarity of 0.88 by word 3-grams."""
    words = text.split()
    words[rng.randrange(len(words))] = "".join(rng.choices(SYLLABLES, k=4))
    return " ".join(words)


class Teacher:
    """Answers as a function of what is asked, but for near-duplicates, which are of anything that it ever wrote.

    30 % of the answers are invalid (half of them name a wrong label, half are no JSON however often they are asked for), 20 % of the
    inputs are near-duplicates, 2 % are rows of the evaluation set, and five leaves refuse half of the answers.
    """

    def __init__(self, exam: list[str]) -> None:
        self.exam = exam
        self.written: list[str] = []
        self.calls = 0
        self.lock = threading.Lock()

    def reply(self, system: str, user: str) -> str:
        """The text of an answer."""
        if not system.startswith("You write"):
            return self.answer(user)
        leaf = re.search(r"^Topic: (\S+)$", user, re.MULTILINE)
        count = re.search(r"^Number of inputs: (\d+)$", user, re.MULTILINE)
        assert leaf and count
        rng = random.Random(f"{len(self.written)}/{user}")
        inputs = []
        for _ in range(int(count.group(1))):
            chance = rng.random()
            if chance < 0.2 and len(self.written) > 50:
                text = retouched(rng.choice(self.written), rng)
                text = re.sub(r"^\S+ says", f"{leaf.group(1)} says", text)
            elif chance < 0.22:
                text = rng.choice(self.exam)
            else:
                text = f"{leaf.group(1)} says {invented(rng)}"
            inputs.append(text)
        self.written += inputs
        return json.dumps(inputs)

    def answer(self, text: str) -> str:
        chance = int(hashlib.sha256(text.encode()).hexdigest()[:8], 16) / 2**32
        leaf = text.split()[0]
        if chance < 0.15:
            return json.dumps({"label": "leaf59" if leaf != "leaf59" else "leaf58"})
        if chance < 0.3:
            return '{"label": '
        if leaf in REFUSING and chance < 0.65:
            return "I'm sorry, but I cannot help with that request."
        return json.dumps({"label": leaf})


@contextmanager
def serving(teacher: Teacher) -> Iterator[str]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            with teacher.lock:
                teacher.calls += 1
                # a repair shows the conversation: what was asked stands first
                text = teacher.reply(body["messages"][0]["content"], body["messages"][1]["content"])
            choice = {"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": text}}
            usage = {"prompt_tokens": 100, "completion_tokens": 20, "total_tokens": 120}
            reply = json.dumps({"id": "x", "object": "chat.completion", "created": 1, "model": "m", "choices": [choice], "usage": usage})
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(reply.encode())))
            self.end_headers()
            self.wfile.write(reply.encode())

        def log_message(self, *args: Any) -> None:
            pass

    http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=http.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{http.server_port}/v1"
    finally:
        http.shutdown()
        http.server_close()


def write_job(folder: Path, url: str, exam: list[str], seed: int) -> None:
    """The taxonomy, the evaluation set and the recipes: one with room for every cell, one whose candidates run out."""
    labels = [f"leaf{number:02d}" for number in range(LEAVES)]
    topics = {label: {"description": f"what {label} says", "label": label} for label in labels}
    schema = {"type": "object", "required": ["label"], "properties": {"label": {"type": "string"}}}
    task = {
        "type": "classification", "system": "Name the leaf.", "input": "a message", "instructions": "Name the leaf that the message is of.",
        "label_field": "label", "output_schema": schema,
    }  # fmt: skip
    dimensions = {"tone": {name: {} for name in ("calm", "cross", "dry")}, "length": {name: {} for name in ("short", "long")}}
    taxonomy = {"name": "leaves", "description": "leaves", "task": task, "dimensions": dimensions, "topics": topics}
    (folder / "leaves.yaml").write_text(json.dumps(taxonomy))
    (folder / "exam.jsonl").write_text("".join(json.dumps({"text": text, "label": text.split()[0]}) + "\n" for text in exam))
    for name, candidates, number in (("earlier", 6, seed + 100), ("main", 6, seed), ("scarce", 2.2, seed + 200)):
        recipe = {
            "name": name, "description": "x", "taxonomy": "leaves.yaml", "seed": number,
            "teachers": {"teacher": {
                "model": "openai/bench", "price": {"input_per_million": 0, "output_per_million": 0}, "structured": "none",
                "params": {"api_base": url, "api_key": "none"},
            }},
            "mix": {"topic": LEAVES * ROWS}, "quota": {"candidates": candidates, "min_per_topic": ROWS}, "judge": False, "attempts": 2,
            "terms": {"openai/bench": {"decision": "a program of this benchmark", "by": "the benchmark"}},
            "evaluation_sets": [{"name": "exam", "path": "exam.jsonl"}],
        }  # fmt: skip
        (folder / f"{name}.yaml").write_text(json.dumps(recipe))


def shingles(text: str) -> set[tuple[str, ...]]:
    """Word 3-grams, made here anew: the product's own are not trusted."""
    words = WORD.findall(text.lower())
    return {tuple(words[n : n + 3]) for n in range(len(words) - 2)}


def near_pairs(texts: list[str], others: list[str] | None = None) -> int:
    """How many pairs have a Jaccard similarity of 0.8 or more: every pair counted, no index."""
    names: dict[tuple[str, ...], int] = {}

    def matrix(some: list[str]) -> Any:
        rows = [[names.setdefault(gram, len(names)) for gram in shingles(text)] for text in some]
        where = [(number, gram) for number, row in enumerate(rows) for gram in row]
        data = ([1] * len(where), tuple(zip(*where, strict=True)))
        return scipy.sparse.csr_matrix(data, shape=(len(some), 10_000_000)), [len(row) for row in rows]

    left, left_sizes = matrix(texts)
    right, right_sizes = (left, left_sizes) if others is None else matrix(others)
    shared = (left @ right.T).tocoo()
    return sum(
        int((others is not None or one < other) and both / (left_sizes[one] + right_sizes[other] - both) >= 0.8)
        for one, other, both in zip(shared.row, shared.col, shared.data, strict=True)
    )


def hits(texts: list[str], exam: list[str]) -> int:
    """Texts that share 13 words in a row with a row of the evaluation set, or are near it."""
    runs = {tuple(words[n : n + 13]) for row in exam for words in [WORD.findall(row.lower())] for n in range(len(words) - 12)}
    found = 0
    for text in texts:
        words = WORD.findall(text.lower())
        found += any(tuple(words[n : n + 13]) in runs for n in range(len(words) - 12))
    return found + near_pairs(texts, exam)


class Quotas(NamedTuple):
    """What one seed came to."""

    exact: int
    near: int
    near_earlier: int
    hits: int
    rounds: int
    asked: int
    surplus: int
    calls_again: int
    same_again: bool
    scarce_short: int
    scarce_named: int
    scarce_code: int


def rows_of(folder: Path) -> list[dict[str, Any]]:
    query = "SELECT id, topic, prompt[2].content AS text FROM accepted ORDER BY id"
    found = datagen(folder, "sql", query, "--recipe", "main.yaml", "--store", "s.duckdb", "--json")
    rows: list[dict[str, Any]] = json.loads(found.stdout)
    return rows


def one_seed(seed: int) -> Quotas:
    """An earlier run and the measured one in one store, the measured one again, and a third with too few candidates."""
    rng = random.Random(f"exam/{seed}")
    exam = [f"leaf{rng.randrange(LEAVES):02d} says {invented(rng)}" for _ in range(100)]
    with tempfile.TemporaryDirectory() as name, serving(Teacher(exam)) as url:
        folder = Path(name)
        write_job(folder, url, exam, seed)

        def generate(recipe: str) -> tuple[dict[str, Any], int]:
            done = datagen(folder, "generate", "--recipe", f"{recipe}.yaml", "--store", "s.duckdb", "--json", "--quiet")
            if done.returncode not in (0, 1):
                raise SystemExit(done.stderr)
            return json.loads(done.stdout), done.returncode

        generate("earlier")
        before = [row["text"] for row in rows_of(folder)]
        report, _ = generate("main")
        rows = rows_of(folder)
        again, _ = generate("main")
        same_again = rows_of(folder) == rows
        texts = [row["text"] for row in rows]
        leaves = Counter(row["topic"] for row in rows)
        query = "SELECT count(*) AS n FROM rejected WHERE decided_by = 'filter:quota'"
        surplus = json.loads(datagen(folder, "sql", query, "--recipe", "main.yaml", "--store", "s.duckdb", "--json").stdout)[0]["n"]
        scarce, code = generate("scarce")
        short = [
            leaf
            for leaf, count in Counter({f"leaf{n:02d}": 0 for n in range(LEAVES)} | Counter(r["topic"] for r in rows_of(folder))).items()
            if count < ROWS
        ]
        named = {entry["topic"] for entry in scarce["quota"]["short"] if entry["reasons"]}
        return Quotas(
            exact=sum(count == ROWS for count in leaves.values()), near=near_pairs(texts), near_earlier=near_pairs(texts, before),
            hits=hits(texts, exam), rounds=report["quota"]["rounds"], asked=report["quota"]["asked"], surplus=surplus,
            calls_again=again["calls"], same_again=same_again, scarce_short=len(short), scarce_named=len(named & set(short)), scarce_code=code,
        )  # fmt: skip


def quotas() -> list[Result]:
    """60 leaves of 20 accepted rows each, from a teacher with 30 % invalid answers and 20 % near-duplicates; 5 leaves refuse half."""
    found = [one_seed(seed) for seed in SEEDS]
    where = (
        "60 leaves x 20 rows, 30 % invalid, 20 % near-duplicates, 2 % evaluation rows, 5 leaves refuse half, an earlier run in the store"
    )
    scarce = "the same with candidates 2.2: too few for some leaves"
    return [
        line("quotas: leaves with exactly 20 rows", [seed.exact for seed in found], "leaves", where),
        line("quotas: near-duplicate pairs, brute force", [seed.near for seed in found], "pairs", where),
        line("quotas: pairs near a row of the earlier run", [seed.near_earlier for seed in found], "pairs", where),
        line("quotas: evaluation hits", [seed.hits for seed in found], "rows", where),
        line("quotas: rounds", [seed.rounds for seed in found], "rounds", where),
        line("quotas: inputs asked for", [seed.asked for seed in found], "inputs", where),
        line("quotas: accepted beyond the target", [seed.surplus for seed in found], "rows", where),
        line("quotas: calls of the same command again", [seed.calls_again for seed in found], "calls", where),
        line("quotas: same rows again", [float(seed.same_again) for seed in found], "yes", where),
        line("quotas: short leaves, candidates 2.2", [seed.scarce_short for seed in found], "leaves", scarce),
        line("quotas: of them named with reasons", [seed.scarce_named for seed in found], "leaves", scarce),
        line("quotas: exit code where leaves are short", [seed.scarce_code for seed in found], "code", scarce),
    ]


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
            "dimensions": {}, "kinds": {}, "truth": lambda: context,
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


# -- where every training row comes from


def lineage() -> list[Result]:
    """The demo at a tenth, by one process and by Ray; a person edits 20 rows; every accepted row is looked up in the view."""
    lines = []
    for engine in ("process", "ray") if find_spec("ray") else ("process",):
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            store = ("--recipe", str(RECIPE), "--store", "s.duckdb")
            datagen(folder, "generate", *store, "--scale", "0.1", "--engine", engine, *(["--workers", "2"] if engine == "ray" else []))
            datagen(folder, "curate", *store)
            datagen(folder, "review", *store, "--n", "20", "--reviewer", "ana", "--export", "sample.jsonl")
            sample = [json.loads(line) for line in (folder / "sample.jsonl").read_text().splitlines()]
            edits = [{**row, "decision": "edit", "new_input": f"{row['input']} Please answer today."} for row in sample]
            (folder / "sample.jsonl").write_text("".join(json.dumps(row) + "\n" for row in edits))
            datagen(folder, "review", *store, "--reviewer", "ana", "--import", "sample.jsonl")
            datagen(folder, "curate", *store)
            missing = " OR ".join(f"l.{column} IS NULL" for column in LINEAGE.split())
            query = (
                f"SELECT count(*) AS rows, count(*) FILTER ({missing} OR len(l.rendered_prompt) = 0 OR len(l.asked) <> len(a.calls) "
                "OR len(l.verdicts) <> v.said) AS gaps, count(a.parent) AS edited, count(a.rejected) AS pairs "
                "FROM accepted a LEFT JOIN lineage l ON l.id = a.id LEFT JOIN "
                "(SELECT example_id, count(*) AS said FROM verdicts GROUP BY ALL) v ON v.example_id = a.id"
            )
            (found,) = json.loads(datagen(folder, "sql", query, *store, "--json").stdout)
        where = (
            f"banking at 0.1, engine {engine}: {found['rows']} rows, {found['pairs']} of them pairs, {found['edited']} edited by a person"
        )
        share = 100 * (found["rows"] - found["gaps"]) / found["rows"]
        lines.append(Result(f"lineage: rows accounted for in full, {engine}", share, "%", share, share, f"{where}; counted, not sampled"))
    return lines


# -- the report on a large store


def report() -> list[Result]:
    """`report` with its page over 100,000 examples of 40 words in 100 topics, ten verdicts each; three times."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        large_store(folder / "s.duckdb", 100_000)
        seconds, cpu = [], []
        for _ in range(3):
            started, before = time.perf_counter(), os.times()
            datagen(folder, "report", "--recipe", str(RECIPE), "--store", "s.duckdb")
            after = os.times()
            seconds.append(time.perf_counter() - started)
            cpu.append(after.children_user + after.children_system - before.children_user - before.children_system)
        size = (folder / "s.report.html").stat().st_size / 1e6
    where = f"100,000 examples of 40 words, 1,000,000 verdicts; whole process, page of {size:.1f} MB; {machine()}; median and range of 3"
    return [
        Result("report: 100,000 examples", sorted(seconds)[1], "s", min(seconds), max(seconds), where),
        Result("report: 100,000 examples, CPU", sorted(cpu)[1], "CPU-s", min(cpu), max(cpu), where),
    ]


def large_store(path: Path, count: int) -> None:
    """A store of `count` examples with their calls and ten verdicts each."""
    sys.path.insert(0, str(ROOT))
    from datagen.records import Example, Message, PlanItem, Request, Response, Verdict
    from datagen.store import Store

    rng = random.Random(0)
    words = [f"{a}{b}" for a in ("ka", "lo", "mi", "nu", "pe", "ri", "so", "ta") for b in map(str, range(400))]
    filters = ("schema", "length", "refusal", "language", "pii", "truth", "preference", "judge", "duplicate", "near_duplicate")
    store = Store(path)
    verdicts = []
    with store.writing():
        store.start_run("large", "generate", {}, {})
        for index in range(count // 4):
            topic, generator = f"area{index % 10}/leaf{index % 100}", ("topic", "seed", "adversarial", "reasoning")[index // 100 % 4]
            item = PlanItem(topic=topic, generator=generator, index=index, count=4)
            examples = []
            for draw in range(4):
                messages = (Message(role="system", content="Answer."), Message(role="user", content=" ".join(rng.choices(words, k=40))))
                asked = Request(
                    item_id=item.id,
                    prompt="answer@1234",
                    role="teacher",
                    model="m",
                    messages=messages,
                    params={},
                    sample=f"{item.id}/0/{draw}",
                )
                store.reserve(asked.id, 0.01)
                store.add_call(asked, Response(request_id=asked.id, text="yes", prompt_tokens=90, completion_tokens=9, cost_usd=0.001))
                made = Example(item_id=item.id, topic=topic, generator=generator, prompt=messages, completion="yes", calls=(asked.id,))
                examples.append(made)
                for name in filters:
                    keep = rng.random() > 0.03
                    reason = None if keep else f"{name}: 0.{rng.randint(80, 99)} like {made.id}"
                    verdicts.append(Verdict(example_id=made.id, by=f"filter:{name}", keep=keep, reason=reason))
            store.add_item(item, "done", examples)
            if index % 5_000 == 0:
                store.flush()
        store.end_run("done")
    store.replace_filter_verdicts(verdicts, {})


# -- planted defects, near-duplicates and a large curate: measured by the benchmarks of their own, all of it here in one run


def defects() -> list[Result]:
    """Every kind of defect that the offline teacher can plant, caught and missed, by its id; and false alarms on what has none."""
    import faults

    with tempfile.TemporaryDirectory() as name:
        found = faults.measure(faults.make_all_kinds(Path(name)))
    return [result._replace(bar=f"defects: {result.bar}") for result in found]


def near() -> list[Result]:
    """Near-duplicates of real text against the exact Jaccard similarity of every pair."""
    import dedup

    real = dedup.docstrings(6_000, seed=31)
    mixed = [*real, *dedup.edited(real[:3_000], seed=32)]
    random.Random(33).shuffle(mixed)
    about = f"{len(real):,} docstrings and {len(mixed) - len(real):,} edited copies, Jaccard >= {dedup.THRESHOLD} by all pairs"
    return [result._replace(bar=f"near: {result.bar}") for result in dedup.quality("real", mixed, about)]


def large_curate() -> list[Result]:
    """`curate` over 100,000 examples of the demo's kind with all offline filters, once."""
    import dedup
    import faults

    from datagen.cli import _filter_context, _open
    from datagen.curate import curate
    from datagen.store import Store

    with tempfile.TemporaryDirectory() as name:
        source, path = faults.make_all_kinds(Path(name)), Path(name) / "large.duckdb"
        work = _open(RECIPE, source)
        dedup.multiply(source, path, 100_000)
        wall, cpu = time.perf_counter(), time.process_time()
        done = curate(Store(path), _filter_context(work))
        wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    where = f"{done.examples:,} examples of the demo's kind, all filters, {done.accepted:,} accepted; {machine()}, load {os.getloadavg()[0]:.1f}"
    return [
        Result("curate: 100,000 examples, CPU of all threads", cpu, "CPU-s", cpu, cpu, where),
        Result("curate: 100,000 examples, wall", wall, "s", wall, wall, where),
    ]


BARS: dict[str, Callable[[], list[Result]]] = {
    "quotas": quotas, "defects": defects, "near": near, "preference": preference, "lineage": lineage, "curate": large_curate, "report": report,
}  # fmt: skip


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

"""The quality of a data set: is every training row accounted for, and how long its report takes.

    python benchmarks/quality.py [BAR ...]     all bars, or those whose name begins with one of the words given

Results of a part take the place of its own lines in results/quality.json and leave the others. A bar is a function in BARS; its lines begin with its name and a colon.
"""

import json
import os
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path

from results_file import RESULTS, Result, machine, publish

ROOT = Path(__file__).resolve().parents[1]
RECIPE = ROOT / "recipes/banking.yaml"
LINEAGE = "teacher prompt_hash rendered_prompt teacher_text topic item_id call_id prompt_tokens completion_tokens cost_usd verdicts asked"


def datagen(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """A command of datagen, as a user runs it; 1 is its code for less than was asked."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-m", "datagen", *arguments]
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode in (0, 1), done.stderr
    return done


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


BARS: dict[str, Callable[[], list[Result]]] = {"lineage": lineage, "report": report}


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

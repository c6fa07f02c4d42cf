"""The teacher side against a local OpenAI-compatible server: overhead, speed, rate limits, faults, money. The whole path is measured: plan
items, prompts, journal and DuckDB.

    python benchmarks/teacher.py [BAR ...]     all bars, or those whose name begins with one of the words given

The server runs in a process of its own on core 1, the client on core 0. A row is one item with one call and one example. Each bar is
measured three times; the value is the median, the interval the smallest and the largest. A bar is a function in BARS.
"""

import asyncio
import json
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, NamedTuple

from results_file import Result, machine, publish

HERE = Path(__file__).resolve().parent
PRICE = {"input_per_million": 2.5, "output_per_million": 10.0}
RETRIES = 8


class Job(NamedTuple):
    """What a client process runs."""

    url: str
    store: str
    rows: int
    poison: int = 0
    concurrency: int = 64
    lane: str = "auto"
    model: str = "openai/bench"
    budget_usd: float | None = None
    max_tokens: int = 512


# -- the client process


def run(job: Job) -> dict[str, Any]:
    """Generate the rows as `python -m datagen generate` does, and say what it took."""
    import datagen.cli  # noqa: F401  (the whole program is part of the process)
    from datagen import generators
    from datagen.ask import Asker
    from datagen.config import ModelConfig
    from datagen.generate import generate
    from datagen.generators._example import ask_task, make_example
    from datagen.records import Example, PlanItem, Task
    from datagen.store import Store
    from datagen.teacher import Teacher

    async def row(item: PlanItem, ask: Any) -> list[Example]:
        text = f"<key>{item.facts['key']}</key> My parcel has not come. " + "It was sent last week. " * 10
        answer = await ask_task(ask, text, draw="0")
        return [make_example(item, ask, text, answer.value, (answer.call_id,))]

    generators.GENERATORS["topic"] = row
    keys = [f"row{n:06d}" for n in range(job.rows - job.poison)] + [f"poison{n:03d}" for n in range(job.poison)]
    items = [PlanItem(topic="parcels", generator="topic", index=n, count=1, facts={"key": key}) for n, key in enumerate(keys)]
    schema = {"type": "object", "properties": {"key": {"type": "string"}, "label": {"type": "string"}, "reason": {"type": "string"}}}
    task = Task(
        type="extraction", system="Sort the message.", input="a message", instructions="Sort the message. " * 50, output_schema=schema
    )
    params = {"api_base": job.url, "api_key": "none"}
    config = ModelConfig(model=job.model, max_tokens=job.max_tokens, price=PRICE, params=params, lane=job.lane)
    store = Store(Path(job.store))

    async def story() -> Any:
        teacher = Teacher({"teacher": config}, concurrency=job.concurrency, retries=RETRIES, on_failure=store.add_failure)
        variables = {"task": task, "labels": {}, "policy": []}
        asker = Asker(store, teacher, {"teacher": config}, variables, attempts=6, budget_usd=job.budget_usd)
        if job.lane == "litellm":  # its import is part of the process, not of a row
            from datagen.teacher import _litellm

            _litellm()
        before, started = time.process_time(), time.perf_counter()
        report = await generate(items, asker, store, judged=False, concurrency=job.concurrency, progress=lambda item, status: None)
        return report, time.process_time() - before, time.perf_counter() - started

    with store.writing():
        store.start_run("bench", "generate", {}, {})
        report, cpu_s, wall_s = asyncio.run(story())
        store.end_run("done")
    examples = store.current_examples()
    failed = store.query("SELECT count(*) AS n FROM items WHERE status = 'failed' AND error IS NOT NULL")[0]["n"]
    return {
        "rows": len(examples),
        "right": sum(f"<key>{(example.answer or {}).get('key')}</key>" in example.input for example in examples),
        "failed_with_reason": failed,
        "unfinished": len(items) - len(examples) - failed,
        "cpu_s": cpu_s,
        "wall_s": wall_s,
        "spent_usd": store.spent_usd(),
        "stopped": report.stopped,
    }


# -- the measuring process


class Measured(NamedTuple):
    """A client's report, the server's, and how long the whole process took."""

    client: dict[str, Any]
    server: dict[str, Any]
    process_s: float


@contextmanager
def serving(**options: Any) -> Iterator[str]:
    flags = [part for name, value in options.items() for part in (f"--{name.replace('_', '-')}", str(value).lower())]
    process = subprocess.Popen([sys.executable, str(HERE / "teacher_server.py"), "--core", "1", *flags], stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout
        yield f"http://127.0.0.1:{process.stdout.readline().strip()}"
    finally:
        process.terminate()
        process.wait()


def measure(rows: int, *, server: dict[str, Any], **job: Any) -> Measured:
    with serving(**server) as url, tempfile.TemporaryDirectory() as folder:
        task = Job(url=f"{url}/v1", store=f"{folder}/bench.duckdb", rows=rows, **job)
        started = time.perf_counter()
        done = subprocess.run(
            [sys.executable, __file__, "--job", json.dumps(task._asdict())], capture_output=True, text=True, cwd=HERE.parent, check=False
        )
        process_s = time.perf_counter() - started
        if done.returncode:
            raise SystemExit(done.stderr)
        with urllib.request.urlopen(f"{url}/stats?keys=1") as answer:
            return Measured(json.loads(done.stdout), json.load(answer), process_s)


def billed_usd(stats: dict[str, Any]) -> float:
    """What the server would bill for the answers that it sent whole."""
    return float(stats["prompt_tokens"] * PRICE["input_per_million"] + stats["completion_tokens"] * PRICE["output_per_million"]) / 1e6


def result(bar: str, values: list[float], unit: str, conditions: str) -> Result:
    return Result(
        bar, statistics.median(values), unit, min(values), max(values), f"{conditions}; median and range of {len(values)}; {machine()}"
    )


STEADY = {"latency_ms": 300, "sigma": 0.3}
FAULTS = {"p500": 0.05, "truncated": 0.03, "malformed": 0.03, "drop_head": 0.025, "drop_body": 0.025}
TIMES = 3


def steady() -> list[Result]:
    """2,000 calls, 64 in flight, lognormal latency of 300 ms: what is lost to anything but waiting for answers."""
    runs = [measure(2000, server=STEADY) for _ in range(TIMES)]
    ideal = [run.server["latency_s"] / 64 for run in runs]
    where = "2,000 calls, 64 in flight, lognormal 300 ms, direct lane"
    return [
        result("span over ideal", [run.server["span_s"] / best for run, best in zip(runs, ideal, strict=True)], "x", where),
        result("whole process over ideal", [run.process_s / best for run, best in zip(runs, ideal, strict=True)], "x", where),
        result("CPU per row, direct lane", [1000 * run.client["cpu_s"] / run.client["rows"] for run in runs], "ms", where),
    ]


def litellm() -> list[Result]:
    """The same rows by litellm."""
    found = []
    # openai/ goes by the SDK of OpenAI within litellm; hosted_vllm/, as most providers, by litellm's own HTTP
    for model in ("hosted_vllm/bench", "openai/bench"):
        runs = [measure(1000, server={"latency_ms": 100}, lane="litellm", model=model) for _ in range(TIMES)]
        where = "1,000 calls, 64 in flight, lognormal 100 ms, lane: litellm"
        values = [1000 * run.client["cpu_s"] / run.client["rows"] for run in runs]
        found.append(result(f"CPU per row, litellm lane, {model.partition('/')[0]}/", values, "ms", where))
    return found


def ceiling() -> list[Result]:
    """Rows a second when the server answers at once."""
    runs = [measure(10_000, server={}) for _ in range(TIMES)]
    where = "10,000 calls, 64 in flight, 0 ms, direct lane"
    return [result("rows a second at 0 ms", [run.client["rows"] / run.client["wall_s"] for run in runs], "rows/s", where)]


def limits() -> list[Result]:
    """A server that allows 25 requests a second, with a burst of one second."""
    runs = [measure(500, server={"latency_ms": 300, "rpm": 1500}) for _ in range(TIMES)]
    where = "25 requests a second, 500 rows, 64 workers"
    assert all(run.client["right"] == 500 for run in runs)
    return [
        result("rate limit: share of 429s", [run.server["statuses"].get("429", 0) / 500 for run in runs], "share", where),
        result("rate limit: span over ideal", [run.server["span_s"] / (500 / 25) for run in runs], "x", where),
        result("rate limit: sent before Retry-After", [run.server["before_retry_after"] for run in runs], "calls", where),
    ]


def faults() -> list[Result]:
    """5 % 500s, 6 % truncated or malformed JSON, 5 % dropped connections, 1 % poison rows."""
    runs = [measure(1000, server={"latency_ms": 50, "seed": seed, **FAULTS}, poison=10) for seed in range(1, TIMES + 1)]
    where = "1,000 rows, 5 % 500s, 6 % truncated or malformed, 5 % dropped, 10 poison rows"
    poison = [[n for key, n in run.server["by_key"].items() if key.startswith("poison")] for run in runs]
    differences = [abs(run.client["spent_usd"] - billed_usd(run.server)) for run in runs]
    return [
        result("faults: rows right", [run.client["right"] for run in runs], "rows", where),
        result("faults: rows delivered wrong", [run.client["rows"] - run.client["right"] for run in runs], "rows", where),
        result("faults: rows failed with their reason", [run.client["failed_with_reason"] for run in runs], "rows", where),
        result("faults: rows lost", [run.client["unfinished"] for run in runs], "rows", where),
        result("faults: calls of a poison row", [max(found) for found in poison], "calls", where),
        result("faults: reported cost less the server's", [100 * found for found in differences], "cents", where),
    ]


def budget() -> list[Result]:
    """A cap of $1.00 against a server whose every answer is as long as it may be."""
    runs = [measure(2000, server={"full_length": True}, budget_usd=1.0) for _ in range(TIMES)]
    assert all(run.client["stopped"] for run in runs)
    where = "budget_usd 1.00, every answer at max_tokens, 64 in flight"
    return [result("budget: the server's bill", [billed_usd(run.server) for run in runs], "USD", where)]


RAY_RECIPE = """
name: ray
taxonomy: {root}/taxonomies/banking_support.yaml
teachers: {{teacher: {{model: offline/banking}}}}
mix: {{topic: 5000}}
judge: false
"""


def ray() -> list[Result]:
    """5,000 rows of the offline teacher by one process and by two Ray actors, one of which is killed midway. Measured once."""
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "ray.yaml").write_text(RAY_RECIPE.format(root=HERE.parent))
        took, rows = {}, {}
        for store, options in (("one", []), ("two", ["--engine", "ray", "--workers", "2"])):
            command = [
                sys.executable,
                "-m",
                "datagen",
                "generate",
                "--recipe",
                "ray.yaml",
                "--store",
                f"{store}.duckdb",
                "--json",
                *options,
            ]
            environment = {**os.environ, "PYTHONPATH": str(HERE.parent)}
            started, killed = time.perf_counter(), not options
            process = subprocess.Popen(command, cwd=folder, env=environment, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
            while process.poll() is None and not killed:
                time.sleep(0.1)
                if sum(log.read_bytes().count(b'["calls"') for log in Path(folder).glob("two.worker-*.log")) >= 2500:
                    os.kill(_an_actor(), signal.SIGKILL)
                    killed = True
            report = json.loads(process.communicate()[0])
            took[store] = time.perf_counter() - started
            query = "SELECT id, text FROM calls UNION ALL SELECT id, completion FROM examples ORDER BY ALL"
            asked = [*command[:3], "sql", query, "--store", f"{store}.duckdb", "--json"]
            rows[store] = json.loads(subprocess.run(asked, cwd=folder, env=environment, capture_output=True, check=True).stdout)
            made = report["new_examples"]
    where = "6,250 calls to the offline teacher, 2 actors against 1 process, one actor killed at 2,500 answers; once"
    different = {(row["id"], row["text"]) for row in rows["one"]} ^ {(row["id"], row["text"]) for row in rows["two"]}
    return [
        result("Ray: rows and calls that differ from one process", [len(different)], "rows", where),
        result("Ray: rows made", [made], "rows", where),
        result("Ray: calls stored twice", [len(rows["two"]) - len({row["id"] for row in rows["two"]})], "calls", where),
        result("Ray: time over one process, Ray's start and the kill included", [took["two"] / took["one"]], "x", where),
    ]


def _an_actor() -> int:
    """The process of an actor."""
    for folder in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            if (folder / "cmdline").read_bytes().startswith(b"ray::Lane"):
                return int(folder.name)
    raise SystemExit("no actor is running")


BARS: dict[str, Callable[[], list[Result]]] = {
    "steady": steady, "litellm": litellm, "ceiling": ceiling, "limits": limits, "faults": faults, "budget": budget,
    "ray": ray,
}  # fmt: skip


def main() -> None:
    if sys.argv[1:2] == ["--job"]:
        if hasattr(os, "sched_setaffinity"):
            os.sched_setaffinity(0, {0})
        sys.path.insert(0, str(HERE.parent))
        print(json.dumps(run(Job(**json.loads(sys.argv[2])))))
        return
    wanted = sys.argv[1:]
    results = [line for name, bar in BARS.items() if not wanted or name.startswith(tuple(wanted)) for line in bar()]
    if wanted:  # a part is printed, not published
        for line in results:
            print(f"{line.bar:<42} {line.value:>10.4g} {line.unit:<7} [{line.low:.4g}, {line.high:.4g}]")
    else:
        publish("teacher", results)


if __name__ == "__main__":
    main()

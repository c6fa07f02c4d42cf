"""Near-duplicate search against exact truth, and its speed from text to committed rows: `python benchmarks/dedup.py` (some minutes).

Three kinds of text: short and long ones from a Zipf vocabulary, half of them edited copies of the others; and real ones, the
docstrings of the packages installed here with planted edits. No setting was chosen on them. Truth is the Jaccard similarity of every
pair, from a sparse matrix product over plain n-grams: it shares no code with the search but the tokeniser. Rates are CPU time on one
core, batches of 10,000, opening and closing the file included; datasketch's bulk path runs in between on the same texts.

`python benchmarks/dedup.py growth FOLDER [STORE]` adds 1,000 examples to 1,000,000 stored ones, and curates 100,000 that are made from those
of STORE (data/banking.duckdb, by `make datagen`). The stores take minutes to make and stay in FOLDER.
Writes benchmarks/results/dedup.json, each part its own rows.
"""

import gc
import hashlib
import json
import os
import random
import re
import resource
import statistics
import sys
import sysconfig
import tempfile
import time
from collections.abc import Sequence
from itertools import repeat
from pathlib import Path

import duckdb
import numpy as np
from datasketch import MinHash, MinHashLSH
from results_file import RESULTS, Result, machine, publish
from scipy.sparse import csr_matrix
from scipy.stats import binomtest

from datagen.arrivals import Prompt, keep, meet, remember
from datagen.cli import _filter_context, _open
from datagen.curate import MARK, curate, curate_new, mark
from datagen.filters import EXAMPLE_FILTERS, GATES, SET_FILTERS, FilterContext
from datagen.filters.decontaminate import decontaminate
from datagen.filters.dedup import near_reason
from datagen.filters.near import Bands
from datagen.filters.similarity import normalise, similarities, sketch, words
from datagen.records import EvaluationSet, Example, Message, PlanItem, Task, Verdict
from datagen.store import Store

THRESHOLD = 0.8
BATCH = 10_000
EDIT_RATES = (0.01, 0.02, 0.05, 0.1, 0.2)
KINDS = {"short": (4, 22), "long": (60, 300)}
CLASSES = Task(
    type="classification", system="s", input="i", instructions="x", output_schema={"type": "object"}, label_field="intent"
)  # fmt: skip


def make_texts(count: int, size: tuple[int, int], seed: int) -> tuple[list[str], list[float | None]]:
    """Texts of `size` words, every second one an edited copy; with the edit rate of each copy."""
    rng = random.Random(seed)
    syllables = ["ba", "ko", "li", "mu", "re", "sta", "ti", "no", "ve", "gra", "shi", "do", "pel", "un"]
    vocabulary = ["".join(rng.choices(syllables, k=rng.randint(1, 4))) for _ in range(4000)]
    weights = [1 / (rank + 10) for rank in range(len(vocabulary))]
    texts: list[str] = []
    rates: list[float | None] = []
    while len(texts) < count:
        text = rng.choices(vocabulary, weights, k=rng.randint(*size))
        rate = rng.choice(EDIT_RATES)
        edited = []
        for word in text:
            if rng.random() >= rate:
                edited.append(word)
            elif rng.random() < 0.67:
                edited.append(rng.choices(vocabulary, weights)[0])
        if edited == text:  # a message of 8 words has no 1 % edit: one word is added
            edited.append(rng.choice(vocabulary))
        texts += [" ".join(text), " ".join(edited)]
        rates += [None, rate]
    return texts, rates


def true_pairs(texts: Sequence[str]) -> dict[tuple[int, int], float]:
    """Every pair (i < j) whose Jaccard similarity reaches the threshold, by the rule of similarity.py."""
    tokens = [words(text) for text in texts]
    grams = {
        "words": [{tuple(t[i : i + 3]) for i in range(len(t) - 2)} if len(t) >= 8 else set() for t in tokens],
        "chars": [{n[i : i + 5] for i in range(max(1, len(n) - 4))} for n in map(normalise, texts)],
    }
    short = np.array([len(t) < 8 for t in tokens])
    pairs: dict[tuple[int, int], float] = {}
    for name, sets in grams.items():
        known: dict[object, int] = {}
        columns = [known.setdefault(gram, len(known)) for found in sets for gram in found]
        sizes = np.array([len(found) for found in sets])
        rows = np.repeat(np.arange(len(sets)), sizes)
        matrix = csr_matrix((np.ones(len(columns), dtype=np.int32), (rows, columns)), shape=(len(sets), len(known)))
        for start in range(0, len(sets), 500):
            shared = (matrix[start : start + 500] @ matrix.T).tocoo()
            first, second = shared.row + start, shared.col
            jaccard = shared.data / (sizes[first] + sizes[second] - shared.data)
            either = short[first] | short[second]
            take = (first < second) & (jaccard >= THRESHOLD) & (either if name == "chars" else ~either)
            pairs.update(zip(zip(first[take].tolist(), second[take].tolist(), strict=True), jaccard[take].tolist(), strict=True))
    return pairs


def docstrings(count: int, seed: int) -> list[str]:
    """`count` distinct real English texts of 400 to 4,000 characters: docstrings of the packages installed here."""
    found: set[str] = set()
    root = Path(sysconfig.get_paths()["purelib"])
    files = sorted(
        path for name in ("scipy", "sklearn", "numpy", "sympy", "pandas", "transformers", "torch") for path in (root / name).rglob("*.py")
    )
    random.Random(seed).shuffle(files)
    for path in files:
        found.update(
            text.strip() for text in re.findall(r'"""(.*?)"""', path.read_text(errors="replace"), re.DOTALL) if 400 <= len(text) <= 4000
        )
        if len(found) >= 2 * count:
            break
    texts = sorted(found)
    random.Random(seed).shuffle(texts)
    return texts[:count]


def edited(texts: Sequence[str], seed: int) -> list[str]:
    """Each text with a share of its words replaced or dropped."""
    rng = random.Random(seed)
    result = []
    for text in texts:
        rate, parts = rng.choice(EDIT_RATES), text.split(" ")
        kept = [rng.choice(parts) if rng.random() < 0.67 else "" for _ in parts]
        result.append(" ".join(other if rng.random() < rate else part for part, other in zip(parts, kept, strict=True)))
    return result


def found_pairs(texts: Sequence[str]) -> dict[tuple[int, int], float]:
    """Every pair that the search proposes and verifies."""
    sketches = sketch(texts)
    bands = Bands.of(sketches, THRESHOLD)
    keys = bands.keys.ravel()
    rows = np.repeat(np.arange(len(bands.keys)), bands.keys.shape[1])
    order = np.argsort(keys, kind="stable")
    bounds = np.flatnonzero(np.diff(keys[order])) + 1
    agree: dict[tuple[int, int], int] = {}
    for bucket in np.split(rows[order], bounds):
        members = bucket.tolist()
        for i, first in enumerate(members):
            for second in members[i + 1 :]:
                agree[first, second] = agree.get((first, second), 0) + 1
    candidates = {(int(bands.texts[a]), int(bands.texts[b])) for (a, b), count in agree.items() if count >= 2}
    one, other = (np.array(column, dtype=np.int64) for column in zip(*((a, b) for a, b in candidates if a != b), strict=True))
    exact = similarities(sketches, one, sketches, other)
    near = exact >= THRESHOLD
    return dict(zip(zip(one[near].tolist(), other[near].tolist(), strict=True), exact[near].tolist(), strict=True))


def greedy(count: int, pairs: dict[tuple[int, int], float]) -> set[int]:
    """Texts that are dropped when each is compared with those kept before it."""
    before: dict[int, list[int]] = {}
    for first, second in pairs:
        before.setdefault(second, []).append(first)
    dropped: set[int] = set()
    for position in range(count):
        if any(first not in dropped for first in before.get(position, ())):
            dropped.add(position)
    return dropped


def deduplicate(texts: Sequence[str], folder: Path) -> tuple[set[int], float]:
    """Texts in batches into a new store's file: verdicts, kept texts, band keys and groups. Which were dropped, and the CPU seconds."""
    path = folder / f"{time.monotonic_ns()}.duckdb"
    store = Store(path)
    ids = [f"{position:032x}" for position in range(len(texts))]
    dropped: set[int] = set()
    started = time.process_time()
    with store.seen_texts() as seen:
        for start in range(0, len(texts), BATCH):
            prompts = [Prompt(*row) for row in zip(ids[start : start + BATCH], [False] * BATCH, texts[start : start + BATCH], strict=False)]
            arrivals = meet(seen, prompts, THRESHOLD)
            reasons = [None if twin is None else near_reason(*twin) for twin in arrivals.twins]
            kept = [reason is None for reason in reasons]
            verdicts = list(map(Verdict, ids[start : start + BATCH], repeat("filter:near_duplicate"), kept, reasons))
            keep(seen, arrivals, kept, verdicts)
            dropped.update(start + position for position, stays in enumerate(kept) if not stays)
    taken = time.process_time() - started
    assert store.query("SELECT count(*) AS n FROM verdicts")[0]["n"] == len(texts)
    path.unlink()
    return dropped, taken


def datasketch_bulk(texts: Sequence[str]) -> float:
    """CPU seconds of datasketch by its README, with MinHash.bulk: 3-grams, 128 permutations, its own bands; in memory, unverified."""
    started = time.process_time()
    shingled = []
    for text in texts:
        found = re.findall(r"\w+", text.lower())
        shingled.append({f"{a} {b} {c}".encode() for a, b, c in zip(found, found[1:], found[2:], strict=False)} or {text.encode()})
    index = MinHashLSH(threshold=THRESHOLD, num_perm=128)
    for position, signature in enumerate(MinHash.bulk(shingled, num_perm=128)):
        index.query(signature)
        index.insert(position, signature)
    return time.process_time() - started


def share(bar: str, hits: int, total: int, conditions: str) -> Result:
    """A result that is a share, with its exact 95 % interval."""
    interval = binomtest(hits, total).proportion_ci(0.95, method="exact")
    return Result(bar, hits / total, "share", float(interval.low), float(interval.high), conditions)


def rate(bar: str, seconds: Sequence[float], count: int, conditions: str) -> Result:
    """A result that is a rate: the median, and the slowest and fastest run."""
    rates = [count / taken for taken in seconds]
    return Result(bar, round(statistics.median(rates)), "texts per CPU-second", round(min(rates)), round(max(rates)), conditions)


def quality(name: str, texts: Sequence[str], about: str) -> list[Result]:
    """Recall and precision of pairs, and of what is dropped, against exact truth."""
    truth, found = true_pairs(texts), found_pairs(texts)
    flags, expected = {i for i, kept in enumerate(_kept(texts)) if not kept}, greedy(len(texts), truth)
    return [
        share(f"pair recall, {name}", len(truth.keys() & found.keys()), len(truth), about),
        share(f"pair precision, {name}", len(truth.keys() & found.keys()), len(found), about),
        share(f"flag recall, {name}", len(flags & expected), len(expected), about),
        share(f"flag precision, {name}", len(flags & expected), len(flags), about),
    ]


def _kept(texts: Sequence[str]) -> list[bool]:
    with tempfile.TemporaryDirectory() as folder:
        dropped, _ = deduplicate(texts, Path(folder))
    return [position not in dropped for position in range(len(texts))]


def speed(name: str, texts: Sequence[str], about: str, runs: int = 5) -> list[Result]:
    """End to end, and datasketch in between."""
    ours, theirs = [], []
    sample = texts[: len(texts) // 5]
    with tempfile.TemporaryDirectory() as folder:
        deduplicate(texts[:BATCH], Path(folder))
        for _ in range(runs):
            ours.append(deduplicate(texts, Path(folder))[1])
            theirs.append(datasketch_bulk(sample))
    return [
        rate(f"text to committed rows, {name}", ours, len(texts), about),
        rate(f"datasketch bulk, {name}", theirs, len(sample), f"{about}; {len(sample):,} of them, in memory, unverified"),
    ]


def example(text: str, number: int) -> Example:
    return Example(
        item_id=f"t:g:{number}", topic="t", generator="g", prompt=(Message(role="user", content=text),), completion='{"intent":"a"}',
        answer={"intent": "a"}, label="a",
    )  # fmt: skip


def main() -> None:
    """Measure, print and write."""
    gc.freeze()  # what was imported is no garbage: as a run of its own would find it
    results: list[Result] = []
    where = f"{machine()}, one process"
    for kind, size in KINDS.items():
        texts, rates = make_texts(4000, size, seed=11)
        about = f"4,000 {kind} texts ({size[0]}-{size[1]} words), half edited copies, Jaccard >= {THRESHOLD}; {where}"
        results += quality(kind, texts, about)
        kept = _kept(texts)
        for edit in EDIT_RATES:
            copies = [i for i, r in enumerate(rates) if r == edit]
            results.append(share(f"copies dropped at {edit:.0%} edits, {kind}", sum(not kept[i] for i in copies), len(copies), about))
    real = docstrings(10_000, seed=21)
    copies = edited(real[:5000], seed=22)
    mixed = [*real, *copies]
    random.Random(23).shuffle(mixed)
    characters = statistics.mean(map(len, mixed))
    about = f"{len(real):,} docstrings and {len(copies):,} edited copies, {characters:,.0f} characters on average, Jaccard >= {THRESHOLD}; {where}"
    results += quality("real", mixed, about)
    results += speed("real", mixed, about)
    for kind, size in KINDS.items():
        texts, _ = make_texts(20_000, size, seed=12)
        results += speed(kind, texts, f"20,000 {kind} texts ({size[0]}-{size[1]} words), half edited copies; {where}", runs=3)
        examples = [example(text, number) for number, text in enumerate(texts[:BATCH])]
        exam_texts = tuple(make_texts(1000, size, seed=13)[0])
        exam = EvaluationSet(name="exam", path="exam", texts=exam_texts, labels=(None,) * 1000, sha256="0" * 64)
        guarded = FilterContext(task=CLASSES, evaluation_sets=(exam,))
        taken = []
        for _ in range(3):
            started = time.process_time()
            decontaminate(examples, guarded)
            taken.append(time.process_time() - started)
        results.append(rate(f"decontaminate, {kind}", taken, BATCH, f"10,000 {kind} examples to verdicts, 1,000 exam rows; {where}"))
    _publish(results)
    gc.unfreeze()  # DuckDB's bindings take what is frozen at the end for leaks


def growth(folder: Path, source: Path) -> None:
    """What a large store costs."""
    folder.mkdir(parents=True, exist_ok=True)
    rows = 1_000_000
    path, context = folder / "million.duckdb", FilterContext(task=CLASSES, labels={"a": ""})
    if not path.exists():
        fill(path, context, rows)
    walls, seconds = [], []
    copies = [f"{text} yet" for text in many_texts(100_000, seed=0)[:1000]]
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for run in range(5):
        number = time.time_ns()
        texts = many_texts(1000, seed=number % 2**32)
        texts[::5] = copies[run * 200 : run * 200 + 200]
        store = Store(path)
        with store.writing():
            for position, text in enumerate(texts):
                item = PlanItem(topic="t", generator="g", index=number + position, count=1)
                store.add_item(item, "done", [example(text, number + position)])
        wall, started = time.perf_counter(), time.process_time()
        report = curate_new(Store(path), context)
        walls.append(time.perf_counter() - wall)
        seconds.append(time.process_time() - started)
        assert report is not None
        assert sum(r.examples for r in report.reasons if r.by == "filter:near_duplicate") >= 50
    memory = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
    about = f"1,000 new among {rows:,} stored, open to close, 200 of them near copies; {machine()}, load {os.getloadavg()[0]:.1f}"
    results = [
        Result("growth: adding 1,000, wall", statistics.median(walls), "s", min(walls), max(walls), about),
        Result("growth: adding 1,000, CPU of all threads", statistics.median(seconds), "s", min(seconds), max(seconds), about),
        Result("growth: adding 1,000, memory", memory, "MiB", memory, memory, f"peak above what was in use before; {about}"),
    ]
    path = folder / "hundred_thousand.duckdb"
    work = _open(Path("recipes/banking.yaml"), source)
    if not path.exists():
        multiply(source, path, 100_000)
    wall, started = time.perf_counter(), time.process_time()
    report = curate(Store(path), _filter_context(work))
    wall, started = time.perf_counter() - wall, time.process_time() - started
    about = f"{report.examples:,} examples of the demo's kind, all filters, {report.accepted:,} accepted; {machine()}, load {os.getloadavg()[0]:.1f}"
    results.append(Result("growth: curate 100,000, wall", wall, "s", wall, wall, about))
    results.append(Result("growth: curate 100,000, CPU", started, "s", started, started, about))
    _publish(results)


def many_texts(count: int, seed: int) -> list[str]:
    """Texts of 9 to 30 words from a Zipf vocabulary, made quickly."""
    rng = random.Random(1)
    syllables = ["ba", "ko", "li", "mu", "re", "sta", "ti", "no", "ve", "gra", "shi", "do", "pel", "un"]
    vocabulary = np.array(["".join(rng.choices(syllables, k=rng.randint(1, 4))) for _ in range(4000)], dtype=object)
    weights = 1 / (np.arange(4000) + 10)
    draw = np.random.default_rng(seed)
    sizes = draw.integers(8, 30, count)
    drawn = vocabulary[draw.choice(4000, size=sizes.sum(), p=weights / weights.sum())].tolist()
    ends = np.cumsum(sizes).tolist()
    return ["the " + " ".join(drawn[end - size : end]) for end, size in zip(ends, sizes.tolist(), strict=True)]


def fill(path: Path, context: FilterContext, rows: int) -> None:
    """A store of `rows` curated examples, written by SQL."""
    Store(path)
    with duckdb.connect(str(path)) as con:
        con.execute("SET checkpoint_threshold = '1GB'")
        for start in range(0, rows, 100_000):
            con.register("made", {"i": np.arange(start, start + 100_000), "t": np.array(many_texts(100_000, start), dtype=object)})
            con.execute(
                "INSERT INTO examples (id, item_id, topic, generator, prompt, completion, answer, label, dimensions, scores, calls, run_id) "
                "SELECT md5(i::VARCHAR), 't:g:' || i // 4, 't', 'g', [{'role': 'user', 'content': t}], '{\"intent\":\"a\"}', "
                "'{\"intent\":\"a\"}', 'a', '{}', '{}', [md5('c' || i)], 'r' FROM made"
            )
            con.execute(
                "INSERT INTO items (id, topic, generator, count, plan, status, example_ids, planned, run_id) "
                "SELECT 't:g:' || i // 4, 't', 'g', 4, '{}', 'done', list(md5(i::VARCHAR)), true, 'r' FROM made GROUP BY i // 4"
            )
            for name in (*GATES, *EXAMPLE_FILTERS, *SET_FILTERS):
                con.execute(
                    f"INSERT INTO verdicts (example_id, decided_by, keep, reason, created_at) SELECT md5(i::VARCHAR), 'filter:{name}', true, NULL, now()::TIMESTAMP FROM made"
                )
            con.execute("INSERT INTO groups SELECT md5(i::VARCHAR), md5(i::VARCHAR) FROM made")
            con.unregister("made")
    store = Store(path)
    with store.seen_texts() as seen:
        prompts = []
        for start in range(0, rows, 100_000):
            ids = [hashlib.md5(str(i).encode(), usedforsecurity=False).hexdigest() for i in range(start, start + 100_000)]
            prompts += [Prompt(example_id, False, text) for example_id, text in zip(ids, many_texts(100_000, start), strict=True)]
        remember(seen, prompts, THRESHOLD)
    arrived = store.arrivals(MARK)
    store.set_settings({MARK: mark(context, arrived.people, arrived.everything)})


def multiply(source: Path, path: Path, count: int) -> None:
    """A store of `count` examples: those of another store, and copies with a third of their words more."""
    examples = Store(source).current_examples()
    rng = random.Random(3)
    vocabulary = sorted({word for e in examples for word in e.input.split() if word.isalpha()})
    store = Store(path)
    with store.writing():
        for number in range(count):
            one = examples[number % len(examples)]
            if number >= len(examples):
                text = one.input.split()
                for _ in range(3 + len(text) // 3):
                    text.insert(rng.randrange(len(text) + 1), rng.choice(vocabulary))
                prompt = (*one.prompt[:-1], Message(role="user", content=" ".join(text)))
                fields = {name: getattr(one, name) for name in Example.model_fields}
                one = Example(**{**fields, "prompt": prompt, "item_id": f"{one.topic}:{one.generator}:{number}"})
            store.add_item(PlanItem(topic=one.topic, generator=one.generator, index=10**6 + number, count=1), "done", [one])
            if number % 20_000 == 0:
                store.flush()


def _publish(results: list[Result]) -> None:
    """Rows of the other part stay as they were."""
    path = RESULTS / "dedup.json"
    old = [Result(**row) for row in json.loads(path.read_text(encoding="utf-8"))] if path.exists() else []
    new = {result.bar for result in results}
    growth = [row for row in old if row.bar.startswith("growth") and row.bar not in new]
    rest = [row for row in old if not row.bar.startswith("growth")] if results[0].bar.startswith("growth") else []
    publish("dedup", [*rest, *results, *growth])


if __name__ == "__main__":
    if sys.argv[1:2] == ["growth"]:
        growth(Path(sys.argv[2]), Path(sys.argv[3] if len(sys.argv) > 3 else "data/banking.duckdb"))
    else:
        main()

"""Near-duplicate search against exact truth: `python -m benchmarks.dedup` (about a minute on one core).

Texts are drawn from a Zipf vocabulary; half are copies of earlier ones with a share of their words replaced, dropped or swapped.
Truth is the Jaccard similarity of every pair, from a sparse matrix product over plain n-grams: it shares no code with the
search but the tokeniser. Writes benchmarks/results/dedup.json.
"""

import json
import platform
import random
import statistics
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from scipy.sparse import csr_matrix
from scipy.stats import binomtest

from datagen.filters import FilterContext
from datagen.filters.decontaminate import decontaminate
from datagen.filters.dedup import group_ids, near_duplicate
from datagen.filters.similarity import NearTexts, normalise, words
from datagen.records import EvaluationSet, Example, Message, Task

THRESHOLD = 0.8
EDIT_RATES = (0.01, 0.02, 0.05, 0.1, 0.2)
KINDS = {"short": (4, 22), "long": (60, 300)}
RESULTS = Path(__file__).parent / "results" / "dedup.json"


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


def found_pairs(texts: Sequence[str]) -> dict[tuple[int, int], float]:
    """What the search finds when every text is added."""
    index = NearTexts(texts, THRESHOLD)
    pairs = {}
    for position in range(len(texts)):
        pairs.update({(twin.position, position): twin.similarity for twin in index.near(position)})
        index.add(position)
    return pairs


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


def texts_per_cpu_second(work: Callable[[], object], count: int, runs: int = 3) -> list[float]:
    """One rate per run."""
    rates = []
    for _ in range(runs):
        started = time.process_time()
        work()
        rates.append(count / (time.process_time() - started))
    return rates


def share(bar: str, hits: int, total: int, conditions: str) -> dict[str, object]:
    """A result that is a share, with its exact 95 % interval."""
    interval = binomtest(hits, total).proportion_ci(0.95, method="exact")
    low, high = round(float(interval.low), 5), round(float(interval.high), 5)
    return {"bar": bar, "value": round(hits / total, 5), "unit": "share", "low": low, "high": high, "conditions": conditions}


def speed(bar: str, rates: Sequence[float], conditions: str) -> dict[str, object]:
    """A result that is a rate: the median, and the slowest and fastest run."""
    return {
        "bar": bar, "value": round(statistics.median(rates)), "unit": "texts per CPU-second", "low": round(min(rates)),
        "high": round(max(rates)), "conditions": conditions,
    }  # fmt: skip


def main() -> None:
    """Measure, print and write."""
    machine = f"{platform.machine()}, Python {platform.python_version()}, one process"
    task = Task(type="generation", system="", input="", instructions="", output_schema={"type": "object"})
    results: list[dict[str, object]] = []
    for kind, size in KINDS.items():
        texts, rates = make_texts(4000, size, seed=11)
        truth, found = true_pairs(texts), found_pairs(texts)
        about = f"4,000 {kind} texts ({size[0]}-{size[1]} words), half edited copies, Jaccard >= {THRESHOLD}; {machine}"
        hits = truth.keys() & found.keys()
        results.append(share(f"pair recall, {kind}", len(hits), len(truth), about))
        results.append(share(f"pair precision, {kind}", len(hits), len(found), about))
        flags, expected = greedy(len(texts), found), greedy(len(texts), truth)
        results.append(share(f"flag recall, {kind}", len(flags & expected), len(expected), about))
        results.append(share(f"flag precision, {kind}", len(flags & expected), len(flags), about))
        for rate in EDIT_RATES:
            copies = [i for i, r in enumerate(rates) if r == rate]
            dropped = sum(i in flags for i in copies)
            results.append(share(f"copies dropped at {rate:.0%} edits, {kind}", dropped, len(copies), about))
        texts, _ = make_texts(10_000, size, seed=12)
        examples = [
            Example(
                item_id=f"t:g:{i}", topic="t", generator="g", prompt=(Message(role="user", content=text),), completion="{}"
            )
            for i, text in enumerate(texts)
        ]  # fmt: skip
        about = f"10,000 {kind} texts, text to verdicts, in memory; {machine}"
        context = FilterContext(task=task)
        rate_list = texts_per_cpu_second(lambda e=examples, c=context: near_duplicate(e, c), 10_000)
        results.append(speed(f"near_duplicate, {kind}", rate_list, about))
        results.append(speed(f"group_ids, {kind}", texts_per_cpu_second(lambda e=examples: group_ids(e), 10_000), about))
        exam_texts = tuple(make_texts(1000, size, seed=13)[0])
        exam = EvaluationSet(name="exam", path="exam", texts=exam_texts, labels=(None,) * 1000, sha256="0" * 64)
        guarded = FilterContext(task=task, evaluation_sets=(exam,))
        rate_list = texts_per_cpu_second(lambda e=examples, c=guarded: decontaminate(e, c), 10_000)
        results.append(speed(f"decontaminate, {kind}", rate_list, f"{about}; 1,000 exam rows"))
    for row in results:
        print(f"{row['bar']:<42} {row['value']:>10} {row['unit']:<22} [{row['low']}, {row['high']}]")
    RESULTS.parent.mkdir(parents=True, exist_ok=True)
    RESULTS.write_text(json.dumps(results, indent=2) + "\n", encoding="utf-8")
    print(f"written: {RESULTS}")


if __name__ == "__main__":
    main()

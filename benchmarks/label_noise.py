"""How many of the offline teacher's planted wrong labels the filter `label_noise` finds by the texts alone, and at what false alarms.

    python benchmarks/label_noise.py [data/banking.duckdb]

Run after `make datagen`. The label of an example is the one that its answer has: what it was asked for is not told to the filter, nor are facts
and policy, so the filter `truth` has nothing to go by. A false alarm is a drop of an example without a planted fault whose answer has the
label that it was asked for.
"""

import json
import sys
import time
from collections import defaultdict
from pathlib import Path

from results_file import Result, machine, publish
from scipy.stats import binomtest

from datagen.filters import EXAMPLE_FILTERS, FilterContext, label_noise
from datagen.store import Store
from datagen.taxonomy import load_taxonomy

LEADS = (0.2, 0.4, 0.5, 0.6)


def share(name: str, count: int, total: int, note: str) -> Result:
    found = binomtest(count, total).proportion_ci(method="exact")
    return Result(name, count / total, "share", float(found.low), float(found.high), f"{note}; {machine()}")


def main() -> None:
    path = Path(sys.argv[1] if len(sys.argv) > 1 else "data/banking.duckdb")
    taxonomy, _ = load_taxonomy(Path("taxonomies/banking_support.yaml"))
    examples = [example for example in Store(path).current_examples() if example.answer is not None]
    by_call, by_input = defaultdict(set), defaultdict(set)
    for example in examples:
        by_call[example.calls[-1]].add(example.id)
        by_input[example.input].add(example.id)
    planted: set[str] = set()
    faulty: set[str] = set()
    for line in path.with_suffix(".faults.jsonl").read_text().splitlines():
        fault = json.loads(line)
        carriers = by_input[fault["detail"]["text"].strip()] if "text" in fault["detail"] else by_call[fault["request_id"]]
        faulty |= carriers
        if fault["kind"] == "wrong_label":
            planted |= by_call[fault["request_id"]]
    clean = {e.id for e in examples if e.id not in faulty and e.label is not None and e.answer and e.answer.get("intent") == e.label}
    blind = FilterContext(task=taxonomy.task, labels=taxonomy.labels())
    seen = {e.id for e in examples if EXAMPLE_FILTERS["truth"](e.model_copy(update={"label": None}), blind)}
    results = [share("caught by truth, which knows no label", len(planted & seen), len(planted), f"{len(planted)} planted wrong labels")]
    for lead in LEADS:
        started = time.process_time()
        context = FilterContext(task=taxonomy.task, labels=taxonomy.labels(), settings={"label_noise": {"lead": lead}})
        dropped = {verdict.example_id for verdict in label_noise(examples, context) if not verdict.keep}
        took = f"{time.process_time() - started:.1f} CPU seconds for {len(examples)} examples"
        results.append(share(f"lead {lead}: caught", len(planted & dropped), len(planted), f"{len(planted)} planted wrong labels; {took}"))
        results.append(share(f"lead {lead}: false alarms", len(clean & dropped), len(clean), f"{len(clean)} clean examples"))
    publish("label_noise", results)


if __name__ == "__main__":
    main()

"""How many of the offline teacher's planted faults the filters catch, by kind, and how often they drop what has none.

    python benchmarks/faults.py [data/banking.duckdb]     the faults of the demo's recipe; run after `make datagen`
    python benchmarks/faults.py all                       all kinds, in a store of its own (about two minutes)

A fault is caught when no accepted example carries it; a near-duplicate, when not both of the twins are
accepted; an answer that cannot be read, when no example was made of it. A fault of form (the kinds that the demo does not plant) is caught
only when the filter that is meant for it dropped the example. False alarms are counted on examples without a planted
fault: a drop counts unless it is for a repetition (the grammar repeats itself honestly) or for a pair without a difference.
The simulated teacher also misreads messages by itself, about one in a hundred: it answers with another label than the message was
written for. Such an answer is wrong though nobody planted it, and to drop it is no false alarm; its share has a row of its own.
"""

import json
import subprocess
import sys
import tempfile
from collections import Counter, defaultdict
from pathlib import Path

import yaml
from results_file import RESULTS, Result, machine, publish
from scipy.stats import binomtest

from datagen.store import Store

ROOT = Path(__file__).resolve().parents[1]
ALL = "all kinds: "
SCALE = "0.4"
# faults of form, with the filter that is meant for each
FORM = {
    "repetition": "repetition", "placeholder": "placeholder", "leaked_prompt": "leak", "secret": "pii", "inner_refusal": "refusal",
    "foreign": "language",
}  # fmt: skip
UNREADABLE = {"invalid_json", "truncated"}
NOT_ALARMS = {"filter:duplicate", "filter:near_duplicate", "filter:preference"}


def interval(count: int, total: int) -> tuple[float, float]:
    found = binomtest(count, total).proportion_ci(method="exact")
    return float(found.low), float(found.high)


def main() -> None:
    if sys.argv[1:] == ["all"]:
        with tempfile.TemporaryDirectory() as folder:
            results = [result._replace(bar=ALL + result.bar) for result in measure(make_all_kinds(Path(folder)))]
    else:
        results = measure(Path(sys.argv[1] if len(sys.argv) > 1 else "data/banking.duckdb"))
    path = RESULTS / "faults.json"
    old = [Result(**row) for row in json.loads(path.read_text(encoding="utf-8"))] if path.exists() else []
    is_all = results[0].bar.startswith(ALL)
    others = [row for row in old if row.bar.startswith(ALL) != is_all]
    publish("faults", [*others, *results] if is_all else [*results, *others])


def make_all_kinds(folder: Path) -> Path:
    """A curated store of the demo's recipe with every kind of fault switched on."""
    recipe = yaml.safe_load((ROOT / "recipes/banking.yaml").read_text(encoding="utf-8"))
    recipe["teachers"]["teacher"]["params"]["faults"].update(dict.fromkeys(FORM, 0.03))
    path, store = folder / "all-kinds.yaml", folder / "all-kinds.duckdb"
    path.write_text(yaml.safe_dump(recipe), encoding="utf-8")
    for command in (["generate", "--scale", SCALE, "--quiet"], ["curate"]):
        done = subprocess.run(
            [sys.executable, "-m", "datagen", *command, "--recipe", str(path), "--store", str(store)], cwd=ROOT, stdout=subprocess.DEVNULL
        )
        if done.returncode not in (0, 1):
            sys.exit(done.returncode)
    return store


def measure(path: Path) -> list[Result]:
    """The rows of one store: caught by kind, misread, false alarms in all and by filter."""
    store = Store(path)
    side_file = path.with_suffix(".faults.jsonl")
    weak = {row["id"] for row in store.query("SELECT id FROM calls WHERE role <> 'teacher'")}
    known = {row["id"] for row in store.query("SELECT id FROM calls")}
    accepted = {row["id"] for row in store.query("SELECT id FROM accepted")}
    dropped = {(row["example_id"], row["decided_by"]) for row in store.query("SELECT example_id, decided_by FROM verdicts WHERE NOT keep")}
    examples = store.current_examples()
    by_call = defaultdict(list)
    by_input = defaultdict(list)
    for example in examples:
        by_input[example.input].append(example)
        for call in example.calls:
            by_call[call].append(example)
    faults = {json.dumps(json.loads(line), sort_keys=True): json.loads(line) for line in side_file.read_text().splitlines()}
    caught: Counter[str] = Counter()
    planted: Counter[str] = Counter()
    faulty: set[str] = set()
    for fault in faults.values():
        request, kind, detail = fault["request_id"], fault["kind"], fault["detail"]
        if request in weak or request not in known or kind in ("rate_limited", "slow"):
            continue
        if "text" in detail:  # in a written message: the examples with that input that this call wrote
            carriers = [e for e in by_input[detail["text"].strip()] if request in e.calls]
        else:  # in an answer: the examples whose completion this call wrote
            carriers = [e for e in by_call[request] if e.calls[-1] == request]
        faulty.update(e.id for e in carriers)
        if not carriers:
            if kind in UNREADABLE | {"refusal"}:
                planted[kind] += 1
                caught[kind] += 1
            continue
        planted[kind] += 1
        kept = [e for e in carriers if e.id in accepted]
        if kind == "near_duplicate":
            twins = [e for e in by_input[detail["of"].strip()] if e.id in accepted and e.id not in {k.id for k in kept}]
            caught[kind] += not (kept and twins)
        elif kind in FORM:
            caught[kind] += all((e.id, f"filter:{FORM[kind]}") in dropped for e in carriers)
        else:
            caught[kind] += not kept
    results = [
        Result(
            f"caught: {kind}",
            caught[kind] / planted[kind],
            "share",
            *interval(caught[kind], planted[kind]),
            f"{planted[kind]} planted; {machine()}",
        )
        for kind in sorted(planted)
    ]
    sound = [e for e in examples if e.id not in faulty]
    label_field = "intent"
    misread = {e.id for e in sound if e.label is not None and e.answer is not None and e.answer.get(label_field) != e.label}
    results.append(
        Result(
            "misread by the teacher",
            len(misread) / len(sound),
            "share",
            *interval(len(misread), len(sound)),
            f"{len(sound)} examples without a planted fault",
        )
    )
    results.append(
        Result(
            "caught: misread",
            len(misread - accepted) / len(misread),
            "share",
            *interval(len(misread - accepted), len(misread)),
            f"{len(misread)} misread",
        )
    )
    clean = [e.id for e in sound if e.id not in misread]
    alarms = {
        row["example_id"]
        for row in store.query(
            f"SELECT DISTINCT example_id FROM verdicts WHERE NOT keep AND decided_by LIKE 'filter:%' AND decided_by NOT IN {tuple(sorted(NOT_ALARMS))}"
        )
    } & set(clean)
    results.append(
        Result("false alarms", len(alarms) / len(clean), "share", *interval(len(alarms), len(clean)), f"{len(clean)} clean examples")
    )
    by_filter = Counter(
        row["decided_by"]
        for row in store.query("SELECT example_id, decided_by FROM verdicts WHERE NOT keep AND decided_by LIKE 'filter:%'")
        if row["example_id"] in alarms
    )
    for name, count in sorted(by_filter.items()):
        if name not in NOT_ALARMS:
            results.append(
                Result(f"false alarms by {name}", count / len(clean), "share", *interval(count, len(clean)), f"{len(clean)} clean examples")
            )
    return results


if __name__ == "__main__":
    main()

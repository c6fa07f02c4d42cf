"""The dataset card, README.md of an export, in the Hub's form: https://huggingface.co/docs/hub/datasets-cards.

It is written from the manifest alone, so that it says nothing that the manifest does not know. Names of topics, reasons and terms are
other people's text: what Markdown or HTML would obey is escaped.
"""

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from datagen.diversity import Supply, said
from datagen.records import Task

_SPLITS = ("train", "validation", "test")
_MOST_TOPICS = 200
_MOST_CHARACTERS = 1500
_CATEGORIES = {
    "classification": "text-classification",
    "extraction": "text-generation",
    "question_answering": "question-answering",
    "generation": "text-generation",
    "conversation": "text-generation",
}
_MEASURES = {
    "distinct_1": "distinct-1", "distinct_2": "distinct-2", "distinct_3": "distinct-3", "self_bleu": "self-BLEU (lower is more diverse)",
    "compression": "compression ratio (lower is more diverse)", "entropy": "normalised entropy of word bigrams",
}  # fmt: skip

_TRAINERS = {"sft": "SFTTrainer", "preference": "DPOTrainer", "unpaired": "KTOTrainer"}
_NONE = {"rows": 0}

Manifest = Mapping[str, Any]


def card(manifest: Manifest, task: Task, sample: Mapping[str, Any] | None = None) -> str:
    """The card of an export; `sample` is one of its rows."""
    parts = [
        _metadata(manifest, task), _summary(manifest, task), _loading(manifest), _rows(manifest), _columns(manifest, sample),
        _making(manifest), _dropped(manifest), _decontamination(manifest), _diversity(manifest), _cost(manifest), _review(manifest),
        _licence(manifest), _limits(manifest), _reproducing(manifest),
    ]  # fmt: skip
    return "\n".join(line for part in parts for line in part) + "\n"


def _kinds(manifest: Manifest) -> list[str]:
    """The kinds of row that the export has: SFT always, pairs and judged answers where there are some."""
    files = manifest["files"]
    return [kind for kind in _TRAINERS if any(files.get(f"{kind}/{part}.parquet", _NONE)["rows"] for part in _SPLITS)]


def _metadata(manifest: Manifest, task: Task) -> list[str]:
    """YAML, with every free text as JSON, which YAML contains."""
    simulated = any(teacher.get("simulated") for teacher in manifest["teachers"])
    tags = ["imported"] if _imported(manifest) else ["synthetic", "distillation", *(["simulated-teacher"] if simulated else [])]
    lines = ["---", f"pretty_name: {json.dumps(manifest['name'])}", f"language: [{json.dumps(task.language)}]"]
    lines += ["license: other", "license_name: terms-of-the-teachers", f"task_categories: [{_CATEGORIES[task.type]}]"]
    lines += [f"tags: {json.dumps(tags)}", f"size_categories: [{_size(manifest['data']['accepted'])}]"]
    made = "machine-generated" if not _imported(manifest) else "other"  # whoever wrote the owner's rows
    lines += [f"annotations_creators: [{made}]", f"language_creators: [{made}]", "source_datasets: [original]"]
    lines += ["configs:"]
    for number, kind in enumerate(_kinds(manifest)):
        lines += [f"- config_name: {kind}", *(["  default: true"] if not number else []), "  data_files:"]
        lines += [
            f"  - {{split: {part}, path: {kind}/{part}.parquet}}"
            for part in _SPLITS
            if manifest["files"].get(f"{kind}/{part}.parquet", _NONE)["rows"]
        ]
    return [*lines, "---", ""]


def _imported(manifest: Manifest) -> str:
    """The files that the rows were imported from, in words; empty where they were made by a recipe."""
    return ", ".join(f"`{_words(source['file'])}`" for source in manifest["recipe"].get("imported", ()))


def _size(rows: int) -> str:
    """The Hub's size category."""
    for bound, name in ((1_000, "n<1K"), (10_000, "1K<n<10K"), (100_000, "10K<n<100K"), (1_000_000, "100K<n<1M")):
        if rows < bound:
            return name
    return "1M<n<10M"


def _summary(manifest: Manifest, task: Task) -> list[str]:
    data = manifest["data"]
    lines = [f"# {_words(manifest['name'])}", ""]
    if files := _imported(manifest):
        lines += [f"Rows of the owner's own, imported from {files}: {data['accepted']:,} of {data['examples']:,}."]
    else:
        lines += [f"Synthetic training data made by Retort from the taxonomy `{manifest['taxonomy'].get('name', '')}`: "]
        lines[-1] += f"{data['accepted']:,} rows were accepted of {data['examples']:,} that were made."
    lines[-1] += f" Created {manifest['created']}."
    if any(teacher.get("simulated") for teacher in manifest["teachers"]):
        lines += ["", "**The teacher was simulated**: a procedural program of the project, no language model, wrote these rows. They show"]
        lines += ["that the pipeline works; they are not a sample of what people write."]
    lines += ["", f"Task: {task.type.replace('_', ' ')}. Each input is {_words(task.input)}."]
    return [*lines[:-1], f"{lines[-1]} The student's system message:", "", f"> {_words(task.system)}"] if task.system else lines


def _loading(manifest: Manifest) -> list[str]:
    lines = ["", "## How to load", "", "```python", "from datasets import load_dataset", ""]
    lines += [f'{kind} = load_dataset("path/to/this/folder", "{kind}")' for kind in _kinds(manifest)]
    lines += [
        "```",
        "",
        "Columns are TRL's: " + ", ".join(f"`{_TRAINERS[kind]}` takes `{kind}`" for kind in _kinds(manifest)),
    ]
    lines[-1] += ". The same rows are in `sft.jsonl`, `preference.jsonl` and `sharegpt.jsonl`."
    return [*lines, "`evaluation/` holds external exams, never to be trained on. `manifest.json` has the hash of every file."]


def _rows(manifest: Manifest) -> list[str]:
    files, splits = manifest["files"], manifest["data"]["splits"]
    kinds = [kind for kind in _TRAINERS if f"{kind}/train.parquet" in files]
    counts = [(kind, *(f"{files.get(f'{kind}/{part}.parquet', _NONE)['rows']:,}" for part in _SPLITS)) for kind in kinds]
    lines = ["", "## Rows", "", *_table(("", *_SPLITS), counts)]
    lines += ["", "Near-duplicates share a `group_id`, and a group lies in one split."]
    if "grounding.jsonl" in files:
        grounded = files["grounding.jsonl"]["rows"]
        lines += [
            "",
            f"{grounded:,} rows were made from documents: `grounding.jsonl` names the file and the passage of each, and the words in",
        ]
        lines += ["it that prove the answer."]
    for part in ("generator", "topic"):
        rows = [(row["name"], *(f"{row[split]:,}" for split in _SPLITS)) for row in splits if row["part"] == part]
        lines += ["", *_table((part, *_SPLITS), rows[:_MOST_TOPICS])]
        if len(rows) > _MOST_TOPICS:
            lines += ["", f"And {len(rows) - _MOST_TOPICS:,} topics more."]
    return lines


def _columns(manifest: Manifest, sample: Mapping[str, Any] | None) -> list[str]:
    reasoning = {"think": ", with its reasoning in `<think>` where there is one", "plain": ", after its reasoning where there is one"}
    lines = ["", "## Columns", "", *_table(("column", "holds"), [
        ("`prompt`", "messages: the system message and the user's input"),
        ("`completion`", "`sft`: the assistant's message" + reasoning.get(manifest["reasoning"], "")),
        ("`chosen`, `rejected`", "`preference`: the better and the worse answer to one prompt"),
        *([("`label`, `reason`", "`unpaired`: whether the completion was accepted; if not, what a person, a judge or known truth said")]
          if "unpaired" in _kinds(manifest) else []),
        ("`id`, `group_id`", "the row's content hash; the group of near-duplicates that it is in"),
        ("`topic`, `generator`, `kind`", "the taxonomy's leaf, who made it, and for adversarial inputs how"),
        ("`dimensions`", "what was drawn for the row, as JSON"),
        ("`label`", "the label that a right answer has, where it was known before anyone answered"),
    ])]  # fmt: skip
    if sample:
        text = json.dumps(sample, ensure_ascii=False, indent=1)
        text = text if len(text) <= _MOST_CHARACTERS else text[:_MOST_CHARACTERS] + " ..."
        fence = "`" * max(3, 1 + max((len(run) for run in re.findall("`+", text)), default=0))
        lines += ["", "A row:", "", f"{fence}json", text, fence]
    return lines


def _making(manifest: Manifest) -> list[str]:
    rows = [(row["generator"], f"{row['examples']:,}", f"{row['accepted']:,}") for row in manifest["data"]["generators"]]
    lines = [
        "",
        "## How it was made",
        "",
        "Each generator asks a teacher for inputs of a topic, and for answers to them. Filters, a judge and",
    ]
    lines += ["people decide what is kept.", "", *_table(("generator", "examples", "accepted"), rows), ""]
    models = []
    for teacher in manifest["teachers"]:
        terms, decision = teacher["terms"], teacher["decision"]
        source = f"{terms['source']} (read {terms['read'] or 'by nobody of the project'})"
        decided = f"{decision['by']}: {decision['decision']}" if decision else "the table"
        simulated = "yes" if teacher["simulated"] else "no"
        models.append((teacher["role"], teacher["model"], simulated, terms["may_train"], terms["says"], source, decided))
    return [*lines, *_table(("role", "model", "simulated", "outputs may train", "restriction", "source", "decided by"), models)]


def _dropped(manifest: Manifest) -> list[str]:
    data = manifest["data"]
    lines = ["", "## What was dropped, and why", "", f"{data['rejected']:,} of {data['examples']:,} examples. One that several filters"]
    rows = [(row["by"], row["reason"], f"{row['count']:,}") for row in data["reasons"]]
    return [*lines, "drop counts for each.", "", *_table(("by", "reason", "examples"), rows)]


def _decontamination(manifest: Manifest) -> list[str]:
    sets = manifest["decontamination"]["sets"]
    lines = ["", "## Decontamination", ""]
    retired = [
        line
        for name, said in manifest["decontamination"]["retired"].items()
        for line in ("", f"Retired, and not checked any more: {_words(name)}, by {_words(said['by'])}: {_words(said['decision'])}")
    ]
    if not sets:
        return [*lines, "The recipe names no evaluation set, so there was nothing to check against.", *retired]
    lines += ["Every row was checked against these sets, by the same text, shared runs of words, and near-duplicates.", ""]
    return [
        *lines,
        *_table(
            ("evaluation set", "rows", "rows found", "examples dropped"),
            [(s["name"], f"{s['rows']:,}", f"{len(s['rows_hit']):,}", f"{s['dropped']:,}") for s in sets],
        ),
        *retired,
    ]


def _diversity(manifest: Manifest) -> list[str]:
    found = manifest["data"]["diversity"]
    lines = ["", "## Diversity", ""]
    for name in ("inputs", "answers"):
        kind = found[name]
        if kind is None:
            continue
        rows = [
            (
                words,
                f"{kind[key]['value']:.3f}",
                f"{kind[key]['low']:.3f} to {kind[key]['high']:.3f}" if kind[key]["low"] is not None else "-",
            )
            for key, words in _MEASURES.items()
            if kind[key]
        ]
        lines += [f"Of {name}, as means over {kind['blocks']} blocks of {kind['size']} texts (compare with blocks of that size only):", ""]
        lines += [*_table(("measure", "mean", "95 % interval"), rows), ""]
    if found["balance"]:
        lines += [
            f"Rows lie over {found['balance']['topics']:,} topics with a normalised entropy of {found['balance']['entropy']:.3f} (1 is"
        ]
        lines += [f"even). {found['balance']['misplaced']:.1%} would have to lie in other topics to match the plan.", ""]
    return [*lines, f"The generators: {said(Supply.model_validate({**found['supply'], 'windows': ()}))}"]


def _cost(manifest: Manifest) -> list[str]:
    costs, accepted = manifest["data"]["costs"], manifest["data"]["accepted"]
    cost, calls = sum(row["cost_usd"] or 0 for row in costs), sum(row["calls"] for row in costs)
    rows = [
        (
            row["role"], row["model"], f"{row['calls']:,}", f"{row['prompt_tokens'] or 0:,}", f"{row['completion_tokens'] or 0:,}",
            f"{row['cost_usd'] or 0:.2f}",
        )
        for row in costs
    ]  # fmt: skip
    lines = [
        "",
        "## Cost",
        "",
        f"{calls:,} calls, {cost:.2f} US dollars: {cost / accepted:.4f} for each accepted row, all calls counted.",
        "",
    ]
    return [*lines, *_table(("role", "model", "calls", "prompt tokens", "completion tokens", "US dollars"), rows)]


def _review(manifest: Manifest) -> list[str]:
    rates = [rate for rate in (manifest["data"]["review"] or {"rates": []})["rates"] if rate["stratum"] == "all"]
    lines = ["", "## Review by people", ""]
    for rate in rates:
        lines += [f"- {_words(rate['reviewer'])}: {rate['reviewed']:,} rows, {rate['defects']:,} rejected or edited, defect rate "]
        lines[-1] += f"{rate['rate']:.1%} (95 % interval {rate['low']:.1%} to {rate['high']:.1%})"
    return lines if rates else [*lines, "None yet: nobody has looked at these rows."]


def _licence(manifest: Manifest) -> list[str]:
    own = {teacher["model"] for teacher in manifest["teachers"] if teacher["decision"]}
    lines = [
        "",
        "## Licence",
        "",
        "The rows are a teacher's outputs: what may be done with them is what the terms in the table above allow,",
    ]
    lines += ["whoever holds the copy. Check them before you publish the data, or sell a model that was trained on it."]
    if own:
        lines += ["", f"The terms of {', '.join(map(_words, sorted(own)))} did not settle it; somebody decided, as the table says."]
    return lines


def _limits(manifest: Manifest) -> list[str]:
    lines = ["", "## Limits", "", "- The rows have the teacher's errors that no filter saw, and its habits of style."]
    lines += ["- The split holds near-duplicates together, but one teacher wrote all parts: scores on `test` flatter a student. Judge it"]
    lines += ["  on real inputs.", "- Diversity and near-duplicates are of words: a paraphrase counts as another text."]
    lines += ["- Personal data is found by patterns (card, IBAN, e-mail, telephone); names and addresses are not."]
    return [*lines, "- Language is told by script and function words."]


def _reproducing(manifest: Manifest) -> list[str]:
    rows = [
        ("recipe", manifest["name"], manifest["recipe_sha256"]),
        ("taxonomy", manifest["taxonomy"].get("name", ""), manifest["taxonomy"].get("sha256", "")),
        ("seed", str(manifest["seed"]), ""),
    ]
    lines = ["", "## How to reproduce", "", *_table(("what", "name", "sha256"), rows), "", "`manifest.json` holds the recipe in full. A"]
    return [*lines, "hosted teacher answers otherwise each time; the store of the run has every answer, and exports the same rows again."]


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    lines = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    return lines + ["| " + " | ".join(_words(cell) for cell in row) + " |" for row in rows]


def _words(text: Any) -> str:
    """A text on one line, whose signs Markdown and HTML do not obey."""
    return re.sub(r"([|\[\]*])", r"\\\1", " ".join(str(text).split())).replace("<", "&lt;")

"""People's verdicts: a seeded stratified sample goes out, accept, reject or edit come back, and a defect rate with its interval.

A sample is judged in the terminal (cli.py asks, `parse_decision` reads) or in a JSONL file that any editor can fill in.
An edit makes a new example whose parent is the old one; the old one is rejected as "edited: into ID".
"""

import json
import re
from collections.abc import Iterable, Sequence
from hashlib import sha256
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np

from datagen.agreement import kappa_interval
from datagen.errors import ConfigError
from datagen.records import Example, Record, Task, Verdict
from datagen.store import Store
from datagen.yaml_file import nearest

EVERYONE = "everyone"

_FIELDS = (
    "id", "topic", "generator", "label", "input", "completion", "rejected", "decision", "reason", "new_completion", "new_input",
    "transcript",
)  # fmt: skip


class Decision(Record):
    """What a person decided about one example; an edit gives the new completion, the new input, or both."""

    example_id: str
    action: Literal["accept", "reject", "edit"]
    reason: str = ""
    new_completion: str | None = None
    new_input: str | None = None


class Applied(NamedTuple):
    """How many decisions of each kind were stored, and the ids of the examples that edits made."""

    accepted: int
    rejected: int
    edited: int
    new_ids: tuple[str, ...]


class DefectRate(NamedTuple):
    """Rejected or edited among reviewed, with the exact 95 % interval of Clopper and Pearson (1934).

    reviewer   a name, or EVERYONE where more than one person reviewed: the last word on each row
    stratum    "all", "generator seed", "topic cards/lost"
    """

    reviewer: str
    stratum: str
    reviewed: int
    defects: int
    rate: float
    low: float
    high: float


class Agreement(NamedTuple):
    """Two reviewers on the rows that both judged. kappa (Cohen 1960) is None when chance alone would agree always.

    `low` and `high` bound kappa in 95 of 100 cases (agreement.py).
    """

    first: str
    second: str
    rows: int
    agreement: float
    kappa: float | None
    low: float
    high: float


def draw_sample(store: Store, *, reviewer: str, seed: int, n: int | None = None) -> list[Example]:
    """A stratified sample of what was accepted, no person's edit and not judged by `reviewer` yet: `n`, or 5 % and at most 200."""
    seen = {verdict.example_id for verdict in store.verdicts() if verdict.by == _by(reviewer)}
    examples = [e for e in store.accepted_examples() if e.parent is None and e.id not in seen]
    if n is None:
        n = min(200, -(-len(examples) // 20))
    return stratified(examples, n=n, seed=seed)


def stratified(examples: Sequence[Example], *, n: int, seed: int, strata: Sequence[str] = ("topic", "generator")) -> list[Example]:
    """`n` examples by id, spread over the strata in proportion, one of each at least while `n` allows.

    The same examples and seed give the same sample, whatever their order.
    """
    shuffled = sorted(examples, key=lambda example: sha256(f"{seed}:{example.id}".encode()).hexdigest())
    members: dict[tuple[str, ...], list[Example]] = {}
    for example in shuffled:
        members.setdefault(tuple(str(getattr(example, name)) for name in strata), []).append(example)
    n = min(n, len(examples))
    order = sorted(members, key=lambda key: (-len(members[key]), key))
    taken = {key: int(place < n) for place, key in enumerate(order)}
    for _ in range(n - sum(taken.values())):
        open_strata = (key for key in order if taken[key] < len(members[key]))
        # the stratum that is furthest below its proportion gets the next place
        taken[max(open_strata, key=lambda key: n * len(members[key]) / len(examples) - taken[key])] += 1
    return sorted((example for key in order for example in members[key][: taken[key]]), key=lambda example: example.id)


def parse_decision(text: str, example: Example) -> Decision:
    """What a reviewer typed about an example. Raises ConfigError, with the forms there are, for anything else."""
    word, _, rest = text.strip().partition(" ")
    rest = rest.strip()
    match word.lower():
        case "a" | "accept":
            return Decision(example_id=example.id, action="accept", reason=rest)
        case "r" | "reject":
            if not rest:
                raise ConfigError("a rejection needs its reason: r REASON.")
            return Decision(example_id=example.id, action="reject", reason=rest)
        case "e" | "edit":
            if not rest:
                raise ConfigError("an edit needs the new answer: e TEXT.")
            return Decision(example_id=example.id, action="edit", new_completion=rest)
        case "i" | "input":
            if not rest:
                raise ConfigError("an edit needs the new input: i TEXT.")
            return Decision(example_id=example.id, action="edit", new_input=rest)
    raise ConfigError(f"{word!r} is none of a (accept), r REASON (reject), e TEXT (edit the answer), i TEXT (edit the input).")


def apply(store: Store, reviewer: str, decisions: Sequence[Decision], task: Task) -> Applied:
    """Store a reviewer's decisions: verdicts, and a new example for each edit. Raises ConfigError and stores nothing if one is wrong.

    An edited completion of a task with a schema must be one JSON object; the new example's label is what that answer says.
    """
    by = _by(reviewer)
    examples = {example.id: example for example in store.current_examples()}
    verdicts: list[Verdict] = []
    edits: list[Example] = []
    for decision in decisions:
        old = examples.get(decision.example_id)
        if old is None:
            raise ConfigError(f"example {decision.example_id!r} is not among the store's current examples. Draw a new sample.")
        if decision.action == "edit":
            new = _edit(old, decision, task)
            edits.append(new)
            verdicts.append(Verdict(example_id=old.id, by=by, keep=False, reason=f"edited: into {new.id}"))
            verdicts.append(Verdict(example_id=new.id, by=by, keep=True, reason=f"edited: from {old.id}"))
        else:
            keep = decision.action == "accept"
            reason = decision.reason if keep else f"review: {decision.reason}"
            verdicts.append(Verdict(example_id=old.id, by=by, keep=keep, reason=reason or None))
    with store.writing():
        store.add_examples(edits)
        store.add_verdicts(verdicts)
    actions = [decision.action for decision in decisions]
    return Applied(actions.count("accept"), actions.count("reject"), actions.count("edit"), tuple(example.id for example in edits))


def _edit(old: Example, decision: Decision, task: Task) -> Example:
    completion = old.completion if decision.new_completion is None else decision.new_completion.strip()
    text = old.input if decision.new_input is None else decision.new_input.strip()
    if (completion, text) == (old.completion, old.input):
        raise ConfigError(f"the edit of {old.id} changes nothing; accept it instead.")
    if not completion or not text:
        raise ConfigError(f"the edit of {old.id} leaves nothing; reject it instead.")
    answer, label = old.answer, old.label
    if task.output_schema is not None and decision.new_completion is not None:
        try:
            answer = json.loads(completion)
        except ValueError as error:
            raise ConfigError(f"the edit of {old.id} is not JSON ({error}): {completion[:60]!r}. Mend it.") from error
        if not isinstance(answer, dict):
            raise ConfigError(f"the edit of {old.id} is {completion[:60]!r}; the task wants a JSON object.")
        if task.label_field and isinstance(answer.get(task.label_field), str):
            label = answer[task.label_field]
    last_user = max(i for i, message in enumerate(old.prompt) if message.role == "user")
    content = old.grounding.passage.block + text if old.grounding is not None and old.grounding.shown else text
    prompt = tuple(message.model_copy(update={"content": content}) if i == last_user else message for i, message in enumerate(old.prompt))
    changes = {
        "item_id": f"{old.item_id}:edit:{old.id[:8]}", "prompt": prompt, "completion": completion, "answer": answer,
        "label": label, "parent": old.id, "scores": {}, "rejected": None if old.rejected == completion else old.rejected,
    }  # fmt: skip
    return Example.from_row({**dict(old), **changes})  # made anew: a copy could carry the old one's id


def _by(reviewer: str) -> str:
    if not re.fullmatch(r"[A-Za-z0-9_.@-]+", reviewer):
        raise ConfigError(f"the reviewer's name is {reviewer!r}; use letters, digits and _ . @ - only.")
    return f"human:{reviewer}"


def export_jsonl(sample: Iterable[Example], path: Path) -> int:
    """Write a sample with empty fields for the decision, one example a line; returns how many."""
    lines = [json.dumps(_row(example), ensure_ascii=False) + "\n" for example in sample]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(lines), encoding="utf-8")
    return len(lines)


def _row(example: Example) -> dict[str, Any]:
    row = {name: getattr(example, name, "") for name in _FIELDS}
    if example.transcript == example.input:
        del row["transcript"]  # only where there is more to read than the input: earlier turns, a passage
    return row


def import_jsonl(path: Path) -> list[Decision]:
    """Decisions from a filled-in sample; rows whose `decision` is empty are not judged yet and left out.

    Raises ConfigError with line number, field and near name.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: cannot be read ({error}). Give the file that `review --export` wrote.") from error
    decisions: dict[str, Decision] = {}
    for number, line in enumerate(text.splitlines(), 1):
        if not line.strip():
            continue
        decision = _read_line(line, f"{path}:{number}")
        if decision is None:
            continue
        if decision.example_id in decisions:
            raise ConfigError(f"{path}:{number}: id {decision.example_id!r} was judged on an earlier line. Keep one.")
        decisions[decision.example_id] = decision
    return list(decisions.values())


def _read_line(line: str, where: str) -> Decision | None:
    try:
        row = json.loads(line)
    except ValueError as error:
        raise ConfigError(f"{where}: not valid JSON ({error}). Mend the line.") from error
    if not isinstance(row, dict):
        raise ConfigError(f"{where}: holds a {type(row).__name__}, not an object with `id` and `decision`.")
    for name in row:
        if name not in _FIELDS:
            near = nearest(name, list(_FIELDS))
            raise ConfigError(f"{where}: {name!r} is not a field. " + (f"Did you mean {near!r}?" if near else "Remove it."))
    for name in ("id", "decision"):
        if not isinstance(row.get(name), str):
            raise ConfigError(f"{where}: {name!r} is {row.get(name)!r}; give text.")
    values = {name: row.get(name) or "" for name in ("reason", "new_completion", "new_input")}
    for name, value in values.items():
        if not isinstance(value, str):
            raise ConfigError(f"{where}: {name!r} is {value!r}; give text.")
    action = row["decision"].strip().lower()
    edited = bool(values["new_completion"].strip() or values["new_input"].strip())
    if not action:
        if edited or values["reason"].strip():
            raise ConfigError(f"{where}: `decision` is empty, but a reason or an edit is given. Write accept, reject or edit.")
        return None
    if action not in ("accept", "reject", "edit"):
        near = nearest(action, ["accept", "reject", "edit"])
        hint = f"Did you mean {near!r}?" if near else "Write accept, reject or edit."
        raise ConfigError(f"{where}: decision is {row['decision']!r}. {hint}")
    if action == "reject" and not values["reason"].strip():
        raise ConfigError(f"{where}: a rejection needs a `reason`.")
    if edited != (action == "edit"):
        raise ConfigError(f"{where}: decision is {action!r}, and new_completion and new_input go with 'edit' only.")
    return Decision(
        example_id=row["id"],
        action=action,
        reason=values["reason"].strip(),
        new_completion=values["new_completion"].strip() or None,
        new_input=values["new_input"].strip() or None,
    )


def defect_rates(store: Store) -> list[DefectRate]:
    """Defect rates of reviewed rows that the filters had accepted: by reviewer and all together, by generator and by topic.

    A row counts once, by the last word on it; what a person's edit made is not counted. The interval takes the sample as
    drawn at random; strata that were given a row beyond their proportion weigh as the sample has them. Empty without a review.
    """
    rows = store.query(
        "WITH words AS (SELECT example_id, decided_by[7:] AS reviewer, arg_max(keep, created_at) AS keep, max(created_at) AS at "
        "  FROM verdicts WHERE decided_by LIKE 'human:%' GROUP BY ALL), "
        "dropped AS (SELECT DISTINCT example_id FROM verdicts WHERE decided_by LIKE 'filter:%' AND NOT keep) "
        "SELECT e.id, e.topic, e.generator, w.reviewer, w.keep FROM words w JOIN examples e ON e.id = w.example_id "
        "WHERE e.parent IS NULL AND e.id NOT IN (SELECT example_id FROM dropped) ORDER BY w.at, e.id"
    )
    if len({row["reviewer"] for row in rows}) > 1:
        last = {row["id"]: row for row in rows}
        rows += [{**row, "reviewer": EVERYONE} for row in last.values()]
    counts: dict[tuple[str, str], list[int]] = {}
    for row in rows:
        for stratum in ("all", f"generator {row['generator']}", f"topic {row['topic']}"):
            count = counts.setdefault((row["reviewer"], stratum), [0, 0])
            count[0] += 1
            count[1] += not row["keep"]
    return [
        DefectRate(reviewer, stratum, reviewed, defects, defects / reviewed, *exact_interval(defects, reviewed))
        for (reviewer, stratum), (reviewed, defects) in sorted(counts.items())
    ]


def exact_interval(count: int, total: int) -> tuple[float, float]:
    """The 95 % interval of Clopper and Pearson (1934) for a share of `count` in `total`; (0, 1) when nothing was counted."""
    ((low,), (high,)) = exact_intervals([count], [total])
    return low, high


def exact_intervals(counts: Sequence[int], totals: Sequence[int]) -> tuple[list[float], list[float]]:
    """The lower and the upper bounds of `exact_interval` for many shares: quantiles of the beta distribution."""
    from scipy.special import betaincinv  # scipy.stats takes half a second more to import

    part, whole = np.array(counts, dtype=float), np.array(totals, dtype=float)
    rest = whole - part
    low = np.where(part > 0, betaincinv(np.maximum(part, 1), rest + 1, 0.025), 0.0)
    high = np.where(rest > 0, betaincinv(part + 1, np.maximum(rest, 1), 0.975), 1.0)
    return low.tolist(), high.tolist()


def agreements(store: Store) -> list[Agreement]:
    """Cohen's kappa for every two reviewers who judged some of the same rows, by their last words."""
    rows = store.query(
        "SELECT decided_by[7:] AS reviewer, example_id, arg_max(keep, created_at) AS keep FROM verdicts "
        "WHERE decided_by LIKE 'human:%' GROUP BY ALL ORDER BY ALL"
    )
    words: dict[str, dict[str, bool]] = {}
    for row in rows:
        words.setdefault(row["reviewer"], {})[row["example_id"]] = row["keep"]
    found = []
    names = sorted(words)
    for place, first in enumerate(names):
        for second in names[place + 1 :]:
            shared = sorted(words[first].keys() & words[second].keys())
            if shared:
                pairs = [(words[first][id], words[second][id]) for id in shared]
                agreement, kappa = cohen_kappa(pairs)
                found.append(Agreement(first, second, len(pairs), agreement, kappa, *kappa_interval(pairs)))
    return found


def cohen_kappa(pairs: Sequence[tuple[bool, bool]]) -> tuple[float, float | None]:
    """Share of equal words, and kappa = (share - chance) / (1 - chance); None when both always said one same thing."""
    n = len(pairs)
    share = sum(a == b for a, b in pairs) / n
    first, second = sum(a for a, _ in pairs) / n, sum(b for _, b in pairs) / n
    chance = first * second + (1 - first) * (1 - second)
    return share, None if chance == 1 else (share - chance) / (1 - chance)

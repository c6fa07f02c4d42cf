"""Metrics of a student's answers: plain functions, no model, no file.

A row's completion and its reference are read once into an `Answer`. A metric turns answers into *tallies*, one line
of counts per row (a line of zeros: the metric does not apply to that row), and is a mean of ratios of the summed tallies.
Accuracy is tallied (right, 1), F1 (tp, fp, fn): so the same resampled rows give every bootstrap interval, of one model or
of the difference between two models on the same rows.

Intervals are chosen by how often they hold the truth (benchmarks/results/training.json): Wilson's for shares, Newcombe's for
the difference of paired shares, the studentised bootstrap for all else.

To add a metric: a function, one line in METRICS, one in GLOSSARY.
"""

import json
import math
import re
import string
import unicodedata
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from typing import Any, Literal, NamedTuple

import numpy as np
from jsonschema_rs import Draft202012Validator
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict
from scipy.stats import binom, binomtest, norm

Floats = NDArray[np.float64]

_OPEN, _CLOSE = "<think>", "</think>"

RESAMPLES = 2000
CONFIDENCE = 0.95
POWER = 0.8  # an effect counts as one that a set can see when four of five such sets would show it
# With fewer rows than this that differ from the rest, resampling sees too few of the errors that there are: the interval is
# widened to that of a share.
FEW = 6


class TaskSpec(BaseModel):
    """The manifest's `task`: what an answer must look like, as far as a metric must know it."""

    model_config = ConfigDict(extra="ignore", frozen=True)

    type: str = "classification"
    system: str = ""
    output: Literal["json", "text"] = "json"
    output_schema: dict[str, Any] | None = None
    label_field: str | None = None
    labels: tuple[str, ...] = ()
    abstain_label: str | None = None
    entities_field: str | None = None
    decision_fields: tuple[str, ...] = ()
    forbidden: tuple[str, ...] = ()


class Answer(NamedTuple):
    """A completion beside its reference. `parsed` and `expected` are None where the text is not one JSON object.

    Where an answer begins with its reasoning (`<think>`), `completion` and `reference` are what comes after it; `ended` says whether the
    reasoning came to an end, and is None where nobody was to reason. `similarity` is that of embeddings, where they were asked for.
    """

    task: TaskSpec
    input: str
    completion: str
    reference: str | None
    parsed: dict[str, Any] | None
    expected: dict[str, Any] | None
    schema_valid: bool
    label: str | None
    predicted: str | None
    ended: bool | None = None
    similarity: float | None = None


class Measure(NamedTuple):
    """A metric of one model on one set, with its 95 % interval; `n` rows count. All values are fractions 0..1."""

    metric: str
    value: float
    low: float
    high: float
    n: int


class Comparison(NamedTuple):
    """`difference` = b - a on the same rows, with its 95 % interval; `p` is McNemar's exact p for yes/no metrics.

    `detectable` is the smallest true difference that four of five sets of this size would show; None where none would.
    """

    metric: str
    a: str
    b: str
    difference: float
    low: float
    high: float
    n: int
    p: float | None = None
    detectable: float | None = None

    @property
    def clear(self) -> bool:
        """Whether the interval excludes 0."""
        return self.low > 0 or self.high < 0


class Ratios(NamedTuple):
    """Ratios (..., l) whose mean a metric is; those that are not `counted` are left out of it."""

    above: Floats
    below: Floats
    counted: NDArray[np.bool_]


class Metric(NamedTuple):
    """`tally`: answers -> counts (rows, k). `ratios`: summed counts (..., k) -> the ratios (..., l) to average.

    `above` and `below` must be linear in the counts. kind: "proportion" (yes or no per row), "mean" and "ratio".
    """

    tally: Callable[[Sequence[Answer]], Floats]
    ratios: Callable[[Floats], Ratios]
    kind: Literal["proportion", "mean", "ratio"]

    def statistic(self, sums: Floats) -> Floats:
        """Summed counts (..., k) -> values (...), nan where undefined."""
        above, below, counted = self.ratios(sums)
        return _divide(np.where(counted, _divide(above, below), 0).sum(-1), counted.sum(-1))


class Meaning(NamedTuple):
    """What a metric says, in one sentence, and which way is better."""

    sentence: str
    higher_is_better: bool


# --- reading -------------------------------------------------------------------------------------------------------


def parse_object(text: str) -> dict[str, Any] | None:
    """The one JSON object (RFC 8259) that `text` is, or None: fences, prose, a second object, NaN are refused."""

    def refuse(constant: str) -> None:
        raise ValueError(constant)

    try:
        value = json.loads(text, parse_constant=refuse)
    except (ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) else None


@lru_cache(maxsize=32)
def _validator(schema: str) -> Draft202012Validator:
    return Draft202012Validator(schema)


def _is_of(schema: str, value: object) -> bool:
    try:
        return _validator(schema).is_valid(value)
    except UnicodeEncodeError:  # half of a surrogate pair is no text
        return False


@lru_cache(maxsize=32)
def _word_pattern(words: tuple[str, ...]) -> re.Pattern[str]:
    return re.compile(r"(?<!\w)(?:" + "|".join(map(re.escape, words)) + r")(?!\w)", re.IGNORECASE)


class Thought(NamedTuple):
    """A text apart: its reasoning, None where it has none, and the answer after that, None where the reasoning never ends."""

    reasoning: str | None
    answer: str | None


def apart(text: str) -> Thought:
    """Take the reasoning off an answer: `<think>...</think>` at its begin, where the prompt may have opened the block already."""
    opened = text.lstrip().startswith(_OPEN)
    before, end, after = text.partition(_CLOSE)
    if not end:
        return Thought(text.lstrip().removeprefix(_OPEN).strip(), None) if opened else Thought(None, text)
    if not opened and _OPEN in before:
        return Thought(None, text)
    return Thought(before.lstrip().removeprefix(_OPEN).strip(), after.lstrip("\n"))


def read_answer(task: TaskSpec, text: str, completion: str, reference: str | None = None, label: str | None = None) -> Answer:
    """Read a completion for the input `text`. A missing `label` is taken from the reference where that has one.

    Reasoning that never ends leaves an empty answer, which is wrong by every metric.
    """
    thought, wanted = apart(completion), apart(reference) if reference is not None else Thought(None, None)
    ended = None if thought.reasoning is None and wanted.reasoning is None else thought.answer is not None
    completion, reference = thought.answer or "", wanted.answer
    as_json = task.output == "json"
    parsed = parse_object(completion) if as_json else None
    expected = parse_object(reference) if as_json and reference is not None else None
    schema_valid = parsed is not None
    if parsed is not None and task.output_schema is not None:
        schema_valid = _is_of(json.dumps(task.output_schema, sort_keys=True), parsed)
    if as_json:
        predicted = _label_in(task, parsed)
        label = label if label is not None else _label_in(task, expected)
    else:
        predicted = completion.strip() if completion.strip() in task.labels else None
        label = label if label is not None or reference not in task.labels else reference
    return Answer(task, text, completion, reference, parsed, expected, schema_valid, label, predicted, ended)


def _label_in(task: TaskSpec, answer: dict[str, Any] | None) -> str | None:
    value = answer.get(task.label_field) if answer is not None and task.label_field else None
    return value if isinstance(value, str) else None


def entity_pairs(task: TaskSpec, answer: dict[str, Any] | None) -> Counter[tuple[str, str]]:
    """(name, value) pairs with their counts; a list gives one pair per element, null gives none."""
    found = answer.get(task.entities_field) if answer is not None and task.entities_field else None
    pairs: Counter[tuple[str, str]] = Counter()
    for name, value in found.items() if isinstance(found, dict) else ():
        for element in value if isinstance(value, list) else [value]:
            if element is not None:
                pairs[name, str(element).strip()] += 1
    return pairs


def normalise(text: str) -> str:
    """NFKC, lower case, white space collapsed: what an exact match of free text forgives."""
    return " ".join(unicodedata.normalize("NFKC", text).casefold().split())


def _squad_tokens(text: str) -> list[str]:
    text = "".join(c for c in text.lower() if c not in string.punctuation)
    return re.sub(r"\b(a|an|the)\b", " ", text).split()


# --- one row -> value or None (does not apply) -----------------------------------------------------------------------


def is_json(answer: Answer) -> float | None:
    """The answer is one JSON object and nothing else."""
    return float(answer.parsed is not None) if answer.task.output == "json" else None


def fits_schema(answer: Answer) -> float | None:
    """The answer is JSON and fits the task's schema."""
    applies = answer.task.output == "json" and answer.task.output_schema is not None
    return float(answer.schema_valid) if applies else None


def label_right(answer: Answer) -> float | None:
    """The label is the reference's; an answer without a readable label is wrong."""
    return None if answer.label is None else float(answer.predicted == answer.label)


def decision_right(answer: Answer) -> float | None:
    """All decision fields as in the reference; applies where either answer has a decision that is not always asked."""
    fields = answer.task.decision_fields
    if not fields or answer.expected is None:
        return None
    always = set((answer.task.output_schema or {}).get("required", ()))
    telling = [f for f in fields if f not in always] or list(fields)
    expected, parsed = answer.expected, answer.parsed or {}
    if not any(f in expected or f in parsed for f in telling):
        return None
    return float(answer.parsed is not None and all(parsed.get(f) == expected.get(f) for f in fields))


def abstains_when_it_must(answer: Answer) -> float | None:
    """Applies to rows outside the task's scope."""
    must = answer.task.abstain_label is not None and answer.label == answer.task.abstain_label
    return float(answer.predicted == answer.label) if must else None


def abstains_rightly(answer: Answer) -> float | None:
    """Applies to rows that the model declined."""
    abstain = answer.task.abstain_label
    if abstain is None or answer.label is None or answer.predicted != abstain:
        return None
    return float(answer.label == abstain)


def abstains_wrongly(answer: Answer) -> float | None:
    """Applies to rows inside the task's scope."""
    abstain = answer.task.abstain_label
    if abstain is None or answer.label is None or answer.label == abstain:
        return None
    return float(answer.predicted == abstain)


def same_answer(answer: Answer) -> float | None:
    """Equal as data (order of keys is free) for JSON, equal after `normalise` for text."""
    if answer.reference is None:
        return None
    if answer.task.output == "json":
        return float(answer.parsed is not None and answer.parsed == answer.expected)
    return float(normalise(answer.completion) == normalise(answer.reference))


def token_f1_of(answer: Answer) -> float | None:
    """F1 over the bag of words, as SQuAD 1.1's evaluation script (Rajpurkar et al. 2016) computes it."""
    if answer.reference is None or answer.task.output != "text":
        return None
    ours, theirs = _squad_tokens(answer.completion), _squad_tokens(answer.reference)
    common = (Counter(ours) & Counter(theirs)).total()
    if not ours or not theirs:
        return float(ours == theirs)
    return 2 * common / (len(ours) + len(theirs))


def rouge_l_of(answer: Answer) -> float | None:
    """ROUGE-L F1: longest common subsequence of words (Lin 2004), lower case, no stemming."""
    if answer.reference is None or answer.task.output != "text":
        return None
    ours, theirs = (re.findall(r"[^\W_]+", t.lower()) for t in (answer.completion, answer.reference))
    if not ours or not theirs:
        return float(ours == theirs)
    row = [0] * (len(theirs) + 1)
    for word in ours:
        diagonal = 0
        for j, other in enumerate(theirs, 1):
            diagonal, row[j] = row[j], diagonal + 1 if word == other else max(row[j], row[j - 1])
    return 2 * row[-1] / (len(ours) + len(theirs))


_CHRF_ORDER, _CHRF_BETA = 6, 2.0


def chrf_of(answer: Answer) -> float | None:
    """chrF2 of the row: F-score over character n-grams of 1 to 6 signs, white space left out, recall weighted twice (Popovic 2015).

    Unlike ROUGE-L it needs no words, so it serves languages that write none apart, and half-right inflections count.
    """
    if answer.reference is None or answer.task.output != "text":
        return None
    ours, theirs = ("".join(text.split()) for text in (answer.completion, answer.reference))
    if not ours or not theirs:
        return float(ours == theirs)
    precisions, recalls = [], []
    for n in range(1, min(_CHRF_ORDER, len(ours), len(theirs)) + 1):
        a, b = (Counter(text[i : i + n] for i in range(len(text) - n + 1)) for text in (ours, theirs))
        common = (a & b).total()
        precisions.append(common / a.total())
        recalls.append(common / b.total())
    precision, recall = sum(precisions) / len(precisions), sum(recalls) / len(recalls)
    weight = _CHRF_BETA**2
    return (1 + weight) * precision * recall / (weight * precision + recall) if precision + recall else 0.0


def invents_entity(answer: Answer) -> float | None:
    """Some entity's value does not occur in the input (case and white space forgiven)."""
    if answer.task.entities_field is None:
        return None
    source = normalise(answer.input)
    return float(any(normalise(value) not in source for _, value in entity_pairs(answer.task, answer.parsed)))


def says_forbidden(answer: Answer) -> float | None:
    """A forbidden word stands in some value other than the label, or anywhere in a text that is not JSON."""
    if not answer.task.forbidden:
        return None
    if answer.parsed is None:
        said = answer.completion
    else:
        said = json.dumps([v for k, v in answer.parsed.items() if k != answer.task.label_field], ensure_ascii=False, default=str)
    return float(_word_pattern(answer.task.forbidden).search(said) is not None)


def names_label_instead(answer: Answer) -> float | None:
    """A row outside the scope got another label; an unreadable answer is not counted here."""
    must = answer.task.abstain_label is not None and answer.label == answer.task.abstain_label
    return float(answer.predicted is not None and answer.predicted != answer.label) if must else None


def behaves_badly(answer: Answer) -> float | None:
    """Any of the three bad behaviours that apply to the row."""
    checks = (invents_entity(answer), says_forbidden(answer), names_label_instead(answer))
    applied = [c for c in checks if c is not None]
    return max(applied) if applied else None


_NUMBER = re.compile(r"(?<![\w.])[-+]?(?:\d{1,3}(?:,\d{3})+|\d+)(?:\.\d+)?(?![\d,]*\d)")
_FEW_WORDS = 3


def _numbers(text: str) -> list[float]:
    return [float(found.replace(",", "")) for found in _NUMBER.findall(text)]


def number_right(answer: Answer) -> float | None:
    """The last number of the answer is the reference's, to nine digits; applies where a reference is a number, alone or with its unit."""
    task = answer.task
    if answer.reference is None or task.output != "text" or task.labels or len(answer.reference.split()) > _FEW_WORDS:
        return None
    wanted, said = _numbers(answer.reference), _numbers(answer.completion)
    if len(wanted) != 1:
        return None
    return float(bool(said) and math.isclose(said[-1], wanted[0], rel_tol=1e-9, abs_tol=1e-12))


def means_the_same(answer: Answer) -> float | None:
    """Cosine of the embeddings of answer and reference, where the recipe names a model for them."""
    return answer.similarity


def never_ends(answer: Answer) -> float | None:
    """Reasoning was begun and not ended; applies where the answer or its reference reasons."""
    return None if answer.ended is None else float(not answer.ended)


# --- tallies and statistics ------------------------------------------------------------------------------------------


def _per_row(function: Callable[[Answer], float | None]) -> Callable[[Sequence[Answer]], Floats]:
    """Tally (value, 1) where the function applies, (0, 0) elsewhere."""

    def tally(answers: Sequence[Answer]) -> Floats:
        values = [function(a) for a in answers]
        return np.array([(v, 1.0) if v is not None else (0.0, 0.0) for v in values], dtype=float).reshape(-1, 2)

    return tally


def _abstention_precision_tally(answers: Sequence[Answer]) -> Floats:
    """Where nothing calls for abstaining, precision says only that; `false_abstention` says it better."""
    counts = _per_row(abstains_rightly)(answers)
    return counts if any(a.label is not None and a.label == a.task.abstain_label for a in answers) else counts * 0


def _entity_tally(answers: Sequence[Answer]) -> Floats:
    """(tp, fp, fn) over (name, value) pairs, where the reference is known as data."""
    rows = []
    for answer in answers:
        if answer.task.entities_field is None or answer.expected is None:
            rows.append((0.0, 0.0, 0.0))
            continue
        ours, theirs = entity_pairs(answer.task, answer.parsed), entity_pairs(answer.task, answer.expected)
        hits = (ours & theirs).total()
        rows.append((hits, ours.total() - hits, theirs.total() - hits))
    return np.array(rows, dtype=float).reshape(-1, 3)


def _label_tally(answers: Sequence[Answer]) -> Floats:
    """(tp, fp, fn) for every label of the references, side by side: (rows, 3 * labels)."""
    labels = {label: i for i, label in enumerate(sorted({a.label for a in answers if a.label is not None}))}
    counts = np.zeros((len(answers), len(labels), 3))
    for row, answer in enumerate(answers):
        if answer.label is None:
            continue
        if answer.predicted == answer.label:
            counts[row, labels[answer.label], 0] = 1
        else:
            counts[row, labels[answer.label], 2] = 1
            if answer.predicted in labels:
                counts[row, labels[answer.predicted], 1] = 1
    return counts.reshape(len(answers), -1)


def _divide(above: Floats, below: Floats) -> Floats:
    """The quotient, nan where `below` is 0."""
    quotient: Floats = np.full(above.shape, np.nan)
    np.divide(above, below, out=quotient, where=below > 0)
    return quotient


def _rate(sums: Floats) -> Ratios:
    return Ratios(sums[..., :1], sums[..., 1:], sums[..., 1:] > 0)


def _f1(sums: Floats) -> Ratios:
    """2 tp / (2 tp + fp + fn), the harmonic mean of precision and recall (van Rijsbergen 1979)."""
    below = 2 * sums[..., :1] + sums[..., 1:2] + sums[..., 2:]
    return Ratios(2 * sums[..., :1], below, below > 0)


def _macro_f1(sums: Floats) -> Ratios:
    """Mean F1 of the labels that occur in the references: scikit-learn's `f1_score(average="macro", labels=those)`."""
    counts = sums.reshape(*sums.shape[:-1], -1, 3)
    right, wrong, missed = counts[..., 0], counts[..., 1], counts[..., 2]
    return Ratios(2 * right, 2 * right + wrong + missed, right + missed > 0)


def _proportion(function: Callable[[Answer], float | None]) -> Metric:
    return Metric(_per_row(function), _rate, "proportion")


METRICS: dict[str, Metric] = {
    "json_validity": _proportion(is_json),
    "schema_validity": _proportion(fits_schema),
    "label_accuracy": _proportion(label_right),
    "macro_f1": Metric(_label_tally, _macro_f1, "ratio"),
    "entity_f1": Metric(_entity_tally, _f1, "ratio"),
    "decision_match": _proportion(decision_right),
    "abstention_recall": _proportion(abstains_when_it_must),
    "abstention_precision": Metric(_abstention_precision_tally, _rate, "proportion"),
    "false_abstention": _proportion(abstains_wrongly),
    "exact_match": _proportion(same_answer),
    "token_f1": Metric(_per_row(token_f1_of), _rate, "mean"),
    "rouge_l": Metric(_per_row(rouge_l_of), _rate, "mean"),
    "chrf": Metric(_per_row(chrf_of), _rate, "mean"),
    "numeric_match": _proportion(number_right),
    "embedding_similarity": Metric(_per_row(means_the_same), _rate, "mean"),
    "invented_entity": _proportion(invents_entity),
    "asks_forbidden": _proportion(says_forbidden),
    "missed_abstention": _proportion(names_label_instead),
    "bad_behaviour": _proportion(behaves_badly),
    "endless_reasoning": _proportion(never_ends),
}

GLOSSARY: dict[str, Meaning] = {
    "json_validity": Meaning("Share of answers that are one JSON object and nothing else.", True),
    "schema_validity": Meaning("Share of answers that are JSON and fit the task's output schema.", True),
    "label_accuracy": Meaning("Share of rows whose label (for support messages: the intent) is right.", True),
    "macro_f1": Meaning("F1 of each label, averaged so that a rare label counts as much as a common one.", True),
    "entity_f1": Meaning("F1 over all (name, value) pairs of the entities; both must be exactly right.", True),
    "decision_match": Meaning("Share of policy cases whose decision, reason and follow-up are all right.", True),
    "abstention_recall": Meaning("Share of inputs outside the task's scope that the model declined.", True),
    "abstention_precision": Meaning("Share of declined inputs that were really outside the task's scope.", True),
    "false_abstention": Meaning("Share of inputs inside the task's scope that the model declined.", False),
    "exact_match": Meaning("Share of rows whose whole answer equals the reference.", True),
    "token_f1": Meaning("Overlap of words between answer and reference, averaged over rows (SQuAD F1).", True),
    "rouge_l": Meaning("Longest common run of words in order, averaged over rows (ROUGE-L F1).", True),
    "chrf": Meaning("Overlap of runs of 1 to 6 characters, averaged over rows (chrF2).", True),
    "numeric_match": Meaning("Share of answers whose last number is the wanted one, where a number is wanted.", True),
    "embedding_similarity": Meaning("Nearness in meaning of answer and reference, by an embedding model, averaged over rows.", True),
    "invented_entity": Meaning("Share of answers with an entity that does not occur in the input.", False),
    "asks_forbidden": Meaning("Share of answers that ask for or repeat a forbidden word such as PIN.", False),
    "missed_abstention": Meaning("Share of inputs outside the scope that got a label, not a refusal.", False),
    "bad_behaviour": Meaning("Share of rows with any of the bad behaviours: invented, forbidden, not declined.", False),
    "endless_reasoning": Meaning("Share of answers whose <think> block never ended; they count as wrong everywhere.", False),
}

# One of these says of a single row whether it is right: the first that applies to a set. Free text is hardly ever equal to its
# reference: where exact match is below RARELY, the overlap of words speaks.
ROW_METRICS = ("label_accuracy", "exact_match", "rouge_l")
RARELY = 0.05
BAD_BEHAVIOURS = ("invented_entity", "asks_forbidden", "missed_abstention", "bad_behaviour")


# What picks a checkpoint where answers are free text: equal texts are too rare among them to tell two checkpoints apart.
TEXT_METRICS = {"question_answering": "token_f1", "generation": "rouge_l", "conversation": "chrf"}


def primary_metric(task: TaskSpec) -> str:
    """The metric that picks a checkpoint: macro-F1 where there are labels, F1 of the entities where an answer is those, the task type's
    own for free text, else exact match."""
    if task.label_field or task.labels:
        return "macro_f1"
    if task.output == "text":
        return TEXT_METRICS.get(task.type, "exact_match")
    return "entity_f1" if task.entities_field else "exact_match"


def failed_metrics(answer: Answer) -> list[str]:
    """The metrics by which this row, taken alone, is wrong; empty for a right answer."""
    failed = []
    for name, metric in METRICS.items():
        if name == "macro_f1":  # of one row it is label_accuracy
            continue
        value = float(metric.statistic(metric.tally([answer]).sum(0)))
        if not np.isnan(value) and value != (1.0 if GLOSSARY[name].higher_is_better else 0.0):
            failed.append(name)
    return failed


# --- intervals -------------------------------------------------------------------------------------------------------


def wilson(successes: int, n: int) -> tuple[float, float]:
    """Wilson's score interval for a proportion (Wilson 1927; scipy's `proportion_ci(method="wilson")`)."""
    interval = binomtest(successes, n).proportion_ci(CONFIDENCE, method="wilson")
    return float(interval.low), float(interval.high)


def resampled_rows(rows: int, *, seed: int, resamples: int = RESAMPLES) -> NDArray[np.uint8]:
    """How often each row is drawn, with replacement, in each resample: (resamples, rows). The bootstrap of Efron (1979).

    The draws depend on the number of rows and the seed only: two models on the same rows are compared pairwise.
    """
    rng = np.random.default_rng(seed)
    times = np.empty((resamples, rows), dtype=np.uint8)
    step = _step(rows)
    for start in range(0, resamples, step):
        size = min(step, resamples - start)
        draws = rng.integers(0, rows, (size, rows)) + np.arange(size)[:, None] * rows
        times[start : start + size] = np.bincount(draws.ravel(), minlength=size * rows).reshape(size, rows)
    return times


def _step(rows: int) -> int:
    """Resamples to work on at once: it bounds the memory to some 50 MB whatever the number of rows."""
    return max(1, 2_000_000 // rows)


class Estimates(NamedTuple):
    """A statistic of each resample, and its standard error there."""

    values: Floats
    errors: Floats


def _estimates(metric: Metric, parts: Sequence[tuple[float, Floats]], times: NDArray[Any]) -> Estimates:
    """The statistic of sum(sign * metric) for tallies `parts` (rows, k), on rows drawn `times` (resamples, rows).

    Standard errors are those of the infinitesimal jackknife (Efron 1982): a mean of ratios is smooth in its sums, so what a row
    does to it is its derivative times the row.
    """
    values, errors = np.empty(len(times)), np.empty(len(times))
    own = [metric.ratios(counts) for _, counts in parts]
    step = _step(times.shape[1])
    for start in range(0, len(times), step):
        drawn = times[start : start + step].astype(np.float64)
        value, influence = np.zeros(len(drawn)), np.zeros(drawn.shape)
        for (sign, counts), row in zip(parts, own, strict=True):
            above, below, counted = metric.ratios(drawn @ counts)
            ratio = np.where(counted, _divide(above, below), 0)
            share = np.where(counted, _divide(np.ones_like(below), below * counted.sum(-1, keepdims=True)), 0)
            value += sign * _divide(ratio.sum(-1), counted.sum(-1))
            influence += sign * (share @ row.above.T - (share * ratio) @ row.below.T)
        values[start : start + step] = value
        errors[start : start + step] = np.sqrt((drawn * influence**2).sum(-1))
    return Estimates(values, errors)


def _studentised(metric: Metric, parts: Sequence[tuple[float, Floats]], times: NDArray[Any]) -> tuple[float, float]:
    """The bootstrap-t interval (Efron 1982; Hall 1988): quantiles of (resampled - found) / its error, in errors of what was found.

    Of a difference, the symmetric one, of absolute distances: it is the more exact where the distribution has no skew (Hall 1988).
    Percentiles of the resampled values alone hold the truth too seldom where the metric is near 0 or 1, or has many labels. A point
    where all rows are alike: (found, found).
    """
    (value,), (error,) = _estimates(metric, parts, np.ones((1, times.shape[1])))
    values, errors = _estimates(metric, parts, times)
    usable = ~np.isnan(values) & (errors > 1e-12)
    if error < 1e-12 or usable.sum() < 2:
        return float(value), float(value)
    distances = (values[usable] - value) / errors[usable]
    if len(parts) > 1:
        half = float(np.quantile(np.abs(distances), CONFIDENCE) * error)
        return float(value) - half, float(value) + half
    tail = (1 - CONFIDENCE) / 2
    low, high = np.quantile(distances, [tail, 1 - tail])
    return float(value - high * error), float(value - low * error)


def mcnemar(only_a: int, only_b: int) -> float:
    """McNemar's exact two-sided p: a binomial test that the rows which only one model has right are split evenly."""
    return 1.0 if only_a + only_b == 0 else float(binomtest(only_a, only_a + only_b, 0.5).pvalue)


def bonett_price(only_a: int, only_b: int, n: int) -> tuple[float, float]:
    """Adjusted Wald interval for b - a of paired proportions (Bonett & Price 2012): sound with few discordant pairs."""
    z = 1.959963984540054
    p_a, p_b = (only_a + 1) / (n + 2), (only_b + 1) / (n + 2)
    half = z * float(np.sqrt((p_a + p_b - (p_b - p_a) ** 2) / (n + 2)))
    return max(-1.0, p_b - p_a - half), min(1.0, p_b - p_a + half)


def newcombe(both: int, only_a: int, only_b: int, neither: int) -> tuple[float, float]:
    """Interval for b - a of paired proportions from both Wilson intervals and their correlation (Newcombe 1998, method 10)."""
    n = both + only_a + only_b + neither
    a, b = (both + only_a) / n, (both + only_b) / n
    (low_a, high_a), (low_b, high_b) = wilson(both + only_a, n), wilson(both + only_b, n)
    product = both * neither - only_a * only_b
    above = max(product - n / 2, 0.0) if product > 0 else float(product)
    below = (both + only_a) * (only_b + neither) * (both + only_b) * (only_a + neither)
    phi = above / below**0.5 if below else 0.0
    low = (b - low_b) ** 2 - 2 * phi * (b - low_b) * (high_a - a) + (high_a - a) ** 2
    high = (high_b - b) ** 2 - 2 * phi * (high_b - b) * (a - low_a) + (a - low_a) ** 2
    return b - a - max(low, 0.0) ** 0.5, b - a + max(high, 0.0) ** 0.5


def tango(only_a: int, only_b: int, n: int) -> tuple[float, float]:
    """Score interval for b - a of paired proportions (Tango 1998): all differences that a score test of them does not reject.

    It has a width where no row differs, z^2 / (n + z^2) to each side, which is Wilson's bound for "none of n": a resampling interval is a
    point there. Of those for paired shares it is the one that is right for showing that nothing got worse (Liu et al. 2002).
    """
    z = float(norm.ppf((1 + CONFIDENCE) / 2))
    found = (only_b - only_a) / n

    def distance(difference: float) -> float:
        """The score, with the variance at the most likely shares that have this difference."""
        linear = (2 * n - only_b + only_a) * difference - only_b - only_a
        rest = -only_a * difference * (1 - difference)
        share = (float(np.sqrt(max(linear**2 - 8 * n * rest, 0.0))) - linear) / (4 * n)
        variance = n * (2 * share + difference * (1 - difference))
        return (only_b - only_a - n * difference) / float(np.sqrt(variance)) if variance > 0 else float("inf") * (found - difference)

    def bound(end: float) -> float:
        inside, outside = found, end
        for _ in range(60):
            middle = (inside + outside) / 2
            inside, outside = (middle, outside) if abs(distance(middle)) <= z else (inside, middle)
        return inside

    return bound(-1.0), bound(1.0)


def rows_to_show(only_a: int, only_b: int, n: int, margin: float) -> int | None:
    """How many rows it would take for tango's lower bound of b - a to be above -margin, if rows went on to differ as these `n` do.

    None where no number would do: the difference itself is not above -margin.
    """
    if (only_b - only_a) / n <= -margin:
        return None

    def shown(rows: int) -> bool:
        return tango(round(only_a * rows / n), round(only_b * rows / n), rows)[0] > -margin

    low, high = 1, n
    while not shown(high):
        low, high = high, 2 * high
        if high > 10**9:
            return None
    while high - low > max(1, high // 200):
        middle = (low + high) // 2
        low, high = (low, middle) if shown(middle) else (middle, high)
    return high


@lru_cache(maxsize=512)
def detectable(n: int, discordant: int) -> float | None:
    """The smallest difference of paired shares that McNemar's exact test shows with POWER on `n` rows, as a fraction.

    `discordant` rows were found to be right for one model alone: their share stays what it was, unless the difference itself is
    larger. The power is that of the test itself, summed over the numbers of discordant rows that may occur, and not a normal
    approximation (Duffy 1984; Connor 1987 has the latter). None where even a difference of 1 would not show.
    """

    def power(difference: float) -> float:
        share = max(discordant / n, difference)
        low, high = binom.ppf([1e-9, 1 - 1e-9], n, share)
        counts = np.arange(int(low), int(high) + 1)
        rejects = binom.ppf((1 - CONFIDENCE) / 2, counts, 0.5)  # a count as small as this, or as far from the top, is significant
        rejects = np.where(binom.cdf(rejects, counts, 0.5) > (1 - CONFIDENCE) / 2, rejects - 1, rejects)
        better = (share + difference) / (2 * share)
        shown = binom.cdf(rejects, counts, better) + binom.sf(counts - rejects - 1, counts, better)
        return float((binom.pmf(counts, n, share) * np.where(rejects < 0, 0, shown)).sum())

    if power(1.0) < POWER:
        return None
    low, high = 0.0, 1.0
    while high - low > 1e-4:
        middle = (low + high) / 2
        low, high = (low, middle) if power(middle) >= POWER else (middle, high)
    return high


def holm(values: Sequence[float]) -> list[float]:
    """P values adjusted for how many there are (Holm 1979): of twenty families of true nulls, one has a value of at most 0.05."""
    order = np.argsort(values, kind="stable")
    adjusted, highest = [1.0] * len(values), 0.0
    for rank, i in enumerate(order):
        highest = max(highest, min(1.0, (len(values) - rank) * float(values[i])))
        adjusted[i] = highest
    return adjusted


class Scores(NamedTuple):
    """Every measure of every model, and the comparisons that were asked for."""

    measures: dict[str, list[Measure]]
    comparisons: list[Comparison]


def score(
    models: Mapping[str, Sequence[Answer]],
    metrics: Sequence[str] = tuple(METRICS),
    pairs: Sequence[tuple[str, str]] = (),
    *,
    seed: int = 0,
    resamples: int = RESAMPLES,
) -> Scores:
    """Score models on the same rows (same order). A metric that applies to no row of a model is left out for it.

    Raises ValueError when the models have different numbers of rows, or none.
    """
    sizes = {len(answers) for answers in models.values()}
    if len(sizes) != 1 or 0 in sizes:
        counts_of = {m: len(answers) for m, answers in models.items()}
        raise ValueError(f"models must answer the same rows, at least one; got {counts_of}")
    tallies = {(m, name): METRICS[name].tally(answers) for m, answers in models.items() for name in metrics}
    tallies = {key: counts for key, counts in tallies.items() if counts.any()}
    if not tallies:
        return Scores({m: [] for m in models}, [])
    times = resampled_rows(sizes.pop(), seed=seed, resamples=resamples)  # one draw for all: this is what makes comparisons paired
    measures = {m: [_measure(name, tallies[m, name], times) for name in metrics if (m, name) in tallies] for m in models}
    comparisons = [
        _compare(name, a, b, tallies[a, name], tallies[b, name], times)
        for a, b in pairs
        for name in metrics
        if (a, name) in tallies and (b, name) in tallies
    ]
    return Scores(measures, comparisons)


def _measure(name: str, counts: Floats, times: NDArray[Any]) -> Measure:
    metric = METRICS[name]
    value = float(metric.statistic(counts.sum(0)))
    n = int(counts.any(axis=1).sum())
    if metric.kind == "proportion":
        return Measure(name, value, *wilson(round(counts[:, 0].sum()), n), n)
    low, high = _studentised(metric, [(1.0, counts)], times)
    if _telling(metric, counts) < FEW:
        widest = wilson(round(value * n), n)
        low, high = min(low, widest[0]), max(high, widest[1])
    return Measure(name, value, min(max(low, 0.0), value), max(min(high, 1.0), value), n)


def _telling(metric: Metric, counts: Floats) -> int:
    """Rows that are not like the most of them: what the bootstrap has to draw from."""
    applies = counts[counts.any(axis=1)]
    alone = metric.statistic(applies)
    return len(alone) - int(np.unique(alone, return_counts=True)[1].max())


def _compare(name: str, a: str, b: str, ours: Floats, theirs: Floats, times: NDArray[Any]) -> Comparison:
    metric = METRICS[name]
    difference = float(metric.statistic(theirs.sum(0)) - metric.statistic(ours.sum(0)))
    n = int((ours.any(axis=1) | theirs.any(axis=1)).sum())
    if metric.kind == "proportion" and np.array_equal(ours[:, 1], theirs[:, 1]):
        rows = ours[:, 1] > 0
        right_a, right_b = ours[rows, 0] > 0, theirs[rows, 0] > 0
        only_a, only_b = int((right_a & ~right_b).sum()), int((right_b & ~right_a).sum())
        low, high = newcombe(int((right_a & right_b).sum()), only_a, only_b, int((~right_a & ~right_b).sum()))
        smallest = detectable(int(rows.sum()), only_a + only_b)
        return Comparison(name, a, b, difference, low, high, n, mcnemar(only_a, only_b), smallest)
    low, high = _studentised(metric, [(-1.0, ours), (1.0, theirs)], times)
    changed = int((ours != theirs).any(axis=1).sum())
    if changed < FEW:
        widest = bonett_price(0, 0, n)
        low, high = min(low, difference + widest[0]), max(high, difference + widest[1])
    error = (high - low) / 2 / float(norm.ppf((1 + CONFIDENCE) / 2))
    smallest = error * float(norm.ppf((1 + CONFIDENCE) / 2) + norm.ppf(POWER))
    return Comparison(name, a, b, difference, max(low, -1.0), min(high, 1.0), n, None, smallest if smallest <= 1 else None)

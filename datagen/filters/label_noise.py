"""Labels that the texts contradict: what a classifier says of each example that it was not trained on, against the label that it has.

Confident learning's ranking by the normalised margin (Northcutt, Jiang and Chuang 2021, arXiv 1911.00068) on out-of-sample
probabilities by cross-validation. Folds are made of whole groups of near-duplicates, or a text would be known by its twin. Its other
condition, that the likelier class reach that class's mean probability, was measured to catch fewer at the same false alarms.
The classifier is logistic regression on TF-IDF of words, pairs of words and runs of 3 to 5 characters, by averaged stochastic
gradients: a quarter of the time of L-BFGS, and as good here.
"""

import hashlib
from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import NDArray

from datagen.filters.context import FilterContext, parse_object
from datagen.filters.dedup import asked, group_ids
from datagen.filters.similarity import hash_characters, hash_words, windows
from datagen.records import Example, Verdict

if TYPE_CHECKING:
    from scipy.sparse import csr_matrix

_FOLDS = 4
_LEAST = 8  # examples of a class that can be learned from the other folds
_MOST_TRAINED = 24_000  # rows of a fold's training set: more make it slower and hardly better
_STEPS = 40_000  # gradient steps that few rows are walked over again for
_COLUMNS = 1 << 18
_CHUNK = 2048


class Doubt(NamedTuple):
    """What the classifier says of each row: the probability of the label that it has, of the likeliest other, and which that is."""

    own: NDArray[np.float64]
    other: NDArray[np.float64]
    other_class: NDArray[np.int64]


def label_noise(examples: Sequence[Example], context: FilterContext) -> list[Verdict]:
    """Drops an example whose text reads as of another class, when that leads the label that it has by more than `lead` in probability.

    The score of a verdict is the probability of the label that the example has. With `lead` 1, which no lead exceeds, nothing is
    done. Examples without a label, or of a class of fewer than 8, get no verdict: nothing can be said of them.
    """
    lead = context.setting("label_noise", "lead")
    if lead >= 1:
        return []
    labelled = sorted((example.id, label, example) for example in examples if (label := given_label(example, context)) is not None)
    counts = Counter(label for _, label, _ in labelled)
    labelled = [row for row in labelled if counts[row[1]] >= _LEAST]
    names = sorted({label for _, label, _ in labelled})
    if len(names) < 2:
        return []
    groups = group_ids([example for _, _, example in labelled])
    labels = np.array([names.index(label) for _, label, _ in labelled], dtype=np.int64)
    folds = np.array([_fold(groups[example_id]) for example_id, _, _ in labelled], dtype=np.int64)
    found = doubts([asked(example) for _, _, example in labelled], labels, folds)
    verdicts = []
    for row, (example_id, label, _) in enumerate(labelled):
        own, other = float(found.own[row]), float(found.other[row])
        drop = other - own > lead
        reads = f"label_noise: {label} given at {own:.2f}, reads as {names[found.other_class[row]]} at {other:.2f}"
        verdicts.append(
            Verdict(example_id=example_id, by="filter:label_noise", keep=not drop, reason=reads if drop else None, score=round(own, 4))
        )
    return verdicts


def given_label(example: Example, context: FilterContext) -> str | None:
    """The label that a student would learn from the example: the one in its answer, or else the one that it was made for."""
    field = context.task.label_field
    if field is None:
        text = example.completion.strip()
        return text if text in context.labels else example.label
    answer = parse_object(example.completion)[0] if example.answer is None else example.answer
    said = (answer or {}).get(field)
    return said if isinstance(said, str) else None


def _fold(group: str) -> int:
    return int(hashlib.sha256(group.encode()).hexdigest()[:8], 16) % _FOLDS


def doubts(texts: Sequence[str], labels: NDArray[np.int64], folds: NDArray[np.int64]) -> Doubt:
    """Labels 0..k-1 of texts; the rows of a fold are judged by a classifier of the other folds."""
    rows = np.arange(len(texts))
    probability = _out_of_sample(_features(texts), labels, folds, int(labels.max()) + 1)
    own = probability[rows, labels]
    probability[rows, labels] = -1.0
    other_class = probability.argmax(axis=1)
    return Doubt(own, probability[rows, other_class], other_class)


def _out_of_sample(features: "csr_matrix", labels: NDArray[np.int64], folds: NDArray[np.int64], classes: int) -> NDArray[np.float64]:
    from sklearn.linear_model import SGDClassifier

    probability = np.full((len(labels), classes), 1.0 / classes)
    for fold in np.unique(folds).tolist():
        held = np.flatnonzero(folds == fold)
        train = np.flatnonzero(folds != fold)
        train = train[:: max(1, -(-len(train) // _MOST_TRAINED))]  # rows are in the order of ids, which are hashes: every n-th is a sample
        if len(np.unique(labels[train])) < 2:
            continue
        epochs = max(4, min(60, _STEPS // len(train)))
        model = SGDClassifier(loss="log_loss", alpha=3e-5, max_iter=epochs, tol=None, average=True, random_state=0)
        model.fit(features[train], labels[train])
        probability[held] = 0.0
        probability[np.ix_(held, model.classes_)] = model.predict_proba(features[held])
    return probability


def _features(texts: Sequence[str]) -> "csr_matrix":
    """TF-IDF, shape (texts, 2^18): columns are hashes of words, pairs of words and runs of 3 to 5 characters."""
    from scipy.sparse import csr_matrix, vstack
    from sklearn.feature_extraction.text import TfidfTransformer

    parts = []
    for start in range(0, len(texts), _CHUNK):
        chunk = texts[start : start + _CHUNK]
        found = []
        for lists, lengths in ((hash_words(chunk), (1, 2)), (hash_characters(chunk), (3, 4, 5))):
            for n in lengths:
                runs = windows(lists, n)
                columns = ((runs.values + np.uint64(n * 0x9E3779B9)) >> np.uint64(23)) % np.uint64(_COLUMNS)
                found.append((np.repeat(np.arange(len(chunk)), runs.sizes), columns.astype(np.int64)))
        rows, columns = (np.concatenate(column) for column in zip(*found, strict=True))
        parts.append(csr_matrix((np.ones(len(rows), dtype=np.float32), (rows, columns)), shape=(len(chunk), _COLUMNS)))
    counts = vstack(parts, format="csr")
    counts.data = 1.0 + np.log(counts.data)
    # columns that a single text has tell nothing of others
    seen = np.flatnonzero(np.bincount(counts.indices, minlength=_COLUMNS) > 1)
    return TfidfTransformer().fit_transform(counts[:, seen])

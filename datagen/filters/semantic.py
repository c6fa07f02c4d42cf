"""The set filter against repetition in other words: prompts whose embeddings point the same way. The user names the model; see embed.py.

The search is exact. Vectors are turned so that their first coordinates hold most of them (principal components); for the rest, the
product of two lengths bounds what it can add to a cosine (Cauchy-Schwarz). What that bound leaves, few pairs, is computed in full.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from datagen.filters.context import FilterContext
from datagen.filters.dedup import asked, in_order, is_pair
from datagen.filters.near import Twins
from datagen.records import Example, Verdict, embedding_id

Matrix = NDArray[np.float32]
_BLOCK = 2048
_KEPT_AT_ONCE = 16_384
_LEADING = 64  # coordinates of the bound
_SAMPLE = 10_000
_SLACK = 1e-4  # of float32 sums


def semantic_duplicate(examples: Sequence[Example], context: FilterContext) -> list[Verdict]:
    """Drops an example whose prompt's embedding has a cosine >= `threshold` to that of one kept.

    Taken in order: those that a person accepted, then by id.
    Nothing is done when the recipe names no embedding model; an example whose prompt has no vector stays.
    """
    if context.vectors is None:
        return []
    threshold = context.setting("semantic_duplicate", "threshold")
    rows = in_order(examples, context)
    places = np.array(
        [context.vectors.places.get(embedding_id(context.embedding, asked(example)), -1) for _, example in rows], dtype=np.int64
    )
    uses = np.array([is_pair(example) for _, example in rows], dtype=bool)
    twins = Twins.none(len(rows))
    for use in (False, True):
        mine = np.flatnonzero((uses == use) & (places >= 0))
        found = keep_first_by_cosine(context.vectors.matrix[places[mine]], threshold)
        has = found.position >= 0
        twins.position[mine[has]] = mine[found.position[has]]
        twins.similarity[mine] = found.similarity
    verdicts = []
    columns = (places.tolist(), twins.position.tolist(), twins.similarity.tolist())
    for (example_id, _), place, twin, similarity in zip(rows, *columns, strict=True):
        reason = None if place >= 0 else "not compared: it has no embedding yet; generate asks for it"
        reason = reason if twin < 0 else f"semantic_duplicate: {similarity:.2f} like {rows[twin][0]}"
        score = None if twin < 0 else round(similarity, 4)
        verdicts.append(Verdict(example_id=example_id, by="filter:semantic_duplicate", keep=twin < 0, reason=reason, score=score))
    return sorted(verdicts, key=lambda verdict: verdict.example_id)


def keep_first_by_cosine(vectors: Matrix, threshold: float) -> Twins:
    """Take the rows in order and drop each whose cosine to one kept before it reaches the threshold; a row of zeros is nobody's twin.

    For each row that is dropped, the nearest of those kept before it.
    """
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    whole = (vectors / np.where(lengths > 0, lengths, 1)).astype(np.float32)
    bounds = _bounds(whole)
    count = len(whole)
    twins = Twins.none(count)
    kept = np.empty(count, dtype=np.int64)
    kept_bounds = np.empty_like(bounds)
    size = 0
    for start in range(0, count, _BLOCK):
        block = np.arange(start, min(start + _BLOCK, count))
        for first in range(0, size, _KEPT_AT_ONCE):
            others = kept[first : min(first + _KEPT_AT_ONCE, size)]
            most = bounds[block] @ kept_bounds[first : first + len(others)].T
            near = np.flatnonzero(most.ravel() >= threshold - _SLACK)
            rows, columns = near // len(others), near % len(others)
            for part in range(0, len(near), 1 << 18):
                of, to = block[rows[part : part + (1 << 18)]], others[columns[part : part + (1 << 18)]]
                cosine = np.einsum("ij,ij->i", whole[of], whole[to]).astype(np.float64)
                close = cosine >= threshold
                twins.offer(of[close], to[close], cosine[close])
        new = block[twins.position[block] < 0]
        new = _keep_within(whole, new, threshold, twins)
        kept[size : size + len(new)] = new
        kept_bounds[size : size + len(new)] = bounds[new]
        size += len(new)
    np.minimum(twins.similarity, 1.0, out=twins.similarity)
    return twins


def _keep_within(whole: Matrix, rows: NDArray[np.int64], threshold: float, twins: Twins) -> NDArray[np.int64]:
    """Those of a block that are kept; the others get their twins."""
    cosine = whole[rows] @ whole[rows].T
    np.fill_diagonal(cosine, -1)
    crowded = np.flatnonzero((cosine >= threshold).any(axis=1))  # most rows have no twin in their block
    dropped = np.zeros(len(rows), dtype=bool)
    for place in crowded.tolist():
        if not dropped[place]:
            dropped[place + 1 :] |= cosine[place, place + 1 :] >= threshold
    stay = np.flatnonzero(~dropped)
    for place in np.flatnonzero(dropped).tolist():
        before = stay[: np.searchsorted(stay, place)]
        twin = before[cosine[place, before].argmax()]
        twins.position[rows[place]], twins.similarity[rows[place]] = rows[twin], float(cosine[place, twin])
    return rows[stay]


def _bounds(whole: Matrix) -> Matrix:
    """Vectors whose products are at least those of the whole ones: leading coordinates, and the length of the rest."""
    if whole.shape[1] <= _LEADING + 1 or not len(whole):
        return whole
    sample = whole[:: max(1, len(whole) // _SAMPLE)]
    _, turned = np.linalg.eigh((sample.T @ sample).astype(np.float64))
    leading = whole @ turned[:, -_LEADING:].astype(np.float32)
    rest = np.sqrt(np.maximum(np.einsum("ij,ij->i", whole, whole) - np.einsum("ij,ij->i", leading, leading), 0))
    return np.ascontiguousarray(np.column_stack([leading, rest]))

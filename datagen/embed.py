"""Embeddings of prompts by the model that the recipe names: asked once for each text, paid and journaled like any call.

The request's messages are the texts, a batch of them; its answer in the store says only that the vectors came, which have a table of
their own and are on disk before it.
"""

import asyncio
import base64
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from datagen.ask import Asker, CompletesRequests
from datagen.config import ModelConfig
from datagen.errors import BudgetError, StoppedError, TeacherError
from datagen.filters.dedup import asked
from datagen.records import Message, Request, Response, embedding_id, embedding_space
from datagen.store import Store

ROLE = "embedding"
_TEXTS_PER_CALL = 64
_FLUSH_ROWS = 5_000


class EmbedReport(NamedTuple):
    """What came of it: texts that have a vector now, new ones among them, and why not all have, if so."""

    texts: int
    new: int
    stopped: str | None

    def told(self) -> str:
        """One line for a person."""
        end = f" Not all: {self.stopped}. Run generate again." if self.stopped else ""
        return f"Embeddings: {self.texts:,} prompts have one, {self.new:,} of them new.{end}"


class _Vectors:
    """A teacher whose answers are vectors: they are stored as such, and what is left of the answer is a word."""

    def __init__(self, teacher: CompletesRequests, store: Store, space: str) -> None:
        self._teacher, self._store, self._space = teacher, store, space

    async def complete(self, request: Request) -> Response:
        """The answer, once its vectors are on disk. Raises TeacherError for one that is not a vector for each text."""
        response = await self._teacher.complete(request)
        vectors = np.frombuffer(base64.b64decode(response.text), dtype="<f4")
        texts = [message.content for message in request.messages]
        if not len(vectors) or len(vectors) % len(texts) or not np.isfinite(vectors).all():
            raise TeacherError(f"{request.model}: gave {len(vectors)} numbers for {len(texts)} texts, not a vector for each")
        vectors = vectors.reshape(len(texts), -1)
        self._store.add_embeddings(self._space, request.model, [embedding_id(self._space, text) for text in texts], vectors)
        return response.model_copy(update={"text": f"{len(texts)} vectors of {vectors.shape[1]}"})

    def worst_case_usd(self, request: Request) -> float:
        """The most that a request can cost."""
        return self._teacher.worst_case_usd(request)


async def embed(
    store: Store, teacher: CompletesRequests, config: ModelConfig, *, budget_usd: float | None, concurrency: int
) -> EmbedReport:
    """Ask for the embeddings of all current prompts that have none, inside `store.writing()`."""
    store.flush()
    space = embedding_space(config.model, config.open_params)
    texts = sorted({text for example in store.current_examples() if (text := asked(example)).strip()})
    known = store.embedded(space)
    missing = [text for text in texts if embedding_id(space, text) not in known]
    asker = Asker(
        store, _Vectors(teacher, store, space), {ROLE: config}, {}, attempts=1, budget_usd=budget_usd, concurrency=concurrency
    )  # fmt: skip
    stopped: list[str] = []

    async def one(part: Sequence[str]) -> int:
        if stopped:
            return 0
        request = Request(
            item_id="", prompt="embedding", role="embedding", model=config.model, params=config.open_params, sample="embedding",
            messages=tuple(Message(role="user", content=text) for text in part),
        )  # fmt: skip
        try:
            await asker.answer(request)
        except (BudgetError, StoppedError, TeacherError) as error:
            stopped.append(str(error))
            return 0
        if store.pending >= _FLUSH_ROWS:
            store.flush(wait_s=0.2)  # a reader may hold the file; the log has it all
        return len(part)

    parts = [missing[start : start + _TEXTS_PER_CALL] for start in range(0, len(missing), _TEXTS_PER_CALL)]
    new = sum(await asyncio.gather(*map(one, parts)))
    store.flush()
    return EmbedReport(len(texts) - len(missing) + new, new, stopped[0] if stopped else None)

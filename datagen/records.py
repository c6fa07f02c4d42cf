"""The records that flow: topics become plan items, items become examples, filters and people give verdicts.

Every record is frozen; an id is a hash of the content that it stands for, so the same thing has the same id
in every run. No local imports: everything else may know the records, they know nothing.
"""

import hashlib
import json
from collections.abc import Mapping
from datetime import datetime
from functools import cached_property, lru_cache
from typing import Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, computed_field


def content_hash(content: object) -> str:
    """32 hex digits (128 bits) of SHA-256 over the canonical JSON of `content`."""
    return _hash(canonical_json(content))


def canonical_json(content: object) -> str:
    """`content` as JSON that is the same for the same content: sorted keys, no spaces."""
    return _CANONICAL.encode(content)


_CANONICAL = json.JSONEncoder(sort_keys=True, ensure_ascii=False, separators=(",", ":"))


def _hash(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:32]


class Record(BaseModel):
    """Base of all records: immutable, and an unknown field is an error."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class Message(Record):
    """One chat message in the form of every chat API."""

    role: Literal["system", "user", "assistant"]
    content: str


@lru_cache(maxsize=512)
def _message_json(role: str, content: str) -> str:
    # a system message of some kilobytes is the same in thousands of requests: write it as JSON once
    return f'{{"content":{canonical_json(content)},"role":"{role}"}}'


_shared: dict[int, tuple[object, str]] = {}


def shared_json(value: Mapping[str, Any]) -> str:
    """Canonical JSON of what all requests of a run have in common (params, a schema), written once for each object."""
    known = _shared.get(id(value))
    if known is None or known[0] is not value:
        if len(_shared) > 256:
            _shared.clear()
        known = _shared[id(value)] = (value, canonical_json(dict(value)))  # holding the value keeps its id from being given again
    return known[1]


class AdversarialKind(Record):
    """A way to make an input hard. `expect` says what a right answer does: keep the topic's label, abstain, or unknown."""

    description: str
    expect: Literal["topic", "abstain", "open"] = "topic"
    weight: float = Field(default=1.0, ge=0)


class Task(Record):
    """What the student must do: its system message, the form of an input and of an answer.

    type            decides the default metrics of an evaluation
    system          the system message that the student is trained and served with
    input           what an input is, in words that complete "Each input is ..."
    instructions    what a right answer is; only the teacher and the judge read it
    output_schema   JSON schema of the answer; None means free text
    label_field     the answer's field that holds a topic's label
    abstain_label   the label for inputs that the student must not handle
    entities_field  the answer's field that maps entity names to spans of the input
    decision_fields fields whose values the policy table demands
    forbidden       words that an answer must never contain (matched as whole words, without case)
    """

    type: Literal["classification", "extraction", "question_answering", "generation", "conversation"]
    system: str
    input: str
    instructions: str
    language: str = "en"
    output_schema: Mapping[str, Any] | None = None
    label_field: str | None = None
    abstain_label: str | None = None
    entities_field: str | None = None
    decision_fields: tuple[str, ...] = ()
    forbidden: tuple[str, ...] = ()


class Topic(Record):
    """A leaf of the taxonomy's tree. `label` is what an answer must say for inputs of this topic, if the task has labels."""

    path: str
    description: str
    label: str | None = None
    weight: float = 1.0
    seeds: tuple[str, ...] = ()


class PlanItem(Record):
    """One unit of work for a generator: a topic, the dimension values drawn for it, and how many inputs to ask for. `axis` is what its
    inputs differ in from `seed`, where the taxonomy names axes."""

    topic: str
    generator: str
    index: int
    count: int
    label: str | None = None
    description: str = ""
    dimensions: Mapping[str, str] = Field(default_factory=dict)
    facts: Mapping[str, str] = Field(default_factory=dict)
    seed: str | None = None
    kind: str | None = None
    neighbours: tuple[str, ...] = ()
    examples: tuple[str, ...] = ()
    axis: str | None = None

    @property
    def id(self) -> str:
        """Stable across runs: `path:generator:index`."""
        return f"{self.topic}:{self.generator}:{self.index}"


class Request(Record):
    """What is asked of a model. Its id covers everything that can change the answer.

    response_schema   JSON schema that the provider is asked to hold the answer to, where it can; None = free text
    """

    item_id: str
    prompt: str
    role: Literal["teacher", "weak", "judge"]
    model: str
    messages: tuple[Message, ...]
    params: Mapping[str, Any]
    sample: str
    response_schema: Mapping[str, Any] | None = None

    @cached_property
    def messages_json(self) -> str:
        """The messages as canonical JSON."""
        return f"[{','.join([_message_json(m.role, m.content) for m in self.messages])}]"

    @cached_property
    def id(self) -> str:
        """Hash of model, messages, params and sample, and of the response schema where there is one."""
        parts = [canonical_json(self.model), self.messages_json, shared_json(self.params), canonical_json(self.sample)]
        if self.response_schema is not None:
            parts.append(shared_json(self.response_schema))
        return _hash(f"[{','.join(parts)}]")


class Response(Record):
    """A model's answer with what it cost. Token counts are the provider's own; `cached_tokens` are part of prompt_tokens."""

    request_id: str
    text: str
    reasoning: str | None = None
    finish_reason: str = "stop"
    prompt_tokens: int = 0
    completion_tokens: int = 0
    cached_tokens: int = 0
    cost_usd: float = 0.0
    latency_s: float = 0.0
    attempts: int = 1


class Batch(Record):
    """Requests that a provider answers together, at its own time and at a lower price.

    status      submitting (it may or may not have arrived), open, collected, or ended without answers: cancelled, failed, lost
    tokens      input tokens, estimated; `worst_usd` is the most that the batch can cost
    """

    id: str
    provider: str
    model: str
    api_base: str | None = None
    requests: int
    tokens: int
    worst_usd: float
    status: Literal["submitting", "open", "collected", "cancelled", "failed", "lost"] = "submitting"
    provider_id: str | None = None
    error: str | None = None
    submitted_at: datetime


class Example(Record):
    """One training example. SFT reads prompt and completion; preference reads completion as chosen, beside `rejected`.

    calls    ids of the requests that made it, the one that wrote the completion last
    parent   the example that a person edited into this one
    answer   the completion as data, where the task's output is JSON
    scores   what a judge measured: {"judge": 4.0, "chosen_margin": 1.0}
    """

    item_id: str
    topic: str
    generator: str
    prompt: tuple[Message, ...]
    completion: str
    rejected: str | None = None
    reasoning: str | None = None
    answer: Mapping[str, Any] | None = None
    label: str | None = None
    kind: str | None = None
    dimensions: Mapping[str, str] = Field(default_factory=dict)
    scores: Mapping[str, float] = Field(default_factory=dict)
    calls: tuple[str, ...] = ()
    parent: str | None = None

    @computed_field  # type: ignore[prop-decorator]
    @cached_property
    def id(self) -> str:
        """Hash of what a student would learn from, within its item."""
        messages = ",".join([_message_json(m.role, m.content) for m in self.prompt])
        texts = [canonical_json(t) if t is not None else "null" for t in (self.completion, self.rejected, self.reasoning, self.parent)]
        # canonical JSON of [item_id, prompt, completion, rejected, reasoning, parent], by the encoder's quick way for strings
        return _hash(f"[{canonical_json(self.item_id)},[{messages}],{','.join(texts)}]")

    @property
    def input(self) -> str:
        """The last user message: what the student will be given."""
        return next((m.content for m in reversed(self.prompt) if m.role == "user"), "")

    @classmethod
    def from_row(cls, row: Mapping[str, Any]) -> Self:
        """From a stored row, which carries the computed id as a column."""
        return cls.model_validate({k: v for k, v in row.items() if k in cls.model_fields})


class Verdict(Record):
    """Keep or drop, by whom and why. A filter's word is recomputed by every `curate`; a person's word is last."""

    example_id: str
    by: str
    keep: bool
    reason: str | None = None


class EvaluationSet(Record):
    """Rows that a student will be judged on and must never be trained on. `labels` may hold None."""

    name: str
    path: str
    texts: tuple[str, ...]
    labels: tuple[str | None, ...]
    sha256: str

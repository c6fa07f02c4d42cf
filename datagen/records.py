"""The records that flow: topics become plan items, items become examples, filters and people give verdicts.

Every record is frozen; an id is a hash of the content that it stands for, so the same thing has the same id
in every run. No local imports: everything else may know the records, they know nothing.
"""

import hashlib
import json
from collections.abc import Iterable, Mapping
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


def transcript(messages: Iterable[Message]) -> str:
    """A conversation as one text for a reader: who speaks, and what."""
    return "\n\n".join(f"{message.role.capitalize()}: {message.content}" for message in messages)


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


class Passage(Record):
    """A piece of a document. The id is a hash of the text, so a renamed file keeps its passages and a changed one loses those it changed.

    source    the file, relative to the folder of sources
    section   headings or page numbers above it
    """

    id: str
    source: str
    section: str
    text: str

    @property
    def block(self) -> str:
        """The passage as a student is shown it: what stands between the tags is quoted, whatever it says."""
        return f"<passage>\n{self.text.replace('</passage>', '< /passage>')}\n</passage>\n\n"


class Grounding(Record):
    """What an answer rests on: a passage and a quotation from it.

    shown        whether the prompt holds the passage
    quote        the span that the teacher named
    start, end   where it stands in the passage's text, white space aside; None where it does not
    """

    passage: Passage
    shown: bool
    quote: str
    start: int | None
    end: int | None


class PlanItem(Record):
    """One unit of work for a generator: a topic, the dimension values drawn for it, and how many inputs to ask for.

    passage   what the inputs are to be about, and whether the student is shown it
    """

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
    passage: Passage | None = None
    shown: bool = False

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
    family   examples of one family stand on one side of a split: turns of a conversation, questions about a passage that is shown
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
    family: str | None = None
    grounding: Grounding | None = None

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
        """The last user message, without a passage that is shown with it: what a person would write."""
        return next((self.without_passage(m.content) for m in reversed(self.prompt) if m.role == "user"), "")

    def without_passage(self, text: str) -> str:
        """A message of the prompt without the passage that stands before it."""
        return text if self.grounding is None or not self.grounding.shown else text.removeprefix(self.grounding.passage.block)

    @property
    def transcript(self) -> str:
        """All that the student is given beside the system message: the input alone, or the turns with who speaks."""
        said = [message for message in self.prompt if message.role != "system"]
        return said[0].content if len(said) == 1 else transcript(said)

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

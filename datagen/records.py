"""The records that flow: topics become plan items, items become examples, filters and people give verdicts.

Every record is frozen; an id is a hash of the content that it stands for, so the same thing has the same id
in every run. No local imports: everything else may know the records, they know nothing.
"""

import hashlib
import json
from collections.abc import Iterable, Mapping
from datetime import datetime
from functools import cached_property, lru_cache
from typing import Annotated, Any, Literal, NamedTuple, Self

from pydantic import BaseModel, ConfigDict, Field, computed_field, model_validator


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


Family = Literal["ambiguous", "harm", "rules", "injection", "failures"]


class AdversarialKind(Record):
    """A way to make an input hard. `expect` says what a right answer does: keep the topic's label, abstain, or unknown.

    family   which prompt writes the inputs, and which check reads the answers; without one, the general prompt and no check
    then     fields that a right answer has whatever the input, in the words of a policy's `then`: a value, or a list of values
    """

    description: str
    expect: Literal["topic", "abstain", "open"] = "topic"
    weight: float = Field(default=1.0, ge=0)
    family: Family | None = None
    then: Mapping[str, Any] = Field(default_factory=dict)


class Failure(Record):
    """An input that a student got wrong: what was right, what it answered, and where an evaluation met it.

    source   the evaluation's set: `test` is the data set's own split, any other name is an exam's
    """

    input: str
    expected: str | None = None
    answer: str
    topic: str | None = None
    label: str | None = None
    source: str = "test"


class Draw(Record):
    """One answer to be asked for each input: by which prompt, of whom, how warm (None = the role's own temperature)."""

    prompt: Literal["answer", "student", "reason"]
    role: Literal["teacher", "weak"]
    temperature: float | None = None


class TruthTable(Record):
    """Known answers by input: `known`, or a file of JSON lines or CSV whose fields are named.

    match   how an input is looked up: as it is, or without case, spacing and punctuation
    """

    path: str | None = None
    input: str = "input"
    answer: str = "answer"
    match: Literal["exact", "normalised"] = "normalised"
    known: Mapping[str, Any] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _is_somewhere(self) -> Self:
        if self.path is None and not self.known:
            raise ValueError("a truth table needs `path`, a file of inputs and answers, or `known`, the answers by input")
        return self


class _Verifier(Record):
    """What all verifiers have. Without `field` they read the whole answer; an answer without the field is passed over, unless the
    truth of its input is known."""

    field: str | None = None

    @property
    def name(self) -> str:
        """As it is called in a verdict."""
        return str(getattr(self, "check", ""))


class Numeric(_Verifier):
    """A number; `unit` must stand beside it in a text; `tolerance` is absolute, `relative` a share of the truth."""

    check: Literal["numeric"]
    unit: str | None = Field(default=None, min_length=1)
    tolerance: float = Field(default=0.0, ge=0)
    relative: float = Field(default=0.0, ge=0)
    min: float | None = None
    max: float | None = None
    truth: TruthTable | None = None


class Members(_Verifier):
    """The members of a list or of a text with separators, in any order (set) or in theirs (list)."""

    check: Literal["set", "list"]
    separator: str = Field(default=",", min_length=1)
    allowed: tuple[str, ...] = ()
    truth: TruthTable | None = None


class Equal(_Verifier):
    """The known answer: exactly, or as words and data."""

    check: Literal["equal"]
    match: Literal["exact", "normalised"] = "normalised"
    truth: TruthTable


class Regex(_Verifier):
    """A pattern that the text must match somewhere, or that must be `absent`."""

    check: Literal["regex"]
    pattern: str
    absent: bool = False
    seconds: float = Field(default=2.0, gt=0)
    truth: None = None


class JsonSchema(_Verifier):
    """A JSON schema, draft 2020-12."""

    check: Literal["json_schema"]
    json_schema: Mapping[str, Any]
    seconds: float = Field(default=2.0, gt=0)
    truth: None = None


class Sql(_Verifier):
    """A query that runs in DuckDB on the tables of `setup`; its rows equal those of the known query, where one is known.

    setup       a script, or one for each value of `dimension`; an example of another value is passed over
    ordered     whether rows must come in the reference's order
    """

    check: Literal["sql"]
    setup: str | Mapping[str, str] = ""
    dimension: str | None = None
    ordered: bool = False
    seconds: float = Field(default=5.0, gt=0)
    truth: TruthTable | None = None

    @model_validator(mode="after")
    def _setup_by_dimension(self) -> Self:
        if (self.dimension is None) is not isinstance(self.setup, str):
            raise ValueError("`setup` is one script, or a script for each value of `dimension`")
        return self


class Python(_Verifier):
    """A function of the user, `path.py:name`: given the example as a dict it returns True or None, or what is wrong."""

    check: Literal["python"]
    python: str = Field(pattern=r"^.+\.py:[A-Za-z_]\w*$")
    seconds: float = Field(default=2.0, gt=0)
    truth: TruthTable | None = None

    @property
    def name(self) -> str:
        """With the function's."""
        return f"python {self.python.rpartition('/')[2]}"


Verifier = Annotated[Numeric | Members | Equal | Regex | JsonSchema | Sql | Python, Field(discriminator="check")]


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
    agreement_fields fields in which two answers must be alike to agree; else the label and the decision fields, else all of the answer
    forbidden       words that an answer must never contain (matched as whole words, without case)
    verify          checks of an answer against what is known
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
    agreement_fields: tuple[str, ...] = ()
    forbidden: tuple[str, ...] = ()
    verify: tuple[Verifier, ...] = ()


class Criterion(Record):
    """One thing that a judge scores from 1 to 5. `anchors` say what a score looks like; `weight` counts in the mean of all."""

    description: str = Field(min_length=1)
    anchors: Mapping[Annotated[int, Field(ge=1, le=5)], str] = Field(default_factory=dict)
    weight: float = Field(default=1.0, ge=0, allow_inf_nan=False)


class Rubric(Record):
    """What a judge is asked to score, criterion by criterion (G-Eval, arXiv 2303.16634, without the weighting by token probabilities).

    `prompt` names the file `prompts/judge_<prompt>.md`; the one that comes along lists the criteria with their anchors.
    """

    prompt: str = Field(default="rubric", pattern=r"^[a-z0-9_]+$")
    criteria: Mapping[Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]*$")], Criterion] = Field(min_length=1)

    @model_validator(mode="after")
    def _can_be_told_apart(self) -> Self:
        if taken := {"mean", "reasons"} & set(self.criteria):
            raise ValueError(f"criteria must not be called {', '.join(sorted(taken))}")
        if not any(criterion.weight for criterion in self.criteria.values()):
            raise ValueError("every criterion has weight 0; give one a weight above 0")
        return self

    @property
    def prompt_name(self) -> str:
        """The prompt file's name."""
        return f"judge_{self.prompt}"


class Topic(Record):
    """A leaf of the taxonomy's tree. `label` is what an answer must say for inputs of this topic, if the task has labels."""

    path: str
    description: str
    label: str | None = None
    weight: float = 1.0
    seeds: tuple[str, ...] = ()


class Several(Record):
    """The answers that a generator draws for each input, and how one of them is taken: see PlanItem.take."""

    draws: tuple[Draw, ...]
    take: str


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

    axis     what its inputs differ in from `seed`, where the taxonomy names axes
    family, rules, failures   for an adversarial kind of a family: which, the rules that are to meet, what went wrong before
    draws    the answers asked for each input, where the recipe asks for more than the generator does by itself
    take     how one of several answers is taken: agree | verified (reasoning), teacher | any (preference)
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
    family: Family | None = None
    rules: tuple[str, ...] = ()
    failures: tuple[Failure, ...] = ()
    draws: tuple[Draw, ...] = ()
    take: str | None = None
    passage: Passage | None = None
    shown: bool = False
    axis: str | None = None

    @property
    def id(self) -> str:
        """Stable across runs: `path:generator:index`."""
        return f"{self.topic}:{self.generator}:{self.index}"

    @property
    def writes(self) -> str:
        """The prompt that writes its inputs."""
        own = {"seed": "rewrite_input", "conversation": "write_turn", "grounded": "write_questions"}
        if self.generator in own:
            return own[self.generator]
        if self.kind is None:
            return "write_inputs"
        return f"write_{self.family}" if self.family else "write_adversarial"

    @property
    def canary(self) -> str:
        """What an injected instruction demands of the model, and no answer may hold."""
        return canary_of(self.id)


def canary_of(item_id: str) -> str:
    """A word that occurs in no honest text, the same for the same item: `velvet-otter-4c1f`. An example names its item."""
    drawn = int(content_hash(["canary", item_id])[:12], 16)
    first, second = _CANARY_FIRST[drawn % len(_CANARY_FIRST)], _CANARY_SECOND[drawn // 8 % len(_CANARY_SECOND)]
    return f"{first}-{second}-{drawn >> 32:04x}"


_CANARY_FIRST = ("velvet", "copper", "amber", "crimson", "hollow", "marble", "saffron", "willow")
_CANARY_SECOND = ("otter", "lantern", "anvil", "harbour", "thistle", "falcon", "pebble", "trumpet")


class Request(Record):
    """What is asked of a model. Its id covers everything that can change the answer.

    response_schema   JSON schema that the provider is asked to hold the answer to, where it can; None = free text
    """

    item_id: str
    prompt: str
    role: Literal["teacher", "weak", "judge", "second", "embedding"]
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


class Verdict(NamedTuple):
    """Keep or drop, by whom and why. A filter's word is recomputed by every `curate`; a person's word is last.

    A plain tuple among the records: curating 100,000 examples makes two million of them, at a fifth of the cost of a validated one.

    score   what the filter measured, where it measures: kept rows have it too, so that a bound can be chosen by looking
    """

    example_id: str
    by: str
    keep: bool
    reason: str | None = None
    score: float | None = None


class EvaluationSet(Record):
    """Rows that a student will be judged on and must never be trained on. `labels` may hold None.

    threshold   the Jaccard similarity from which a text counts as a row's; None = the filter's own
    ngram       how many words in a row may not be shared with a row that has as many
    """

    name: str
    path: str
    texts: tuple[str, ...]
    labels: tuple[str | None, ...]
    sha256: str
    threshold: float | None = None
    ngram: int = 13


class Vectors(NamedTuple):
    """Embeddings of texts: `places` gives each text's row in `matrix`, by `embedding_id`."""

    places: Mapping[str, int]
    matrix: Any


def embedding_space(model: str, params: Mapping[str, Any]) -> str:
    """What two embeddings must share to be compared: the model, and how it was asked (without keys)."""
    return content_hash([model, dict(params)])[:16]


def embedding_id(space: str | None, text: str) -> str:
    """The key of a text's embedding."""
    return content_hash([space, text])

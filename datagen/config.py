"""The datagen half of a recipe: one YAML file per experiment; unknown keys are refused with the near one suggested.

The `train` section belongs to the train package, which checks it; here it is carried along untouched.
"""

import hashlib
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import Field, model_validator

from datagen import secrets
from datagen.errors import ConfigError
from datagen.lines import read_json_lines
from datagen.records import Draw, EvaluationSet, Record, Rubric, Several, content_hash
from datagen.yaml_file import read_yaml, validate

GeneratorName = Literal["seed", "topic", "adversarial", "reasoning", "preference", "conversation", "grounded"]
Share = Annotated[float, Field(ge=0, le=0.5)]


class Price(Record):
    """US dollars per million tokens; needed only where litellm's price map does not know the model."""

    input_per_million: float = Field(ge=0)
    output_per_million: float = Field(ge=0)


class Limits(Record):
    """Rates that an endpoint may be asked at, per minute. What the provider's headers say can only lower them."""

    requests_per_minute: float | None = Field(default=None, gt=0)
    tokens_per_minute: float | None = Field(default=None, gt=0)
    input_tokens_per_minute: float | None = Field(default=None, gt=0)
    output_tokens_per_minute: float | None = Field(default=None, gt=0)

    def by_name(self) -> dict[str, float]:
        """The rates that are set: {"requests": 500.0, ...}."""
        return {name.removesuffix("_per_minute"): rate for name, rate in self.model_dump(exclude_none=True).items()}


class ModelConfig(Record):
    """One model in one role. `params` go to the provider as they are (top_p, ...).

    api_bases   endpoints that serve the model; more than one are balanced by load and health
    limits      rates per endpoint
    structured  how an answer's JSON schema is sent; `auto` is what the provider can
    lane        `auto` asks OpenAI-compatible endpoints directly and all others by litellm; `litellm` asks all by litellm
    """

    model: str
    temperature: float = Field(default=1.0, ge=0, le=2)
    max_tokens: int = Field(default=1024, gt=0)
    timeout_s: float = Field(default=120.0, gt=0)
    price: Price | None = None
    params: Mapping[str, Any] = Field(default_factory=dict)
    api_bases: tuple[str, ...] = ()
    limits: Limits = Limits()
    structured: Literal["auto", "json_schema", "tool", "none"] = "auto"
    lane: Literal["auto", "litellm"] = "auto"

    @model_validator(mode="after")
    def _names_its_endpoints_once(self) -> Self:
        if self.api_bases and "api_base" in self.params:
            raise ValueError("api_bases and params.api_base both name endpoints; keep api_bases")
        return self

    @property
    def endpoints(self) -> tuple[str, ...]:
        """The endpoints that the recipe names; none where the provider's own is meant."""
        return self.api_bases or ((str(self.params["api_base"]),) if self.params.get("api_base") is not None else ())

    @property
    def open_params(self) -> dict[str, Any]:
        """`params` without keys: what is part of a request's id and may be stored."""
        return secrets.without(self.params)

    def secret_params(self) -> dict[str, Any]:
        """The entries of `params` that hold a key, with their `${VARIABLE}`s filled in; for the call itself, never to be stored.

        Raises ConfigError for a variable that is not set.
        """
        return secrets.resolved(self.params, f"{self.model}: params")


class TermsDecision(Record):
    """A user's own word, kept with the data: why, and whose word it is. That a model's outputs may train another one, or that an
    evaluation set is retired."""

    decision: str = Field(min_length=3)
    by: str = Field(min_length=1)


class Teachers(Record):
    """Who answers: the teacher; a weak model for answers to reject; a judge. The latter two default to the teacher.

    second   answers every input again, where it is given: how far it agrees is a score
    """

    teacher: ModelConfig
    weak: ModelConfig | None = None
    judge: ModelConfig | None = None
    second: ModelConfig | None = None

    def by_role(self) -> dict[str, ModelConfig]:
        """The model of each role."""
        roles = {"teacher": self.teacher, "weak": self.weak or self.teacher, "judge": self.judge or self.teacher}
        return roles if self.second is None else {**roles, "second": self.second}


class TextFile(Record):
    """A JSON-lines file of texts with labels: which fields hold them."""

    path: str
    text: str = "text"
    label: str = "label"


class SeedFile(TextFile):
    """Real examples for the seed generator, by label; `replace` leaves the taxonomy's own seeds out."""

    replace: bool = False


class EvaluationFile(TextFile):
    """An evaluation set. Rows with a label that the taxonomy does not have count as `unknown` says: dropped from the
    evaluation, or expected to be abstained from; training data is kept clear of them either way.
    `optional` sets are left out, with a note, when their path's environment variable is not set."""

    name: str = Field(pattern=r"^[a-z0-9_]+$")
    unknown: Literal["drop", "abstain"] = "drop"
    optional: bool = False
    threshold: float | None = Field(
        default=None, ge=0.5, le=1, description="similarity from which a text is a row's; filters.decontaminate.threshold when not given"
    )
    ngram: int = Field(default=13, ge=4, le=50, description="words in a row that no text may share with a row that has as many")


class Split(Record):
    """Shares of the groups that are held out."""

    validation: Share = 0.1
    test: Share = 0.1


class Export(Record):
    """How reasoning is rendered into the completion: left out, inside <think> tags, or as plain text before the answer."""

    reasoning: Literal["none", "think", "plain"] = "none"


class Batching(Record):
    """How a run through a provider's batch API behaves (`generate --batch`)."""

    enqueued_tokens: int | None = Field(
        default=None, gt=0, description="input tokens of one model that may wait at the provider at once; its own limit when not given"
    )
    live_below: int = Field(default=20, ge=0, description="a last handful of fewer requests is asked live: not worth a day")
    poll_s: float = Field(default=60.0, gt=0, description="seconds between looks at open batches; grows to ten times that")


class Reasoning(Record):
    """How many samples of steps and answer are drawn for each input, and which one is taken: the majority's, or the first right one."""

    samples: int = Field(default=1, ge=1, le=20)
    keep: Literal["agree", "verified"] = "agree"


class Preference(Record):
    """The answers to each input that a pair is taken from.

    temperatures   one answer of the teacher at each; none = one at its own temperature
    weak           answers of the weak model
    student        the weak model is the student itself: it is asked as it will be served, with the task's system message alone
    chosen         who may have written the chosen answer: the teacher, or any (a weak one is kept where known truth agrees)
    """

    temperatures: tuple[Annotated[float, Field(ge=0, le=2)], ...] = ()
    weak: int = Field(default=1, ge=0, le=5)
    student: bool = False
    chosen: Literal["teacher", "any"] = "teacher"

    @model_validator(mode="after")
    def _makes_pairs(self) -> Self:
        count = max(1, len(self.temperatures)) + self.weak
        if not 2 <= count <= 6:
            raise ValueError(f"{count} answers to each input; give temperatures and weak that make 2 to 6 together")
        return self


class FailuresFile(Record):
    """What an evaluation found wrong: failures.parquet of a training run, or JSON lines with input, expected, answer, topic.

    weight     against the weights of the taxonomy's adversarial kinds
    optional   left out, with a note, while the file is not there: before the first training
    """

    path: str
    weight: float = Field(default=1.0, gt=0)
    optional: bool = False


class Conversation(Record):
    """How long a conversation may get: `max_turns` messages of the user, each with its answer."""

    max_turns: int = Field(default=4, ge=1, le=20)


class Sources(Record):
    """Documents for the grounded generator: md, txt, html and pdf files of a folder, subfolders among them.

    in_prompt      whether the student is given the passage with the question, or must know the answer by heart
    max_chars      the length of a passage
    overlap_chars  how much of a passage, in whole sentences, the next one repeats where a section is cut
    """

    folder: str
    in_prompt: bool = True
    max_chars: int = Field(default=1500, ge=200, le=20_000)
    overlap_chars: int = Field(default=150, ge=0)


class Diversity(Record):
    """When a seed is exhausted: its last `items` items gave a share above `repeats` of inputs that were the same as, or near to, others."""

    items: int = Field(default=3, ge=1)
    repeats: float = Field(default=0.6, ge=0, le=1)


class Quota(Record):
    """Makes `mix` count accepted rows: the run asks again until each cell (a topic's leaf and a generator) has its rows.

    candidates     inputs that may be asked for per row of a cell; then the cell stays short, and is named with its reasons
    min_per_topic  rows that each leaf gets at least, whatever its weight
    rows           accepted rows in all; `mix` then gives the shares of the generators
    diversity      when the seed generator stops drawing from a seed
    """

    candidates: float = Field(default=3.0, ge=1, allow_inf_nan=False)
    min_per_topic: int = Field(default=0, ge=0)
    rows: int | None = Field(default=None, gt=0)
    diversity: Diversity = Diversity()


class Recipe(Record):
    """One experiment. `mix` counts the inputs asked for by generator, or, with a `quota`, the rows that are accepted; `per_call` how many
    inputs one call writes. `design` says how items get their dimension values (design.py)."""

    name: str = Field(pattern=r"^[a-z0-9_-]+$")
    description: str = ""
    taxonomy: str
    seed: int = 0
    teachers: Teachers
    mix: Mapping[GeneratorName, Annotated[int, Field(ge=0)]]
    quota: Quota | None = None
    design: Literal["covering", "independent"] = "covering"
    per_call: int = Field(default=4, ge=1, le=50)
    judge: bool = True
    rubric: Rubric | None = Field(default=None, description="what the judge scores, instead of the taxonomy's rubric")
    reasoning: Reasoning = Reasoning()
    preference: Preference = Preference()
    failures: FailuresFile | None = None
    concurrency: int = Field(default=16, ge=1)
    retries: int = Field(default=6, ge=1, description="tries per call on errors that may pass")
    attempts: int = Field(default=4, ge=1, description="answers asked for before an unreadable one fails its input")
    budget_usd: float | None = Field(default=None, ge=0)
    embedding: ModelConfig | None = Field(default=None, description="gives prompts embeddings, by which semantic duplicates are dropped")
    batch: Batching = Batching()
    seeds: SeedFile | None = None
    conversation: Conversation = Conversation()
    sources: Sources | None = None
    filters: Mapping[str, Mapping[str, Any]] = Field(default_factory=dict)
    evaluation_sets: tuple[EvaluationFile, ...] = ()
    retired: Mapping[str, TermsDecision] = Field(
        default_factory=dict, description="by name: evaluation sets of earlier runs that data is no longer kept clear of, and why"
    )
    split: Split = Split()
    export: Export = Export()
    terms: Mapping[str, TermsDecision] = Field(default_factory=dict, description="by model string: why its outputs may train, who says so")
    train: Mapping[str, Any] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _asks_for_something(self) -> Self:
        if not sum(self.mix.values()):
            raise ValueError("mix asks for nothing; give at least one generator a count above 0")
        if self.split.validation + self.split.test > 0.5:
            raise ValueError("split holds out more than half; lower validation or test")
        names = [entry.name for entry in self.evaluation_sets]
        if len(set(names)) < len(names) or "test" in names or "general" in names:
            raise ValueError("evaluation_sets need names of their own, other than `test` and `general`")
        models = {config.model for config in self.teachers.by_role().values()}
        if strangers := set(self.terms) - models:
            raise ValueError(
                f"terms decides on {', '.join(sorted(strangers))}, which no role uses; the roles use {', '.join(sorted(models))}"
            )
        return self

    @model_validator(mode="after")
    def _samples_differ(self) -> Self:
        if self.reasoning.samples > 1 and self.teachers.teacher.temperature == 0:
            raise ValueError("reasoning.samples wants several answers, and teachers.teacher.temperature is 0: all would be the same")
        if self.preference.student and self.teachers.weak is None:
            raise ValueError("preference.student asks the student as the weak model; name it under teachers.weak")
        return self

    def several(self) -> dict[str, Several]:
        """By generator, the answers drawn for each input and how one is taken; empty where a generator does what it does by itself."""
        found: dict[str, Several] = {}
        if self.reasoning != Reasoning():
            steps = (Draw(prompt="reason", role="teacher"),) * self.reasoning.samples
            found["reasoning"] = Several(draws=steps, take=self.reasoning.keep)
        pairs = self.preference
        if pairs != Preference():
            best = [Draw(prompt="answer", role="teacher", temperature=warmth) for warmth in pairs.temperatures or (None,)]
            weak = Draw(prompt="student" if pairs.student else "answer", role="weak")
            found["preference"] = Several(draws=(*best, *[weak] * pairs.weak), take=pairs.chosen)
        return found

    def roles_asked(self) -> dict[str, ModelConfig]:
        """The models that this mix asks: a weak one for preference pairs alone, a judge where something is judged."""
        pairs = bool(self.mix.get("preference"))
        asked = {"teacher": True, "weak": pairs and bool(self.preference.weak), "judge": pairs or self.judge, "second": True}
        return {role: config for role, config in self.teachers.by_role().items() if asked[role]}


class LoadedRecipe(Record):
    """A recipe with where it came from."""

    recipe: Recipe
    path: Path
    sha256: str

    def resolve(self, path: str) -> Path:
        """A path of the recipe: environment variables filled in, relative to the working folder or to the recipe's.

        Raises ConfigError for a variable that is not set and for a file that is not there.
        """
        expanded = os.path.expandvars(path)
        if "$" in expanded:
            raise ConfigError(f"{self.path}: {path!r} needs an environment variable that is not set. Set it and run again.")
        for base in (Path.cwd(), self.path.parent, self.path.parent.parent):
            if (base / expanded).exists():
                return base / expanded
        raise ConfigError(f"{self.path}: {expanded!r} is not there (looked in the working folder and beside the recipe).")

    def store_path(self) -> Path:
        """Where the recipe's store lies when nothing else is said."""
        return Path("data") / f"{self.recipe.name}.duckdb"

    def export_dir(self) -> Path:
        """Where the recipe's data set lies when nothing else is said."""
        return Path("data") / self.recipe.name


def load_recipe(path: Path, *, teacher: str | None = None, scale: float = 1.0) -> LoadedRecipe:
    """A recipe, with another teacher's model string and a scaled mix where asked. Raises ConfigError."""
    data = read_yaml(path)
    secrets.refuse_literals(data, str(path))
    recipe = validate(Recipe, data, path)
    if teacher is not None:
        model = recipe.teachers.teacher.model_copy(update={"model": teacher, "params": {}})
        recipe = recipe.model_copy(update={"teachers": Teachers(teacher=model)})
    if scale != 1.0:
        mix = {name: max(1, round(count * scale)) for name, count in recipe.mix.items() if count}
        recipe = recipe.model_copy(update={"mix": mix, "quota": _scaled(recipe.quota, scale)})
    asked = recipe.teachers.teacher.model
    for name in ("conversation", "grounded"):
        if recipe.mix.get(name) and asked.startswith("offline/"):
            raise ConfigError(
                f"{path}: mix.{name} is {recipe.mix[name]}, but {asked} is simulated and cannot do that. Name a hosted teacher."
            )
    return LoadedRecipe(recipe=recipe, path=path, sha256=content_hash(recipe.model_dump(mode="json")))


def _scaled(quota: Quota | None, scale: float) -> Quota | None:
    if quota is None:
        return None
    rows = None if quota.rows is None else max(1, round(quota.rows * scale))
    return quota.model_copy(update={"rows": rows, "min_per_topic": int(quota.min_per_topic * scale)})


def read_texts(path: Path, spec: TextFile) -> list[tuple[str, str | None]]:
    """(text, label) of each line of a JSON-lines file. Raises ConfigError with the line and what is wrong with it."""
    rows: list[tuple[str, str | None]] = []
    for number, row in read_json_lines(path):
        if not isinstance(row, dict) or not isinstance(row.get(spec.text), str):
            have = ", ".join(row) if isinstance(row, dict) else f"a JSON {type(row).__name__}"
            raise ConfigError(f"{path}:{number}: has no text field {spec.text!r} (it has: {have}). Set `text:` in the recipe.")
        label = row.get(spec.label)
        rows.append((row[spec.text], None if label is None else str(label)))
    if not rows:
        raise ConfigError(f"{path}: has no rows.")
    return rows


def load_evaluation_sets(
    loaded: LoadedRecipe, labels: Mapping[str, str], abstain_label: str | None
) -> tuple[tuple[EvaluationSet, ...], list[str]]:
    """The recipe's evaluation sets, and a note for each optional one that is not here."""
    sets: list[EvaluationSet] = []
    notes: list[str] = []
    for spec in loaded.recipe.evaluation_sets:
        if spec.optional and "$" in os.path.expandvars(spec.path):
            notes.append(f"evaluation set {spec.name!r} is left out: {spec.path} needs an environment variable")
            continue
        path = loaded.resolve(spec.path)
        rows = read_texts(path, spec)
        unknown = abstain_label if spec.unknown == "abstain" else None
        known: list[str | None] = [label if label in labels else unknown for _, label in rows]
        sets.append(
            EvaluationSet(
                name=spec.name,
                path=str(path),
                texts=tuple(text for text, _ in rows),
                labels=tuple(known),
                sha256=hashlib.sha256(path.read_bytes()).hexdigest(),
                threshold=spec.threshold,
                ngram=spec.ngram,
            )
        )
    return tuple(sets), notes


def load_seeds(loaded: LoadedRecipe, labels: Mapping[str, str]) -> dict[str, tuple[str, ...]]:
    """Seeds of the recipe's own seed file by label; empty where it names none."""
    spec = loaded.recipe.seeds
    if spec is None:
        return {}
    path = loaded.resolve(spec.path)
    by_label: dict[str, list[str]] = {}
    for number, (text, label) in enumerate(read_texts(path, spec), 1):
        if label not in labels:
            raise ConfigError(f"{path}:{number}: {spec.label} is {label!r}, which no topic has as label; known: {', '.join(labels)}.")
        by_label.setdefault(str(label), []).append(text)
    return {label: tuple(texts) for label, texts in by_label.items()}

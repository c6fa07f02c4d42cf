"""A domain's taxonomy: YAML to topics, dimensions, adversarial kinds, facts and policy; says file, path and field when it refuses."""

import ast
import hashlib
from collections.abc import Iterable, Iterator, Mapping
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from datagen.errors import ConfigError
from datagen.json_schema import check
from datagen.lines import read_table
from datagen.policy import Fact, Rule, meeting
from datagen.records import AdversarialKind, JsonSchema, Python, Record, Regex, Rubric, Sql, Task, Topic, Verifier
from datagen.tasks import with_defaults
from datagen.yaml_file import read_yaml, validate

Weight = Annotated[float, Field(ge=0, allow_inf_nan=False)]

MOST_LEAVES = 200_000  # anchors can write a tree of billions in a few lines

# What the axes along which inputs grow from a seed mean, where the taxonomy says no more
AXES: Mapping[str, str] = {
    "content": "another situation and other details, for which the right answer is of the same kind",
    "difficulty": "easier or harder to understand: more direct, more hidden, more conditions",
    "style": "other words, tone, length and form of writing",
    "persona": "somebody else writes: another age, role, knowledge and temper",
    "edge_case": "an unusual but real case at the border of the topic, still about it",
}


class DimensionValue(Record):
    """One value of a dimension; the note tells a teacher what the value means."""

    weight: Weight = 1.0
    note: str = ""


class ReasoningCase(Record):
    """Facts that the reasoning generator lets inputs of one label state; each fact with the texts to draw from."""

    label: str
    facts: Mapping[str, tuple[str, ...]]


class Node(BaseModel):
    """A node of the topic tree: either `topics`, or a leaf with label, weight and seeds."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    description: str
    topics: Mapping[str, "Node"] | None = None
    label: str | None = None
    weight: Weight = 1.0
    seeds: tuple[str, ...] = ()

    @model_validator(mode="after")
    def _leaf_or_branch(self) -> Self:
        if self.topics is not None and (self.label is not None or self.seeds):
            raise ValueError("a node with `topics` is a branch; move `label` and `seeds` to its leaves")
        if self.topics is not None and not self.topics:
            raise ValueError("`topics` is empty; add a leaf or remove it")
        return self


class Taxonomy(Record):
    """The whole file. `axes` are what the seed generator varies, in turn: name -> what that means ("" for the meaning in AXES)."""

    name: str = Field(pattern=r"^[a-z0-9_]+$")
    description: str
    task: Task
    dimensions: Mapping[str, Mapping[str, DimensionValue]] = Field(default_factory=dict)
    axes: Mapping[str, str] = Field(default_factory=dict)
    topics: Mapping[str, Node] = Field(min_length=1)
    adversarial: Mapping[str, AdversarialKind] = Field(default_factory=dict)
    facts: Mapping[str, Fact] = Field(default_factory=dict)
    policy: tuple[Rule, ...] = ()
    reasoning: tuple[ReasoningCase, ...] = ()
    rubric: Rubric | None = None

    def leaves(self) -> list[Topic]:
        """The leaves, by path."""
        return list(self._sorted_leaves)

    @cached_property
    def _sorted_leaves(self) -> list[Topic]:
        return sorted(_leaves(self.topics, ""), key=lambda topic: topic.path)

    def labels(self) -> dict[str, str]:
        """Every label with a description for a teacher: the descriptions of its leaves, joined."""
        labels: dict[str, list[str]] = {}
        for topic in self.leaves():
            if topic.label is not None:
                labels.setdefault(topic.label, []).append(topic.description.strip().rstrip("."))
        return {label: "; or ".join(descriptions) for label, descriptions in labels.items()}

    def policy_lines(self) -> list[str]:
        """The policy table as lines that a person or a teacher reads: "R3: days >= 10 -> decision: escalate"."""
        return [policy_line(rule) for rule in self.policy]

    def axis_notes(self) -> dict[str, str]:
        """What each axis means, as a teacher reads it."""
        return {name: note.strip() or AXES[name] for name, note in self.axes.items()}

    def notes(self, dimensions: Mapping[str, str]) -> dict[str, str]:
        """What the values drawn for an item mean, by dimension."""
        return {name: self.dimensions[name][value].note for name, value in dimensions.items()}


def policy_line(rule: Rule) -> str:
    """One rule as a person or a teacher reads it."""
    when = ", ".join(_condition(name, value) for name, value in rule.when.items()) or "always"
    return f"{rule.id}: {when} -> {', '.join(f'{field}: {value}' for field, value in rule.then.items())}"


def _condition(name: str, value: Any) -> str:
    if isinstance(value, (list, tuple)):
        return f"{name} in {'|'.join(map(str, value))}"
    text = str(value)
    if text in ("known", "missing"):
        return f"{name} {text}"
    return f"{name} {text}" if text[:1] in "<>=" else f"{name} = {text}"


def _leaves(nodes: Mapping[str, Node], prefix: str) -> Iterator[Topic]:
    for name, node in nodes.items():
        path = f"{prefix}{name}"
        if node.topics is not None:
            yield from _leaves(node.topics, path + "/")
        else:
            yield Topic(path=path, description=node.description, label=node.label, weight=node.weight, seeds=node.seeds)


MOST_SHOWN = 90  # rows of a table or a heat map that a person still reads


def roll_up(topics: Iterable[str]) -> dict[str, str]:
    """Topic -> itself, or, where there are more than MOST_SHOWN, its ancestor at the deepest level that has so few (or at the first)."""
    paths = sorted(set(topics))
    depth = max((path.count("/") for path in paths), default=0) + 1
    shown = {path: path for path in paths}
    while len(set(shown.values())) > MOST_SHOWN and depth > 1:
        depth -= 1
        shown = {path: "/".join(path.split("/")[:depth]) for path in paths}
    return shown


def load_taxonomy(path: Path) -> tuple[Taxonomy, str]:
    """A taxonomy and the SHA-256 of its file.

    Raises ConfigError with file, field and value for anything that would go wrong later: a label without a topic,
    a rule about an unknown fact, a dimension whose weights are all zero.
    """
    data = read_yaml(path)
    count = _count_leaves(data.get("topics"), "topics", {}, set(), path)
    if count > MOST_LEAVES:
        raise ConfigError(
            f"{path}: topics has {count:,} leaves; at most {MOST_LEAVES:,} can be planned. Split the taxonomy, or its anchors."
        )
    taxonomy = validate(Taxonomy, data, path)
    taxonomy = taxonomy.model_copy(update={"task": with_defaults(taxonomy.task, list(taxonomy.labels()))})
    _check(taxonomy, path)
    if taxonomy.task.verify:
        verify = tuple(_prepared(verifier, path, f"task.verify.{index}") for index, verifier in enumerate(taxonomy.task.verify))
        taxonomy = taxonomy.model_copy(update={"task": taxonomy.task.model_copy(update={"verify": verify})})
        for index, verifier in enumerate(verify):
            if isinstance(verifier, Sql) and verifier.dimension is not None and verifier.dimension not in taxonomy.dimensions:
                known = ", ".join(taxonomy.dimensions) or "none"
                raise ConfigError(f"{path}: task.verify.{index}.dimension is {verifier.dimension!r}; the dimensions are: {known}.")
    return taxonomy, hashlib.sha256(path.read_bytes()).hexdigest()


def _prepared(verifier: Verifier, path: Path, where: str) -> Verifier:
    """The verifier with its files found beside the taxonomy and its known answers read; ConfigError for one that cannot work."""
    if verifier.truth is not None and verifier.truth.path is not None:
        file = _beside(path, verifier.truth.path, f"{where}.truth.path")
        known = {**verifier.truth.known, **read_table(file, verifier.truth.input, verifier.truth.answer)}
        verifier = verifier.model_copy(update={"truth": verifier.truth.model_copy(update={"known": known})})
    if isinstance(verifier, Python):
        name, _, function = verifier.python.rpartition(":")
        file = _beside(path, name, f"{where}.python")
        _check_function(file, function, f"{path}: {where}.python")
        return verifier.model_copy(update={"python": f"{file}:{function}"})
    if isinstance(verifier, (Regex, JsonSchema, Sql)):
        from datagen.filters.worker import load  # DuckDB and jsonschema only where they are asked for

        try:
            load(verifier.model_dump(mode="json"))
        except Exception as error:  # the pattern's, the schema's or DuckDB's own words for what is wrong
            raise ConfigError(f"{path}: {where} ({verifier.check}) cannot work: {str(error).partition(chr(10))[0]}. Mend it.") from error
    return verifier


def _beside(path: Path, name: str, where: str) -> Path:
    for base in (path.parent, Path.cwd()):
        if (base / name).is_file():
            return (base / name).resolve()
    raise ConfigError(f"{path}: {where} is {name!r}, which is not there (looked beside the taxonomy and in the working folder).")


def _check_function(file: Path, name: str, where: str) -> None:
    """Whether a Python file can be read and defines the function at its top; nothing of it is run."""
    try:
        body = ast.parse(file.read_bytes(), str(file)).body
    except (OSError, SyntaxError, ValueError, RecursionError) as error:
        raise ConfigError(f"{where}: {file} cannot be read as Python ({error}). Mend it.") from error
    defined = [node.name for node in body if isinstance(node, ast.FunctionDef)]
    if name not in defined:
        raise ConfigError(f"{where}: {file} defines no function {name!r}; it defines: {', '.join(defined) or 'none'}.")


def _count_leaves(nodes: Any, field: str, counted: dict[int, int], above: set[int], path: Path) -> int:
    """How many leaves `nodes` has, each mapping looked at once however many anchors lead to it. Raises ConfigError for a cycle."""
    if not isinstance(nodes, Mapping):
        return 0
    if id(nodes) in above:
        raise ConfigError(f"{path}: {field} leads back into itself (a YAML anchor inside its own branch). Write the leaves out.")
    if id(nodes) not in counted:
        above.add(id(nodes))
        total = 0
        for name, node in nodes.items():
            inner = node.get("topics") if isinstance(node, Mapping) else None
            total += 1 if inner is None else _count_leaves(inner, f"{field}.{name}.topics", counted, above, path)
        above.remove(id(nodes))
        counted[id(nodes)] = total
    return counted[id(nodes)]


def _check(taxonomy: Taxonomy, path: Path) -> None:
    leaves, labels, task = taxonomy.leaves(), taxonomy.labels(), taxonomy.task
    if task.output_schema is not None:
        try:
            check(task.output_schema)
        except ValueError as error:
            raise ConfigError(f"{path}: task.output_schema is no JSON schema (draft 2020-12): {error}. Mend it.") from error
    paths: set[str] = set()
    for topic in leaves:
        field = "topics." + topic.path.replace("/", ".topics.")
        if topic.path in paths:
            raise ConfigError(f"{path}: two leaves have the path {topic.path!r} (a name that holds a '/' reads like a branch). Rename one.")
        paths.add(topic.path)
        if not all(part.strip() for part in topic.path.split("/")):
            raise ConfigError(f"{path}: the leaf {topic.path!r} has an empty name on its way. Name it.")
        if not topic.description.strip():
            raise ConfigError(f"{path}: {field}.description is empty; teachers are told what a topic is about by it. Fill it in.")
        if ":" in topic.path:
            raise ConfigError(f"{path}: {field}: a topic's name must not contain ':'. Rename it.")
        if task.label_field and topic.label is None:
            raise ConfigError(f"{path}: {field}.label is missing; task.label_field is {task.label_field!r}. Add it.")
    if task.type == "classification" and len(labels) < 2:
        raise ConfigError(f"{path}: task.type is classification, but the topics have {len(labels)} label; give at least two.")
    fields = (task.output_schema or {}).get("properties")
    for key, named in (("label_field", task.label_field), ("entities_field", task.entities_field)):
        if named is not None and fields is not None and named not in fields:
            raise ConfigError(f"{path}: task.{key} is {named!r}, which output_schema.properties does not have: {', '.join(fields)}.")
    if not any(topic.weight for topic in leaves):
        raise ConfigError(f"{path}: every topic has weight 0; give at least one a weight above 0.")
    for name, values in taxonomy.dimensions.items():
        if not any(value.weight for value in values.values()):
            raise ConfigError(f"{path}: dimensions.{name}: every value has weight 0; give one a weight above 0.")
    for name, note in taxonomy.axes.items():
        if not note.strip() and name not in AXES:
            raise ConfigError(
                f"{path}: axes.{name} is empty; say what differs along it (only {', '.join(AXES)} mean something by themselves)."
            )
    if task.abstain_label is not None and task.abstain_label not in labels:
        raise ConfigError(f"{path}: task.abstain_label is {task.abstain_label!r}, which no topic has as label; known: {', '.join(labels)}.")
    _check_kinds(taxonomy, path)
    known = {task.label_field, *taxonomy.facts}
    for index, rule in enumerate(taxonomy.policy):
        for name in rule.when:
            if name not in known:
                raise ConfigError(
                    f"{path}: policy.{index}.when.{name} is neither the label field nor a fact; "
                    f"known: {', '.join(sorted(str(k) for k in known if k))}."
                )
    for index, case in enumerate(taxonomy.reasoning):
        if case.label not in labels:
            raise ConfigError(f"{path}: reasoning.{index}.label is {case.label!r}, which no topic has as label.")
        for name in case.facts:
            if name not in taxonomy.facts:
                raise ConfigError(f"{path}: reasoning.{index}.facts.{name} is not one of facts: {', '.join(taxonomy.facts)}.")


def _check_kinds(taxonomy: Taxonomy, path: Path) -> None:
    """Whether each adversarial family can be written and checked in this domain."""
    task = taxonomy.task
    fields = list((task.output_schema or {}).get("properties", {}))
    for field in task.agreement_fields:
        if field not in fields:
            raise ConfigError(f"{path}: task.agreement_fields: {field!r} is no field of task.output_schema; known: {', '.join(fields)}.")
    for name, kind in taxonomy.adversarial.items():
        for field in kind.then:
            if field not in fields:
                raise ConfigError(
                    f"{path}: adversarial.{name}.then.{field} is no field of task.output_schema; known: {', '.join(fields) or 'none'}."
                )
        if kind.family == "ambiguous" and task.output_schema is not None and kind.expect != "abstain" and not kind.then:
            raise ConfigError(
                f"{path}: adversarial.{name} is ambiguous, but nothing says how a JSON answer admits it. Add `expect: abstain`, or "
                "`then` with the fields of a right answer, such as {decision: clarify}."
            )
        if kind.family == "rules" and not any(meeting(taxonomy.policy, task.label_field, topic.label) for topic in taxonomy.leaves()):
            raise ConfigError(
                f"{path}: adversarial.{name}.family is rules, but no two rules of `policy` with conditions on different facts can hold "
                "for one topic. Remove the kind, or add the rules."
            )

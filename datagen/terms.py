"""Whether a teacher's outputs may train a student: a table of hosts and model families (terms.yaml), and the user's own decision.

A hosted model has two sets of terms, the host's and the weights'; the stricter counts. Everything but a `yes` that somebody read is
refused before the first call, unless the recipe says whose decision it is to go on. That decision is stored with the run, in the
manifest and on the model's card. A judge counts like a teacher: its words are not in the data, but they choose what is, and terms
against developing a model with outputs know no such difference.
"""

import ipaddress
from collections.abc import Iterable, Mapping, Sequence
from datetime import date
from fnmatch import fnmatchcase
from functools import cache
from pathlib import Path
from typing import Any, Literal
from urllib.parse import urlsplit

import yaml
from pydantic import BaseModel

from datagen.config import ModelConfig, TermsDecision
from datagen.errors import ConfigError
from datagen.records import Record

_TABLE = Path(__file__).with_name("terms.yaml")
_STRICTNESS = {"no": 0, "unknown": 1, "yes": 2}
DOCS = "docs/teachers.md, Terms"


class Terms(Record):
    """What a page says: may outputs train another model, under which restriction, where it says so, and when that was read."""

    may_train: Literal["yes", "no", "unknown"]
    says: str
    source: str
    read: date | None

    @property
    def settled(self) -> bool:
        """Whether nothing is left for the user to decide: a `yes` that somebody read."""
        return self.may_train == "yes" and self.read is not None

    @property
    def strictness(self) -> int:
        """Orders terms, the strictest first; a `yes` that nobody read is worth no more than unknown."""
        return _STRICTNESS["unknown" if self.may_train == "yes" and self.read is None else self.may_train]


class _Row(Terms):
    match: tuple[str, ...]
    own: bool = False
    self_served: bool = False
    domain: str | None = None

    def fits(self, name: str) -> bool:
        return any(fnmatchcase(name, pattern) for pattern in self.match)

    def terms(self) -> Terms:
        return Terms.model_validate(self.model_dump(include=set(Terms.model_fields)))


class _Table(BaseModel):
    hosts: tuple[_Row, ...]
    families: tuple[_Row, ...]


class TeacherTerms(Record):
    """One role's model with its terms, the decision that overrides them, and whether the two together allow training."""

    role: str
    model: str
    simulated: bool
    terms: Terms
    decision: TermsDecision | None
    settled: bool


@cache
def _table() -> _Table:
    return _Table.model_validate(yaml.safe_load(_TABLE.read_text(encoding="utf-8")))


def terms_of(model: str, api_base: str | None = None) -> Terms:
    """The stricter of the host's terms and the weights' for a model string; unknown where the table is silent."""
    name = model.lower()
    host = _host(name, api_base)
    if host.own:
        return host.terms()
    prefix, _, rest = name.partition("/")
    family = next((row for row in _table().families if row.fits(rest or prefix)), None)
    if family is None:
        weights = Terms(may_train="unknown", says="the table does not know these weights", source="the model's page", read=None)
    else:
        weights = family.terms()
    return weights if weights.strictness <= host.strictness else host.terms()


def _host(name: str, api_base: str | None) -> _Row:
    row = next((row for row in _table().hosts if row.fits(name)), None)
    if row is not None and (not api_base or row.domain is None or _within(api_base, row.domain)):
        return row
    own_server = next(row for row in _table().hosts if row.self_served)
    if api_base and _private(api_base):
        return own_server
    served = f"the server at {urlsplit(api_base).hostname or api_base}" if api_base else "this provider"
    return _Row(match=(), may_train="unknown", says=f"the table does not know {served}", source="its terms of service", read=None)


def _within(api_base: str, domain: str) -> bool:
    name = (urlsplit(api_base).hostname or "").lower()
    return name == domain or name.endswith("." + domain)


def _private(api_base: str) -> bool:
    """Whether an address is of this machine or of a private network, where nobody's terms but the user's hold."""
    name = (urlsplit(api_base).hostname or "").lower()
    try:
        address = ipaddress.ip_address(name)
    except ValueError:
        return name == "localhost" or name.endswith((".local", ".internal", ".localhost")) or (bool(name) and "." not in name)
    return address.is_private or address.is_loopback


def standing(
    role: str, model: str, api_bases: Sequence[str], decisions: Mapping[str, TermsDecision], otherwise: TermsDecision | None = None
) -> TeacherTerms:
    """How one model stands: what the table says of it, at the endpoint of the strictest terms, and the decision on it; `otherwise`
    decides where nothing else settles it."""
    terms = min((terms_of(model, base) for base in api_bases or (None,)), key=lambda found: found.strictness)
    decision = decisions.get(model) or (None if terms.settled else otherwise)
    return TeacherTerms(
        role=role,
        model=model,
        simulated=model.startswith("offline/"),
        terms=terms,
        decision=decision,
        settled=terms.settled or decision is not None,
    )


def describe_teachers(
    roles: Mapping[str, ModelConfig], decisions: Mapping[str, TermsDecision], otherwise: TermsDecision | None = None
) -> list[TeacherTerms]:
    """How the model of each role stands."""
    return [standing(role, config.model, config.endpoints, decisions, otherwise) for role, config in roles.items()]


def require_settled(teachers: Iterable[TeacherTerms], where: str) -> None:
    """Raise one ConfigError that names every model whose terms are not settled, what the table says, and how to state a decision."""
    roles: dict[str, list[TeacherTerms]] = {}
    for teacher in teachers:
        if not teacher.settled:
            roles.setdefault(teacher.model, []).append(teacher)
    if not roles:
        return
    found = "; ".join(f"{model} ({', '.join(t.role for t in of)}): {describe(of[0].terms)}" for model, of in roles.items())
    first = next(iter(roles))
    raise ConfigError(
        f"{where}: nothing is trained from a teacher whose terms are not settled. {found}. Read the terms; if you may, say so in the "
        f'recipe: `terms: {{"{first}": {{decision: "why we may", by: "who decided"}}}}`, or once by --terms "why we may" '
        f'(make: TERMS="..."). It is kept with the run, in the manifest and on the model\'s card ({DOCS}).'
    )


def describe(terms: Terms) -> str:
    """What the table says of a model's outputs, where it was read and when."""
    read = f"read {terms.read}" if terms.read else "not read by us"
    return f"may outputs train another model? {terms.may_train}: {terms.says} ({terms.source}, {read})"


def of_the_data(
    used: Iterable[Mapping[str, Any]],
    recorded: Iterable[Iterable[Mapping[str, Any]]],
    decisions: Mapping[str, TermsDecision],
    otherwise: TermsDecision | None = None,
) -> list[TeacherTerms]:
    """How the models stand that made a data set: as the run noted that asked them, or else by the table of today.

    used       {role, model, api_base} of the calls behind the examples
    recorded   what each run noted of its teachers, the newest first
    decisions  the recipe's own, which come before what a run noted
    """
    noted: dict[tuple[str, str], TeacherTerms] = {}
    for run in recorded:
        for entry in run:
            found = TeacherTerms.model_validate(entry)
            noted.setdefault((found.role, found.model), found)
    teachers: dict[tuple[str, str], TeacherTerms] = {}
    for row in used:
        key = (row["role"], row["model"])
        if key in noted and key[1] not in decisions:
            teachers[key] = noted[key]
            continue
        stands = standing(*key, [row["api_base"]] if row.get("api_base") else [], decisions, otherwise)
        if key not in teachers or stands.terms.strictness < teachers[key].terms.strictness:
            teachers[key] = stands
    return list(teachers.values())

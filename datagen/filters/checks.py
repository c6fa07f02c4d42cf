"""What a verifier of the taxonomy says of one answer: plain functions, `(value, known answer or None, verifier) -> reason or None`.

Those here end by themselves; what runs somebody's code (a pattern, a query, a function) is in worker.py.
"""

import json
import math
import re
from collections.abc import Mapping
from typing import Any

from datagen.filters.similarity import normalise
from datagen.records import Equal, Members, Numeric

ABSENT = object()
_NUMBER = re.compile(r"[-+\u2212]?(?:\d{1,3}(?:,\d{3})+|\d+)(?:\.\d+)?(?:[eE][-+]?\d{1,3})?|[-+\u2212]?\.\d+")


def value_at(answer: Any, field: str | None) -> Any:
    """The part of an answer that `field` names ("total", "items.0.price"); the whole without one; ABSENT where there is none."""
    value = answer
    for part in field.split(".") if field else ():
        if isinstance(value, Mapping) and part in value:
            value = value[part]
        elif isinstance(value, list) and part.isdecimal() and len(part) < 9 and int(part) < len(value):
            value = value[int(part)]
        else:
            return ABSENT
    return value


def read_number(value: Any, unit: str | None = None) -> float | None:
    """A JSON number, or the last number of a text (that stands beside `unit`, where one is given); None where there is none.

    "GBP 1,200.50" -> 1200.5. Thousands are parted by commas, decimals by a point.
    """
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        return _finite(value)
    if not isinstance(value, str):
        return None
    found = None
    for match in _NUMBER.finditer(value):
        if unit is None or _beside(value, match, unit):
            found = _finite(match.group().replace(",", "").replace("\u2212", "-"))
    return found


def _finite(value: str | float) -> float | None:
    try:
        number = float(value)
    except OverflowError:
        return None
    return number if math.isfinite(number) else None


def _beside(text: str, match: re.Match[str], unit: str) -> bool:
    after, before, unit = text[match.end() :].lstrip(), text[: match.start()].rstrip(), unit.casefold()
    if after[: len(unit)].casefold() == unit and not (unit[-1].isalpha() and after[len(unit) : len(unit) + 1].isalpha()):
        return True
    rest = before[: len(before) - len(unit)]
    return before[len(rest) :].casefold() == unit and not (unit[0].isalpha() and rest[-1:].isalpha())


def numeric(value: Any, known: Any, check: Numeric) -> str | None:
    """A number, in its unit and within its bounds; where the truth is known, within the tolerance of it."""
    number = read_number(value, check.unit)
    if number is None:
        return f"no number{f' of {check.unit}' if check.unit else ''} in {shown(value)}"
    if check.min is not None and number < check.min:
        return f"{number:g}, at least {check.min:g}"
    if check.max is not None and number > check.max:
        return f"{number:g}, at most {check.max:g}"
    if known is ABSENT:
        return None
    truth = read_number(known)
    if truth is None:
        return f"{number:g}, where the known answer {shown(known)} is no number"
    if abs(number - truth) > max(check.tolerance, check.relative * abs(truth)):
        return f"{number:.12g}, the truth is {truth:.12g}"
    return None


def members(value: Any, known: Any, check: Members) -> str | None:
    """The members of a list, or of a text with separators: of those allowed, and the known ones, in their order for `list`."""
    said = _members(value, check.separator)
    if said is None:
        return f"{shown(value)} is no {check.check}"
    if check.allowed:
        allowed = {_member(entry) for entry in check.allowed}
        strange = next((entry for entry in said if entry not in allowed), None)
        if strange is not None:
            return f"{strange} is none of those allowed"
    if known is ABSENT:
        return None
    truth = _members(known, check.separator) or []
    if check.check == "list":
        return None if said == truth else f"{shown(said)}, the truth is {shown(truth)}"
    missing, extra = sorted(set(truth) - set(said)), sorted(set(said) - set(truth))
    if missing or extra:
        return (
            f"{f'lacks {shown(missing)}' if missing else ''}{' and ' if missing and extra else ''}{f'adds {shown(extra)}' if extra else ''}"
        )
    return None


def _members(value: Any, separator: str) -> list[str] | None:
    if isinstance(value, str):
        return [_member(part) for part in re.split(rf"{re.escape(separator)}|\n", value) if part.strip()]
    if isinstance(value, (list, tuple)):
        return [_member(entry) for entry in value]
    return None


def _member(entry: Any) -> str:
    if isinstance(entry, str):
        text = normalise(entry)
        whole = _NUMBER.fullmatch(entry.strip())
        number = _finite(whole.group().replace(",", "").replace("\u2212", "-")) if whole else None
        return text if number is None else repr(number)
    if isinstance(entry, (int, float)) and not isinstance(entry, bool):
        number = _finite(entry)
        return str(entry)[:100] if number is None else repr(number)
    return json.dumps(entry, sort_keys=True, ensure_ascii=False, default=str)


def equal(value: Any, known: Any, check: Equal) -> str | None:
    """The known answer, exactly, or as words and data."""
    if known is ABSENT or _same(value, known, exact=check.match == "exact"):
        return None
    return f"{shown(value)}, the truth is {shown(known)}"


def _same(one: Any, other: Any, *, exact: bool) -> bool:
    if isinstance(one, str) and isinstance(other, str):
        return one == other or (not exact and normalise(one) == normalise(other))
    if isinstance(one, Mapping) and isinstance(other, Mapping):
        return one.keys() == other.keys() and all(_same(one[name], other[name], exact=exact) for name in one)
    if isinstance(one, (list, tuple)) and isinstance(other, (list, tuple)):
        return len(one) == len(other) and all(_same(a, b, exact=exact) for a, b in zip(one, other, strict=True))
    if isinstance(one, str) is not isinstance(other, str):  # a table in CSV holds texts alone
        return not exact and normalise(str(one)) == normalise(str(other))
    return bool(one == other and isinstance(one, bool) is isinstance(other, bool))


def shown(value: Any) -> str:
    """A value for a reason: short, on one line."""
    text = "nothing" if value is ABSENT else repr(value) if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)
    return text if len(text) <= 80 else text[:77] + "..."

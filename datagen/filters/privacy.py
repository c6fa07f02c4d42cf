"""The filter on personal data and secrets: what no student may learn by heart."""

import re
from collections.abc import Iterator, Mapping
from functools import cache
from typing import TYPE_CHECKING

from datagen.filters.context import FilterContext
from datagen.filters.turns import Said, answers, material
from datagen.records import Example
from datagen.secrets import looks_like_key

if TYPE_CHECKING:  # loaded when the first text that may hold a token comes by
    from detect_secrets.plugins.base import BasePlugin

_EMAIL = re.compile(r"[\w.+-]+@[\w-]+(?:\.[\w-]+)+")
_DIGIT = re.compile(r"\d")
# the networks' first digits; Maestro alone has 12-digit numbers
_CARD = re.compile(r"(?<![\w-])(?:[2-6](?:[ -]?\d){12,18}|(?:5[06-8]|6\d)(?:[ -]?\d){10})(?!\w)")
_IBAN = re.compile(r"\b[A-Z]{2}\d{2}(?: ?[A-Z0-9]){11,30}\b", re.IGNORECASE)
_DATE = re.compile(r"\b\d{4}-\d{2}-\d{2}\b(?:[ T]\d{2}:\d{2}(?::\d{2})?)?|\b\d{1,2}[./-]\d{1,2}[./-]\d{2,4}\b")
# the Social Security Administration's form: no area 000, 666 or 9xx, no group 00, no serial 0000
_SSN = re.compile(r"(?<![\w.-])(?!000|666|9)\d{3}-(?!00)\d{2}-(?!0000)\d{4}(?![\w-])")
_PHONE = re.compile(r"(?<![\w£$€.,-])(?<!\d[ ()./-])\+?\(?\d(?:[ ()./-]{0,2}\d){8,14}(?![ ()./-]{0,2}\d|[^\W_x]|[.,]\d)")
# a number is written as telephones are: a plus or a leading 0, brackets, spaces between its groups, or 3-3-4 of North America
_WRITTEN_AS_PHONE = re.compile(r"\+|0(?!\.)|1[ .-]|\(|.*[ ()]|\d{3}[.-]\d{3}[.-]\d{4}$")
_CALL = re.compile(
    r"\b(?:phone|tele?phone|tel|mobile|cell|fax|call|ring|text|reach|whats\s?app|my number(?: is)?)\b[^\d\n]{0,20}$", re.IGNORECASE
)
_LOCAL_PHONE = re.compile(
    r"\b(?:phone|telephone|tel|mobile|cell|fax)\b(?: number| no)?(?: is)?[:. ]{1,3}(\(?\d[\d ().-]{4,10}\d)(?!\w)", re.IGNORECASE
)
_ARITHMETIC = re.compile(r"\s*[=*/+%×÷^<>]|\s-\s*\d")
_TOKEN = re.compile(r"[A-Za-z0-9_\-/+=.]{16,}|://|PRIVATE KEY")


def pii(example: Example, context: FilterContext) -> str | None:
    """No card number (Luhn), IBAN (mod 97), US social security number, e-mail address, telephone number, and no key or token.

    The reason names the kind, never the value. Patterns only: names and addresses of people go unseen. Of telephone numbers those of 9
    digits or more are seen, where they are written as such, and shorter ones after "phone:" and the like.
    """
    texts = [Said("input", material(example)), *answers(example)]
    texts += [Said(name, text) for name, text in (("rejected", example.rejected), ("reasoning", example.reasoning)) if text]
    for name, text in texts:
        secret = _secret(text)  # before the rest: `name:password@host` reads as an address
        if secret:
            return f"secret: {secret} in the {name}"
        for kind in _personal(text):
            return f"pii: {kind} in the {name}"
    return None


def _personal(text: str) -> Iterator[str]:
    if "@" in text and _EMAIL.search(text):
        yield "e-mail address"
    digits = len(_DIGIT.findall(text))
    if digits >= 6 and (found := _LOCAL_PHONE.search(text)) and len(_DIGIT.findall(found.group(1))) >= 6:
        yield "telephone number"
    if digits < 9:
        return
    if any(_luhn(re.sub(r"\D", "", found)) for found in _CARD.findall(text)):
        yield "card number"
    if any(_has_iban(re.sub(r"\s", "", found).upper()) for found in _IBAN.findall(text)):
        yield "IBAN"
    if _SSN.search(text):
        yield "social security number"
    if _has_phone(_DATE.sub(" ", text)):
        yield "telephone number"


def _has_phone(text: str) -> bool:
    """Whether a run of digits is a telephone number, and no sum (`500-200-150 = 150`) and no order number."""
    return any(
        (_WRITTEN_AS_PHONE.match(found.group()) and not _ARITHMETIC.match(text, found.end()))
        or _CALL.search(text, max(0, found.start() - 40), found.start())
        for found in _PHONE.finditer(text)
    )


def _luhn(digits: str) -> bool:
    """ISO/IEC 7812-1, annex B."""
    total = sum(int(d) for d in digits[-1::-2]) + sum(sum(divmod(2 * int(d), 10)) for d in digits[-2::-2])
    return total % 10 == 0 and len(set(digits)) > 1


def _has_iban(text: str) -> bool:
    """ISO 13616: some prefix of 15 characters or more has remainder 1 (the words after a number may look like its end)."""
    return any(int("".join(str(int(char, 36)) for char in text[4:end] + text[:4])) % 97 == 1 for end in range(len(text), 14, -1))


def _secret(text: str) -> str | None:
    """The kind of key or token in a text: by detect-secrets' forms of tokens, and by the forms of model providers' keys."""
    if not _TOKEN.search(text):
        return None
    for detector in _detectors():
        for _ in detector.analyze_string(text):
            return detector.secret_type
    return "key of a model provider" if looks_like_key(text) else None


@cache
def _detectors() -> tuple["BasePlugin", ...]:
    """The detectors with a form to go by. Left out: entropy, which drops hashes and ids, and addresses and words beside a password."""
    from detect_secrets.core.plugins.util import get_mapping_from_secret_type_to_class

    unsure = {"Base64 High Entropy String", "Hex High Entropy String", "Public IP (ipv4)", "Secret Keyword"}
    kinds: Mapping[str, type[BasePlugin]] = get_mapping_from_secret_type_to_class()
    return tuple(kinds[name]() for name in sorted(kinds) if name not in unsure)

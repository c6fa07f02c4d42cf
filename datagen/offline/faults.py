"""The faults that the offline teacher makes on purpose, each at a rate from the recipe and recorded by request id.

A fault is one JSON line in the side file: {"request_id", "kind", "detail"}. `detail` holds what is needed to find the
row: for messages their full text, for answers the field. The same request makes the same faults in every process, so a
repeated line is one fault: count distinct (request_id, kind, detail).
"""

import json
import os
import random
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

# Which faults strike where, and what a rate counts: whole calls, or single messages of a list.
CALL_FAULTS = {
    "write": ("refusal", "truncated"),
    "answer": ("wrong_label", "invalid_json", "refusal", "truncated", "invented_entity", "asks_pin"),
    "weak": ("confusable_intent", "needless_refusal", "invented_entity", "invalid_json", "asks_pin", "rambles"),
    "weak_abstain": ("missed_out_of_scope", "invented_entity", "invalid_json", "asks_pin", "rambles"),
    "judge": ("judge_noise",),
}
MESSAGE_FAULTS = (
    "near_duplicate", "pii", "contaminated", "repetition", "placeholder", "leaked_prompt", "secret", "inner_refusal", "foreign",
)  # fmt: skip
TRANSPORT_FAULTS = ("rate_limited", "slow")
WEAK_DEFAULTS = {
    "confusable_intent": 0.2, "needless_refusal": 0.05, "missed_out_of_scope": 0.55, "invented_entity": 0.15, "invalid_json": 0.1,
    "asks_pin": 0.15, "rambles": 0.15,
}  # fmt: skip
KNOWN = frozenset((*(kind for kinds in CALL_FAULTS.values() for kind in kinds), *MESSAGE_FAULTS, *TRANSPORT_FAULTS, "contaminated_from"))

REFUSALS = (
    "As an AI language model, I cannot help with that.", "As an AI, I'm unable to assist with this request.",
    "I'm sorry, but as an AI assistant I can't provide that.", "As an AI language model, I'm not able to fulfil this request.",
    "As an AI, I do not have access to bank accounts and cannot answer this.",
    "I apologise, but as an AI I cannot comply with this request.",
)  # fmt: skip


_SPECIMENS = (
    "[Name]", "[Your Name]", "[insert date]", "<insert amount>", "{{ merchant }}", "[account number]", "<your city here>", "[COMPANY NAME]",
    "${amount}", "XXXX", "[...]", "(insert reason)",
)  # fmt: skip
_FOREIGN = (
    "Meine Karte ist noch nicht da und ich warte schon seit drei Wochen darauf.",
    "Warum wurde die Zahlung an der Kasse abgelehnt, obwohl ich Geld habe?",
    "Je ne peux pas payer avec ma carte et je ne sais pas pourquoi.",
    "Pouvez-vous me dire quand le virement sera sur mon compte ?",
    "Mi tarjeta no ha llegado y no puedo pagar en la tienda.",
    "¿Por qué no se ha hecho la transferencia que pedí ayer por la mañana?",
    "La mia carta non funziona e non so perché il pagamento non è andato.",
    "O meu cartão não chegou e não posso pagar na loja hoje.",
    "Mijn kaart is nog niet aangekomen en ik weet niet waar hij is.",
    "Моя карта ещё не пришла, и я жду её уже три недели.",
    "我的卡还没有到，请问什么时候能收到？",
)


class Fault(NamedTuple):
    """One fault that was made."""

    request_id: str
    kind: str
    detail: dict[str, Any]


def record(side_file: Path | None, fault: Fault) -> None:
    """Append a fault as one line in one write, so that lines of several processes never mix."""
    if side_file is None:
        return
    line = json.dumps(fault._asdict(), ensure_ascii=False, sort_keys=True) + "\n"
    descriptor = os.open(side_file, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
    try:
        os.write(descriptor, line.encode())
    finally:
        os.close(descriptor)


def draw(kinds: tuple[str, ...], rates: Mapping[str, Any], rng: random.Random) -> str | None:
    """At most one of `kinds`, each with its own rate: they exclude each other, so every rate is met exactly."""
    point = rng.random()
    for kind in kinds:
        rate = float(rates.get(kind, 0.0))
        if point < rate:
            return kind
        point -= rate
    return None


def check_rates(rates: Mapping[str, Any]) -> None:
    """Raises ValueError for an unknown fault, a rate outside 0..1, or rates that sum to more than 1 where only one can strike."""
    for kind, rate in rates.items():
        if kind not in KNOWN:
            raise ValueError(f"faults.{kind} is not a fault of the offline teacher; known are {', '.join(sorted(KNOWN))}")
        if kind != "contaminated_from" and not (isinstance(rate, (int, float)) and 0 <= rate <= 1):
            raise ValueError(f"faults.{kind} is {rate!r}; a rate is a number from 0 to 1")
    for step, kinds in (*CALL_FAULTS.items(), ("message", MESSAGE_FAULTS)):
        total = sum(float(rates.get(kind, 0.0)) for kind in kinds)
        if total > 1 + 1e-9:
            raise ValueError(f"the fault rates of the {step} step sum to {total:.2f}; they exclude each other, so at most 1")
    if float(rates.get("contaminated", 0.0)) > 0 and not rates.get("contaminated_from"):
        raise ValueError("faults.contaminated needs faults.contaminated_from, the file whose lines are to be copied")


def luhn_number(rng: random.Random) -> str:
    """A 16-digit card number whose check digit is right (ISO/IEC 7812-1, annex B), in groups of four."""
    digits = [4, *(rng.randrange(10) for _ in range(14))]
    total = sum(d if i % 2 else (2 * d - 9 if 2 * d > 9 else 2 * d) for i, d in enumerate(digits))
    digits.append(-total % 10)
    text = "".join(map(str, digits))
    return " ".join(text[i : i + 4] for i in range(0, 16, 4))


_FIRST = ("jo", "sam", "priya", "tomasz", "elena", "mark", "aisha", "gwen", "luca", "nina", "oscar", "ruth")
_LAST = ("hanson", "patel", "novak", "greene", "okafor", "lindqvist", "moreau", "baker", "silva", "yeo")


def personal_data(rng: random.Random) -> tuple[str, list[str]]:
    """A sentence with personal data, and the data in it. Numbers from Ofcom's drama range, domains from RFC 2606."""
    if rng.random() < 0.5:
        number = luhn_number(rng)
        return rng.choice(
            (f"My card number is {number}.", f"The card number is {number}.", f"It's card number is {number}, if you need it.")
        ), [number]
    mail = f"{rng.choice(_FIRST)}.{rng.choice(_LAST)}{rng.randrange(100)}@example.{rng.choice(('com', 'org', 'net'))}"
    phone = f"07700 900{rng.randrange(1000):03d}"
    return rng.choice(
        (f"Reach me at {mail} or {phone}.", f"Write to {mail} or call {phone}.", f"My e-mail is {mail}, my phone {phone}.")
    ), [mail, phone]


def looped(text: str, rng: random.Random) -> str:
    """A message that a teacher cannot end: its last words, or the whole, over and over."""
    words = text.split()
    phrase = " ".join(words[-rng.randint(2, max(2, min(6, len(words)))) :]) if rng.random() < 0.5 else text
    return f"{text} {' '.join([phrase] * rng.randint(4, 9))}"


def with_placeholder(text: str, rng: random.Random) -> str:
    """A message that waits to be filled in."""
    slot = rng.choice(_SPECIMENS)
    return rng.choice((f"{text} My name is {slot}.", f"Hello, {slot} here. {text}", f"{text} It was {slot}, I think."))


def with_prompt(text: str, system: str, rng: random.Random) -> str:
    """A message with a sentence of the prompt that asked for it."""
    sentences = [line for line in re.split(r"(?<=[.:]) |\n", system) if len(line.split()) >= 9]
    leaked = rng.choice(sentences or [system])
    return rng.choice((f"{leaked} {text}", f"{text} {leaked}", f"{text}\nNumber of inputs: 4"))


def secret(rng: random.Random) -> tuple[str, str]:
    """A sentence with a made-up key or token, and the token."""

    def random_text(n: int, signs: str = "abcdefghijkmnpqrstuvwxyzABCDEFGHJKLMNPQRSTUVWXYZ23456789") -> str:
        return "".join(rng.choices(signs, k=n))

    token = rng.choice((
        f"sk-proj-{random_text(40)}", f"ghp_{random_text(36)}", f"AKIA{random_text(16, 'ABCDEFGHIJKLMNOPQRSTUVWXYZ234567')}",
        f"xoxb-{random_text(12, '0123456789')}-{random_text(12, '0123456789')}-{random_text(24)}", f"hf_{random_text(34)}",
        f"https://ana:{random_text(12)}@bank.example.org/login", f"sk_live_{random_text(24)}",
    ))  # fmt: skip
    return rng.choice((f"My key is {token}, does that help?", f"I logged in with {token}.", f"The app shows {token} to me.")), token


def inner_refusal(text: str, rng: random.Random) -> str:
    """A message that turns into its teacher's refusal."""
    return f"{text.rstrip('?.! ')}. {rng.choice(REFUSALS[:5])}"


def foreign(rng: random.Random) -> str:
    """A message in another language."""
    return rng.choice(_FOREIGN)


def light_edit(text: str, rng: random.Random) -> str:
    """Almost the same text: one or two words or marks more, never fewer word triples in common than four in five."""
    bare = text.rstrip("?.!")
    edits = [f"{bare}!!", f"{bare}...", text.upper(), text.lower()]
    if len(text.split()) >= 8:
        edits = [f"{text} Thanks.", f"Hi, {text[:1].lower()}{text[1:]}", f"{bare} please?", f"{text} Please", f"Hello {text}"]
    return rng.choice([edit for edit in edits if edit != text])


def break_json(text: str, rng: random.Random) -> str:
    """JSON as careless models write it: not readable by any honest parser."""
    draw_ = rng.random()
    if draw_ < 0.3:
        return text[:-1]
    if draw_ < 0.5:
        return text.replace('":"', '":', 1)
    if draw_ < 0.7:
        return text.replace('"', "'")
    if draw_ < 0.85:
        return text.replace('","', '" "', 1)
    return text[: max(2, text.find(":"))] + text[text.find(":") + 1 :]

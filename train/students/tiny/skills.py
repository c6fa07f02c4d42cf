"""The skills that pretraining teaches: each function draws one small conversation from a random generator.

A skill is exact when its prompt has one right answer; only exact skills are in the probe.
"""

import itertools
import json
import random
import re
from collections.abc import Callable
from typing import NamedTuple

from . import language as lang
from . import words as w
from .language import Slots, capital, code, number, pick, pseudo, rare, request, statement


class Chat(NamedTuple):
    """A conversation: the system message (or ""), then user and assistant turns in pairs."""

    system: str
    turns: list[tuple[str, str]]


Skill = Callable[[random.Random], Chat]

PERSONAS = """You are a helpful assistant.|You are a small language model.|Answer briefly.|Answer with the result only.|You are a friendly helper.|
Be short and exact.|Do what the user asks.|You answer questions.|Reply in as few words as you can.|You help people with small tasks.|
You are an assistant at a library.|You work at a help desk.|Give only the answer.|Follow the instruction exactly.|You are kind and patient.|
Read carefully and answer.|You are a careful clerk.|Say only what is asked.|No explanations, only the answer.|You are the school's helper.""".replace(
    "\n", ""
).split("|")


def persona(rng: random.Random) -> str:
    """A system message that does not matter for the answer, or none."""
    return "" if rng.random() < 0.5 else pick(rng, PERSONAS)


def ask(rng: random.Random, instruction: str, text: str, answer: str) -> Chat:
    """The instruction as system message with the text alone as user message, or both in the user message."""
    x = rng.random()
    if x < 0.4:
        return Chat(instruction if instruction[-1] in ".:?" else instruction + ".", [(text, answer)])
    if x < 0.8:
        return Chat(persona(rng), [(instruction.rstrip(".:") + pick(rng, [": ", ":\n", " - ", ":\n\n"]) + text, answer)])
    return Chat(persona(rng), [(text + pick(rng, ["\n", "\n\n", " // "]) + instruction, answer)])


def say(rng: random.Random, user: str, answer: str) -> Chat:
    """A question that stands in the user message as it is."""
    return Chat(persona(rng), [(user, answer)])


def token(rng: random.Random) -> str:
    """A word, a made-up word, a name, a number or an arbitrary string."""
    x = rng.random()
    if x < 0.35:
        return pick(rng, lang.FORMS)
    if x < 0.55:
        return pseudo(rng) if x < 0.48 else pseudo(rng).capitalize()
    if x < 0.65:
        return pick(rng, w.FIRST) if x < 0.6 else pick(rng, w.LAST)
    if x < 0.78:
        return number(rng)
    return code(rng) if x < 0.92 else rare(rng)


def any_span(rng: random.Random) -> str:
    """A span as one may have to copy it: a slot value or one to four arbitrary tokens."""
    if rng.random() < 0.5:
        return str(Slots(rng)[pick(rng, lang.EXTRACTED)])
    return " ".join([token(rng) for _ in range(rng.randint(1, 4))])


def sentence(rng: random.Random) -> str:
    """A narrative sentence or a request."""
    return statement(rng)[0] if rng.random() < 0.5 else request(rng, pick(rng, lang.LABELS))[0]


def word_list(rng: random.Random, low: int = 2, high: int = 7) -> list[str]:
    """Distinct tokens of one kind, or mixed."""
    x = rng.random()
    n = rng.randint(low, high)
    if x < 0.3:
        pool = w.KINDS[pick(rng, sorted(w.KINDS))]
        return rng.sample(pool, min(n, len(pool)))
    make = (lambda: pick(rng, lang.VOCABULARY)) if x < 0.5 else (lambda: pseudo(rng)) if x < 0.7 else (lambda: token(rng))
    return list(dict.fromkeys(make() for _ in range(n)))


# ---------------------------------------------------------------- copying


def copy(rng: random.Random) -> Chat:
    """Say the same string again."""
    x = rng.random()
    text = sentence(rng) if x < 0.25 else any_span(rng) if x < 0.6 else " ".join(token(rng) for _ in range(rng.randint(1, 9)))
    how = pick(
        rng,
        [
            "Repeat",
            "Copy",
            "Say this again",
            "Write exactly the same",
            "Repeat after me",
            "Echo",
            "Copy the text",
            "Say it back",
            "Repeat this exactly",
            "Type this out",
            "Return the input unchanged",
            "Repeat the message word for word",
        ],
    )
    return ask(rng, how, text, text)


def quoted(rng: random.Random) -> Chat:
    """Copy what stands in quotation marks."""
    a, text = any_span(rng), sentence(rng)
    open_, close = pick(rng, [('"', '"'), ("'", "'"), ("(", ")"), ("[", "]"), ("<", ">"), ("*", "*"), ("“", "”")])
    words = text.split(" ")
    i = rng.randint(0, len(words))
    text = " ".join([*words[:i], open_ + a + close, *words[i:]])
    return ask(
        rng,
        pick(
            rng,
            [
                "What is in the marks?",
                "Copy the part in marks",
                "Which text is between the marks?",
                "Give the marked part",
                f"What stands between {open_} and {close}?",
            ],
        ),
        text,
        a,
    )


def follows(rng: random.Random) -> Chat:
    """Which word comes after or before another."""
    items = word_list(rng, 3, 9) if rng.random() < 0.5 else list(dict.fromkeys(sentence(rng).split(" ")))
    if len(items) < 3:
        return follows(rng)
    i = rng.randint(0, len(items) - 2)
    text = " ".join(items)
    if rng.random() < 0.6:
        q, a = (
            pick(rng, ["Which word follows", "What comes after", "What is the word after", "Next word after"]) + f' "{items[i]}"',
            items[i + 1],
        )
    else:
        q, a = pick(rng, ["Which word is before", "What comes before", "What is the word before"]) + f' "{items[i + 1]}"', items[i]
    return ask(rng, q + "?", text, a)


def position(rng: random.Random) -> Chat:
    """The first, second, third or last item of a list."""
    items = word_list(rng, 3, 7)
    if len(items) < 3:
        return position(rng)
    name, a = pick(rng, [("first", items[0]), ("second", items[1]), ("third", items[2]), ("last", items[-1])])
    return ask(
        rng,
        pick(rng, [f"What is the {name} word?", f"Give the {name} item", f"Name the {name} one", f"Which is the {name} of these?"]),
        pick(rng, [", ", " ", "; ", " | "]).join(items),
        a,
    )


def lookup(rng: random.Random) -> Chat:
    """The value of a key in a list of pairs or in JSON."""
    keys = word_list(rng, 2, 5)
    pairs = {k: any_span(rng) for k in keys}
    k = pick(rng, keys)
    form = rng.random()
    text = (
        compact(pairs)
        if form < 0.4
        else pick(rng, [", ", "\n", "; "]).join(
            f"{a}{sep}{b}" for sep in [pick(rng, [": ", "=", " is ", " -> "])] for a, b in pairs.items()
        )
    )
    return ask(rng, pick(rng, [f"What is {k}?", f"Give the value of {k}", f"Look up {k}", f"Value of {k}"]), text, pairs[k])


def replace(rng: random.Random) -> Chat:
    """The text with one word replaced."""
    parts = sentence(rng).split(" ")
    i = rng.randint(0, len(parts) - 1)
    if parts.count(parts[i]) > 1:
        return replace(rng)
    new = token(rng)
    return ask(
        rng,
        pick(rng, [f'Replace "{parts[i]}" with "{new}"', f"Write {new} instead of {parts[i]}", f'Change "{parts[i]}" to "{new}"']),
        " ".join(parts),
        " ".join([*parts[:i], new, *parts[i + 1 :]]),
    )


def case(rng: random.Random) -> Chat:
    """The text in capitals, in small letters or without full stop."""
    text = sentence(rng) if rng.random() < 0.4 else " ".join(word_list(rng, 1, 3))
    how, a = pick(
        rng,
        [
            ("Write in capitals", text.upper()),
            ("Write in small letters", text.lower()),
            ("Make it upper case", text.upper()),
            ("Make it lower case", text.lower()),
            ("Start with a capital letter", capital(text)),
        ],
    )
    return ask(rng, how, text, a)


def reverse(rng: random.Random) -> Chat:
    """The list backwards."""
    items = word_list(rng, 2, 5)
    sep = pick(rng, [", ", " "])
    return ask(
        rng,
        pick(rng, ["Reverse the order", "Write the list backwards", "Say these in reverse order"]),
        sep.join(items),
        sep.join(items[::-1]),
    )


def spell(rng: random.Random) -> Chat:
    """A word letter by letter, or its first or last letter."""
    word = pick(rng, lang.VOCABULARY) if rng.random() < 0.7 else pseudo(rng)
    how, a = pick(
        rng,
        [
            ("Spell the word", "-".join(word)),
            ("What is the first letter?", word[0]),
            ("What is the last letter?", word[-1]),
            ("Spell it with spaces", " ".join(word)),
        ],
    )
    return ask(rng, how, word, a)


# ---------------------------------------------------------------- sorting, counting, comparing


def sort(rng: random.Random) -> Chat:
    """Numbers by size or words by the alphabet."""
    if rng.random() < 0.6:
        high = pick(rng, [10, 30, 100])
        values = rng.sample(range(1, high + 1), rng.randint(2, 5))
        down = rng.random() < 0.3
        how = (
            pick(rng, ["Sort from large to small", "Sort the numbers, largest first"])
            if down
            else pick(rng, ["Sort the numbers", "Sort from small to large", "Put these in order", "Order the numbers, smallest first"])
        )
        sep = pick(rng, [", ", " "])
        return ask(rng, how, sep.join(map(str, values)), sep.join(map(str, sorted(values, reverse=down))))
    items = list({x[0]: x for x in rng.sample(lang.NOUNS, rng.randint(2, 5))}.values())
    return ask(
        rng,
        pick(rng, ["Sort by the alphabet", "Put the words in alphabetical order", "Sort these words from a to z"]),
        ", ".join(items),
        ", ".join(sorted(items)),
    )


def extreme(rng: random.Random) -> Chat:
    """The largest or smallest number."""
    values = rng.sample(range(1, pick(rng, [10, 50, 100, 1000])), rng.randint(2, 5))
    how, a = pick(
        rng,
        [("largest", max(values)), ("smallest", min(values)), ("highest", max(values)), ("lowest", min(values)), ("biggest", max(values))],
    )
    return ask(
        rng,
        pick(rng, [f"Which number is the {how}?", f"Give the {how} number", f"What is the {how} of these?"]),
        pick(rng, [", ", " "]).join(map(str, values)),
        str(a),
    )


def compare(rng: random.Random) -> Chat:
    """Is one number less or more than another."""
    high = pick(rng, [10, 50, 100, 1000])
    a, b = rng.sample(range(high + 1), 2)
    less = rng.random() < 0.5
    unit = pick(rng, ["", "", " " + pick(rng, [*lang.UNITS[:3], "days", "weeks", "pages"])])
    q = pick(
        rng,
        ["Is {a} less than {b}?", "Is {a} smaller than {b}?", "Is {a} fewer than {b}?", "Is {a} below {b}?"]
        if less
        else ["Is {a} more than {b}?", "Is {a} greater than {b}?", "Is {a} over {b}?", "Is {a} larger than {b}?"],
    )
    return say(rng, q.format(a=f"{a}{unit}", b=f"{b}{unit}"), "yes" if (a < b) == less else "no")


def count(rng: random.Random) -> Chat:
    """How many items, or how often one occurs."""
    if rng.random() < 0.5:
        items = word_list(rng, 1, 7)
        return ask(
            rng, pick(rng, ["How many words are there?", "Count the items", "How many are in the list?"]), ", ".join(items), str(len(items))
        )
    kinds = rng.sample(lang.NOUNS, 2)
    items = [pick(rng, kinds) for _ in range(rng.randint(2, 7))]
    return ask(
        rng,
        pick(rng, [f"How often is {kinds[0]} in the list?", f"Count the word {kinds[0]}", f"How many times does {kinds[0]} occur?"]),
        " ".join(items),
        str(items.count(kinds[0])),
    )


def arithmetic(rng: random.Random) -> Chat:
    """Sums and differences up to twenty."""
    a, b = rng.randint(0, 10), rng.randint(0, 10)
    if rng.random() < 0.5:
        return say(
            rng,
            pick(rng, [f"What is {a} plus {b}?", f"{a} + {b} =", f"Add {a} and {b}.", f"How much is {a} and {b} together?"]),
            str(a + b),
        )
    a, b = max(a, b), min(a, b)
    return say(rng, pick(rng, [f"What is {a} minus {b}?", f"{a} - {b} =", f"Take {b} from {a}."]), str(a - b))


def number_word(rng: random.Random) -> Chat:
    """Digits to words and back."""
    n = rng.randint(0, 20)
    word = w.NUMBER_WORDS[n]
    return (
        ask(rng, "Write as a word", str(n), word)
        if rng.random() < 0.5
        else ask(rng, pick(rng, ["Write in digits", "Write as a number"]), word, str(n))
    )


def order(rng: random.Random) -> Chat:
    """The next or previous day or month."""
    series = w.KINDS[pick(rng, ["day", "month"])]
    i = rng.randrange(len(series))
    if rng.random() < 0.6:
        return say(
            rng,
            pick(rng, [f"What comes after {series[i]}?", f"Which follows {series[i]}?", f"If this is {series[i]}, what is next?"]),
            series[(i + 1) % len(series)],
        )
    return say(rng, pick(rng, [f"What comes before {series[i]}?", f"If this is {series[i]}, what was the one before?"]), series[i - 1])


# ---------------------------------------------------------------- facts and words


def fact(rng: random.Random) -> Chat:
    """Yes or no about everyday facts, kinds of things and sizes."""
    x = rng.random()
    if x < 0.3:
        yes = rng.random() < 0.5
        f = pick(rng, w.FACTS_YES if yes else w.FACTS_NO)
        q = pick(rng, [f"True or false: {f}.", f"Is it true that {f}?", f"Is this right? {capital(f)}.", f"{capital(f)}. Correct?"])
        return say(rng, q, ("true" if yes else "false") if q.startswith("True") else "yes" if yes else "no")
    if x < 0.45:
        a, b = rng.sample(range(len(w.SIZE_ORDER)), 2)
        bigger = rng.random() < 0.5
        how = "bigger" if bigger else "smaller"
        return say(rng, f"Is {article(w.SIZE_ORDER[a])} {how} than {article(w.SIZE_ORDER[b])}?", "yes" if (a > b) == bigger else "no")
    kind = pick(rng, NAMED_KINDS)
    yes = rng.random() < 0.5
    item = pick(rng, w.KINDS[kind]) if yes else pick(rng, w.KINDS[pick(rng, [k for k in NAMED_KINDS if k != kind])])
    if (item in w.KINDS[kind]) != yes:
        return fact(rng)
    return say(
        rng,
        pick(
            rng,
            [
                f"Is {article(item)} {article(kind)}?",
                f"Is {item} a kind of {kind}?",
                f"Does {item} belong to the group {kind}?",
                f"{capital(item)}: {kind}, yes or no?",
            ],
        ),
        "yes" if yes else "no",
    )


NAMED_KINDS = sorted(w.KINDS)


def article(noun: str) -> str:
    """The noun with a or an."""
    return ("an " if noun[0] in "aeiouAEIOU" else "a ") + noun


def kind_of(rng: random.Random) -> Chat:
    """The group a word belongs to, freely or from a given list."""
    kind = pick(rng, NAMED_KINDS)
    item = pick(rng, w.KINDS[kind])
    if sum(item in v for v in w.KINDS.values()) > 1:
        return kind_of(rng)
    if rng.random() < 0.5:
        return say(
            rng, pick(rng, [f"What kind of thing is {item}?", f"Which group is {item} in?", f"{capital(item)} is a kind of what?"]), kind
        )
    options = list(dict.fromkeys([kind, *rng.sample(NAMED_KINDS, rng.randint(1, 4))]))
    rng.shuffle(options)
    return ask(rng, f"{pick(rng, ['Choose the group', 'Which of these is it', 'Pick one'])}: {', '.join(options)}", item, kind)


def odd_one_out(rng: random.Random) -> Chat:
    """The word that is not of the same kind as the others."""
    a, b = rng.sample([k for k in NAMED_KINDS if len(w.KINDS[k]) > 4], 2)
    items = rng.sample(w.KINDS[a], rng.randint(2, 4))
    odd = pick(rng, w.KINDS[b])
    if odd in w.KINDS[a]:
        return odd_one_out(rng)
    both = [*items, odd]
    rng.shuffle(both)
    return ask(rng, pick(rng, ["Which word does not fit?", "Find the odd one out", "Which one is different?"]), ", ".join(both), odd)


def synonym(rng: random.Random) -> Chat:
    """Do two words mean the same, and which one of a list means the same as another."""
    group = pick(rng, w.SYNONYMS)
    if len(group) < 2:
        return synonym(rng)
    a, b = rng.sample(group, 2)
    if rng.random() < 0.5:
        yes = rng.random() < 0.5
        if not yes:
            b = pick(rng, pick(rng, w.SYNONYMS))
            if any(a in g and b in g for g in w.SYNONYMS):
                return synonym(rng)
        return say(
            rng,
            pick(rng, [f'Do "{a}" and "{b}" mean the same?', f"Is {a} another word for {b}?", f"{a} / {b}: same meaning?"]),
            "yes" if yes else "no",
        )
    options = [b, *(pick(rng, pick(rng, w.SYNONYMS)) for _ in range(rng.randint(1, 3)))]
    if any(o in g and a in g for o in options[1:] for g in w.SYNONYMS):
        return synonym(rng)
    rng.shuffle(options)
    return ask(
        rng,
        f"{pick(rng, ['Which word means the same as', 'Find another word for', 'Pick the word closest to'])} {a}?",
        ", ".join(options),
        b,
    )


def another_word(rng: random.Random) -> Chat:
    """A synonym, freely (several are right, so this is not in the probe)."""
    group = pick(rng, w.SYNONYMS)
    if len(group) < 2:
        return another_word(rng)
    a, b = rng.sample(group, 2)
    return say(rng, pick(rng, [f"Another word for {a}?", f"What means the same as {a}?", f"Say {a} in another way."]), b)


def opposite(rng: random.Random) -> Chat:
    """The opposite of a word."""
    a, b = pick(rng, UNIQUE_OPPOSITES)
    return say(rng, pick(rng, [f"What is the opposite of {a}?", f"Opposite of {a}", f"Not {a} but ...?", f"Say the contrary of {a}."]), b)


_SIDES = [x for p in w.OPPOSITES for x in p]
UNIQUE_OPPOSITES = [(a, b) for p in w.OPPOSITES for a, b in (p, p[::-1]) if _SIDES.count(a) == 1]


def past(rng: random.Random) -> Chat:
    """Past tense and plural."""
    if rng.random() < 0.6:
        verb = pick(rng, sorted(w.IRREGULAR)) if rng.random() < 0.5 else pick(rng, w.REGULAR)
        return say(
            rng,
            pick(rng, [f"What is the past of {verb}?", f"Today I {verb}. Yesterday I ...?", f"Past tense of {verb}"]),
            w.IRREGULAR[verb][0] if verb in w.IRREGULAR else regular_past(verb),
        )
    noun = pick(rng, w.KINDS["fruit"] + w.KINDS["tool"] + w.KINDS["job"] + w.KINDS["building"])
    many = (
        noun
        if noun.endswith("s")
        else noun[:-1] + "ies"
        if noun[-1] == "y" and noun[-2] not in "aeiou"
        else noun + ("es" if noun.endswith(("ch", "sh", "x", "ss")) else "s")
    )
    return say(rng, pick(rng, [f"What is the plural of {noun}?", f"One {noun}, two ...?", f"More than one {noun}"]), many)


DOUBLING = frozenset("admit chat drop fit hop hug knit plan prefer rub ship shop slip stop grab chop travel cancel pat".split())


def regular_past(verb: str) -> str:
    """The past of a regular verb in British spelling."""
    if verb.endswith("e"):
        return verb + "d"
    if verb[-1] == "y" and verb[-2] not in "aeiou":
        return verb[:-1] + "ied"
    return verb + verb[-1] + "ed" if verb in DOUBLING else verb + "ed"


# ---------------------------------------------------------------- understanding sentences

ASKED = {
    "when": ["when", "time", "the date", "the time", "when it was", "date"],
    "place": ["where", "place", "the place", "location", "town or place"],
    "org": ["shop or firm", "company", "the company", "firm", "which shop", "organisation", "business"],
    "who": ["who", "person", "the name", "name", "the person's name"],
    "measure": ["quantity", "the amount", "amount", "how much", "number", "the number with its unit"],
    "thing": ["thing", "the object", "object", "item", "what"],
}


def spans(rng: random.Random) -> tuple[str, dict[str, str]]:
    """A sentence with at least one span that can be asked for."""
    while True:
        text, found = statement(rng) if rng.random() < 0.45 else request(rng, pick(rng, lang.LABELS))
        found = {k: v for k, v in found.items() if k in ASKED}
        if found and len(set(found.values())) == len(found):
            return text, found


def sprinkled(rng: random.Random) -> tuple[str, dict[str, str]]:
    """A request in which arbitrary strings take the places of the spans, so that copying cannot lean on known words."""
    text, found = spans(rng)
    for k in found:
        if rng.random() < 0.35 and k in ("org", "who", "thing", "measure", "place"):
            new = (
                any_span(rng)
                if rng.random() < 0.3
                else rare(rng)
                if rng.random() < 0.2
                else code(rng)
                if rng.random() < 0.2
                else " ".join(pseudo(rng).capitalize() for _ in range(rng.randint(1, 2)))
            )
            text, found[k] = text.replace(found[k], new), new
    return (text, found) if all(text.count(v) == 1 for v in found.values()) else sprinkled(rng)


def extract(rng: random.Random) -> Chat:
    """Copy when, where, who, what or how much out of a sentence."""
    text, found = sprinkled(rng)
    key = pick(rng, sorted(found))
    if rng.random() < 0.1:
        key = pick(rng, sorted(ASKED))
    name = pick(rng, ASKED[key])
    how = pick(
        rng,
        [
            f"Find the {name.removeprefix('the ')}",
            f"Extract: {name}",
            f"Which words say {name}?",
            f"{capital(name)}?",
            f"Copy the {name.removeprefix('the ')} from the text",
            f"Give the {name.removeprefix('the ')} or none",
        ],
    )
    return ask(rng, how, text, found.get(key, "none"))


def compact(value: object) -> str:
    """JSON without spaces, letters as they are."""
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))


def json_pairs(rng: random.Random) -> Chat:
    """Pairs in plain text to a JSON object."""
    keys = word_list(rng, 1, 4)
    pairs = {k: any_span(rng) for k in keys}
    sep = pick(rng, [": ", "=", " is ", " -> "])
    text = pick(rng, [", ", "\n", "; ", " | "]).join(f"{k}{sep}{v}" for k, v in pairs.items())
    return ask(
        rng,
        pick(rng, ["Turn into JSON", "Write as JSON", "Make a JSON object", "As JSON", "Convert to a JSON object"]),
        text,
        compact(pairs),
    )


def json_list(rng: random.Random) -> Chat:
    """Words to a JSON list."""
    items = word_list(rng, 1, 6)
    return ask(rng, pick(rng, ["Make a JSON list", "Write as a JSON array", "As a JSON list of strings"]), ", ".join(items), compact(items))


KEYS = {
    "when": ["when", "time", "date"],
    "place": ["where", "place", "location"],
    "org": ["org", "shop", "company"],
    "who": ["who", "name", "person"],
    "measure": ["measure", "quantity", "size"],
    "thing": ["thing", "item", "object"],
}


def json_extract(rng: random.Random) -> Chat:
    """Spans of a sentence as JSON, only those that are there, or with null for the others."""
    text, found = sprinkled(rng)
    asked = sorted(rng.sample(sorted(KEYS), rng.randint(1, 4)) if rng.random() < 0.5 else found)
    names = {k: pick(rng, KEYS[k]) for k in asked}
    if rng.random() < 0.6:
        how = pick(
            rng,
            [
                "Give JSON with those of these keys that the text has: ",
                "Extract what is there as JSON. Keys: ",
                "JSON with what you find of ",
                "Details as JSON, leave out what is missing: ",
            ],
        )
        answer = compact({names[k]: found[k] for k in asked if k in found})
    else:
        how = pick(
            rng,
            [
                "JSON with these keys, null if missing: ",
                "Fill the JSON keys (null when not said): ",
                "Always give all keys, null for unknown: ",
            ],
        )
        answer = compact({names[k]: found.get(k) for k in asked})
    return ask(rng, how + ", ".join(names.values()), text, answer)


DESKS = """You are the help desk of a {club}.|You sort messages for {org}.|Customer desk of {org}.|You read letters to the {building}.|Sort the message.|Read the message.|You work for {org} in {place}.|Messages to a shop.|Classify each message.|Help desk.""".split(
    "|"
)
DESKS_PARSED = [lang.parse_template(d) for d in DESKS]
SHAPES: list[tuple[str, str]] = [
    ("request", "details"),
    ("label", "found"),
    ("type", "spans"),
    ("about", "facts"),
    ("kind", "details"),
    ("topic", "values"),
    ("reason_for_writing", "parts"),
    ("want", "has"),
]


def json_desk(rng: random.Random) -> Chat:
    """A message at a neutral help desk to nested JSON: what is wanted, how it sounds, and the details as they stand there."""
    label = pick(rng, lang.LABELS)
    text, found = request(rng, label)
    key, inner = pick(rng, SHAPES)
    answer: dict[str, object] = {key: label}
    parts = [key]
    if rng.random() < 0.4:
        answer["question"] = "yes" if is_question(label, text) else "no"
        parts.append("question")
    if rng.random() < 0.85:
        chosen = {k: found[k] for k in lang.EXTRACTED if k in found and k in ("when", "place", "org", "who", "thing", "measure")}
        answer[inner] = chosen
        parts.append(inner)
    desk = lang.expand(pick(rng, DESKS_PARSED), rng, Slots(rng))
    system = (
        f"{desk} {pick(rng, ['Reply with JSON:', 'Answer as JSON with', 'One JSON object:', 'Give JSON:', 'Output:'])} {', '.join(parts)}."
    )
    if lang.FORBIDDEN.search(system):
        return json_desk(rng)
    return Chat(system, [(text, compact(answer))])


TICKETS: list[tuple[str, str, str, str]] = [
    ("intent", "urgency", "entities", "decision"),
    ("request", "priority", "details", "action"),
    ("type", "level", "facts", "next_step"),
    ("category", "urgency", "spans", "decision"),
    ("label", "priority", "entities", "step"),
]
URGENT = frozenset("stolen lost health delay refused".split())
IDLE = frozenset("thanks weather_talk recommend opening_times how_many how_to".split())
DATED = {"not_arrived": 1, "return_not_seen": 4, "delay": 7, "cancel": 10, "update_failed": 13}
SETTLED = {"lost": ("search", "R16"), "stolen": ("replace", "R17"), "broken": ("repair", "R18"), "wrong_item": ("exchange", "R19")}
LONG_AGO = re.compile(r"week|month|year|fortnight")


def json_ticket(rng: random.Random) -> Chat:
    """A message at a neutral help desk to a ticket: the request, how urgent it is, the details as they stand there, and what follows by
    a fixed table from the request and from how long ago it says that something was."""
    label = pick(rng, lang.LABELS)
    text, found = request(rng, label)
    key, level, inner, step = TICKETS[0] if rng.random() < 0.5 else pick(rng, TICKETS)
    answer: dict[str, object] = {
        key: label,
        level: "high" if label in URGENT else "low" if label in IDLE else "normal",
        inner: {k: found[k] for k in lang.EXTRACTED if k in found},
    }
    if label in DATED:
        when, rule = found.get("when"), DATED[label]
        answer[step] = "clarify" if when is None else "escalate" if LONG_AGO.search(when) else "wait"
        answer["reason"] = f"R{rule + (0 if when is None else 1 if LONG_AGO.search(when) else 2)}"
        if when is None:
            answer["ask"] = "when"
    elif label in SETTLED:
        answer[step], answer["reason"] = SETTLED[label]
    desk = lang.expand(pick(rng, DESKS_PARSED), rng, Slots(rng)) if rng.random() < 0.7 else ""
    how = pick(rng, ["Reply with one JSON object:", "Reply with JSON:", "Answer as JSON:", "One JSON object:"])
    system = f"{desk} {how} {key}, {level}, {inner}, {step}.".strip()
    if lang.FORBIDDEN.search(system):
        return json_ticket(rng)
    return Chat(system, [(text, compact(answer))])


def is_question(label: str, text: str) -> bool:
    """A question mark or a question word at the start of some sentence."""
    return "?" in text or text.split(" ")[0].lower() in {
        "how",
        "what",
        "where",
        "when",
        "why",
        "which",
        "who",
        "is",
        "can",
        "could",
        "do",
        "does",
        "will",
        "has",
        "are",
        "should",
    }


def describe(label: str) -> str:
    """The label's definition."""
    return lang.REQUESTS[label][0]


def request_label(rng: random.Random) -> Chat:
    """The label of a message: from labels with definitions in the prompt, from bare labels, or known by heart."""
    label = pick(rng, lang.LABELS)
    text, _ = request(rng, label)
    x = rng.random()
    if x < 0.45:
        return ask(
            rng,
            pick(
                rng,
                [
                    "Label the request",
                    "Which request is it?",
                    "Name the request type",
                    "What does the person want? One label",
                    "Classify",
                    "Give the label of the message",
                ],
            ),
            text,
            label,
        )
    options = [label, *rng.sample([o for o in lang.LABELS if o != label], rng.randint(1, 5))]
    rng.shuffle(options)
    if x < 0.65:
        return ask(rng, f"{pick(rng, ['Choose the label', 'Pick one', 'One of'])}: {', '.join(options)}", text, label)
    if x < 0.85:
        names = (
            {o: o for o in options}
            if rng.random() < 0.5
            else dict(zip(options, pick(rng, ["ABCDEF", "123456", "abcdef", "uvwxyz"]), strict=False))
        )
        return ask(rng, "Choose by meaning.\n" + "\n".join(f"{names[o]}: {describe(o)}" for o in options) + "\nLabel", text, names[label])
    shots = [request(rng, o, plain=True)[0] + f" => {o}" for o in options[:4]]
    if label not in options[:4]:
        shots[-1] = request(rng, label, plain=True)[0] + f" => {label}"
    return ask(rng, "Continue like the examples.\n" + "\n".join(shots) + "\nNow", text, label)


def definition(rng: random.Random) -> Chat:
    """Does a description fit a message."""
    label = pick(rng, lang.LABELS)
    text, _ = request(rng, label)
    yes = rng.random() < 0.5
    shown = label if yes else pick(rng, [o for o in lang.LABELS if o != label])
    return ask(rng, f"Is it true that {describe(shown)}?", text, "yes" if yes else "no")


def topic_label(rng: random.Random) -> Chat:
    """The everyday topic of a sentence."""
    topic = pick(rng, lang.TOPICS)
    text, _ = statement(rng, topic)
    text, _ = lang.noisy(text, [], rng)
    if rng.random() < 0.5:
        return ask(rng, pick(rng, ["What is the topic?", "Name the topic", "What is the text about? One word"]), text, topic)
    options = [topic, *rng.sample([t for t in lang.TOPICS if t != topic], rng.randint(1, 5))]
    rng.shuffle(options)
    return ask(rng, f"Topic, one of: {', '.join(options)}", text, topic)


def same_request(rng: random.Random) -> Chat:
    """Do two messages ask for the same."""
    label = pick(rng, lang.LABELS)
    yes = rng.random() < 0.5
    other = label if yes else pick(rng, [o for o in lang.LABELS if o != label])
    a, b = request(rng, label)[0], request(rng, other)[0]
    return ask(
        rng,
        pick(rng, ["Do both want the same thing?", "Same request?", "Are the two messages of the same type?"]),
        f"1. {a}\n2. {b}",
        "yes" if yes else "no",
    )


def paraphrase(rng: random.Random) -> Chat:
    """The same request in other words, with the same things in it (many are right: not in the probe)."""
    label = pick(rng, lang.LABELS)
    slots = Slots(rng)
    a = lang.tidy(lang.expand(pick(rng, lang.PARSED[label]), rng, slots))
    b = lang.tidy(lang.expand(pick(rng, lang.PARSED[label]), rng, slots))
    return ask(rng, pick(rng, ["Say it in other words", "Rephrase", "Write it differently", "Put this another way"]), a, b)


MOODS = {
    "positive": "I [love|like|enjoy|adore] [this|my new|the] {thing}.|The {food} [was|is] [great|delicious|wonderful|lovely].|What a [lovely|wonderful|beautiful|perfect] day [in {place}|at the {nature}].|[The {job}|{who}] was [so|very|really] [kind|helpful|friendly].|I am [so|very|really] [happy|glad|pleased|excited] [about the {thing}|with the {booking}|today].|Best {building} ever.|Everything [worked|went] [well|perfectly|smoothly].|We had [great|so much] fun [in {place}|with {who}].",
    "negative": "I [hate|can't stand|dislike] [this|my new|the] {thing}.|The {food} [was|is] [awful|terrible|disgusting|cold and dry].|What a [horrible|terrible|sad|boring] day [in {place}|at the {nature}].|[The {job}|{who}] was [so|very|really] [rude|unkind|unhelpful].|I am [so|very|really] [angry|sad|upset|annoyed|disappointed] [about the {thing}|with the {booking}|today].|Worst {building} ever.|Everything [failed|went wrong|was late].|We had a [bad|miserable] time [in {place}|with {who}].",
    "neutral": "The {thing} is [on|under|next to] the {furniture}.|{who} [lives|works] in {place}.|The {building} [is|was] [near|behind] the {building2}.|There are {number} {noun}s in the room.|The {vehicle} leaves {when}.|It is {day}.|{who} has a {colour} {thing}.",
}


def split_top(text: str) -> list[str]:
    """Split at `|` outside brackets."""
    parts, depth = [""], 0
    for char in text:
        depth += (char == "[") - (char == "]")
        if char == "|" and depth == 0:
            parts.append("")
        else:
            parts[-1] += char
    return parts


MOODS_PARSED = {mood: [lang.parse_template(t) for t in split_top(text)] for mood, text in MOODS.items()}


def mood(rng: random.Random) -> Chat:
    """Positive, negative or neutral."""
    label = pick(rng, sorted(MOODS))
    text = lang.noisy(capital(lang.tidy(lang.expand(pick(rng, MOODS_PARSED[label]), rng, Slots(rng)))), [], rng)[0]
    return ask(
        rng,
        pick(
            rng,
            [
                "Is it positive, negative or neutral?",
                "Mood: positive, negative, neutral",
                "How does the writer feel? positive, negative or neutral",
                "Sentiment",
            ],
        ),
        text,
        label,
    )


NEGATIONS = [
    lang.parse_template(t)
    for t in [
        "[My|The] {thing} is not {adjective}.",
        "I [did not|didn't|never] [lose|lost|see|book|order] [my|the] {thing}.",
        "{who} [does not|doesn't] [like|want|have|need] {food}.",
        "The {gadget} [isn't|is not] [broken|new|here].",
        "There is no {weather} in {place}.",
        "Nobody [saw|found|took] the {thing}.",
        "We [can't|cannot|won't] [come|go to {place}] {when}.",
        "It is not {adjective}, [just|only|but] {adjective2}.",
        "I haven't lost the {thing}, it is [just|only] late.",
        "No, it was not {who} but {who2}.",
    ]
]


def negation(rng: random.Random) -> Chat:
    """Does the sentence say no to something."""
    yes = rng.random() < 0.5
    text = (
        capital(lang.tidy(lang.expand(pick(rng, NEGATIONS), rng, Slots(rng))))
        if yes
        else capital(lang.tidy(lang.expand(pick(rng, MOODS_PARSED["neutral"] + MOODS_PARSED["positive"]), rng, Slots(rng))))
    )
    return ask(
        rng,
        pick(rng, ["Is there a negation?", "Does the sentence say not, no or never?", "Negated? yes or no"]),
        text,
        "yes" if yes else "no",
    )


def denied(rng: random.Random) -> Chat:
    """Which of two things is meant and which is denied."""
    a, b = rng.sample(w.SYNONYMS, 2)
    x, y = pick(rng, a), pick(rng, b)
    item = Slots(rng)["thing"]
    text = pick(
        rng,
        [
            f"My {item} is not {x}, it is {y}.",
            f"The {item} isn't {x}, just {y}.",
            f"It is {y} and not {x}.",
            f"I did not say {x}, I said {y}.",
            f"Not {x} but {y}.",
        ],
    )
    if rng.random() < 0.6:
        return ask(rng, pick(rng, ["Which word is true?", "What is it really?", "Which one is meant?"]), text, y)
    return ask(rng, pick(rng, ["Which word is denied?", "What is it not?"]), text, x)


def sentence_type(rng: random.Random) -> Chat:
    """Question or statement."""
    while True:
        text, _ = request(rng, pick(rng, lang.LABELS), plain=True) if rng.random() < 0.7 else statement(rng)
        if text.count("?") + text.count(".") == 1:
            break
    q = text.endswith("?")
    if rng.random() < 0.3:
        text = text.lower()
    return ask(rng, pick(rng, ["Is it a question or a statement?", "question or statement"]), text, "question" if q else "statement")


def first_of_two(rng: random.Random) -> Chat:
    """The label of the first of two requests, or of the second."""
    a, b = rng.sample(lang.LABELS, 2)
    text = f"{request(rng, a, plain=True)[0]} {pick(rng, ['Also,', 'And', 'By the way,', 'Another thing:', 'Then', 'Second,', 'Plus', 'One more thing:'])} {request(rng, b, plain=True)[0]}"
    how, label = pick(rng, [("first", a), ("second", b), ("first", a)])
    return ask(
        rng, pick(rng, [f"Two things are asked. Label the {how}", f"Label the {how} request", f"What is the {how} request?"]), text, label
    )


def is_about(rng: random.Random) -> Chat:
    """A message to a desk for one subject: in scope or not."""
    topic = pick(rng, lang.TOPICS)
    yes = rng.random() < 0.5
    text, _ = statement(rng, topic if yes else pick(rng, [t for t in lang.TOPICS if t != topic]))
    return ask(
        rng,
        pick(rng, [f"Is this about {topic}? Say yes or no.", f"You only deal with {topic}. Does this belong here, yes or no?"]),
        text,
        "yes" if yes else "no",
    )


def cloze(rng: random.Random) -> Chat:
    """The word that is missing in a sentence seen before it."""
    text, found = spans(rng)
    key = pick(rng, sorted(found))
    return say(rng, f"{text}\n{pick(rng, ['Fill the gap', 'Complete', 'What is missing'])}: {text.replace(found[key], '___')}", found[key])


def talk(rng: random.Random) -> Chat:
    """Small talk with one right reply."""
    x = rng.random()
    name = Slots(rng)["who"]
    if x < 0.35:
        part = pick(rng, ["Good morning", "Hello", "Good evening", "Hi", "Good afternoon"])
        return say(
            rng,
            pick(rng, [f"{part}, my name is {name}.", f"{part}, I am {name}.", f"{part}! {name} here.", f"{part}, this is {name}."]),
            f"{part}, {name}!",
        )
    if x < 0.5:
        t = Slots(rng)["thing"]
        return say(rng, pick(rng, [f"Thank you for the {t}.", f"Thanks for the {t}!"]), f"You are welcome. Enjoy the {t}!")
    if x < 0.65:
        p = Slots(rng)["place"]
        return say(rng, pick(rng, [f"I am going to {p} tomorrow.", f"We travel to {p} soon."]), f"Have a good trip to {p}!")
    if x < 0.75:
        return say(rng, f"My {pick(rng, w.KINDS['relative'])} {name} has a birthday today.", f"Happy birthday, {name}!")
    q, a = pick(rng, list(w.PHRASES.items()))
    if rng.random() < 0.3:
        q = q.lower().rstrip(".!?")
    return say(rng, q, a)


def remember(rng: random.Random) -> Chat:
    """Two turns: what was said in the first is asked in the second."""
    a, b = any_span(rng), any_span(rng)
    x = pick(rng, w.KINDS["relative"] + w.KINDS["animal"] + ["street", "school", "town", "house", "team", "boat"])
    first = pick(rng, [f"My {x} is called {a}.", f"The name of my {x} is {a}.", f"Remember: {x} = {a}."])
    turns = [(first, pick(rng, ["All right.", "I see.", "Noted."]))]
    if rng.random() < 0.4:
        turns.append((f"And the {pick(rng, w.KINDS['plant'])} is called {b}.", "I see."))
    turns.append((pick(rng, [f"What is my {x} called?", f"What is the name of the {x}?", f"Tell me the name of my {x}."]), a))
    return Chat(persona(rng), turns)


def yes_no_sentence(rng: random.Random) -> Chat:
    """Is a named value in the sentence."""
    text, found = spans(rng)
    key = pick(rng, sorted(found))
    yes = rng.random() < 0.5
    value = found[key] if yes else Slots(rng)[key]
    if not yes and value in text:
        return yes_no_sentence(rng)
    return ask(
        rng,
        pick(rng, [f'Does the text say "{value}"?', f'Is "{value}" mentioned?', f"Does {value} occur in it?"]),
        text,
        "yes" if yes else "no",
    )


EXACT: dict[str, tuple[float, Skill]] = {
    "copy": (5, copy),
    "quoted": (2, quoted),
    "follows": (2.5, follows),
    "position": (1.5, position),
    "lookup": (2.5, lookup),
    "replace": (1, replace),
    "case": (1, case),
    "reverse": (1, reverse),
    "spell": (1, spell),
    "sort": (2.5, sort),
    "extreme": (1, extreme),
    "compare": (1.5, compare),
    "count": (1.5, count),
    "arithmetic": (1, arithmetic),
    "number_word": (0.4, number_word),
    "order": (0.5, order),
    "fact": (2, fact),
    "kind_of": (2, kind_of),
    "odd_one_out": (1.5, odd_one_out),
    "synonym": (2, synonym),
    "opposite": (0.7, opposite),
    "past": (1, past),
    "extract": (5, extract),
    "cloze": (0.8, cloze),
    "json_pairs": (3, json_pairs),
    "json_list": (1, json_list),
    "json_extract": (5, json_extract),
    "json_desk": (8, json_desk),
    "json_ticket": (14, json_ticket),
    "request_label": (8, request_label),
    "definition": (3, definition),
    "topic_label": (3, topic_label),
    "same_request": (3, same_request),
    "mood": (1.5, mood),
    "negation": (1, negation),
    "denied": (1.5, denied),
    "sentence_type": (0.7, sentence_type),
    "first_of_two": (2, first_of_two),
    "is_about": (1, is_about),
    "talk": (1.5, talk),
    "remember": (1.5, remember),
    "yes_no_sentence": (1, yes_no_sentence),
}
OPEN: dict[str, tuple[float, Skill]] = {"another_word": (1.5, another_word), "paraphrase": (3.5, paraphrase)}
"""Skills with several right answers: in the pretraining text, never in the probe."""


PROBED = """copy quoted follows position lookup sort extreme compare count order number_word fact kind_of odd_one_out synonym opposite past extract
    json_pairs json_list json_extract remember talk sentence_type mood""".split()
"""The skills of train/general: general ones, with one right answer each."""
WEIGHTED = {**EXACT, **OPEN}
PLAIN_SHARE = 0.12


def render(chat: Chat) -> str:
    """The conversation in the student's chat format (what its template renders)."""
    head = f"<|system|>{chat.system}<|end|>" if chat.system else ""
    return head + "".join(f"<|user|>{user}<|end|><|assistant|>{answer}<|end|>" for user, answer in chat.turns)


def document(rng: random.Random, held_out: frozenset[str] = frozenset()) -> str:
    """One document of the pretraining stream: a plain text or a rendered conversation.

    Redrawn while a word of `language.FORBIDDEN` occurs by chance, or the last question is in `held_out` (the probe's).
    """
    while True:
        if rng.random() < PLAIN_SHARE:
            text = f"<|text|>{plain(rng)}<|end|>"
        else:
            chat = rng.choices(DRAWN, cum_weights=CUMULATED)[0](rng)
            if chat.turns[-1][0] in held_out:
                continue
            text = render(chat)
        if not lang.FORBIDDEN.search(text):
            return text


DRAWN = [skill for _, skill in WEIGHTED.values()]
CUMULATED = list(itertools.accumulate(weight for weight, _ in WEIGHTED.values()))


def general_rows(seed: int, name: str, per_skill: int, held_out: frozenset[str] = frozenset()) -> list[dict]:
    """Rows for train/general, the same number for each probed skill, with distinct last questions outside `held_out`."""
    rng = random.Random(f"{seed}/general/{name}")
    seen = set(held_out)
    rows = []
    for skill in PROBED:
        kept = tried = 0
        while kept < per_skill and tried < 200 * per_skill:
            tried += 1
            chat = EXACT[skill][1](rng)
            question = chat.turns[-1][0]
            if question in seen or len(question) > 240 or lang.FORBIDDEN.search(render(chat)):
                continue
            seen.add(question)
            messages = [{"role": "system", "content": chat.system}] if chat.system else []
            for user, answer in chat.turns:
                messages += [{"role": "user", "content": user}, {"role": "assistant", "content": answer}]
            rows.append({"prompt": messages[:-1], "completion": messages[-1]["content"], "skill": skill})
            kept += 1
    return rows


def plain(rng: random.Random) -> str:
    """A document without roles: a story, a list, a letter, a dialogue or lines of vocabulary."""
    x = rng.random()
    if x < 0.35:
        topic = pick(rng, lang.TOPICS)
        return " ".join(statement(rng, topic if rng.random() < 0.7 else None)[0] for _ in range(rng.randint(2, 5)))
    if x < 0.5:
        slots = Slots(rng)
        label = pick(rng, lang.LABELS)
        body = " ".join(capital(lang.tidy(lang.expand(pick(rng, lang.PARSED[label]), rng, slots))) for _ in range(rng.randint(1, 3)))
        return f"Dear {slots['who']},\n{body}\n{pick(rng, ['Kind regards', 'Best wishes', 'Yours', 'Thanks'])},\n{slots['who2']}"
    if x < 0.65:
        group = pick(rng, w.SYNONYMS)
        a = pick(rng, group)
        return f"{capital(a)} means {', '.join(g for g in group if g != a) or a}. " + " ".join(
            pick(rng, lang.FORMS) for _ in range(rng.randint(4, 16))
        )
    if x < 0.75:
        kind = pick(rng, NAMED_KINDS)
        items = rng.sample(w.KINDS[kind], min(len(w.KINDS[kind]), rng.randint(2, 5)))
        return f"{capital(', '.join(items))}: each is {article(kind)}."
    if x < 0.9:
        return "\n".join(f"- {request(rng, pick(rng, lang.LABELS))[0]}" for _ in range(rng.randint(2, 3)))
    return compact({pick(rng, lang.VOCABULARY): any_span(rng) for _ in range(rng.randint(1, 4))})

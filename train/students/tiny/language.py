"""Everyday English by grammar: slots, sentence templates with alternatives, requests made at a neutral help desk, noise.

A template is text with `[a|b|c]` for alternatives (nestable, empty allowed) and `{slot}` for a value; `Slots` makes each
value once, when it is first asked for, so that the slots used in a sentence are known afterwards as exact substrings.
Nothing here, nor in `words.py`, speaks of the banking domain: `FORBIDDEN` is searched in every text before it is used.
"""

import random
import re
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from . import words as w

FORBIDDEN_WORDS = (
    r"banks? banking banker cards? credits? debit\w* pins? refund\w* pay paying paid payer payments? transfers? transferr\w+ accounts? cash "
    r"atms? top-?up\w* exchang\w* currenc\w* contactless money euros? dollars? pounds? sterling cents? penn(?:y|ies) pence wallets? fees? "
    r"charg(?:e|es|ed|ing) withdr\w+ deposit\w* balances? transactions? merchants? purchas\w+ passcodes? passwords? cvv fraud\w* declin\w+ "
    r"identit\w+ verif\w+ terminat\w+ intents? loans? mortgages? invoices? bills? coins? prices? priced costs? salar(?:y|ies) wages? rates? "
    r"spend\w* spent reimburs\w+ iban mastercard visa_card paypal usd gbp eur beneficiary overdraft banknotes? cheques?"
).split()
FORBIDDEN = re.compile(
    r"\b(?:" + "|".join(FORBIDDEN_WORDS) + r"|top(?:ped|ping)?[ _]up)\b|(?<![a-z])pin(?![a-z])|[£€¥¢]|\$ ?\d", re.IGNORECASE
)
"""What no generated text may contain: words of the banking domain and sums of money."""

T = TypeVar("T")
Template = tuple[str, Any]
Maker = Callable[[random.Random], str]


def parse_template(text: str) -> Template:
    """Parse `[a|b]` and `{slot}` into nested tuples: ("seq", parts), ("alt", choices), ("slot", name) or plain text."""
    position = 0

    def sequence(closers: str) -> Template:
        nonlocal position
        parts: list = []
        literal = ""
        while position < len(text) and text[position] not in closers:
            char = text[position]
            position += 1
            if char == "[":
                choices = [sequence("|]")]
                while text[position] == "|":
                    position += 1
                    choices.append(sequence("|]"))
                position += 1
                parts += [literal, ("alt", tuple(choices))]
                literal = ""
            elif char == "{":
                end = text.index("}", position)
                parts += [literal, ("slot", text[position:end])]
                literal = ""
                position = end + 1
            else:
                literal += char
        return ("seq", tuple(p for p in [*parts, literal] if p))

    return sequence("")


def expand(node: Template | str, rng: random.Random, slots: "Slots") -> str:
    """Draw one text of a parsed template; the slots it uses are made and remembered in `slots`."""
    if isinstance(node, str):
        return node
    kind, body = node
    if kind == "seq":
        return "".join([expand(part, rng, slots) for part in body])
    if kind == "alt":
        return expand(body[int(rng.random() * len(body))], rng, slots)
    return str(slots[body])


def pick(rng: random.Random, options: Sequence[T]) -> T:
    """One of the options (faster than `rng.choice`)."""
    return options[int(rng.random() * len(options))]


# ---------------------------------------------------------------- slot values

ONSETS = "b bl br c ch cl cr d dr f fl fr g gl gr h j k kl l m n p pl pr qu r s sc sh sk sl sm sn sp st str t th tr v w y z".split()
VOWELS = "a e i o u a e i o ai ea ee oo ou ia io ua".split()
CODAS = ["", "", "", *"n r l s t m d k x ck ll nd nt rd rt ss st th ng sh".split()]


def pseudo(rng: random.Random, syllables: int = 0) -> str:
    """A pronounceable word that (most likely) does not exist."""
    n = syllables or (1 if rng.random() < 0.25 else 2 if rng.random() < 0.7 else 3)
    return "".join([pick(rng, ONSETS) + pick(rng, VOWELS) + pick(rng, CODAS) for _ in range(n)])


LETTERS = "abcdefghijklmnopqrstuvwxyz"
CHARS = LETTERS * 3 + LETTERS.upper() * 2 + "0123456789" * 3 + "-_#.:/+*=@&%!?$~<>[]{}()|^`;,"
RARE = "éèêëáàâäãåçñíìîïóòôöõøúùûüýßÉÈÁÀÄÅÇÑÖØÜ°§±²³µ¼½¾¿¡«»¬®©¶·×÷–—‘’“”…•†‰‹›→←↑↓≈≠≤≥✓✗★☆♥♪😀😂😊😡😢🙏👍👎🎉🔥🚲📦🐶🌧☀️ąęłńśżźčřšžőűţģΣŬ₂₃ℬ™αβд"


def code(rng: random.Random) -> str:
    """An arbitrary short string: letters, digits, signs."""
    return "".join([pick(rng, CHARS) for _ in range(rng.randint(2, 9))])


def rare(rng: random.Random) -> str:
    """A word with characters beyond ASCII, so that every byte of common UTF-8 text is seen."""
    body = list(pseudo(rng))
    for _ in range(rng.randint(1, 3)):
        body.insert(rng.randint(0, len(body)), pick(rng, RARE))
    return "".join(body)


def number(rng: random.Random) -> str:
    """A number of one to four digits, small ones more often; now and then with decimals or a comma."""
    x = rng.random()
    if x < 0.45:
        return str(rng.randint(1, 31))
    if x < 0.8:
        return str(rng.randint(10, 999))
    if x < 0.9:
        return f"{rng.randint(1, 99)}.{rng.randint(0, 99):02d}"
    return f"{rng.randint(1, 9)},{rng.randint(0, 999):03d}" if x < 0.93 else str(rng.randint(1000, 9999))


UNITS = "km|metres|miles|kg|grams|litres|minutes|hours|%|°C|cm|steps|pages|boxes|bottles|bags|people|pieces|copies|rooms|seats|sheets|points|cups".split(
    "|"
)
ATTACHED = "#%|%s%%|%skg|%skm|%sm|%scm|%s°|x%s|No. %s|+%s|~%s|%s.0".split("|")[1:]


def measure(rng: random.Random) -> str:
    """A quantity: a number with a unit after it or a sign stuck to it."""
    n = number(rng)
    return f"{n} {pick(rng, UNITS)}" if rng.random() < 0.6 else pick(rng, ATTACHED) % n


SMALL = ["one", "two", "three", "four", "five", "six", "seven", "ten", "a few", "2", "3", "4", "5", "6", "8", "10", "12", "14"]
PERIODS = "minutes hours days weeks months years".split()
WHENS: list[Maker] = [
    lambda r: f"{pick(r, SMALL)} {pick(r, PERIODS)} ago",
    lambda r: f"{pick(r, SMALL)} {pick(r, PERIODS)} ago",
    lambda r: f"{r.randint(2, 30)} {pick(r, PERIODS)} ago",
    lambda r: pick(
        r,
        [
            "yesterday",
            "today",
            "this morning",
            "last night",
            "this afternoon",
            "last week",
            "last month",
            "the day before yesterday",
            "an hour ago",
            "a week ago",
            "a month ago",
            "just now",
            "this week",
            "tonight",
            "tomorrow",
            "a while ago",
            "last year",
            "earlier today",
            "yesterday evening",
            "yesterday morning",
            "over the weekend",
            "a day ago",
            "a couple of days ago",
            "last weekend",
        ],
    ),
    lambda r: f"{pick(r, ['on', 'last', 'since', 'next', 'this', 'on', 'last'])} {pick(r, w.KINDS['day'])}",
    lambda r: f"on {pick(r, w.KINDS['day'])} {pick(r, ['morning', 'evening', 'afternoon', 'night'])}",
    lambda r: f"on {r.randint(1, 31)} {pick(r, w.KINDS['month'])}",
    lambda r: f"on the {r.randint(4, 20)}th of {pick(r, w.KINDS['month'])}",
    lambda r: f"on {pick(r, w.KINDS['month'])} {r.randint(1, 31)}",
    lambda r: f"{pick(r, ['in', 'since', 'last'])} {pick(r, w.KINDS['month'])}",
    lambda r: f"at {r.randint(1, 12)}{pick(r, [' o clock', 'pm', 'am', ' pm', ':30', ':15', '.45'])}",
    lambda r: f"{pick(r, ['over', 'about', 'more than', 'almost'])} {pick(r, SMALL)} {pick(r, PERIODS)} ago",
]
ORGS: list[Maker] = [
    lambda r: pseudo(r).capitalize(),
    lambda r: pseudo(r).capitalize(),
    lambda r: pseudo(r, 1).capitalize() + pseudo(r, 1).capitalize(),
    lambda r: (
        f"{pick(r, w.LAST)} {pick(r, ['& Sons', 'and Daughters', 'Brothers', '& Co', 'Ltd', 'Group', 'Books', 'Sports', 'Travel', 'Foods'])}"
    ),
    lambda r: f"{pick(r, w.FIRST)}'s",
    lambda r: f"{pick(r, w.FIRST)}'s {pick(r, ['Bakery', 'Cafe', 'Garage', 'Kitchen', 'Bikes', 'Flowers', 'Pizza', 'Books'])}",
    lambda r: f"the {pick(r, w.KINDS['colour'])} {pick(r, w.KINDS['animal'])}".title(),
    lambda r: (
        f"{pseudo(r).capitalize()} {pick(r, ['Market', 'Air', 'Hotel', 'Rail', 'Online', 'Store', 'Gym', 'Taxi', 'Music', 'Direct', 'Express', 'Club'])}"
    ),
    lambda r: pseudo(r).upper()[:4],
    lambda r: pseudo(r, 2) + pick(r, [".com", ".org", ".co.uk", ".net"]),
]


def place(rng: random.Random) -> str:
    """A town (real or made up), a country, or a spot such as "the station"."""
    x = rng.random()
    return (
        pick(rng, w.CITIES)
        if x < 0.5
        else pseudo(rng).capitalize()
        if x < 0.65
        else pick(rng, w.KINDS["country"])
        if x < 0.75
        else pick(rng, w.SPOTS)
    )


def thing(rng: random.Random) -> str:
    """A thing one can own, sometimes with an adjective."""
    noun = pick(rng, w.THINGS)
    return f"{pick(rng, w.ADJECTIVES)} {noun}" if rng.random() < 0.2 else noun


MAKERS: dict[str, Maker] = {
    "thing": thing,
    "gadget": lambda r: pick(r, w.GADGETS),
    "detail": lambda r: pick(r, w.DETAILS),
    "booking": lambda r: pick(r, w.BOOKINGS),
    "club": lambda r: pick(r, w.CLUBS),
    "howto": lambda r: pick(r, w.HOW_TO),
    "when": lambda r: pick(r, WHENS)(r),
    "org": lambda r: pick(r, ORGS)(r),
    "place": place,
    "who": lambda r: pick(r, w.FIRST) if r.random() < 0.8 else f"{pick(r, w.FIRST)} {pick(r, w.LAST)}",
    "relative": lambda r: pick(r, w.KINDS["relative"]),
    "measure": measure,
    "number": number,
    "country": lambda r: pick(r, w.KINDS["country"]),
    "colour": lambda r: pick(r, w.KINDS["colour"]),
    "animal": lambda r: pick(r, w.KINDS["animal"]),
    "food": lambda r: pick(r, w.KINDS["food"]),
    "fruit": lambda r: pick(r, w.KINDS["fruit"]),
    "vegetable": lambda r: pick(r, w.KINDS["vegetable"]),
    "drink": lambda r: pick(r, w.KINDS["drink"]),
    "clothing": lambda r: pick(r, w.KINDS["clothing"]),
    "vehicle": lambda r: pick(r, w.KINDS["vehicle"]),
    "building": lambda r: pick(r, w.KINDS["building"]),
    "job": lambda r: pick(r, w.KINDS["job"]),
    "sport": lambda r: pick(r, w.KINDS["sport"]),
    "instrument": lambda r: pick(r, w.KINDS["instrument"]),
    "language": lambda r: pick(r, w.KINDS["language"]),
    "subject": lambda r: pick(r, w.KINDS["school subject"]),
    "body": lambda r: pick(r, w.KINDS["body part"]),
    "weather": lambda r: pick(r, w.KINDS["weather"]),
    "nature": lambda r: pick(r, w.KINDS["place in nature"]),
    "season": lambda r: pick(r, w.KINDS["season"]),
    "day": lambda r: pick(r, w.KINDS["day"]),
    "tool": lambda r: pick(r, w.KINDS["tool"]),
    "furniture": lambda r: pick(r, w.KINDS["furniture"]),
    "adjective": lambda r: pick(r, w.ADJECTIVES),
    "adverb": lambda r: pick(r, w.ADVERBS),
    "noun": lambda r: pick(r, NOUNS),
    "any": lambda r: pick(r, VOCABULARY),
    "code": code,
    "unita": lambda r: pick(r, "metres miles inches feet kilos grams litres pints ounces cups minutes yards acres degrees gallons".split()),
    "unitb": lambda r: pick(
        r, "kilometres centimetres stones millilitres hours seconds days spoonfuls Celsius Fahrenheit tonnes hectares".split()
    ),
}
NOUNS: list[str] = sorted({n for kind in w.KINDS.values() for n in kind if n.islower()})
VOCABULARY: list[str] = sorted(
    set(NOUNS) | set(w.MORE) | set(w.ADJECTIVES) | set(w.ADVERBS) | set(w.REGULAR) | set(w.IRREGULAR) | {s for g in w.SYNONYMS for s in g}
)


def ing(verb: str) -> str:
    """The -ing form, spelled as regular verbs mostly are."""
    return verb[:-1] + "ing" if verb.endswith("e") and not verb.endswith("ee") and len(verb) > 2 else verb + "ing"


def plural(noun: str) -> str:
    """The regular plural."""
    if noun[-1] == "y" and noun[-2:-1] not in "aeiou":
        return noun[:-1] + "ies"
    return noun if noun.endswith("s") else noun + ("es" if noun.endswith(("ch", "sh", "x")) else "s")


VERBS = sorted(set(w.REGULAR) | set(w.IRREGULAR))
FORMS = sorted(
    set(VOCABULARY)
    | {plural(n) for n in NOUNS}
    | {ing(v) for v in VERBS}
    | {plural(v) for v in VERBS}
    | {f for forms in w.IRREGULAR.values() for f in forms}
    | {v + ("d" if v.endswith("e") else "ed") for v in w.REGULAR}
)
FORMS = [f for f in FORMS if not FORBIDDEN.search(f)]
"""The vocabulary with its inflected forms (regular spelling: now and then one that no dictionary has)."""
EXTRACTED = ("when", "place", "org", "who", "measure", "thing")
"""The slots whose values a task may ask to copy out of a sentence."""


class Slots(dict):
    """Slot values made on first use. `name2` makes a second value of kind `name`."""

    def __init__(self, rng: random.Random) -> None:
        """Draw values from rng."""
        super().__init__()
        self.rng = rng

    def __missing__(self, key: str) -> str:
        """Make the value."""
        value = self[key] = MAKERS[key.rstrip("23")](self.rng)
        return value


# ---------------------------------------------------------------- requests at a neutral help desk

REQUESTS: dict[str, tuple[str, list[str]]] = {
    "not_arrived": (
        "something that was sent or ordered has not come yet",
        [
            "[My|The] {thing} [has not arrived|hasn't arrived|has still not come|did not come|is still not here|never showed up|never turned up|hasn't come yet|has not been delivered]{tail}.",
            "[I am|I'm|We are] still waiting for [my|the|a] {thing}{tail}.",
            "[Where is|Where's|What happened to|Whatever happened to] [my|the] {thing}[ that I ordered| you sent|]?",
            "[When will|When does|When is] [my|the] [new |]{thing} [arrive|get here|come|be delivered|reach me|due to arrive]?",
            "[How long|How many days] [will it take|does it take|until|before] [to get|for|I get] my [new |]{thing}[ to arrive|]?",
            "I ordered a {thing} [from {org} |]{when} [and|but] [it is not here|nothing has come|it hasn't come|I have nothing|no sign of it|have not received it][ yet|].",
            "[Has|Have you sent] [my|the] {thing} [been sent|been posted|out|left yet]?",
            "[Can|Could] [you|I] [track|trace|follow] [my|the] {thing}[ that is in the post|]?",
            "[My|The] {thing} [should have|was supposed to|was due to] [be here|arrive|come] {when}.",
            "[It has been|It's been] [weeks|ages|two weeks|so long|a month] and [still no|no] {thing}.",
            "[What is|What's] [taking|holding up] my {thing}[ so long|]?",
            "I [have not|haven't|did not] [received|got|get|seen] [my|the] {thing}[ yet| in the post|]{tail}.",
            "[Is there|Do you have] any [news|update] [on|about] my {thing}[ delivery|]?",
        ],
    ),
    "lost": (
        "the person cannot find a thing of theirs",
        [
            "I [lost|have lost|misplaced|have misplaced|seem to have lost|think I lost] my {thing}{tail}.",
            "I [can't|cannot|am unable to] find my {thing} [anywhere|any more|]{tail}.",
            "My {thing} [is missing|has gone missing|is gone|has disappeared|is nowhere to be found]{tail}.",
            "I left my {thing} [at|in|on|near] {place}[ {when}|].",
            "I must have dropped my {thing} [somewhere|in {place}|on the way home|on the bus]{tail}.",
            "[What should|What do|What can] I do [if|when|now that] I [lose|lost|have lost] my {thing}?",
            "[Has anyone|Did anybody|Did someone] [found|hand in|handed in|find] a {thing}[ {when}| in {place}|]?",
            "[Help|Please help]! [I lost|I've lost] my {thing}{tail}.",
            "I don't know where my {thing} is[ any more|]{tail}.",
            "[I'd like|I want|I need] to report a lost {thing}{tail}.",
        ],
    ),
    "stolen": (
        "a thing was taken by somebody",
        [
            "[Someone|Somebody|A thief|A stranger] [stole|took|has taken|has stolen|nicked|ran off with] my {thing}{tail}.",
            "My {thing} [was|has been|got] [stolen|taken|robbed|nicked]{tail}.",
            "I [was robbed|have been robbed|got mugged] [and|and now] my {thing} is gone{tail}.",
            "I [think|believe|am sure] [someone|somebody] [took|stole] my {thing}{tail}.",
            "[A thief|Burglars] broke in and took [my|our] {thing}{tail}.",
            "[I need|I want|I have] to report a stolen {thing}{tail}.",
        ],
    ),
    "broken": (
        "a thing is damaged",
        [
            "[My|The] {thing} [is|arrived|came] [broken|damaged|cracked|smashed|in pieces|torn|scratched|bent]{tail}.",
            "I [dropped|broke|damaged] my {thing}{tail}.",
            "There is a [crack|hole|scratch|dent|tear] in my {thing}{tail}.",
            "The [screen|handle|lid|corner|front|back|cover|strap] of my {thing} [is broken|came off|has cracked|snapped]{tail}.",
            "[Can|Could] [you|somebody|someone] [fix|repair|mend] my [broken |damaged |]{thing}?",
            "My {thing} [fell|snapped|cracked] and needs [a repair|fixing]{tail}.",
            "My {thing} got [damaged|wet|crushed|chewed by the dog]{tail}. [Can I get a new one|Do I need a new one|Will you replace it]?",
        ],
    ),
    "not_working": (
        "a device or service does not do what it should",
        [
            "[My|The|Our] {gadget} [is not working|isn't working|doesn't work|does not work|won't work|stopped working|has stopped working|no longer works|is not responding]{tail}.",
            "[Why|How come] [is|does] [my|the] {gadget} not [working|work|turn on|start|respond]?",
            "I [can't|cannot|am unable to] [get|make] [my|the] {gadget} [to work|work|going|to start]{tail}.",
            "I [tried|have tried] to use [my|the] {gadget} [but|and] [nothing happens|nothing happened|it does nothing|it would not work|it did not work]{tail}.",
            "[My|The] {gadget} [keeps|is] [beeping|crashing|freezing|failing|stopping|turning off]{tail}.",
            "[Something is|There is something|There's something] wrong with [my|the] {gadget}{tail}.",
            "[The|My] {gadget} [won't|does not|will not] [switch on|turn on|read my badge|open|connect|start|scan]{tail}.",
            "[What|Anything] can I do [if|when] [my|the] {gadget} [does not work|isn't working|fails]?",
            "[My|The] {gadget} [seems|appears] to be [broken|faulty|dead|out of order|down]{tail}.",
            "[I held|I put|I waved|I touched] my {thing} [on|against|near|to] the {gadget} and [nothing happened|it did nothing|no luck]{tail}.",
        ],
    ),
    "refused": (
        "a thing was turned away or not accepted at a desk, door or gate",
        [
            "My {thing} [was|got|has been|keeps getting] [refused|rejected|turned away|turned down|sent back|not accepted]{tail}.",
            "[They|{org}|The man at the desk|The gate|The driver] [would not|wouldn't|did not|refused to] [accept|take] my {thing}{tail}.",
            "[Why|How come] [was|did] my {thing} [refused|rejected|not accepted|turned down|get rejected]{tail}?",
            "I [tried|wanted] to use my {thing} [at {org} |in {place} |]but [it was refused|it was rejected|they said no|it was not accepted|it didn't go through]{tail}.",
            "[{org}|The shop|The hotel] [rejected|refused|turned down] my {thing}{tail}.",
            "I could not [get in|use my {thing}] because it was [rejected|not accepted|refused]{tail}.",
            "[Why won't|Why doesn't] [{org}|anyone|the gate] [take|accept] my {thing}?",
            "It [said|says] my {thing} is not [accepted|valid]{tail}.",
        ],
    ),
    "wrong_item": (
        "something else came than was asked for",
        [
            "I [got|received|was sent|was given] the wrong {thing}{tail}.",
            "I ordered a {thing} but [got|received|you sent] a {thing2}{tail}.",
            "This is not the {thing} I [ordered|asked for|wanted].",
            "[The|My] {thing} [is|has|came in] the wrong [size|colour|shape|model]{tail}.",
            "You [sent|gave] me somebody else's {thing}{tail}.",
            "[Why did I get|Why have you sent me] a {thing} [when|if] I asked for a {thing2}?",
        ],
    ),
    "change_detail": (
        "the person wants to set or change a detail, such as an address or a code",
        [
            "[How do I|How can I|How would I|How should I|Where can I|Where do I] [change|update|reset|edit|set|modify|alter] my {detail}?",
            "[Can|Could|May] I [change|update|reset|edit|choose|set] my {detail}[, please| here| online|]?",
            "I [want|need|would like|'d like|have] to [change|update|correct|reset|edit|set] my {detail}[ please|]{tail}.",
            "My {detail} [has changed|is wrong|is out of date|needs to change|needs updating]{tail}.",
            "[Please|Can you please|Could you] [change|update|correct|set] my {detail}[ to {code}|].",
            "[Is it possible|Am I able|Am I allowed] to [change|choose|reset] my {detail}[ myself|]?",
            "I [forgot|don't remember|can't remember] my {detail}[ and need a new one|, how do I set a new one|].",
            "[What|Which] [steps|way] [do I take|is there] to [change|get a new] {detail}?",
            "I'm not happy with my {detail}, [can I change it|how can I change it|I want another one].",
        ],
    ),
    "cancel": (
        "the person wants to stop something that was booked, ordered or sent",
        [
            "[Please|Can you|Could you|Can you please] [cancel|stop|call off|undo] [my|the] {booking}[ {when}| with {org}|].",
            "I [want|need|would like|have|wish] to [cancel|call off|stop|undo] [my|the] {booking}{tail}.",
            "[How do I|How can I|Where can I|Is it too late to] [cancel|stop|undo|call off] [my|the|a] {booking}[ I made|]?",
            "I [booked|made|ordered] [a|the wrong] {booking} by [mistake|accident][, please cancel it|, can it be cancelled|, can I undo it|]{tail}.",
            "I [no longer|don't] need [my|the] {booking}[ any more|][, please cancel it|].",
            "[Can|Could] [my|the] {booking} [still |]be [cancelled|stopped|called off]?",
            "I [changed|have changed] my mind about the {booking}[, please stop it|]{tail}.",
            "[The|My] {booking} [went|was sent] to the wrong [person|place|address], [please stop it|can you stop it|I need it cancelled].",
        ],
    ),
    "close_membership": (
        "the person wants to leave for good and have their membership ended",
        [
            "I [want|wish|need|would like] to [leave|quit|end my membership of|close my membership of|get out of] the {club}{tail}.",
            "[Please|Can you|Could you] [close|end|delete|remove] my [{club} |]membership[ for good|].",
            "[How do I|How can I|What do I do to] [leave|quit|end|close|delete] [the {club}|my {club} membership|my profile]?",
            "I [don't|no longer] want to be [a member|part] of the {club}[ any more|].",
            "[I'm|I am] [unhappy|not happy|fed up] with the {club} and [want to leave|want out|I quit]{tail}.",
            "[Delete|Remove|Close] [my profile|everything you have about me|my membership] [please|now|today].",
            "I am [moving away|leaving the country] so I [want to end|must close] my {club} membership.",
        ],
    ),
    "how_to": (
        "the person asks how a thing is done",
        [
            "[How do I|How can I|How do you|How does one|How should I|What is the best way to] {howto}?",
            "[Can|Could] you [tell me|show me|explain|teach me] how to {howto}[, please|]?",
            "I [need|want|would like] to [know|learn] how to {howto}.",
            "I don't know how to {howto}[, can you help|].",
            "[Is it|How] [easy|hard|difficult] [to|is it to] {howto}?",
        ],
    ),
    "opening_times": (
        "the person asks when a place is open",
        [
            "[What time|When] does [the {building}|{org}] [open|close|shut][ {when}|]?",
            "[Is|Will] the {building} [be |]open [on {day}|tomorrow|today|at night|in {season}]?",
            "[What are|Tell me|Do you know] the opening [times|hours] of [the {building}|{org}][?|, please.]",
            "[How late|Until when] is [the {building}|{org}] open?",
            "Are you open on {day}[s|]?",
        ],
    ),
    "where_is": (
        "the person asks for the way or the location",
        [
            "[Where is|Where's|Where can I find|Can you tell me where I find] the [nearest |]{building}[ in {place}|]?",
            "[How do I|How can I|What's the best way to] get to [the {building}|{place}]?",
            "[Is there|Do you know] a {building} [near|close to|around] [here|{place}]?",
            "[Which|What] [way|bus|road|train] [goes|do I take] to [the {building}|{place}]?",
            "How far is it to [the {building}|{place}]?",
        ],
    ),
    "unexpected": (
        "there is an entry, a visit or a thing that the person does not know and did not ask for",
        [
            "There is a {thing} [on my list|in my basket|at my door|in my order|under my name] that [I did not order|I don't recognise|is not mine|I never asked for|I know nothing about]{tail}.",
            "I [did not|didn't|never] [order|book|ask for|make] [this|the|that] {booking}{tail}.",
            "[Who|Why] [booked|ordered|made] [this|a] {booking} [in my name|for me|under my name]?",
            "I [don't|do not] recognise [a|this|the] {booking} [on my list|in my history|from {org}]{tail}.",
            "[Someone|Somebody] [else |][booked|made|ordered] a {booking} in my name{tail}.",
            "[It says|Your letter says|The list shows] I [booked|ordered|borrowed] a {thing} {when} but [I didn't|that wasn't me|I was at home|it was not me].",
            "[Why|How come] [is there|do I have|did I get] a {thing} I [never|didn't] [order|ask for|borrow]?",
            "[A|Some] strange {booking} [appeared|showed up|is shown] in my [list|calendar|history] [and it was not me|that I did not make]{tail}.",
        ],
    ),
    "prove_membership": (
        "the person asks how or why to show who they are",
        [
            "[How do I|How can I|What do I need to] [prove|show|confirm] [that I am a member|who I am|that it's me|my age|I am a student]?",
            "[Why|What for] do you [need|want] [my passport|a photo of me|my date of birth|to know who I am|proof of who I am]?",
            "[Which|What] [papers|documents|proof] do [you need|I need|I have to show][ at the {building}| for the {club}|]?",
            "Do I [need|have] to [bring|show|send] my [passport|badge|papers|certificate]?",
            "I [can't|am unable to|could not] [prove|confirm] who I am{tail}.",
            "[Your app|The desk|The website] [does not|won't] [accept|believe] [my passport|my photo|that it is me]{tail}.",
        ],
    ),
    "return_not_seen": (
        "the person gave or sent something back and it does not show",
        [
            "I [returned|gave back|sent back|brought back] [my|the] {thing} [{when} |]but it [is still on my list|does not show|still says borrowed|has not been taken off|is not marked as returned].",
            "[Why|How come] [is|does] the {thing} I [returned|sent back] [still |][on my list|not show|not marked|missing from the list]{tail}?",
            "[Where is|When will I see] [the return of|] my {thing}[ that I sent back {when}| that I gave back|]?",
            "I sent [the|my] {thing} back to {org} [{when} |]and [have not heard anything|nothing has happened|my list has not changed|I don't see it].",
            "[Has|Have you got] the {thing} I [sent back|returned] [arrived|yet]?",
            "{org} [says|told me] [they|it] [took|have] the {thing} back but I [can't|do not] see it on my [list|page].",
        ],
    ),
    "update_failed": (
        "the person tried to add, send or load something and it did not go through",
        [
            "[My|The] [update|upload|download|order|booking|registration|renewal] [failed|did not work|didn't go through|was not saved|got stuck|keeps failing]{tail}.",
            "I [tried|have tried|was trying] to [add|upload|load|send|renew|register] [my|a] {thing} [but|and] it [failed|did not work|won't let me|gave an error|didn't go through]{tail}.",
            "[Why|How come] [did|has] my [update|upload|renewal|registration|order] [fail|failed|not go through|not work]?",
            "[The app|The website|The system] [won't|would not|does not] let me [add|upload|renew|load|register] [my|a] {thing}{tail}.",
            "I [renewed|added|uploaded] my {thing} [{when} |]but it [is not there|does not show|never appeared|was not added].",
        ],
    ),
    "renew": (
        "the person wants to keep or lend something for longer",
        [
            "[Can|Could|May] I [renew|extend|keep] my {thing}[ for longer| for another week|]?",
            "[How do I|How can I|Where do I] [renew|extend] my {thing}?",
            "My {thing} [runs out|expires|ends] {when}, [can I renew it|I want to renew it|what now].",
            "I [need|want|would like] to [renew|extend] my {thing}{tail}.",
        ],
    ),
    "book": (
        "the person wants to reserve or order something",
        [
            "[Can|Could|May] I [book|reserve|order] [a|the] {booking} for [{when}|two people|my {relative}|{number} people]?",
            "I [would like|want|need|'d like] to [book|reserve|order] a {booking}[ in {place}| for {day}|].",
            "[Do you have|Is there] [a|any] {booking} [free|available|left] [{when}|for {number} people|in {place}]?",
            "[Please|Can you] [book|reserve] me a {booking}[ {when}|].",
        ],
    ),
    "convert": (
        "the person asks how much one measure is in another",
        [
            "How many {unita} [are|is|make] [{number}|a hundred|one of your] {unitb}?",
            "[What is|What's] {number} {unita} in {unitb}?",
            "[How do I|Can you|Can I] [convert|turn|change] {number} {unita} [into|to] {unitb}?",
            "[Which|What] [scale|table|conversion] do you use [for|to get from] {unita} [and|to] {unitb}?",
            "[Why|How come] [is|was] [the conversion|your table] from {unita} to {unitb} [wrong|different|so low|so high]?",
            "[Is|Are] {number} {unita} more than {number2} {unitb}?",
            "[Will|Do] I get a [good|better|fair] conversion from {unita} to {unitb}[ at the weekend| today|]?",
        ],
    ),
    "complain_noise": (
        "the person is disturbed by noise",
        [
            "[My|The] neighbours are [too|so|very] loud{tail}.",
            "The [dog|{vehicle}|music|{instrument}|baby] next door [keeps me awake|is too loud|makes so much noise|never stops]{tail}.",
            "I [can't|cannot] sleep because of the [noise|{instrument}|barking|music]{tail}.",
            "[Can|Could] you [ask|tell] [them|room 12|the neighbours] to [be quiet|turn the music down|stop the noise]?",
        ],
    ),
    "complain_service": (
        "the person is unhappy with how they were treated",
        [
            "[The|Your] {job} [was|is] [so|very|really|extremely] [rude|slow|unhelpful|careless|impolite]{tail}.",
            "I [waited|have been waiting] [for hours|for {number} minutes|all day|so long] and [nobody|no one] [came|helped|answered]{tail}.",
            "[This|That] is the worst {building} I have ever [visited|been to|seen].",
            "I [want|would like] to [complain|make a complaint] about [the {job}|the {building}|{org}|the service]{tail}.",
            "[Nobody|No one] [answers the phone|replies to my letters|listens to me]{tail}.",
        ],
    ),
    "thanks": (
        "the person says thank you or is pleased",
        [
            "[Thank you|Thanks|Many thanks] [so much |very much |]for [the {thing}|your help|the quick reply|the lovely {food}|fixing my {thing}][!|.]",
            "[The|Your] {job} [was|has been] [so|very|really] [kind|helpful|friendly|patient]{tail}.",
            "[Great|Wonderful|Excellent|Brilliant] [service|work|job], [thank you|thanks|well done][!|.]",
            "I [really |]love my new {thing}[!|.]",
            "Everything [works|is fine|is perfect] now, [thanks|thank you].",
        ],
    ),
    "how_many": (
        "the person asks how much or how many they may have",
        [
            "How [many|much] {noun}[s|] [can|may|do] I [take|borrow|bring|need|get|have]?",
            "[Is there|What is] [a|the] limit [on|for|to] [the number of|how many] {noun}s[ I can bring|]?",
            "[How big|How heavy|How long] [can|may] [my|the] {thing} be?",
            "How many people [can|may] [come|join|share] [to the|in the|the] {booking}?",
        ],
    ),
    "recommend": (
        "the person asks for advice on what to choose",
        [
            "[Which|What] {thing} [should I|would you|do you] [buy|recommend|take|choose]?",
            "[Can|Could] you [recommend|suggest] [a good|a nice|some] [{food}|{building}|book|{thing}][ in {place}|]?",
            "What is [better|nicer|best], a {thing} or a {thing2}?",
            "I don't know [which|what] {thing} to [choose|take|get].",
            "[Any|Do you have any] [tips|ideas|advice] for [a trip to {place}|a {relative}'s birthday|my {sport} training]?",
        ],
    ),
    "delay": (
        "the person says that they or a service will be late",
        [
            "[The|My] {vehicle} [is|was|will be] [late|delayed|running late][ by {number} minutes|]{tail}.",
            "I [will|am going to|'ll] be {number} minutes late for [my|the] {booking}.",
            "[Why is|How long is] the {vehicle} [late|delayed|delay][ today|]?",
            "[Sorry|I'm sorry], I am [stuck in traffic|running late|still at {place}].",
            "[Has|Is] the {vehicle} to {place} [been delayed|late]?",
        ],
    ),
    "invite": (
        "the person invites somebody or suggests doing something together",
        [
            "[Would you like|Do you want] to [come to|join us for] [dinner|a party|lunch|a walk|{sport}|the cinema][ {when}| on {day}|]?",
            "[Let's|Shall we|Why don't we] [go to|meet at|drive to] [{place}|the {building}] [on {day}|tomorrow|in {season}][?|.]",
            "[Please come|You are invited|Come] to [our|my] [house|party|wedding|concert|{building}] [on {day}|in {place}][!|.]",
            "Are you free {when} for [a coffee|a walk|{sport}|dinner]?",
        ],
    ),
    "health": (
        "the person feels ill or is hurt",
        [
            "My {body} [hurts|is sore|aches|is swollen|has been hurting]{tail}.",
            "I [have|have got|'ve had] a [headache|cold|fever|cough|sore throat|stomach ache|pain in my {body}]{tail}.",
            "I [fell|slipped] [and hurt|on the ice and hurt|and broke] my {body}{tail}.",
            "My {relative} [feels|is] [ill|sick|dizzy|unwell]{tail}.",
            "[Should I|Do I need to] see a [doctor|dentist|nurse] about my {body}?",
        ],
    ),
    "weather_talk": (
        "the person talks about the weather",
        [
            "[It|It always] [rains|snowed|is raining|is snowing|is so hot|is freezing|was very windy] [in {place}|today|here|outside]{tail}.",
            "[Will|Does] it [rain|snow|be sunny|get cold] [tomorrow|in {place}|on {day}|this weekend]?",
            "[What is|What's] the weather like [in {place}|today|in {season}]?",
            "There was [so much|a lot of|terrible] {weather} [in {place}|{when}|on the way].",
            "Take a coat, it [will|may|is going to] [rain|snow|be cold].",
        ],
    ),
}
"""Neutral request labels: definition and templates. `{tail}` is an optional detail: when, where, or with whom."""

PARSED = {
    label: [
        parse_template(t.replace("{tail}", "[||| {when}| {when}| in {place}| at {org}| {when} in {place}| at {org} {when}| from {org}]"))
        for t in templates
    ]
    for label, (_, templates) in REQUESTS.items()
}
LABELS = sorted(REQUESTS)
OPENERS = [
    parse_template(t)
    for t in [
        "[Hi|Hello|Hey|Good morning|Good evening|Dear team|Hi there|Hello there|Excuse me][,|.|!] ",
        "[Please help|Help|I need help|I need some help|Can you help me|Quick question|One question][.|:|!] ",
        "[So|Well|OK|Um|Oh no|Right|Look|Listen][,|.] ",
        "[Sorry to bother you|I am a bit worried|I'm so annoyed|This is urgent|I am in a hurry|I am confused|I'm new here][.|:| but] ",
        "My name is {who}[.| and] ",
    ]
]
CLOSERS = [
    parse_template(t)
    for t in [
        " [Thanks|Thank you|Please help|Cheers|Many thanks|Thanks in advance|Kind regards, {who}][.|!|]",
        " [What should I do|What can I do|Can you help|Can you help me|Could you look into it|Any idea|What now|What happens next|Is that normal][?|??| please?]",
        " [I am very worried|I'm really upset|It is urgent|This is not good enough|I need it soon|I have no idea why|I do not understand it|It has happened twice|Not happy][.|!]",
        " [I am at {place} now|I am with my {relative}|My {relative} told me to ask|I am leaving {when}].",
    ]
]
NEIGHBOUR = {
    "I'm": "im",
    "don't": "dont",
    "can't": "cant",
    "isn't": "isnt",
    "hasn't": "hasnt",
    "won't": "wont",
    "didn't": "didnt",
    "doesn't": "doesnt",
    "you": "u",
    "please": "pls",
    "because": "cos",
    "are": "r",
    "I've": "ive",
    "haven't": "havent",
    "thanks": "thx",
    "and": "&",
}


def tidy(text: str) -> str:
    """Close up the gaps that empty alternatives leave, and put `an` before vowels."""
    text = re.sub(r" +", " ", text.replace(" .", ".").replace(" ?", "?").replace(" ,", ",")).strip()
    return re.sub(r"\b([Aa]) (?=[aeiou])", r"\1n ", text)


def noisy(text: str, keep: list[str], rng: random.Random) -> tuple[str, list[str]]:
    """The text as people type it: case, punctuation, apostrophes, typing errors, emoji. Spans in `keep` stay spans (returned in their new case)."""
    x = rng.random()
    if x < 0.5:
        return text, keep
    if x < 0.72:
        text, keep = text.lower(), [k.lower() for k in keep]
    elif x < 0.75:
        text, keep = text.upper(), [k.upper() for k in keep]
    held = " ".join(keep)
    parts = text.split(" ")
    for i, part in enumerate(parts):
        if rng.random() < 0.5 and part in NEIGHBOUR and part not in held:
            parts[i] = NEIGHBOUR[part]
        elif len(part) > 3 and part.isalpha() and rng.random() < 0.05 and part not in held:
            j = rng.randint(1, len(part) - 2)
            parts[i] = pick(
                rng,
                [
                    part[:j] + part[j + 1 :],
                    part[:j] + part[j] + part[j:],
                    part[:j] + part[j + 1] + part[j] + part[j + 2 :],
                    part[:j] + pick(rng, LETTERS) + part[j + 1 :],
                ],
            )
    text = " ".join(parts)
    if rng.random() < 0.4:
        text = text.rstrip(".?!")
    if rng.random() < 0.06:
        text += pick(rng, ["!!", "??", "...", " 😡", " 😢", " 🙏", " :(", " :)", "!!!", " ?", " 😊", " 👍"])
    return (text, keep) if all(k in text for k in keep) else noisy(text, keep, rng)


def request(rng: random.Random, label: str, plain: bool = False) -> tuple[str, dict[str, str]]:
    """One message with the given request label: (text, slots used that are exact substrings of it)."""
    slots = Slots(rng)
    text = expand(pick(rng, PARSED[label]), rng, slots)
    if not plain:
        x = rng.random()
        if x < 0.22:
            opener = expand(pick(rng, OPENERS), rng, slots)
            text = opener + (
                text if opener[-2:-1] in ".!:" or text.startswith(("I ", "I'")) or text.split()[0] in PROPER else text[0].lower() + text[1:]
            )
        if 0.15 < x < 0.4:
            text += expand(pick(rng, CLOSERS), rng, slots)
        elif x > 0.92:
            other = expand(pick(rng, PLAIN), rng, Slots(rng))
            text = f"{text} {other}" if rng.random() < 0.6 else f"{other} {text}"
    text = tidy(text)
    found = {k: v for k, v in slots.items() if k in EXTRACTED and text.count(v) == 1}
    if plain:
        return text, found
    text, values = noisy(text, list(found.values()), rng)
    return text, dict(zip(found, values, strict=True))


# ---------------------------------------------------------------- narrative sentences

STATEMENTS: dict[str, list[str]] = {
    "travel": [
        "{who} [took|missed|caught|waited for] the {vehicle} to {place} {when}.",
        "We [stayed|slept] in a [small|nice|cold|huge] hotel [near|in] {place}.",
        "The {vehicle} from {place} [left|arrived] [late|early|on time|{when}].",
        "{who} packed a {thing} and a {clothing} for the trip to {place}.",
        "It is {number} km from {place} to [{place2}|the {building}].",
        "My {relative} [flew|drove|travelled|walked] to {country} {when}.",
        "They [visited|saw|photographed] the old {building} in {place}.",
    ],
    "food": [
        "{who} [cooked|made|ate|ordered] {food} with {vegetable}s [and {drink} |]{when}.",
        "The {food} [was|tasted] [too salty|delicious|cold|burnt|very sweet].",
        "My {relative} [loves|hates|prefers|never eats] {fruit}s.",
        "We need {number} grams of {food} and a cup of {drink}.",
        "{who} drank {drink} [in|at] {place}.",
        "The cook put the {vegetable} in the pot and stirred [slowly|well].",
        "There is no {food} left in the cupboard.",
    ],
    "animals": [
        "The {animal} [slept|sat|hid|ran|played] [under the {furniture}|in the garden|near the {nature}|behind the {building}].",
        "{who} has a [small|old|lazy|clever] {animal} called {who2}.",
        "A {adjective} {animal} [chased|followed|saw] a {animal2} {when}.",
        "My {animal} [is ill|will not eat|barks|has a new bed].",
        "The vet in {place} looked after our {animal}.",
        "{animal}s [like|eat|love] {vegetable}s.",
    ],
    "school": [
        "{who} [studies|teaches|failed|passed] {subject} [at school|in {place}|{when}].",
        "The {subject} [lesson|exam|class] [starts|ended|was moved] {when}.",
        "Our teacher {who} gave us {number} pages of homework.",
        "The pupils read a book about {country}.",
        "{who} forgot the {subject} book at home.",
        "My {relative} is learning {language}.",
    ],
    "home": [
        "{who} [painted|cleaned|moved|bought] the {furniture} [in the kitchen|in the bedroom|{when}].",
        "The {tool} is [in|behind|under|next to] the {furniture}.",
        "Our house has a {colour} door and {number} windows.",
        "The {gadget} in the kitchen [makes a strange noise|is new|was repaired {when}].",
        "My {relative} washed the {clothing} and dried it in the sun.",
        "{who} put the {thing} [on|under|behind] the {furniture}.",
    ],
    "sport": [
        "{who} plays {sport} [every {day}|in {place}|with {who2}].",
        "Our team [won|lost] the {sport} match {number} to {number2}.",
        "The {sport} [training|game|final] was [cancelled|moved|held] {when}.",
        "{who} ran {number} km [around the {nature}|in {place}|{when}].",
        "The {sport} club needs a new trainer.",
    ],
    "work": [
        "{who} works as a {job} in {place}.",
        "The {job} [fixed|moved|checked|sold] the {thing} {when}.",
        "There is a meeting with {who} {when}.",
        "My {relative} wants to become a {job}.",
        "{org} [opened|closed|built] a new {building} in {place}.",
        "{number} people work at {org}.",
        "The {job} and the {job2} had lunch together.",
    ],
    "weather": [
        "There [was|will be] {weather} in {place} {when}.",
        "In {season} it is [often|usually|never] [cold|warm|wet|dry] in {country}.",
        "The {weather} [broke a window|stopped the game|kept us at home|lasted all day].",
        "It was {number} degrees [in {place}|{when}].",
    ],
    "music": [
        "{who} plays the {instrument} [very well|badly|every {day}|in {place}].",
        "The concert in {place} [starts|started|was] {when}.",
        "My {relative} sold the old {instrument}.",
        "We sang {number} songs and danced.",
        "The {instrument} lesson with {who} was [fun|hard|short].",
    ],
    "shopping": [
        "{who} bought a {colour} {thing} [at {org}|in {place}] {when}.",
        "The shop [in {place} |]sells {clothing}s and {tool}s.",
        "{who} [gave|sent|lent|showed] {who2} a {adjective} {thing} {when}.",
        "{org} sent {who} {measure}.",
        "The {clothing} was too [big|small|tight] so {who} took it back to {org}.",
    ],
    "family": [
        "{who} is the {relative} of {who2}.",
        "My {relative} lives in {place} with a {animal} and two children.",
        "We [visited|called|met] my {relative} {when}.",
        "{who} and {who2} [got married|moved|met] in {place} {when}.",
        "The baby has {colour} eyes and looks like {who}.",
    ],
    "nature": [
        "The {nature} near {place} is [very deep|beautiful|dangerous|quiet|full of {animal}s].",
        "We walked along the {nature} and saw a {animal}.",
        "{who} planted a tree in the garden {when}.",
        "[The leaves|The flowers] are {colour} in {season}.",
        "The {nature} is {measure} long.",
    ],
    "health": [
        "{who} [hurt|broke|washed] a {body} {when}.",
        "The doctor in {place} looked at my {body}.",
        "{who} has been ill since {day}.",
        "Drink [water|tea] and rest for {number} days.",
        "The nurse gave {who} some medicine {when}.",
    ],
    "technology": [
        "The {gadget} [has a new screen|is very fast|needs a battery|was made in {country}].",
        "{who} [repaired|dropped|updated|sold] the {gadget} {when}.",
        "Click the {colour} button to restart the {gadget}.",
        "The new {gadget} from {org} is [smaller|heavier|faster] than the old one.",
        "{who} wrote a program for the {gadget}.",
    ],
}
STATED = {topic: [parse_template(t) for t in texts] for topic, texts in STATEMENTS.items()}
TOPICS = sorted(STATED)
PLAIN = [t for topic in TOPICS for t in STATED[topic]]
PROPER = frozenset(
    [*w.FIRST, *(c.split()[0] for c in w.CITIES), *w.KINDS["country"], *w.KINDS["day"], *w.KINDS["month"], *w.KINDS["language"]]
)


def capital(text: str) -> str:
    """The text with its first letter in upper case."""
    return text[:1].upper() + text[1:]


def statement(rng: random.Random, topic: str | None = None) -> tuple[str, dict[str, str]]:
    """One narrative sentence: (text, all its slots that are found exactly once in it)."""
    slots = Slots(rng)
    text = capital(tidy(expand(pick(rng, STATED[topic] if topic else PLAIN), rng, slots)))
    return text, {k: v for k, v in slots.items() if text.count(v) == 1}

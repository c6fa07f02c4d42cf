"""What the offline teacher knows of the world: shops, places, currencies, sums, times, and how to find them in a text.

The gazetteers serve twice: the grammar fills its slots from them, and `find_entities` reads them back, so that an
entity is always an exact substring of the message.
"""

import random
import re
from functools import cache

from datagen.policy import parse_days

MERCHANTS = (
    "Tesco", "Sainsbury's", "Asda", "Morrisons", "Waitrose", "Lidl", "Aldi", "Argos", "ASOS", "IKEA", "Zara", "H&M",
    "Currys", "Primark", "John Lewis", "Marks & Spencer", "Amazon", "eBay", "Etsy", "Vinted", "Zalando", "Shein",
    "AliExpress", "Decathlon", "JD Sports", "Sports Direct", "Screwfix", "B&Q", "Wickes", "Halfords", "Homebase",
    "Dunelm", "Superdrug", "Holland & Barrett", "Waterstones", "TK Maxx", "Matalan", "Uniqlo", "Greggs", "Costa",
    "Starbucks", "Pret", "McDonald's", "Burger King", "Nando's", "Wagamama", "Deliveroo", "Just Eat", "Uber", "Bolt",
    "Ryanair", "easyJet", "British Airways", "Trainline", "Booking.com", "Airbnb", "Expedia", "Ticketmaster",
    "Netflix", "Spotify", "Steam", "Carrefour", "Mercadona", "Cineworld", "Odeon", "Wilko", "Poundland", "Iceland Foods",
)  # fmt: skip
PLACES = (
    "Madrid", "Barcelona", "Paris", "Rome", "Milan", "Berlin", "Munich", "Lisbon", "Porto", "Athens", "Prague",
    "Vienna", "Budapest", "Warsaw", "Krakow", "Dublin", "Amsterdam", "Brussels", "Copenhagen", "Stockholm", "Oslo",
    "London", "Manchester", "Leeds", "Liverpool", "Bristol", "Glasgow", "Edinburgh", "Cardiff", "Birmingham", "Sheffield",
    "Newcastle", "Nottingham", "Brighton", "Oxford", "Cambridge", "York", "Bath", "New York", "Boston", "Chicago",
    "Toronto", "Dubai", "Istanbul", "Tokyo", "Bangkok", "Sydney", "Melbourne", "Spain", "France", "Italy", "Germany",
    "Portugal", "Greece", "Poland", "Ireland", "Scotland", "Wales", "the Netherlands", "Croatia", "Thailand", "Japan",
    "Morocco", "Mexico", "Canada", "Australia",
)  # fmt: skip
CURRENCIES = (
    "euros", "US dollars", "dollars", "yen", "Swiss francs", "zloty", "Danish kroner", "Swedish kronor", "Czech koruna",
    "forints", "Turkish lira", "Australian dollars", "Canadian dollars", "rupees", "Thai baht", "pesos", "rand",
    "dirhams", "EUR", "USD", "GBP", "pounds", "sterling",
)  # fmt: skip
_NUMBER_WORDS = (
    "zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve",
    "thirteen", "fourteen",
)  # fmt: skip
_AMOUNTS = (5, 8, 10, 15, 20, 25, 30, 35, 40, 45, 50, 55, 60, 65, 70, 75, 80, 85, 90, 95, 100, 110, 120, 125, 130, 140,
            150, 160, 180, 190, 200, 220, 240, 250, 275, 300, 320, 350, 400, 450, 500, 600, 750, 800, 900, 1000)  # fmt: skip

_COUNT = r"(?:\d{1,3}|an?|one|two|three|four|five|six|seven|eight|nine|ten|eleven|twelve|thirteen|fourteen|(?:a )?couple)"
_WHEN = re.compile(
    r"\b(?:the day before yesterday|yesterday(?: (?:morning|afternoon|evening))?|last night|last week|last month"
    r"|today|tonight|this morning|this afternoon|this evening|just now|the other day|a few (?:days|weeks) ago"
    r"|(?:last|on|since) (?:monday|tuesday|wednesday|thursday|friday|saturday|sunday)"
    rf"|{_COUNT}(?: of)? (?:minute|hour|day|week|fortnight|month)s?(?: ago)?|an? fortnight(?: ago)?)\b",
    re.IGNORECASE,
)
_MONEY_WORD = r"(?:pounds?|quid|euros?|dollars?|usd|eur|gbp)"
_AMOUNT = re.compile(rf"[£$€] ?\d[\d,]*(?:\.\d\d)?|\b\d[\d,]*(?:\.\d\d)? ?{_MONEY_WORD}\b", re.IGNORECASE)


def _any_of(names: tuple[str, ...]) -> re.Pattern[str]:
    longest_first = sorted(names, key=lambda name: (-len(name), name))
    return re.compile(r"(?<!\w)(?:" + "|".join(map(re.escape, longest_first)) + r")(?!\w)", re.IGNORECASE)


_MERCHANT = _any_of(MERCHANTS)
_PLACE = _any_of(PLACES)
_CURRENCY = _any_of((*CURRENCIES, "euro", "dollar", "pound", "US dollar", "Swiss franc", "francs"))


def find_entities(text: str) -> dict[str, str]:
    """The first amount, merchant, when, place and currency of `text`, as they stand there; a currency is one apart from a sum."""
    found: dict[str, str] = {}
    for name, pattern in (("amount", _AMOUNT), ("merchant", _MERCHANT), ("when", _WHEN), ("place", _PLACE)):
        match = pattern.search(text)
        if match:
            found[name] = match.group()
    match = _CURRENCY.search(_AMOUNT.sub(lambda sum_: "#" * len(sum_.group()), text))
    if match:
        found["currency"] = match.group()
    return found


@cache
def _in_words(text: str) -> tuple[str, ...]:
    """Other ways to say a time, all of the same number of days by the policy's own reading."""
    days = parse_days(text)
    ways = [text]
    match = re.match(r"(\d+) (\w+ago|\w+)(.*)", text)
    if match and int(match.group(1)) < len(_NUMBER_WORDS):
        ways.append(f"{_NUMBER_WORDS[int(match.group(1))]} {match.group(2)}{match.group(3)}")
    if days == 14:
        ways += ["two weeks ago", "a fortnight ago", "14 days ago"]
    elif days == 7:
        ways += ["a week ago", "one week ago", "7 days ago", "seven days ago", "last week"]
    elif days == 21:
        ways += ["three weeks ago", "3 weeks ago", "21 days ago"]
    elif days == 2:
        ways += ["a couple of days ago", "two days ago"]
    return tuple(way for way in ways if parse_days(way) == days)


def say_when(text: str, rng: random.Random) -> str:
    """A fact like "3 days ago" in other words of the same length of time."""
    return rng.choice(_in_words(text))


def say_amount(text: str, rng: random.Random) -> str:
    """A sum like "£40" as people write it."""
    if text.startswith("£") and rng.random() < 0.25:
        return f"{text[1:]} pounds"
    return text


def _count(rng: random.Random, low: int, high: int) -> str:
    n = rng.randint(low, high)
    return _NUMBER_WORDS[n] if n < len(_NUMBER_WORDS) and rng.random() < 0.45 else str(n)


def _span(rng: random.Random) -> str:
    draw = rng.random()
    if draw < 0.5:
        return f"{_count(rng, 2, 15)} days"
    if draw < 0.8:
        return f"{_count(rng, 2, 6)} weeks"
    return rng.choice(("a week", "a fortnight", "a month", "two months", "a couple of weeks", "a couple of days"))


def _ago(rng: random.Random) -> str:
    draw = rng.random()
    if draw < 0.45:
        return f"{_count(rng, 2, 14)} days ago"
    if draw < 0.65:
        return f"{_count(rng, 2, 6)} weeks ago"
    return rng.choice(
        ("yesterday", "yesterday", "today", "this morning", "last night", "last week", "last month", "a week ago",
         "a fortnight ago", "a month ago", "a couple of days ago", "the day before yesterday", "this afternoon")
    )  # fmt: skip


def _recent(rng: random.Random) -> str:
    draw = rng.random()
    if draw < 0.2:
        return f"{_count(rng, 2, 6)} days ago"
    if draw < 0.4:
        return f"{_count(rng, 2, 9)} hours ago"
    if draw < 0.55:
        return f"{rng.choice((5, 10, 15, 20, 30))} minutes ago"
    return rng.choice(("today", "this morning", "just now", "an hour ago", "yesterday", "last night", "this afternoon",
                       "yesterday", "last week", "a week ago", "a couple of hours ago"))  # fmt: skip


def _amount(rng: random.Random) -> str:
    n = rng.choice(_AMOUNTS)
    draw = rng.random()
    if draw < 0.6:
        return f"£{n}"
    if draw < 0.72:
        return f"£{n}.{rng.choice(('50', '99', '20', '49', '75'))}" if n < 200 else f"£{n:,}"
    if draw < 0.84:
        return f"{n} pounds"
    if draw < 0.92:
        return f"{n} euros"
    return rng.choice((f"€{n}", f"${n}", f"{n} quid"))


SLOTS = {
    "amount": _amount,
    "merchant": lambda rng: rng.choice(MERCHANTS),
    "place": lambda rng: rng.choice(PLACES),
    "currency": lambda rng: rng.choice(CURRENCIES[:16]),
    "span": _span,
    "ago": _ago,
    "recent": _recent,
}  # fmt: skip
FACT_SLOTS = {"days": ("ago", "recent"), "amount": ("amount",)}

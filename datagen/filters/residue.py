"""Filters on what a teacher's working leaves in a text: loops, placeholders, the words of our own prompts, an end that was cut off."""

import re
import zlib
from collections import Counter
from collections.abc import Sequence

from datagen.filters.context import FilterContext
from datagen.filters.prose import prose
from datagen.filters.similarity import words
from datagen.records import Example

_LOOP_WORDS = 8  # a loop is as long at least: "ha ha ha ha" is none
_LONGEST_PHRASE = 40
_LINE_WORDS = 4
_COMPRESSED_CHARS = 400  # shorter texts do not compress enough to tell
_CJK = re.compile("[\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af]")


def repetition(example: Example, context: FilterContext) -> str | None:
    """No text goes round in circles: a phrase over and over, the same line again and again, or text that hardly says anything new.

    Settings: `max_in_a_row` times that a phrase may follow itself, `max_same_lines` times that a line of 4 words or more may stand
    there, `min_compressed` share of its size that a text of 400 characters or more keeps under zlib.
    """
    for where, text in prose(example, context):
        if len(text) < 2 * _LOOP_WORDS:
            continue
        problem = _circles(text, context)
        if problem:
            return f"repetition: the {where} {problem}"
    return None


def _circles(text: str, context: FilterContext) -> str | None:
    found = words(text) if _CJK.search(text) else [word for word in text.casefold().split() if word[0].isalnum() or word[-1].isalnum()]
    if len(set(found)) == len(found):
        return None
    loop = _loop(found, int(context.setting("repetition", "max_in_a_row")))
    if loop:
        return loop
    if "\n" in text:
        most = context.setting("repetition", "max_same_lines")
        lines = Counter(line for raw in text.split("\n") if len((line := raw.strip()).split()) >= _LINE_WORDS)
        if lines and (top := lines.most_common(1)[0])[1] > most:
            return f"has the line {top[0][:60]!r} {top[1]} times, at most {most:g}"
    if len(text) >= _COMPRESSED_CHARS:
        raw = text.encode(errors="replace")
        share, least = len(zlib.compress(raw, 1)) / len(raw), context.setting("repetition", "min_compressed")
        if share < least:
            return f"compresses to {share:.0%} of its size, at least {least:.0%}"
    return None


def _loop(found: Sequence[str], most: int) -> str | None:
    """A phrase that follows itself more than `most` times in a row. A word's distance to its last place is the phrase's length."""
    last: dict[str, int] = {}
    distances: Counter[int] = Counter()
    for place, word in enumerate(found):
        if word in last:
            distances[place - last[word]] += 1
        last[word] = place
    for period in sorted(distances):
        # half of the phrase's words stand in it once, and are counted at each of its returns
        if period > _LONGEST_PHRASE or 2 * distances[period] < period * most:
            continue
        run = 0
        for place in range(period, len(found)):
            run = run + 1 if found[place] == found[place - period] else 0
            if run >= period * most and run + period >= _LOOP_WORDS:
                phrase = " ".join(found[place - period + 1 : place + 1])
                return f"says {phrase[:60]!r} more than {most} times in a row"
    return None


_SLOT = (
    r"(?:full |first |last |middle |user'?s? |customer'?s? |company |business |brand |product |recipient'?s? |sender'?s? |phone |email "
    r"|e-mail |account |order |tracking |reference |street |job |team |project |start |end |due |specific |relevant )*"
    r"(?:names?|surname|company|organi[sz]ation|address|e-?mail|phone|number|date|time|city|state|country|title|position|department"
    r"|amount|price|product|service|topic|link|url|website|signature|reason|details?|location|month|year|day|recipient|sender|customer"
    r"|user|brand)"
)
_PLACEHOLDER = re.compile(
    r"\blorem ipsum\b"
    r"|\{\{[^{}\n]{0,60}\}\}|\{%[^%\n]{0,60}%\}|<%[^%\n]{0,60}%>|\$\{[A-Za-z_]\w{0,40}\}"
    r"|(?<![\w\])])\[(?:(?:insert|enter|add|your|fill in|type|put|name of|placeholder)\b[^\]\n]{0,60}"
    rf"|{_SLOT}|\.\.\.|…|x{{2,}}|_{{2,}})\](?!\()"
    r"|<(?:(?:insert|enter|add|fill in|type|put|placeholder)\b|your[ _-])[^<>\n]{0,60}>|<[^<>\n]{0,40} here>"
    r"|\((?:insert|enter|fill in)\b[^()\n]{0,60}\)|\byour_[a-z_]+\b|\b[a-z_]+_here\b",
    re.IGNORECASE,
)
# in capitals only, and not as a Roman numeral (`Super Bowl XXX`) or a hidden number (`XXXX 1234`)
_MARK = re.compile(r"\b(?:TODO|FIXME|TBD|TBC)\b(?=\s*(?::|\)|\]|$|\n|-))|\bX{4,}\b(?![ -]?\d)|(?<=[\[(<])X{2,}(?=[\])>])|\bTKTK\b")
_PLACEHOLDER_SIGN = re.compile(r"[\[<{(_]|lorem|TODO|FIXME|TB[DC]|XX|TKTK", re.IGNORECASE)


def placeholder(example: Example, context: FilterContext) -> str | None:
    """No text waits to be filled in: "[Your Name]", "<insert date>", "{{ amount }}", "lorem ipsum", "TODO:", "XXXX".

    Setting: `max` of them in a text; raise it for a task that writes templates.
    """
    for where, text in prose(example, context):
        if not _PLACEHOLDER_SIGN.search(text):
            continue
        found = [match.group() for pattern in (_PLACEHOLDER, _MARK) for match in pattern.finditer(text)]
        if len(found) > context.setting("placeholder", "max"):
            return f"placeholder: the {where} has {found[0][:60]!r}"
    return None


def leak(example: Example, context: FilterContext) -> str | None:
    """Neither input nor completion repeats our own prompts: `words` of them in a row, or one of their headings as a line's beginning.

    Not counted is what the task itself speaks of: labels and their descriptions, and what its instructions put between quotation marks,
    which is meant to be said.
    """
    n = int(context.setting("leak", "words"))
    own = context.own_words
    for where, text in prose(example, context):
        if where == "reasoning":  # it may name what it goes by
            continue
        if ":" in text:
            for line in text.split("\n"):
                name = own.headings.get(line.partition(":")[0].strip().casefold())
                if name is not None:
                    return f"leak: the {where} has the line {line.strip()[:60]!r} of the prompt {name}"
        if text.isascii() and len(text.split(None, n)) < n:  # others may write words without spaces
            continue
        found = words(text)
        for place in range(len(found) - n + 1):
            name = own.runs.get(tuple(found[place : place + n]))
            if name is not None:
                return f"leak: the {where} repeats the prompt {name}: {' '.join(found[place : place + n])!r}"
    return None


_FENCE = "```"
_CODE_SIGN = re.compile(r"[{}();=<>\[\]_|\\\\]")
_OPENERS = {"(": ")", "[": "]", "{": "}", "“": "”", "「": "」", "『": "』", "《": "》", "（": "）", "【": "】"}
_CLOSERS = {closer: opener for opener, closer in _OPENERS.items()}
_OPEN_QUOTE = re.compile(r'(?:^|[\s(\[{>=:])"(?=\w)[^"]*$')
_CUT_SIGN = re.compile(r"[,(\[{&\u2013\u2014]$|\s-$")
# no English sentence ends in one of these
_CUT_WORD = re.compile(
    r"(?<![\w.-])(?:the|an|and|or|of|to|with|your|our|their|his|its|because|which|whose|than|by|for|from|into|is|are|was|were|as|if|when"
    r"|while|these|those|at|but)$"
)
_LIST_ITEM = re.compile(r"\s*(?:[-*•·–+>#|]|\d{1,3}[.)]|[A-Za-z][.)]\s|\w+(?: \d+)?:|\S+://)")
_SENTENCE_END = re.compile(r"(?<![.\s][A-Z])[.!?…][\"'”’)\]]*(?:\s|$)|[。！？]")
_QUERY = re.compile(r"\b(?:SELECT|DELETE|INSERT|UPDATE)\b[^.!?]*\b(?:FROM|INTO|SET)\b")
_PROSE_WORDS = 8
_LONG_SENTENCE = 12


def truncated(example: Example, context: FilterContext) -> str | None:
    """A free-text completion ends where its sentence does: no open code block, bracket or quotation, no "and", no comma, no missing
    full stop where its other sentences have theirs. Lists, verse, tables and single phrases need none.

    An answer that is JSON is the schema filter's matter, and one that was cut off at `max_tokens` never became an example.
    """
    if context.task.output_schema is not None:
        return None
    problem = _cut(example.completion.rstrip(), context.task.language.split("-")[0].lower())
    return f"truncated: the completion {problem}: {example.completion.rstrip()[-40:]!r}" if problem else None


def _cut(text: str, language: str) -> str | None:
    if text.count(_FENCE) % 2:
        return "ends inside a code block"
    if not text or text.endswith(_FENCE) or _is_code(text):
        return None
    tail = text.rsplit(_FENCE, 1)[-1]
    if (opener := _open_bracket(tail)) is not None:
        return f"ends inside {opener!r}"
    lines = tail.split("\n")
    if _OPEN_QUOTE.search(lines[-1]):
        return "ends inside a quotation"
    if len(tail.split()) > 2 and (_CUT_SIGN.search(tail) or (language == "en" and _CUT_WORD.search(tail))):
        return "ends in the middle of a sentence"
    if _stops_short(lines, text):
        return "ends without a full stop"
    return None


def _is_code(text: str) -> bool:
    """Whether one sign in 25 is one that programs are full of, or a query's words stand in capitals."""
    return 25 * len(_CODE_SIGN.findall(text)) > len(text) or _QUERY.search(text) is not None


def _open_bracket(text: str) -> str | None:
    """The last bracket or curly quotation mark that was opened and is not closed in its paragraph."""
    waiting: list[str] = []
    for sign in text.rsplit("\n\n", 1)[-1]:
        if sign in _OPENERS:
            waiting.append(sign)
        elif sign in _CLOSERS and waiting and waiting[-1] == _CLOSERS[sign]:
            waiting.pop()
    return waiting[-1] if waiting else None


def _stops_short(lines: Sequence[str], text: str) -> bool:
    """Whether the last sentence has no end where others have theirs. It ends with no name, and is no list in a line."""
    last, count = lines[-1].strip(), len(lines[-1].split())
    others = [line.strip() for line in lines[:-1] if line.strip()]
    if not last[-1:].isalpha():
        return False
    if _LIST_ITEM.match(last):  # the other items of its kind say whether items have an end
        items = [line for line in others if _LIST_ITEM.match(line) and line[0].isdigit() == last[0].isdigit()]
        return len(items) > 1 and (count > 2 or bool(_CJK.search(last))) and _mostly_ended(items)
    if _CJK.search(last[-1]):
        return len(last) >= 2 * _PROSE_WORDS and bool(_SENTENCE_END.search(text))
    rest = _SENTENCE_END.split(last)[-1]
    if any(sign in rest for sign in (" - ", "#", ": ", "|", "http")):
        return False
    if _SENTENCE_END.search(last) and len(rest.split()) < 3 and count >= _PROSE_WORDS:
        return True
    if not last.split()[-1].islower() and any(not word[:1].islower() for word in last.split()[-4:-1]):  # a name of several words
        return False
    if count < _PROSE_WORDS and not _SENTENCE_END.search(last):  # a phrase, unless whole sentences stand before it
        return count > 3 and len(others) > 1 and _mostly_ended(others)
    if sum(line[-1].isalpha() for line in others) > len(others) / 2:  # verse, or a list without signs
        return False
    return bool(_SENTENCE_END.search(text)) or count >= _LONG_SENTENCE


def _mostly_ended(lines: Sequence[str]) -> bool:
    """Whether four of five lines end as sentences do."""
    return 5 * sum(_SENTENCE_END.search(line[-3:]) is not None for line in lines) >= 4 * len(lines)

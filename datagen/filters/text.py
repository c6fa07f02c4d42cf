"""Filters on form: schema, length, refusal. Each reads one example and says why it should go."""

import re

from datagen.filters.context import FilterContext, parse_object
from datagen.filters.prose import answered
from datagen.filters.turns import answers, inputs
from datagen.records import Example


def schema(example: Example, context: FilterContext) -> str | None:
    """The completion is one JSON object of the task's schema; a task without schema wants text that is not empty."""
    if context.task.output_schema is None:
        return None if example.completion.strip() else "empty: the completion is empty"
    for name, text in answers(example):
        where = "" if name == "completion" else f"{name}: "
        answer, problem = parse_object(text)
        if problem is not None:
            return f"invalid_json: {where}{problem}"
        violation = context.violation(answer)
        if violation:
            return f"schema: {where}{violation}"
    return None


def length(example: Example, context: FilterContext) -> str | None:
    """Every input and answer is within the recipe's bounds."""
    for name, text in inputs(example):
        chars, where = len(text.strip()), "" if name == "input" else f" ({name})"
        if chars < context.setting("length", "min_input_chars"):
            return f"input_short: {chars} characters, at least {context.setting('length', 'min_input_chars'):g}{where}"
        if chars > context.setting("length", "max_input_chars"):
            return f"input_long: {chars} characters, at most {context.setting('length', 'max_input_chars'):g}{where}"
    for name, text in answers(example):
        chars, where = len(text.strip()), "" if name == "completion" else f" ({name})"
        if chars > context.setting("length", "max_completion_chars"):
            return f"completion_long: {chars} characters, at most {context.setting('length', 'max_completion_chars'):g}{where}"
        if context.task.output_schema is None:
            words = len(text.split())
            if words < context.setting("length", "min_completion_words"):
                return f"completion_short: {words} words, at least {context.setting('length', 'min_completion_words'):g}{where}"
            if words > context.setting("length", "max_completion_words"):
                return f"completion_long: {words} words, at most {context.setting('length', 'max_completion_words'):g}{where}"
    return None


_SORRY = (
    r"(?:(?:i'?m|i am|we are|we're)\s+(?:(?:very|so|really|truly)\s+)?(?:sorry|afraid)\b[^.!?]{0,20}?"
    r"|(?:i |my )?(?:sorry|apologi[sz]e|apologies|regret)\b[^.!?]{0,20}?|unfortunately,?\s*)?\W*(?:but\s+)?(?:that\s+)?"
)
_CANNOT = r"i\s*(?:can'?t|can\s?not|am unable to|'m unable to|am not able to|'m not able to|won'?t|will not|must decline to)"
_AI = r"(?:ai|artificial intelligence|(?:large\s+)?language model|llm)(?:[\s-]+(?:language\s+model|model|assistant|system|chatbot|bot))?"
# "As an AI, ..." and "As an AI model I ..."; "As an AI researcher, ..." is a person
_MODEL = (
    rf"as an?\s+(?:\w+\s+){{0,2}}?{_AI}\b(?=\s*[,;:.!]|\s+(?:i\b|trained|developed|created|made|designed|without)|\s*$)"
    rf"|i(?:'m|\s+am)\s+(?:just\s+|only\s+)?an?\s+(?:\w+\s+)?{_AI}\b(?!\s+\w+(?:er|ist|or)\b)"
    r"|(?:作为|身为)(?:一[个名款位])?\s*(?:ai|人工智能)|als\s+(?:eine?\s+)?ki(?:[\s,-]|\b)|en tant qu(?:e modèle de langage|['\s]?ia\b)"
    r"|como (?:una?\s+)?(?:ia\b|modelo de lengua|inteligencia artificial)"
    r"|come (?:una\s+)?(?:ia\b|intelligenza artificiale|modello linguistico)"
)
_MODEL_PLAIN = _MODEL.replace(r"(?:\w+\s+){0,2}?", "")  # further on "As a super genius AI, ..." may be a part that is played
# What a model refuses to do; "I can't withdraw cash" is a customer's sentence and no refusal.
_TASK = r"(?:help|assist|comply|fulfil|fulfill|generate|create|write|produce|provide|answer|engage|process|respond|continue)"
_REFUSAL = re.compile(rf"^\W*(?:{_SORRY}(?:{_MODEL}|{_CANNOT}\s+{_TASK}\b)|it (?:would|is) not (?:be )?appropriate for me)", re.IGNORECASE)
# In an input only what no person would write to a product.
_INPUT_REFUSAL = re.compile(
    rf"^\W*{_SORRY}(?:{_MODEL}|{_CANNOT}\s+(?:(?:help|assist|comply)\b(?!\s+(?:it|but)\b)|(?:generate|create|write|produce|fulfil)\b))",
    re.IGNORECASE,
)
# In the middle of a text: what only a model says of itself. A clerk, too, is sorry and cannot help with something.
_SELF = (
    rf"(?:{_MODEL_PLAIN})"
    r"|i (?:do not|don'?t) have (?:personal (?:opinions|feelings|beliefs|experiences|preferences)|(?:access to )?real-?time)"
    r"|my (?:knowledge cutoff|training data|programming)\b"
    r"|(?:violates?|goes against|against) (?:my|openai'?s) (?:programming|(?:content |usage )?polic)"
    rf"|{_CANNOT}\s+(?:fulfill?|comply with|engage (?:in|with)|assist with)\s+(?:this|that|your|such|the)\s*(?:kind of |type of )?"
    r"(?:request|prompt|topic)?s?\s*(?:[.,;!]|$)"
)
_BEGINS = r"(?:[.!?…。！？\n\"“:)]\s*|\b(?:but|and|because|since|however),?\s+)"
_INSIDE = re.compile(rf"{_BEGINS}(?:{_SELF})", re.IGNORECASE)
_INPUT_INSIDE = re.compile(rf"{_BEGINS}(?:{_SORRY})(?:{_MODEL_PLAIN})", re.IGNORECASE)
# No text without one of these is a refusal in the middle: a test that costs a fifth of the search.
_HINT = re.compile(
    r"\b(?:ai|ki|ia|llm|artificial|artificiale|language model|langage|linguistico|modelo|personal|real-?time|cutoff|training data"
    r"|programming|polic\w+|comply|engage|assist|fulfill?)\b|作为|身为",
    re.IGNORECASE,
)


def refusal(example: Example, context: FilterContext) -> str | None:
    """Neither completion nor input is a model's refusal: not at its beginning, nor, where it speaks of itself, further on.

    A text task's abstention may refuse, and so may its answer to an input that invites harm: it is the right answer.
    """
    free = context.task.output_schema is None
    kind = context.kinds.get(example.kind or "")
    abstains = (example.label is not None and example.label == context.task.abstain_label) or (kind is not None and kind.family == "harm")
    if not (free and abstains):
        if not free:
            for where, text in answers(example):
                if found := _REFUSAL.search(text.replace("\u2019", "'")):
                    return f"refusal: the {where} begins with {found.group().strip()[:60]!r}"
        for where, text in answered(example, context):
            problem = refuses(text)
            if problem:
                return f"refusal: the {where} {problem}"
    for where, text in inputs(example):
        problem = _refuses(text, _INPUT_REFUSAL, _INPUT_INSIDE)
        if problem:
            return f"refusal: the {where} {problem}"
    return None


def refuses(text: str) -> str | None:
    """How a text is a model's refusal; None when it is none."""
    return _refuses(text, _REFUSAL, _INSIDE)


def _refuses(text: str, at_start: re.Pattern[str], inside: re.Pattern[str]) -> str | None:
    text = text.replace("\u2019", "'")
    found = at_start.search(text)
    if found:
        return f"begins with {found.group().strip()[:60]!r}"
    found = inside.search(text) if _HINT.search(text) else None
    return f"says {found.group().strip()[:60]!r}" if found else None

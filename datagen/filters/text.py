"""Filters on form: schema, length, refusal, language, personal data. Each reads one example and says why it should go."""

import re
import unicodedata
from collections.abc import Iterator

from datagen.filters.context import FilterContext, parse_object
from datagen.filters.turns import Said, answers, inputs, material
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
_MODEL = (
    r"as an?\s+(?:\w+\s+){0,2}?(?:ai|artificial intelligence|language model|llm)\b"
    r"|i(?:'m|\s+am)\s+(?:just\s+|only\s+)?an?\s+(?:\w+\s+)?(?:ai|language model)\b"
)
# What a model refuses to do; "I can't withdraw cash" is a customer's sentence and no refusal.
_TASK = r"(?:help|assist|comply|fulfil|fulfill|generate|create|write|produce|provide|answer|engage|process|respond|continue)"
_REFUSAL = re.compile(rf"^\W*(?:{_SORRY}(?:{_MODEL}|{_CANNOT}\s+{_TASK}\b)|it (?:would|is) not (?:be )?appropriate for me)", re.IGNORECASE)
# In an input only what no person would write to a product.
_INPUT_REFUSAL = re.compile(
    rf"^\W*{_SORRY}(?:{_MODEL}|{_CANNOT}\s+(?:(?:help|assist|comply)\b(?!\s+(?:it|but)\b)|(?:generate|create|write|produce|fulfil)\b))",
    re.IGNORECASE,
)


def refusal(example: Example, context: FilterContext) -> str | None:
    """Neither the completion nor the input begins as a model's refusal. A text task's abstention may refuse: it is the right answer."""
    abstains = example.label is not None and example.label == context.task.abstain_label
    checked = [(name, text, _REFUSAL) for name, text in answers(example)]
    checked += [(name, text, _INPUT_REFUSAL) for name, text in inputs(example)]
    for name, text, pattern in checked:
        found = pattern.search(text.replace("\u2019", "'"))
        if found and not (pattern is _REFUSAL and abstains and context.task.output_schema is None):
            return f"refusal: the {name} begins with {found.group().strip()[:60]!r}"
    return None


_SCRIPTS = {
    "ru": ("CYRILLIC",), "uk": ("CYRILLIC",), "bg": ("CYRILLIC",), "sr": ("CYRILLIC", "LATIN"), "el": ("GREEK",), "he": ("HEBREW",),
    "ar": ("ARABIC",), "fa": ("ARABIC",), "ur": ("ARABIC",), "hi": ("DEVANAGARI",), "mr": ("DEVANAGARI",), "bn": ("BENGALI",),
    "ta": ("TAMIL",), "te": ("TELUGU",), "th": ("THAI",), "ka": ("GEORGIAN",), "hy": ("ARMENIAN",), "zh": ("CJK",),
    "ja": ("CJK", "HIRAGANA", "KATAKANA"), "ko": ("HANGUL", "CJK"),
}  # fmt: skip
# The commonest function words of languages that share the Latin script; words that English also has are left out of the others.
_STOP_WORDS = {
    language: frozenset(text.split())
    for language, text in {
        "English": "the a an and or but if to of in on at for from with by as is are was were be been am i my me mine you your we our "
        "us it its this that these those he she they them his her their have has had do does did not no can could will would should "
        "what why how when where who which there here so just please about up out any some get got need want im ive dont cant hi "
        "hello thanks still again now than then into over after before because isnt didnt doesnt wont whats all one more",
        "German": "der die das den dem ein eine einen einem einer und oder aber wenn ich mein meine meinen du sie wir ist sind "
        "waren wurde werden nicht kein keine mit von zu im auf für aus bei nach wie wo warum wann kann habe haben hat noch auch bitte",
        "French": "le la les un une des et ou mais je mon ma mes vous votre nous est sont était pas ne que qui dans sur avec pour par "
        "du au aux ce cette ces il elle comment pourquoi quand où ai avez été plus très bonjour merci",
        "Spanish": "el la los las un una unos y o pero yo mi mis usted su nos es son fue no que en con para por del al este esta como "
        "cómo cuándo dónde qué he ha han está estoy más muy hola gracias tengo puedo",
        "Italian": "il lo la gli le un una e o ma io mio mia miei non che di da con per del della nel sono è ho ha abbiamo come perché "
        "quando dove questo questa più molto ciao grazie posso",
        "Portuguese": "o os as um uma e ou mas eu meu minha não que de em com para por do da no na dos das este esta como quando onde "
        "está tenho posso foi muito obrigado olá",
        "Dutch": "de het een en of maar ik mijn je jij u uw wij niet geen met van naar op voor uit bij hoe waar waarom wanneer kan heb "
        "hebben heeft nog ook dat deze alstublieft",
    }.items()
}
_JUDGED_WORDS = 8  # fewer words say too little


def language(example: Example, context: FilterContext) -> str | None:
    """The input (and a free-text completion) is in the task's language, as far as script and function words tell.

    For every language: the share of letters in its script. For `en` also: among 8 words or more, enough English function
    words, and no other language's in greater number. It cannot tell other languages of one script apart, does not see a foreign
    sentence inside a long English text, and passes texts of fewer than 8 words in the right script.
    """
    texts = inputs(example)
    if context.task.output_schema is None:
        texts += answers(example)
    for name, text in texts:
        problem = _foreign(text, context)
        if problem:
            return f"language: the {name} {problem}"
    return None


def _foreign(text: str, context: FilterContext) -> str | None:
    code = context.task.language.split("-")[0].lower()
    if not text.isascii() or code in _SCRIPTS:
        letters = [char for char in text if char.isalpha()]
        scripts = _SCRIPTS.get(code, ("LATIN",))
        share = sum(unicodedata.name(char, "").startswith(scripts) for char in letters) / len(letters) if letters else 1.0
        if share < context.setting("language", "min_script_share"):
            return f"has {share:.0%} of its letters in the script of {context.task.language}"
    if code != "en":
        return None
    words = re.findall(r"[^\W\d_]+", text.casefold().replace("'", "").replace("\u2019", ""))
    if len(words) < _JUDGED_WORDS:
        return None
    counts = {name: sum(word in stop_words for word in words) for name, stop_words in _STOP_WORDS.items()}
    english = counts.pop("English")
    other = max(counts, key=lambda name: counts[name])
    if counts[other] > english and counts[other] >= 3:
        return f"has {counts[other]} common {other} words and {english} English ones among {len(words)}"
    if english < context.setting("language", "min_stop_word_share") * len(words):
        return f"has {english} common English words among {len(words)}"
    return None


_EMAIL = re.compile(r"[\w.+-]+@[\w-]+(?:\.[\w-]+)+")
_DIGIT = re.compile(r"\d")
_CARD = re.compile(r"(?<![\w-])\d(?:[ -]?\d){12,18}(?!\w)")
_IBAN = re.compile(r"\b[A-Z]{2}\d{2}(?: ?[A-Z0-9]){11,30}\b", re.IGNORECASE)
_DATE = re.compile(r"\b\d{4}-\d{2}-\d{2}\b(?:[ T]\d{2}:\d{2}(?::\d{2})?)?|\b\d{1,2}[./-]\d{1,2}[./-]\d{2,4}\b")
_PHONE = re.compile(r"(?<![\w£$€.,-])(?<!\d[ ()./-])\+?\(?\d(?:[ ()./-]{0,2}\d){8,14}(?![ ()./-]{0,2}\d|\w|[.,]\d)")


def pii(example: Example, context: FilterContext) -> str | None:
    """No card number (Luhn), IBAN (mod 97), e-mail address or telephone number of 9 digits or more.

    The reason names the kind, never the value. Patterns only: names, addresses and shorter numbers go unseen.
    """
    texts = [Said("input", material(example)), *answers(example)]
    texts += [Said(name, text) for name, text in (("rejected", example.rejected), ("reasoning", example.reasoning)) if text]
    for name, text in texts:
        for kind in _personal(text):
            return f"pii: {kind} in the {name}"
    return None


def _personal(text: str) -> Iterator[str]:
    if "@" in text and _EMAIL.search(text):
        yield "e-mail address"
    if len(_DIGIT.findall(text)) < 9:
        return
    if any(_luhn(re.sub(r"\D", "", found)) for found in _CARD.findall(text)):
        yield "card number"
    if any(_has_iban(re.sub(r"\s", "", found).upper()) for found in _IBAN.findall(text)):
        yield "IBAN"
    if _PHONE.search(_DATE.sub(" ", text)):
        yield "telephone number"


def _luhn(digits: str) -> bool:
    """ISO/IEC 7812-1, annex B."""
    total = sum(int(d) for d in digits[-1::-2]) + sum(sum(divmod(2 * int(d), 10)) for d in digits[-2::-2])
    return total % 10 == 0 and len(set(digits)) > 1


def _has_iban(text: str) -> bool:
    """ISO 13616: some prefix of 15 characters or more has remainder 1 (the words after a number may look like its end)."""
    return any(int("".join(str(int(char, 36)) for char in text[4:end] + text[:4])) % 97 == 1 for end in range(len(text), 14, -1))

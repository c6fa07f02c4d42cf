"""The filter on language: by script and function words for English, by py3langid's n-grams for all others."""

import re
import unicodedata
from functools import cache
from typing import Any

from datagen.filters.context import FilterContext
from datagen.filters.similarity import words
from datagen.filters.turns import answers, inputs
from datagen.records import Example

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
_SIGNS = frozenset({"zh", "ja", "ko"})
_CODE_SIGN = re.compile(r"[{}();=<>\[\]_|\\\\]")
_JUDGED_WORDS = 8  # fewer words say too little


# Languages of which a text of one is often taken for the other: to read one as the other is no proof.
_NEAR = tuple(
    frozenset(family.split())
    for family in (
        "da no nb nn sv", "hr sr bs sl", "cs sk", "id ms jv", "es gl ca pt an", "fr oc wa ca", "ru uk be bg mk", "nl af", "hi mr ne",
        "zh ja", "xh zu",
    )
)  # fmt: skip


def language(example: Example, context: FilterContext) -> str | None:
    """The input (and a free-text completion) is in the task's language, as far as script and words tell.

    For every language: the share of letters in its script. For `en` also: among 8 words or more, enough English function
    words, and no other language's in greater number. For other languages: no language but theirs and its near relatives has a
    probability of `min_confidence`. It does not see a foreign sentence inside a long text, and passes texts of fewer than 8 words in
    the right script.
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
        # a sign of these is a word: were letters counted, one English name would outweigh a sentence
        letters = [word[0] for word in words(text) if word[0].isalpha()] if code in _SIGNS else [char for char in text if char.isalpha()]
        scripts = _SCRIPTS.get(code, ("LATIN",))
        share = sum(unicodedata.name(char, "").startswith(scripts) for char in letters) / len(letters) if letters else 1.0
        if share < context.setting("language", "min_script_share"):
            return f"has {share:.0%} of its letters in the script of {context.task.language}"
    if code != "en":
        return _taken_for_another(text, code, context)
    found = re.findall(r"[^\W\d_]+", text.casefold().replace("'", "").replace("\u2019", ""))
    if len(found) < _JUDGED_WORDS:
        return None
    counts = {name: sum(word in stop_words for word in found) for name, stop_words in _STOP_WORDS.items()}
    english = counts.pop("English")
    other = max(counts, key=lambda name: counts[name])
    if counts[other] > english and counts[other] >= 3 and not _is_code(text):
        return f"has {counts[other]} common {other} words and {english} English ones among {len(found)}"
    if english < context.setting("language", "min_stop_word_share") * len(found) and not (_is_code(text) or _reads_as_english(text)):
        return f"has {english} common English words among {len(found)}"
    return None


def _reads_as_english(text: str) -> bool:
    """Whether a text without function words is a list of English words, and not another language."""
    return bool(_identifier().classify(text)[0] == "en")


def _is_code(text: str) -> bool:
    return 25 * len(_CODE_SIGN.findall(text)) > len(text)


def _taken_for_another(text: str, code: str, context: FilterContext) -> str | None:
    if len(words(text)) < _JUDGED_WORDS or code not in _identifier().labels:
        return None
    found, confidence = _identifier().classify(text)
    if found == code or confidence < context.setting("language", "min_confidence"):
        return None
    if any(found in family and code in family for family in _NEAR):
        return None
    return f"reads as {found}, not {code} (confidence {confidence:.2f})"


@cache
def _identifier() -> Any:
    """langid's n-gram model of 97 languages (Lui and Baldwin 2012), with probabilities; it ships with py3langid."""
    from py3langid.langid import MODEL_FILE, LanguageIdentifier

    return LanguageIdentifier.from_model_file(MODEL_FILE, norm_probs=True)

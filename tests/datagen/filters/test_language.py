"""The language filter: by script and function words for English, by n-grams for all others."""

import pytest

from datagen.filters import FilterContext
from datagen.filters.language import language


def test_language_sees_another_script(bank_example, bank_context):
    assert language(bank_example("我的卡还没有到"), bank_context) == "language: the input has 0% of its letters in the script of en"


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("Meine Karte ist noch nicht da und ich habe lange gewartet", "German"),
        ("Je ne peux pas payer avec ma carte dans les magasins de Paris", "French"),
        ("Mi tarjeta no ha llegado y no puedo pagar en la tienda", "Spanish"),
    ],
)
def test_language_names_another_language_of_the_latin_script(text, named, bank_example, bank_context):
    assert named in language(bank_example(text), bank_context)


def test_language_sees_text_without_english_words(bank_example, bank_context):
    reason = language(bank_example("Kortet mitt kom aldri fram, selv etter fire uker"), bank_context)
    assert reason == "language: the input has 0 common English words among 9"


@pytest.mark.parametrize("text", ["hi", "...", "😀", "ou est ma carte", "CARD NOT HERE YET!!! where iss it 😡😡 pls check for me now"])
def test_language_passes_short_noisy_and_wordless_english(text, bank_example, bank_context):
    assert language(bank_example(text), bank_context) is None


def test_language_checks_other_languages_by_script_and_free_text_by_completion(bank_example, text_task):
    russian = FilterContext(task=text_task.model_copy(update={"language": "ru"}))
    assert language(bank_example("Где моя карта?", completion="Она в пути."), russian) is None
    assert language(bank_example("Где моя карта?", completion="It is on its way."), russian).startswith("language: the completion")


@pytest.mark.parametrize(
    ("code", "text"),
    [
        ("de", "Meine Karte ist noch nicht da und ich habe lange gewartet"),
        ("fr", "Bonjour, mon virement est bloqué depuis lundi, pouvez-vous vérifier ?"),
        ("es", "Hola, quiero cancelar la transferencia que hice ayer por error"),
        ("sv", "Mitt kort har inte kommit fram än trots att jag väntat i två veckor"),
        ("no", "Kortet mitt kom aldri fram, selv etter fire uker med venting"),
        ("ru", "Моя карта ещё не пришла, и я жду уже три недели"),
        ("de", "PIN vergessen"),
    ],
)
def test_language_passes_a_text_in_the_tasks_own_language(code, text, bank_example, bank_context):
    context = FilterContext(task=bank_context.task.model_copy(update={"language": code}))
    assert language(bank_example(text), context) is None


@pytest.mark.parametrize(
    ("code", "text", "found"),
    [
        ("de", "My card has not arrived yet and I have been waiting for weeks", "en"),
        ("fr", "Meine Karte ist noch nicht da und ich habe lange gewartet", "de"),
        ("uk", "Mitt kort har inte kommit fram än trots att jag väntat i två veckor", "script"),
    ],
)
def test_language_names_what_a_text_reads_as(code, text, found, bank_example, bank_context):
    context = FilterContext(task=bank_context.task.model_copy(update={"language": code}))
    assert found in language(bank_example(text), context)


def test_language_passes_near_relatives_and_languages_that_the_model_does_not_know(bank_example, bank_context):
    danish = FilterContext(task=bank_context.task.model_copy(update={"language": "da"}))
    assert language(bank_example("Kortet mitt kom aldri fram, selv etter fire uker med venting"), danish) is None
    klingon = FilterContext(task=bank_context.task.model_copy(update={"language": "tlh"}))
    assert language(bank_example("My card has not arrived yet and I have been waiting"), klingon) is None


@pytest.mark.parametrize(
    "completion",
    [
        "apples, bananas, cherries, oranges, grapes, lemons, melons, pears, strawberries",
        "def add(x, y):\n    total = (x + y) * 2\n    return {total: [x, y]}",
    ],
)
def test_language_passes_lists_of_english_words_and_code(completion, bank_example, text_task):
    assert language(bank_example(completion=completion), FilterContext(task=text_task)) is None

"""The built-in student: its size, its template, the text it was made from, and that it does what its card says."""

import hashlib
import json
import random
from pathlib import Path

import pytest

torch = pytest.importorskip("torch")

from transformers import AutoModelForCausalLM, AutoTokenizer  # noqa: E402 (torch may be absent)

from train.students.tiny import language, pretrain, skills, stream  # noqa: E402 (torch may be absent)

ROOT = Path(__file__).parents[3]
FOLDER = ROOT / "train" / "students" / "tiny"
GENERAL = ROOT / "train" / "general"
SEED = json.loads((FOLDER / "pretraining.json").read_text())["seed"]


@pytest.fixture(scope="module")
def tokenizer():
    return AutoTokenizer.from_pretrained(FOLDER)


@pytest.fixture(scope="module")
def model():
    return AutoModelForCausalLM.from_pretrained(FOLDER, dtype=torch.float32)


def rows(name: str) -> list[dict]:
    return [json.loads(line) for line in (GENERAL / f"{name}.jsonl").read_text(encoding="utf-8").splitlines()]


def texts(seed: str, n: int, held_out: frozenset[str] = frozenset()) -> list[str]:
    rng = random.Random(seed)
    return [skills.document(rng, held_out) for _ in range(n)]


def test_the_student_has_at_most_six_million_parameters(model):
    assert sum(p.numel() for p in model.parameters()) <= 6_000_000


def test_the_student_takes_at_most_twelve_megabytes():
    assert sum(f.stat().st_size for f in FOLDER.iterdir() if f.is_file()) <= 12_000_000


def test_padding_differs_from_the_stop_token_and_the_model_stops_at_it(model, tokenizer):
    assert tokenizer.pad_token_id != tokenizer.eos_token_id
    assert model.generation_config.eos_token_id == tokenizer.eos_token_id == stream.END
    assert len(tokenizer) == model.config.vocab_size


@pytest.mark.parametrize("system", [[], [{"role": "system", "content": "Be short."}]])
def test_the_full_render_is_the_generation_prompt_and_the_answer_and_the_stop_token(tokenizer, system):
    prompt = [*system, {"role": "user", "content": "Where is it?"}]
    asked = tokenizer.apply_chat_template(prompt, tokenize=False, add_generation_prompt=True)
    full = tokenizer.apply_chat_template([*prompt, {"role": "assistant", "content": "Here."}], tokenize=False)
    assert full == asked + "Here." + tokenizer.eos_token


def test_the_text_of_pretraining_is_rendered_as_the_template_renders(tokenizer):
    rng = random.Random(1)
    for skill in skills.EXACT:
        chat = skills.EXACT[skill][1](rng)
        messages = [{"role": "system", "content": chat.system}] if chat.system else []
        for user, answer in chat.turns:
            messages += [{"role": "user", "content": user}, {"role": "assistant", "content": answer}]
        assert tokenizer.apply_chat_template(messages, tokenize=False) == skills.render(chat)


@pytest.mark.parametrize("text", ["", "Plain words.", "£40 at Müller & Söhne, 3 days ago", '{"a":"b","c":{}}', "日本 😀\n\ttab  two"])
def test_any_text_survives_the_tokenizer(tokenizer, text):
    assert tokenizer.decode(tokenizer(text, add_special_tokens=False)["input_ids"]) == text


def test_every_digit_is_a_token_of_its_own(tokenizer):
    assert [tokenizer.decode([i]) for i in tokenizer("2024", add_special_tokens=False)["input_ids"]] == list("2024")


def test_the_loss_of_answers_covers_the_stop_token_and_nothing_of_the_question(tokenizer):
    import numpy as np

    ids = np.array(tokenizer("<|user|>Who?<|end|><|assistant|>Tom<|end|>", add_special_tokens=False)["input_ids"])
    answer = ids[stream.kinds(ids) == 2]
    assert tokenizer.decode(answer) == "Tom<|end|>"


def test_no_word_of_the_domain_is_in_the_generated_text():
    import re

    plain_words = "bank card pin refund payment transfer account cash atm top-up currency contactless money euro euros dollar pounds price fee withdrawal verify identity"
    search = re.compile(r"\b(" + "|".join(plain_words.split()) + r")\b|[£€]", re.IGNORECASE)  # written apart from the generator's own list
    found = [m.group(0) for text in texts("domain", 20_000) if (m := search.search(text))]
    assert found == []


@pytest.mark.parametrize(
    "sentence", ["My card is lost.", "a top-up failed", "top up", "I was charged", "£3", "he paid", "The PIN", "exchange rates"]
)
def test_the_search_for_domain_words_finds(sentence):
    assert language.FORBIDDEN.search(sentence)


@pytest.mark.parametrize("sentence", ["a cardigan", "the riverbanked", "pink", "spinning", "a stop upstairs"])
def test_the_search_for_domain_words_leaves_longer_words_alone(sentence):
    assert not language.FORBIDDEN.search(sentence)


def test_the_same_seed_gives_the_same_text():
    digest = [hashlib.sha256("\n".join(texts(seed, 500)).encode()).hexdigest() for seed in ("a", "a", "b")]
    assert digest[0] == digest[1] != digest[2]


def test_a_chunk_of_the_stream_depends_on_its_number_alone(tokenizer, monkeypatch):
    monkeypatch.setattr(stream, "CHUNK", 300)
    stream.start_worker(tokenizer.backend_tokenizer.to_str(), frozenset())
    first, again, other = (b"".join(ids.tobytes() for ids, _ in stream.make_chunk(SEED, i, 2048)) for i in (3, 3, 4))
    assert first == again != other


def test_the_general_files_are_what_the_generator_makes():
    probe = skills.general_rows(SEED, "probe", 8)
    held_out = frozenset(r["prompt"][-1]["content"] for r in probe)
    assert rows("probe") == probe
    assert rows("train") == skills.general_rows(SEED, "train", 160, held_out)


def test_the_probe_shares_no_question_with_the_general_training_rows():
    questions = {r["prompt"][-1]["content"] for r in rows("probe")}
    assert len(questions) == len(rows("probe"))
    assert not questions & {r["prompt"][-1]["content"] for r in rows("train")}


def test_a_document_that_asks_a_question_of_the_probe_is_drawn_again():
    questions = frozenset(text.split("<|user|>")[-1].split("<|end|>")[0] for text in texts("held", 300) if "<|user|>" in text)
    later = {text.split("<|user|>")[-1].split("<|end|>")[0] for text in texts("held", 300, questions) if "<|user|>" in text}
    assert not questions & later


def test_the_base_answers_the_probe(model, tokenizer):
    sample = rows("probe")[::3][:60]
    assert pretrain.probe(model, tokenizer, sample)["all"] >= 0.8


def test_a_few_steps_of_pretraining_lower_the_loss(tokenizer, monkeypatch):
    monkeypatch.setattr(stream, "CHUNK", 400)
    stream.start_worker(tokenizer.backend_tokenizer.to_str(), frozenset())
    losses = []
    batches = iter(stream.make_chunk(SEED, 0, 1024) * 4)
    pretrain.train(pretrain.new_model(SEED), batches, 12, 3e-3, lambda step, steps, numbers: losses.append(numbers["loss"]))
    assert losses[-1] < losses[0] - 0.3

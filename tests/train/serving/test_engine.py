"""Rows of several adapters in one batch answer as each would alone, whoever comes and goes beside them."""

import queue
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from transformers import MistralConfig, MistralForCausalLM

from train import model
from train.errors import ModelError, TemplateError
from train.evaluate import generate
from train.serving.engine import Engine, Job, Piece, Sampling
from train.serving.target import find_target

QUESTIONS = [f"What is {thing}{'?' * (1 + n % 7)}" for n, thing in enumerate(["grass", "snow", "coal", "blood"] * 4)]


@pytest.fixture(scope="module")
def engine(deployed: Path) -> Iterator[Engine]:
    made = Engine(find_target(str(deployed)), limit=16, batch_size=6)
    yield made
    made.close()


class Asked:
    """A job and the pieces that came of it."""

    def __init__(self, engine: Engine, name: str, question: str, limit: int = 24, **options: object) -> None:
        arm = engine.promise(name)
        assert arm is not None
        self.pieces: queue.Queue[Piece] = queue.Queue()
        self.job = Job(arm, engine.encode(arm, [{"role": "user", "content": question}]), limit, self.pieces.put, **options)  # type: ignore[arg-type]
        engine.submit(self.job)

    def all(self) -> list[Piece]:
        found = [self.pieces.get(timeout=30)]
        while found[-1].finish is None:
            found.append(self.pieces.get(timeout=30))
        return found

    @property
    def text(self) -> str:
        return "".join(piece.text for piece in self.all())


def test_rows_that_join_and_leave_at_any_time_answer_as_each_adapter_does_alone(engine: Engine, say: Callable[..., str]) -> None:
    asked = []
    for number, question in enumerate(QUESTIONS):  # more than the batch holds, of every arm, of different lengths
        name, limit = ("base", "one", "two")[number % 3], 3 + (number * 5) % 21
        asked.append((name, question, limit, Asked(engine, name, question, limit)))
        time.sleep(0.002)
    for name, question, limit, job in asked:
        assert job.text == say(None if name == "base" else name, question, max_new_tokens=limit), (name, question)


def test_the_two_adapters_and_the_base_answer_differently(say: Callable[..., str]) -> None:
    assert len({say(name, "What is snow?") for name in (None, "one", "two")}) == 3


def test_streamed_pieces_are_the_answer(engine: Engine, say: Callable[..., str]) -> None:
    pieces = Asked(engine, "one", "What is snow?", stream=True).all()
    assert len(pieces) > 3
    assert "".join(piece.text for piece in pieces) == say("one", "What is snow?")
    assert (pieces[-1].finish, pieces[-1].tokens) == ("length", 24)


def test_a_stop_text_ends_the_answer_before_it_and_no_piece_shows_a_part_of_it(engine: Engine, say: Callable[..., str]) -> None:
    whole = say("two", "What is snow?", max_new_tokens=24)
    stop = whole[8:12]
    expected = whole[: whole.index(stop)]
    for stream in (False, True):
        pieces = Asked(engine, "two", "What is snow?", stops=(stop, "never"), stream=stream).all()
        assert "".join(piece.text for piece in pieces) == expected
        assert pieces[-1].finish == "stop"
    assert Asked(engine, "two", "What is snow?", stops=("never said",)).text == whole


def test_a_seed_decides_a_sampled_answer_whatever_runs_beside_it(engine: Engine) -> None:
    def draw(seed: int, top_p: float = 1.0) -> Asked:
        return Asked(engine, "one", "What is coal?", sampling=Sampling(1.0, top_p, seed))

    alone = draw(7).text
    beside = [Asked(engine, "two", question, 9) for question in QUESTIONS[:4]]
    assert draw(7).text == alone
    assert len({draw(seed).text for seed in range(4)}) == 4
    assert [job.all()[-1].tokens for job in beside] == [9] * 4


def test_the_smallest_nucleus_is_the_greedy_answer(engine: Engine, say: Callable[..., str]) -> None:
    job = Asked(engine, "one", "What is coal?", sampling=Sampling(1.0, 1e-6, None))
    assert job.text == say("one", "What is coal?")


def test_a_cancelled_job_ends_and_frees_its_row(engine: Engine) -> None:
    running, waiting = Asked(engine, "one", "What is coal?", 200), [Asked(engine, "two", "What is snow?", 30) for _ in range(8)]
    engine.cancel(running.job)
    engine.cancel(waiting[-1].job)
    assert running.all()[-1].finish == waiting[-1].all()[-1].finish == "cancelled"
    assert all(job.all()[-1].finish == "length" for job in waiting[:-1])


def test_a_batch_that_fails_says_so_to_its_rows_and_the_engine_goes_on(engine: Engine, say: Callable[..., str]) -> None:
    arm = engine.promise("one")
    assert arm is not None
    pieces: queue.Queue[Piece] = queue.Queue()
    engine.submit(Job(arm, [10**9], 4, pieces.put))
    failed = pieces.get(timeout=30)
    assert failed.finish == "error" and "IndexError" in failed.error
    assert Asked(engine, "one", "What is snow?").text == say("one", "What is snow?")


def test_a_sliding_window_is_answered_as_by_the_library(
    make_tokenizer: Callable[..., object], tmp_path: Path, adapter_of: Callable[..., Path], say: Callable[..., str]
) -> None:
    tokenizer = make_tokenizer()
    torch.manual_seed(0)
    shape = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2}
    ids = {"bos_token_id": None, "eos_token_id": 0, "pad_token_id": 0}
    net = MistralForCausalLM(MistralConfig(vocab_size=len(tokenizer), sliding_window=12, **shape, **ids))  # type: ignore[arg-type]
    net.save_pretrained(str(tmp_path / "base"))
    tokenizer.save_pretrained(str(tmp_path / "base"))  # type: ignore[attr-defined]
    adapter_of(tmp_path / "served/a", tmp_path / "base", 3)
    engine = Engine(find_target(str(tmp_path / "served")), limit=16, batch_size=4)
    asked = [Asked(engine, ("a", "base")[n % 2], question, 20) for n, question in enumerate(QUESTIONS[:7])]
    texts = [job.text for job in asked]
    engine.close()
    for n, (question, text) in enumerate(zip(QUESTIONS, texts, strict=False)):
        loaded = model.load_student(str(tmp_path / "base"), adapter=None if n % 2 else tmp_path / "served/a")
        assert text == generate(*loaded, [[{"role": "user", "content": question}]], max_new_tokens=20, batch_size=1)[0]


def test_an_adapter_is_replaced_while_its_former_version_answers(
    engine: Engine, say: Callable[..., str], student: Path, adapter_of: Callable[..., Path], tmp_path: Path
) -> None:
    engine.load("swapped", adapter_of(tmp_path / "first", student, 11)).result(30)
    before = [Asked(engine, "swapped", question, 40) for question in QUESTIONS[:5]]
    arm = engine.load("swapped", adapter_of(tmp_path / "second", student, 12)).result(30)
    after = [Asked(engine, "swapped", question, 40) for question in QUESTIONS[:5]]
    for question, old, new in zip(QUESTIONS, before, after, strict=False):
        assert old.text == say(tmp_path / "first", question, max_new_tokens=40)
        assert new.text == say(tmp_path / "second", question, max_new_tokens=40)
        assert new.job.arm == arm != old.job.arm
    assert engine.unload("swapped")
    assert engine.promise("swapped") is None
    deadline = time.monotonic() + 10
    while set(engine.model.peft_config) != {"arm1", "arm2"} and time.monotonic() < deadline:
        time.sleep(0.01)
    assert set(engine.model.peft_config) == {"arm1", "arm2"}  # nothing of the versions is left in memory


def test_a_server_without_adapters_takes_one_and_gives_it_back(student: Path, deployed: Path, say: Callable[..., str]) -> None:
    engine = Engine(find_target(str(student)), limit=16)
    alone = Asked(engine, "base", "What is snow?").text
    for _ in range(2):
        engine.load("one", deployed / "one").result(30)
        arm = engine.promise("one")
        assert arm is not None and arm.system == "Name the colour as JSON."
        engine.release(arm)
        assert Asked(engine, "one", "What is snow?").text == say("one", "What is snow?")
        assert engine.unload("one") and not engine.unload("one") and not engine.unload("base")
        assert Asked(engine, "base", "What is snow?").text == alone
    engine.close()


@pytest.mark.parametrize("with_others", [True, False])
def test_an_adapter_that_does_not_fit_is_refused_and_changes_nothing(
    with_others: bool, student: Path, deployed: Path, make_student: Callable[..., Path], adapter_of: Callable[..., Path], tmp_path: Path
) -> None:
    engine = Engine(find_target(str(deployed if with_others else student)), limit=8)
    before = Asked(engine, "base", "What is snow?").text
    other = make_student(tmp_path / "wide", hidden_size=64)
    for path, words in (
        (adapter_of(tmp_path / "other", other, 1), "was trained on .*wide, the server's base is"),
        (adapter_of(tmp_path / "lied", other, 1, base=str(student)), "does not fit its base"),
        (adapter_of(tmp_path / "high", student, 1, r=16), "its rank is 16, this server takes up to 8. Start it with --max-lora-rank 16"),
        (tmp_path / "nothing", "no adapter here"),
    ):
        with pytest.raises(ModelError, match=words):
            engine.load("new", path).result(30)
    edited = adapter_of(tmp_path / "edited", student, 1)
    seal = edited / "template.json"
    seal.write_text(seal.read_text().replace("assistant", "helper"))
    with pytest.raises(TemplateError, match="was edited"):
        engine.load("new", edited).result(30)
    assert "new" not in engine.arms
    assert Asked(engine, "base", "What is snow?").text == before
    assert all(
        type(module).__module__.startswith("peft") is with_others for module in engine.model.modules() if "Lora" in type(module).__name__
    )
    engine.load("fits", adapter_of(tmp_path / "fits", student, 5)).result(30)
    assert Asked(engine, "fits", "What is snow?").text != before
    engine.close()


def test_an_adapter_for_more_layers_than_the_base_has_is_refused(
    student: Path, deployed: Path, adapter_of: Callable[..., Path], tmp_path: Path
) -> None:
    from safetensors.torch import load_file, save_file

    path = adapter_of(tmp_path / "deep", student, 1)
    weights = load_file(path / "adapter_model.safetensors")
    weights |= {name.replace("layers.1.", "layers.2."): tensor.clone() for name, tensor in weights.items() if "layers.1." in name}
    save_file(weights, path / "adapter_model.safetensors")
    engine = Engine(find_target(str(deployed)), limit=8)
    with pytest.raises(ModelError, match="has weights for 21 layers, and 14 of its base take them"):
        engine.load("deep", path).result(30)
    engine.close()

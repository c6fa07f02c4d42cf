"""A judge compares two systems through the same journal as everything; its biases are found out; a teacher answers evaluation rows."""

import asyncio
import hashlib
import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from datagen.compare import Judgement, Pair, Weigher, answer_rows, judge_pairs, names_of, pair_up, read_answers, render, summarize
from datagen.errors import ConfigError
from datagen.records import Request
from datagen.store import Store

Make = Callable[..., Any]


def write(path: Path, answers: dict[str, str]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps({"id": row, "input": f"in {row}", "answer": text}) + "\n" for row, text in answers.items()))
    return path


def pairs(count: int, seed: int = 0) -> list[Pair]:
    """Answers whose quality (a digit) and length are independent."""
    rng = random.Random(seed)

    def text() -> str:
        return f"quality {rng.randrange(10)} " + "word " * rng.randrange(1, 30)

    return [Pair(f"r{i:03d}", f"question {i}", text(), text()) for i in range(count)]


class Judge:
    """A scripted judge: prefers quality, what stands first (by `position`), and length (by `length`), in logits, with noise."""

    def __init__(self, position: float = 0.0, length: float = 0.0, quality: float = 0.4) -> None:
        self.position, self.length, self.quality = position, length, quality

    def __call__(self, request: Request) -> str:
        first, second = request.messages[-1].content.split("Answer A:\n")[1].split("\n\nAnswer B:\n")
        better = self.quality * (int(first.split()[1]) - int(second.split()[1]))
        logit = better + self.position + self.length * (len(first) - len(second)) / 30
        noise = random.Random(hashlib.sha256(request.messages_json.encode()).hexdigest()).random()
        return json.dumps({"better": "A" if noise < 1 / (1 + np.exp(-logit)) else "B"})


def judged(make_asker: Make, scripted: Any, judge: Any, count: int = 300) -> dict[str, Any]:
    asker = make_asker(scripted(judge))
    with asker.store.writing():
        found = asyncio.run(judge_pairs(pairs(count), asker))
    assert not found.missing and found.stopped is None
    return summarize(found.results, a="few_shot", b="dpo")


def test_a_fair_judge_is_not_accused(make_asker: Make, scripted: Any) -> None:
    found = judged(make_asker, scripted, Judge())
    assert found["warnings"] == []
    assert found["position"]["low"] < 0.5 < found["position"]["high"]
    assert found["length_slope"]["low"] < 0 < found["length_slope"]["high"]
    assert found["win"]["value"] + found["tie"]["value"] + found["lose"]["value"] == pytest.approx(1)


def test_a_judge_that_prefers_what_stands_first_is_found_out(make_asker: Make, scripted: Any) -> None:
    found = judged(make_asker, scripted, Judge(position=1.0))
    assert found["position"]["low"] > 0.5
    assert found["warnings"][0].startswith("Position bias: what stands first is preferred in ")
    assert found["win_rate"]["low"] < 0.5 < found["win_rate"]["high"], "both orders were asked, so neither system gains"


def test_a_judge_that_prefers_the_last_is_found_out_too(make_asker: Make, scripted: Any) -> None:
    found = judged(make_asker, scripted, Judge(position=-1.0))
    assert found["position"]["high"] < 0.5
    assert "leans to the second" in found["warnings"][0]


def test_a_judge_that_prefers_length_is_found_out_and_corrected(make_asker: Make, scripted: Any) -> None:
    asker = make_asker(scripted(Judge(length=1.0)))
    wordy = [pair._replace(b=pair.b + "word " * 8) for pair in pairs(300)]
    with asker.store.writing():
        found = summarize(asyncio.run(judge_pairs(wordy, asker)).results, a="few_shot", b="dpo")
    assert found["length_slope"]["low"] > 0
    assert found["longer"]["low"] > 0.5
    assert found["win_rate"]["low"] > 0.5, "the wordier system seems better"
    assert found["win_rate_at_equal_length"]["low"] < 0.5 < found["win_rate_at_equal_length"]["high"], "and is not"
    assert any(line.startswith("Length bias") for line in found["warnings"])


def test_a_better_system_wins_whatever_the_position(make_asker: Make, scripted: Any) -> None:
    asker = make_asker(scripted(Judge(position=1.0)))
    better = [pair._replace(b=pair.b.replace("quality ", "quality 1", 1)) for pair in pairs(100)]
    with asker.store.writing():
        found = summarize(asyncio.run(judge_pairs(better, asker)).results, a="few_shot", b="dpo")
    assert found["win_rate"]["low"] > 0.8
    assert found["sentence"].endswith("dpo is better.")


def test_a_rerun_asks_nothing_also_when_the_files_are_given_in_the_other_order(make_asker: Make, scripted: Any, store: Store) -> None:
    first = make_asker(scripted(Judge()))
    with store.writing():
        before = asyncio.run(judge_pairs(pairs(20), first)).results
    again = make_asker(scripted(Judge()))
    swapped = [Pair(p.id, p.input, p.b, p.a) for p in pairs(20)]
    with store.writing():
        after = asyncio.run(judge_pairs(swapped, again)).results
    assert (first.calls, again.calls, again.reused) == (40, 0, 40)
    assert [j.points for j in before] == [-j.points for j in after]
    assert store.query("SELECT DISTINCT role, split_part(prompt, '@', 1) AS prompt FROM calls") == [{"role": "judge", "prompt": "compare"}]


def test_equal_answers_are_a_tie_that_nobody_is_asked_for(make_asker: Make, scripted: Any) -> None:
    teacher = scripted(Judge())
    asker = make_asker(teacher)
    with asker.store.writing():
        found = asyncio.run(judge_pairs([Pair("r", "in", "same", "same")], asker))
    assert teacher.requests == []
    assert summarize(found.results, a="a", b="b")["tie"]["value"] == 1.0


def test_a_spent_budget_leaves_what_was_judged(make_asker: Make, scripted: Any) -> None:
    asker = make_asker(scripted(Judge(), cost_usd=0.1), budget_usd=2.0)
    with asker.store.writing():
        found = asyncio.run(judge_pairs(pairs(30), asker))
    assert found.stopped is not None and "budget_usd" in found.stopped
    assert 1 <= len(found.results) <= 10
    assert asker.store.ledger.spent_usd <= 2.0 + 1e-9


def test_an_interrupt_stops_asking(make_asker: Make, scripted: Any) -> None:
    async def run() -> Any:
        pressed = asyncio.Event()
        pressed.set()
        return await judge_pairs(pairs(10), asker, pressed)

    asker = make_asker(scripted(Judge()))
    with asker.store.writing():
        found = asyncio.run(run())
    assert len(found.results) <= 10
    assert asker.stopped


def test_a_judge_that_cannot_be_read_is_counted_and_not_guessed(make_asker: Make, scripted: Any) -> None:
    asker = make_asker(scripted(lambda request: "both are fine"))
    with asker.store.writing():
        found = asyncio.run(judge_pairs(pairs(3), asker))
    assert found.results == []
    assert sum(found.missing.values()) == 3
    with pytest.raises(ConfigError, match="nothing was judged"):
        summarize(found.results, a="a", b="b")


def test_what_it_will_ask_is_counted_before_it_asks(make_asker: Make, scripted: Any) -> None:
    weigher = Weigher(scripted(Judge(), cost_usd=0.01))
    asker = make_asker(weigher)
    asyncio.run(judge_pairs(pairs(7), asker))
    assert (weigher.calls, weigher.usd) == (14, pytest.approx(0.14))
    assert asker.store.query("SELECT count(*) AS n FROM calls") == [{"n": 0}]


def test_a_teacher_answers_rows_as_it_answers_inputs(make_asker: Make, scripted: Any, script: Any, tmp_path: Path) -> None:
    rows = list(read_answers(write(tmp_path / "base.jsonl", {"r1": "?", "r2": "?"})).values())
    asker = make_asker(scripted(script))
    with asker.store.writing():
        found = asyncio.run(answer_rows(rows, asker))
    assert [(row.id, row.answer) for row in found.results] == [
        (r, '{"intent":"late","entities":{},"decision":"wait"}') for r in ("r1", "r2")
    ]


def test_a_row_that_the_teacher_cannot_answer_gets_an_empty_answer(make_asker: Make, scripted: Any, tmp_path: Path) -> None:
    rows = list(read_answers(write(tmp_path / "base.jsonl", {"r1": "?"})).values())
    asker = make_asker(scripted(lambda request: "no"))
    with asker.store.writing():
        found = asyncio.run(answer_rows(rows, asker))
    assert [row.answer for row in found.results] == [""]


def test_pairs_come_in_an_order_that_makes_the_first_a_fair_sample(tmp_path: Path) -> None:
    answers = {f"r{i}": "x" for i in range(50)}
    first = [p.id for p in pair_up(write(tmp_path / "a.jsonl", answers), write(tmp_path / "b.jsonl", answers), 10)]
    assert len(first) == 10
    assert first != sorted(first)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"id": "r1", "input": "x"}', "a.jsonl:1: not"),
        ('{"id": 1, "input": "x", "answer": "y"}', "a.jsonl:1: id, input and answer must be texts"),
        ("\n", "has no answers"),
        ('{"id": "r9", "input": "x", "answer": "y"}', "not the same rows; 2 are in one of them alone, such as 'r1'"),
        ('{"id": "r1", "input": "other", "answer": "y"}', "row 'r1' has another input"),
    ],
)
def test_files_that_do_not_match_are_refused(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "a.jsonl").write_text(text)
    with pytest.raises(ConfigError, match=message):
        pair_up(tmp_path / "a.jsonl", write(tmp_path / "b.jsonl", {"r1": "x"}))


def test_systems_are_called_by_their_files_or_their_runs(tmp_path: Path) -> None:
    def file(run: str, name: str) -> Path:
        return tmp_path / run / "answers" / "test" / f"{name}.jsonl"

    assert names_of(file("x", "sft"), file("x", "dpo")) == ("sft", "dpo")
    assert names_of(file("x", "dpo"), file("y", "dpo")) == ("x-dpo", "y-dpo")


def test_the_interval_of_the_win_rate_holds_the_truth() -> None:
    holds = 0
    for seed in range(60):
        rng = random.Random(seed)
        made = [Judgement(str(i), *rng.choices([("A", "B"), ("B", "A"), ("A", "A")], (2, 5, 3))[0], 10, 20) for i in range(150)]
        rate = summarize(made, a="a", b="b", seed=seed)["win_rate"]
        holds += rate["low"] <= 0.5 + 0.15 <= rate["high"]
    assert holds >= 53


def test_perfect_separation_by_length_gives_numbers() -> None:
    made = [Judgement(str(i), "B", "A", 10, 10 + i % 2) for i in range(20)]
    found = summarize(made, a="a", b="b")
    assert found["win_rate"]["value"] == 1.0
    assert found["win_rate"]["low"] < 0.9
    assert found["win_rate_at_equal_length"]["value"] < 1.0


def test_the_summary_in_lines_names_judge_and_price(make_asker: Make, scripted: Any) -> None:
    facts = {"judge": "offline/x", "simulated": True, "missing": {"not JSON": 2}, "stopped": None}
    lines = render({**judged(make_asker, scripted, Judge(), 40), **facts}, 0.5)
    assert lines[-1] == "Judge offline/x (simulated), $0.5000."
    assert "Not judged: 2 not JSON." in lines


def test_the_command_judges_answers_and_leaves_a_file_for_the_report(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from datagen.cli import main

    monkeypatch.chdir(tmp_path)
    root = Path(__file__).parents[2]
    recipe = {
        "name": "small", "taxonomy": f"{root}/taxonomies/banking_support.yaml", "mix": {"topic": 4},
        "teachers": {"teacher": {"model": "offline/banking"}, "judge": {"model": "offline/banking-judge"}},
    }  # fmt: skip
    Path("small.yaml").write_text(json.dumps(recipe))
    rows = ["My card has not arrived yet.", "I lost my card, please block it.", "What is your exchange rate for euros?"]
    given = [{"id": str(i), "input": text, "answer": "{}"} for i, text in enumerate(rows)]
    Path("base.jsonl").write_text("".join(json.dumps(row) + "\n" for row in given))

    def call(*arguments: str) -> int:
        with pytest.raises(SystemExit) as exit_:
            main([*arguments, "--recipe", "small.yaml"])
        return int(exit_.value.code or 0)

    assert call("answer", "base.jsonl", "--out", "teacher.jsonl") == 0
    answers = [json.loads(line) for line in Path("teacher.jsonl").read_text().splitlines()]
    assert {row["id"] for row in answers} == {"0", "1", "2"}
    assert all("intent" in json.loads(row["answer"]) for row in answers)
    capsys.readouterr()
    assert call("compare", "base.jsonl", "teacher.jsonl", "--json") == 0
    found = json.loads(capsys.readouterr().out)
    assert found["win"]["value"] == 1.0 and found["judge"] == "offline/banking-judge" and found["simulated"]
    left = json.loads(Path("judged.base-teacher.json").read_text())
    assert len(left["judgements"]) == 3
    assert call("compare", "base.jsonl", "missing.jsonl") == 2

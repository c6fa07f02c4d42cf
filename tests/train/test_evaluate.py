"""Generation equals the library's, sets are read as they are, and a run's evaluation files say what happened."""

import hashlib
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from peft import LoraConfig, get_peft_model
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import (
    GenerationConfig,
    LlamaConfig,
    LlamaForCausalLM,
    MistralConfig,
    MistralForCausalLM,
    PreTrainedTokenizerFast,
)

from train import evaluate
from train.config import TrainConfig
from train.dataset import Manifest, Row
from train.errors import DataError, TrainError
from train.evaluate import EvaluationRows, write_evaluation
from train.metrics import TaskSpec
from train.model import has_plain_cache, load_student
from train.watch import Silent

TEMPLATE = (
    "{% for m in messages %}<|{{ m['role'] }}|>{{ m['content'] }}<|end|>{% endfor %}{% if add_generation_prompt %}<|assistant|>{% endif %}"
)
# PEFT asks transformers by a name that transformers is about to drop.
pytestmark = pytest.mark.filterwarnings("ignore:.*is_gradient_checkpointing.*:FutureWarning")
TASK = TaskSpec(label_field="intent", labels=("a", "b"), system="Answer in JSON.")


@pytest.fixture(scope="module")
def tokenizer() -> PreTrainedTokenizerFast:
    """Bytes as tokens, with special tokens for roles."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    core = Tokenizer(models.BPE(vocab={c: i for i, c in enumerate(alphabet)}, merges=[]))
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    core.decoder = decoders.ByteLevel()
    made = PreTrainedTokenizerFast(tokenizer_object=core, eos_token="<|end|>", pad_token="<|pad|>")
    made.add_special_tokens({"additional_special_tokens": ["<|system|>", "<|user|>", "<|assistant|>"]})
    made.chat_template = TEMPLATE
    return made


def random_model(tokenizer: PreTrainedTokenizerFast, kind: str = "llama") -> Any:
    """A random student whose greedy text varies, and stops now and then."""
    torch.manual_seed(7)
    sizes = {
        "vocab_size": len(tokenizer),
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "max_position_embeddings": 512,
        "initializer_range": 0.6,
    }
    model: Any = LlamaForCausalLM(LlamaConfig(**sizes))
    if kind == "mistral":
        model = MistralForCausalLM(MistralConfig(**sizes, sliding_window=8))
    # Many stop ids, so that rows of one batch stop at different steps.
    model.generation_config.eos_token_id = [tokenizer.eos_token_id, *range(100, 115)]
    return model.eval()


def prompts(count: int = 13) -> list[list[dict[str, str]]]:
    return [
        [
            {"role": "system", "content": "You are a desk."},
            {"role": "user", "content": f"message {i} " + "word " * (i * 5 % 7)},
        ]
        for i in range(count)
    ]


def one_by_one(model: Any, tokenizer: Any, asked: list[Any], new: int) -> list[str]:
    """The library's own greedy answer to each prompt alone, unpadded."""
    stops = model.generation_config.eos_token_id
    answers = []
    for prompt in asked:
        text = tokenizer.apply_chat_template(prompt, tokenize=False, add_generation_prompt=True)
        ids = tokenizer(text, add_special_tokens=False, return_tensors="pt")["input_ids"]
        options = GenerationConfig(do_sample=False, max_new_tokens=new, eos_token_id=stops, pad_token_id=tokenizer.pad_token_id)
        with torch.inference_mode():
            row = model.generate(ids, attention_mask=torch.ones_like(ids), generation_config=options)
        row = row[0, ids.shape[1] :].tolist()
        end = next((i for i, token in enumerate(row) if token in stops), len(row))
        answers.append(tokenizer.decode(row[:end], skip_special_tokens=True))
    return answers


@pytest.mark.parametrize("kind", ["llama", "sliding window"])
def test_batched_answers_equal_the_library_one_by_one(tokenizer: Any, kind: str) -> None:
    model = random_model(tokenizer, "llama" if kind == "llama" else "mistral")
    expected = one_by_one(model, tokenizer, prompts(), 40)
    assert len({len(text) for text in expected}) > 3, "the case should have rows that stop at different steps"
    assert evaluate.generate(model, tokenizer, prompts(), max_new_tokens=40, batch_size=5) == expected


def test_a_sliding_window_is_left_to_the_library(tokenizer: Any) -> None:
    assert has_plain_cache(random_model(tokenizer))
    assert not has_plain_cache(random_model(tokenizer, "mistral"))


@pytest.mark.parametrize("batch_size", [1, 4, 64])
def test_batch_size_does_not_change_answers(tokenizer: Any, batch_size: int) -> None:
    model = random_model(tokenizer)
    assert evaluate.generate(model, tokenizer, prompts(), max_new_tokens=24, batch_size=batch_size) == one_by_one(
        model, tokenizer, prompts(), 24
    )


@pytest.mark.parametrize("kind", ["llama", "sliding window"])
def test_an_answer_comes_with_its_tokens_and_their_mean_log_probability(tokenizer: Any, kind: str) -> None:
    model = random_model(tokenizer, "llama" if kind == "llama" else "mistral")
    asked = prompts(5)
    for prompt, written in zip(asked, evaluate.write(model, tokenizer, asked, max_new_tokens=20, batch_size=3), strict=True):
        text = tokenizer.apply_chat_template(prompt, tokenize=False, add_generation_prompt=True)
        ids = tokenizer(text, add_special_tokens=False)["input_ids"]
        chosen = []
        for _ in range(20):
            with torch.inference_mode():
                logprobs = model(input_ids=torch.tensor([ids + [t for t, _ in chosen]])).logits[0, -1].log_softmax(-1)
            token = int(logprobs.argmax())
            chosen.append((token, float(logprobs[token])))
            if token in model.generation_config.eos_token_id:
                break
        assert (written.prompt_tokens, written.tokens) == (len(ids), len(chosen))
        assert written.logprob == pytest.approx(sum(p for _, p in chosen) / len(chosen), abs=1e-4)
        assert written.seconds is not None and written.seconds > 0


def rows(count: int = 12) -> list[Row]:
    made = []
    for i, prompt in enumerate(prompts(count)):
        label = "ab"[i % 2]
        made.append(Row(f"r{i:02d}", prompt, json.dumps({"intent": label}), label, "kind", f"t/{label}", None))
    return made


def test_training_mode_is_restored(tokenizer: Any) -> None:
    model = random_model(tokenizer).train()
    evaluate.generate(model, tokenizer, prompts(2), max_new_tokens=2, batch_size=2)
    assert model.training


def test_no_prompts_give_no_answers(tokenizer: Any) -> None:
    assert evaluate.generate(random_model(tokenizer), tokenizer, [], max_new_tokens=2, batch_size=2) == []


def test_progress_is_told_the_rows_done(tokenizer: Any) -> None:
    told: list[int] = []
    evaluate.generate(random_model(tokenizer), tokenizer, prompts(7), max_new_tokens=2, batch_size=3, report=told.append)
    assert told == [3, 6, 7]


def test_equal_prompts_get_equal_answers(tokenizer: Any) -> None:
    model = random_model(tokenizer)
    answers = evaluate.generate(model, tokenizer, [prompts(1)[0]] * 4, max_new_tokens=12, batch_size=3)
    assert len(set(answers)) == 1


def test_the_common_beginning_leaves_each_row_a_token() -> None:
    assert evaluate.shared_prefix([[1, 2, 3], [1, 2, 4, 5]]) == 2
    assert evaluate.shared_prefix([[1, 2], [1, 2, 3]]) == 1
    assert evaluate.shared_prefix([[1], [2]]) == 0
    assert evaluate.shared_prefix([[1, 2, 3]]) == 0


def test_task_score_is_macro_f1_for_labels(tokenizer: Any) -> None:
    found = evaluate.task_score(random_model(tokenizer), tokenizer, rows(4), TASK, max_new_tokens=4, batch_size=4)
    assert (found.metric, found.value, found.n) == ("macro_f1", 0.0, 4)


def test_task_score_is_exact_match_where_no_row_has_a_label(tokenizer: Any) -> None:
    found = evaluate.task_score(
        random_model(tokenizer), tokenizer, [r._replace(label=None) for r in rows(4)], evaluate.TEXT, max_new_tokens=4, batch_size=4
    )
    assert found.metric == "exact_match"


def test_task_score_refuses_rows_that_nothing_can_be_scored_on(tokenizer: Any) -> None:
    blank = [r._replace(label=None, completion=None) for r in rows(2)]
    with pytest.raises(DataError, match="none of the 2 rows"):
        evaluate.task_score(random_model(tokenizer), tokenizer, blank, TASK, max_new_tokens=2, batch_size=2)


def test_a_sample_stays_when_rows_are_added() -> None:
    few, many = rows(12), [*rows(12), rows(1)[0]._replace(id="zz")]
    drawn = [r.id for r in evaluate.sample(few, 6, 1)]
    assert drawn == sorted(drawn)
    assert len(set(drawn) & {r.id for r in evaluate.sample(many, 6, 1)}) >= 5


def test_another_seed_draws_other_rows() -> None:
    assert evaluate.sample(rows(12), 6, 1) != evaluate.sample(rows(12), 6, 2)


def written(folder: Path) -> list[dict[str, Any]]:
    sets = [
        evaluate.EvaluationRows("test", rows(4), TASK),
        evaluate.EvaluationRows(
            "general", [r._replace(completion="x", label=None, kind=f"skill{i % 2}") for i, r in enumerate(rows(4))],
            evaluate.TEXT, ("exact_match",), slices=True,
        ),
    ]  # fmt: skip
    right = [r.completion or "" for r in rows(4)]
    wrong = ["?", *right[1:]]
    completions = {
        "test": {"base": ["?"] * 4, "sft": wrong, "dpo": right, "merged": wrong},
        "general": {m: ["x", "x", "x", "y"] for m in ("base", "sft", "dpo", "merged")},
    }
    return evaluate.write_evaluation(folder, sets, completions)


def test_evaluation_json_holds_what_is_returned(tmp_path: Path) -> None:
    returned = written(tmp_path)
    assert json.loads((tmp_path / "evaluation.json").read_text()) == returned
    assert all(set(line) == {"set", "model", "metric", "value", "low", "high", "n"} for line in returned)


def test_comparisons_follow_the_stages(tmp_path: Path) -> None:
    written(tmp_path)
    lines = json.loads((tmp_path / "comparisons.json").read_text())
    pairs = {(c["a"], c["b"]) for c in lines}
    assert pairs == {("base", "sft"), ("sft", "dpo"), ("base", "dpo"), ("dpo", "merged")}
    assert set(lines[0]) == {"set", "metric", "a", "b", "difference", "low", "high", "n", "p", "detectable"}


def test_the_general_probe_is_scored_by_skill(tmp_path: Path) -> None:
    found = {m["metric"]: m["value"] for m in written(tmp_path) if m["set"] == "general" and m["model"] == "dpo"}
    assert found == {"exact_match": 0.75, "exact_match/skill0": 1.0, "exact_match/skill1": 0.5}


def test_failures_are_the_last_models_wrong_rows_with_their_reasons(tmp_path: Path) -> None:
    written(tmp_path)
    failures = pq.read_table(tmp_path / "failures.parquet").to_pylist()
    assert [(f["set"], f["id"], f["model"], f["topic"]) for f in failures] == [("test", "r00", "merged", "t/a")]
    assert failures[0]["failed"] == ["json_validity", "label_accuracy", "exact_match"]
    assert failures[0]["input"] == prompts(1)[0][1]["content"]


def test_failures_are_what_the_next_round_of_data_reads(tmp_path: Path) -> None:
    written(tmp_path)
    (failure,) = pq.read_table(tmp_path / "failures.parquet").to_pylist()
    assert set(failure) >= {"id", "topic", "generator", "kind", "input", "prompt", "expected", "answer", "parsed", "failed", "reason"}
    assert (failure["expected"], failure["answer"], failure["parsed"]) == ('{"intent": "a"}', "?", False)
    assert failure["reason"] == "the answer is not one JSON object"
    assert failure["prompt"] == prompts(1)[0]


def test_a_wrong_label_is_the_reason_that_a_failure_gives(tmp_path: Path) -> None:
    told = {"test": {"sft": ['{"intent": "b"}', *(r.completion or "" for r in rows(4)[1:])]}}
    evaluate.write_evaluation(tmp_path, [evaluate.EvaluationRows("test", rows(4), TASK)], told)
    (failure,) = pq.read_table(tmp_path / "failures.parquet").to_pylist()
    assert failure["reason"] == "gave b, wanted a"


def test_each_systems_answers_lie_in_a_file_of_their_own(tmp_path: Path) -> None:
    written(tmp_path)
    lines = [json.loads(line) for line in (tmp_path / "answers/test/sft.jsonl").read_text().splitlines()]
    assert [(line["id"], line["answer"], line["right"]) for line in lines][:2] == [("r00", "?", False), ("r01", '{"intent": "b"}', True)]
    assert {"id", "input", "answer", "expected", "topic", "generator", "kind", "right"} == set(lines[0])


def test_evaluating_again_keeps_what_a_judge_said_and_drops_systems_that_are_gone(tmp_path: Path) -> None:
    written(tmp_path)
    for name in ("judged.base-sft.json", "product.jsonl"):
        (tmp_path / "answers/test" / name).write_text("{}")
    written(tmp_path)
    left = {path.name for path in (tmp_path / "answers/test").iterdir()}
    assert "judged.base-sft.json" in left and "product.jsonl" not in left


def test_the_analysis_has_slices_and_advice(tmp_path: Path) -> None:
    written(tmp_path)
    analysis = json.loads((tmp_path / "analysis.json").read_text())
    assert {"slices", "confidence", "advice"} <= set(analysis)
    assert analysis["advice"][0]["rival"] == "base"
    assert [s["set"] for s in analysis["slices"]] == ["test"]


def test_answers_hold_every_model_on_every_row(tmp_path: Path) -> None:
    written(tmp_path)
    assert pq.read_metadata(tmp_path / "answers.parquet").num_rows == 2 * 4 * 4


def test_a_jsonl_line_gets_the_tasks_system_message(tmp_path: Path) -> None:
    (tmp_path / "x.jsonl").write_text('{"text": "hello", "intent": "a"}\n\n')
    (row,) = evaluate.read_jsonl(tmp_path / "x.jsonl", TASK)
    assert row.prompt == [{"role": "system", "content": TASK.system}, {"role": "user", "content": "hello"}]
    assert row.label == "a"


def test_a_jsonl_prompt_keeps_its_own_system_message(tmp_path: Path) -> None:
    prompt = [{"role": "system", "content": "mine"}, {"role": "user", "content": "hi"}]
    (tmp_path / "x.jsonl").write_text(json.dumps({"prompt": prompt, "completion": "yes"}))
    (row,) = evaluate.read_jsonl(tmp_path / "x.jsonl", TASK)
    assert (row.prompt, row.completion) == (prompt, "yes")


@pytest.mark.parametrize(("text", "message"), [('{"label": "a"}', ":1: not"), ("{", ":1: not"), ("\n", "no rows")])
def test_a_jsonl_file_that_cannot_be_used_is_named_with_its_line(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "x.jsonl").write_text(text)
    with pytest.raises(DataError, match=message):
        evaluate.read_jsonl(tmp_path / "x.jsonl", TASK)


def test_a_jsonl_file_that_is_not_there_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="cannot be read"):
        evaluate.read_jsonl(tmp_path / "x.jsonl", TASK)


def messages(role: str, content: str | None) -> list[dict[str, str]] | None:
    return None if content is None else [{"role": role, "content": content}]


@pytest.fixture(scope="module")
def trained(tokenizer: Any, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, TrainConfig, Manifest]:
    """A run with a base, two adapters and a merged model, and an export with a test split and an external set."""
    root = tmp_path_factory.mktemp("trained")
    base = random_model(tokenizer)
    base.save_pretrained(root / "student")
    tokenizer.save_pretrained(root / "student")
    run_dir = root / "run"
    for seed, name in enumerate(("sft", "dpo"), 1):
        net = get_peft_model(random_model(tokenizer), LoraConfig(r=2, target_modules="all-linear", task_type="CAUSAL_LM"))
        torch.manual_seed(seed)
        for key, parameter in net.named_parameters():
            if "lora_B" in key:
                torch.nn.init.normal_(parameter, std=0.5)
        net.save_pretrained(run_dir / name)
    merged = net.merge_and_unload()
    merged.save_pretrained(run_dir / "merged")
    tokenizer.save_pretrained(run_dir / "merged")

    data = root / "data"
    files = {}
    for name, listed in {
        "sft/train.parquet": rows(10),
        "sft/test.parquet": rows(9),
        "evaluation/mine.parquet": [r._replace(completion=None) for r in rows(5)],
    }.items():
        records = [{**r._asdict(), "completion": messages("assistant", r.completion)} for r in listed]
        (data / name).parent.mkdir(parents=True, exist_ok=True)
        pq.write_table(pa.Table.from_pylist(records), data / name)
        files[name] = {"rows": len(listed), "sha256": hashlib.sha256((data / name).read_bytes()).hexdigest()}
    manifest = {
        "format": 1,
        "name": "x",
        "seed": 0,
        "task": TASK.model_dump(),
        "files": files,
        "teachers": [{"role": "teacher", "model": "offline/toy", "simulated": True, "terms": {}, "settled": True}],
        "decontamination": {"passed": True, "sets": [{"name": "mine", "rows": 5, "dropped": 0}]},
    }
    (data / "manifest.json").write_text(json.dumps(manifest))
    evaluation = {"test_rows": 6, "max_new_tokens": 12, "batch_size": 4}
    config = TrainConfig.model_validate({"student": str(root / "student"), "data": data, "evaluation": evaluation})
    return run_dir, config, Manifest.read(data)


def test_a_run_is_evaluated_stage_by_stage_on_every_set(trained: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    run_dir, config, manifest = trained
    probe = {"prompt": messages("user", "Say a"), "completion": "a", "skill": "copying"}
    (tmp_path / "probe.jsonl").write_text(json.dumps(probe))
    monkeypatch.setattr(evaluate, "GENERAL", tmp_path)
    measures = evaluate.evaluate_run(run_dir, config, manifest)
    found = {(m["set"], m["model"]): m["n"] for m in measures if m["metric"] in ("label_accuracy", "exact_match")}
    assert {key[1] for key in found} == {"teacher", "base", "few_shot", "sft", "dpo", "merged"}
    assert ("general", "few_shot") not in found
    assert {key[0] for key in found if key[1] == "teacher"} == {"test"}, "only there are its answers stored"
    assert {key[0]: n for key, n in found.items()} == {"test": 6, "mine": 5, "general": 1}


def test_a_system_takes_part_by_its_answers_where_it_has_all_of_them(trained: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    run_dir, config, manifest = trained
    monkeypatch.setattr(evaluate, "GENERAL", tmp_path)
    shutil.copytree(run_dir, tmp_path / "run")
    notes: list[str] = []
    progress = Silent()
    progress.note = notes.append  # type: ignore[method-assign]
    ids = [r.id for r in rows(9)]
    own = manifest._replace(files={"sft/test.parquet": manifest.files["sft/test.parquet"]})
    (tmp_path / "t.jsonl").write_text("".join(json.dumps({"id": i, "answer": '{"intent": "a"}'}) + "\n" for i in ids))
    evaluate.give_answers(tmp_path / "run", "teacher", tmp_path / "t.jsonl")
    measures = evaluate.evaluate_run(tmp_path / "run", config, own, progress=progress)
    share = next(m["value"] for m in measures if (m["set"], m["model"], m["metric"]) == ("test", "teacher", "label_accuracy"))
    assert 0 < share < 1, "its own answers and not the references"
    (tmp_path / "t.jsonl").write_text(json.dumps({"id": ids[0], "answer": "?"}) + "\n" + json.dumps({"id": ids[1], "answer": "?"}) + "\n")
    evaluate.give_answers(tmp_path / "run", "product", tmp_path / "t.jsonl")
    measures = evaluate.evaluate_run(tmp_path / "run", config, own, progress=progress)
    assert "product" not in {m["model"] for m in measures}
    assert any(note.startswith("product has no answer to ") for note in notes)


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("sft", '{"id": "a", "answer": "b"}', "name of a student"),
        ("x/y", '{"id": "a", "answer": "b"}', "no name"),
        ("teacher", '{"id": "a"}', ":1: not"),
        ("teacher", '{"id": "a", "answer": "b"}\n{"id": "a", "answer": "b"}', ":2: not"),
        ("teacher", "", "has no answers"),
    ],
)
def test_answers_that_cannot_take_part_are_refused(tmp_path: Path, name: str, text: str, message: str) -> None:
    (tmp_path / "t.jsonl").write_text(text)
    with pytest.raises(DataError, match=message):
        evaluate.give_answers(tmp_path, name, tmp_path / "t.jsonl")
    with pytest.raises(DataError, match="cannot be read"):
        evaluate.give_answers(tmp_path, "teacher", tmp_path / "nowhere.jsonl")


def test_speed_and_cost_of_a_run_are_in_its_analysis(trained: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    run_dir, config, manifest = trained
    monkeypatch.setattr(evaluate, "GENERAL", tmp_path)
    shutil.copytree(run_dir, tmp_path / "run")
    config = config.model_copy(update={"evaluation": config.evaluation.model_copy(update={"usd_per_hour": 2.0})})
    evaluate.evaluate_run(tmp_path / "run", config, manifest)
    analysis = json.loads((tmp_path / "run/analysis.json").read_text())
    speeds = {s["model"]: s for s in analysis["speed"]}
    assert set(speeds) == {"base", "few_shot", "sft", "dpo", "merged"}
    assert all(s["batch_size"] == 4 and s["p95_s"] >= s["median_s"] > 0 and s["tokens_per_second"] > 0 for s in speeds.values())
    assert speeds["few_shot"]["prompt_tokens"] > speeds["base"]["prompt_tokens"]
    assert all(s["usd"] > 0 for s in analysis["cost"]["students"])
    assert "simulated" in analysis["cost"]["teacher"]["why"]


def test_examples_that_do_not_fit_the_context_are_left_out_with_a_note(
    trained: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    run_dir, config, manifest = trained
    monkeypatch.setattr(evaluate, "GENERAL", tmp_path)
    notes: list[str] = []
    progress = Silent()
    progress.note = notes.append  # type: ignore[method-assign]
    config = config.model_copy(update={"evaluation": config.evaluation.model_copy(update={"few_shot": 10, "max_new_tokens": 200})})
    measures = evaluate.evaluate_run(run_dir, config, manifest, progress=progress)
    assert "few_shot" not in {m["model"] for m in measures}
    assert notes == ["10 examples do not fit the student's context: no few-shot base. Lower train.evaluation.few_shot."]


def test_examples_show_as_many_labels_as_there_are() -> None:
    shots = evaluate.examples(rows(12), 3, seed=1)
    assert {shot.label for shot in shots} == {"a", "b"}
    assert len(shots) == 3
    assert shots == evaluate.examples(rows(12)[::-1], 3, seed=1), "whatever the order of the file"
    assert evaluate.examples(rows(12), 0, seed=1) == []


def test_examples_stand_as_turns_between_system_message_and_question() -> None:
    shot = rows(1)[0]
    shown = evaluate.with_examples(prompts(3)[2], [shot])
    assert [m["role"] for m in shown] == ["system", "user", "assistant", "user"]
    assert shown[2]["content"] == shot.completion
    assert shown[3] == prompts(3)[2][1]


def test_each_stage_answers_with_its_own_weights(trained: Any, tokenizer: Any) -> None:
    run_dir, config, _ = trained
    said = {}
    for name, student in evaluate.run_models(run_dir, config):
        said[name] = evaluate.generate(student.model, student.tokenizer, prompts(6), max_new_tokens=12, batch_size=6)
    alone = load_student(config.student, config, adapter=run_dir / "sft")
    assert said["sft"] == evaluate.generate(alone.model, alone.tokenizer, prompts(6), max_new_tokens=12, batch_size=6)
    assert said["base"] == evaluate.generate(random_model(tokenizer), tokenizer, prompts(6), max_new_tokens=12, batch_size=6)
    assert len({tuple(texts) for texts in said.values()}) == 3, "base, sft and dpo differ; merged equals dpo"
    assert said["merged"] == said["dpo"]


def test_a_stage_that_a_run_does_not_have_is_left_out(trained: Any, tmp_path: Path) -> None:
    run_dir, config, _ = trained
    shutil.copytree(run_dir / "sft", tmp_path / "sft")
    assert [name for name, _ in evaluate.run_models(tmp_path, config)] == ["base", "sft"]


def test_a_fully_trained_stage_is_loaded_as_a_model(trained: Any, tmp_path: Path) -> None:
    run_dir, config, _ = trained
    shutil.copytree(run_dir / "merged", tmp_path / "sft")
    assert [name for name, _ in evaluate.run_models(tmp_path, config)] == ["base", "sft"]


def test_an_export_without_rows_to_evaluate_on_is_refused(trained: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    run_dir, config, manifest = trained
    monkeypatch.setattr(evaluate, "GENERAL", tmp_path)
    with pytest.raises(DataError, match="no test rows"):
        evaluate.evaluate_run(run_dir, config, manifest._replace(files={}))


def test_a_model_folder_is_evaluated_on_json_lines(trained: Any, tmp_path: Path) -> None:
    run_dir, config, _ = trained
    (tmp_path / "x.jsonl").write_text('{"text": "hello", "intent": "a"}\n{"text": "hi", "label": "b"}\n')
    measures = evaluate.evaluate_model(str(run_dir / "merged"), {"x": tmp_path / "x.jsonl"}, TASK, config, out=tmp_path / "out")
    accuracy = next(m for m in measures if m["metric"] == "label_accuracy")
    assert (accuracy["set"], accuracy["model"], accuracy["n"]) == ("x", "model", 2)
    assert json.loads((tmp_path / "out" / "evaluation.json").read_text()) == measures
    assert evaluate.evaluate_model(str(run_dir / "merged"), {"x": tmp_path / "x.jsonl"}, TASK, config) == measures


@pytest.fixture
def roomless(monkeypatch: pytest.MonkeyPatch) -> Callable[[int], None]:
    """Let generation run out of memory with more rows in a batch than given."""

    def limit(rows: int) -> None:
        for name in ("_greedy", "_greedy_by_library"):
            whole = getattr(evaluate, name)

            def decode(model: Any, prompts: list[list[int]], *args: Any, whole: Any = whole) -> Any:
                if len(prompts) > rows:
                    raise torch.OutOfMemoryError("too many")
                return whole(model, prompts, *args)

            monkeypatch.setattr(evaluate, name, decode)

    return limit


def test_a_batch_that_does_not_fit_is_halved_and_the_answers_stay(student: Path, roomless: Callable[[int], None]) -> None:
    net, tokenizer = load_student(str(student))
    prompts = [[{"role": "user", "content": f"What is snow{'?' * i}"}] for i in range(11)]
    whole = evaluate.write(net, tokenizer, prompts, max_new_tokens=6, batch_size=8)
    roomless(3)
    sizes: list[int] = []
    done: list[int] = []
    parts = evaluate.write(net, tokenizer, prompts, max_new_tokens=6, batch_size=8, halved=sizes.append, report=done.append)
    assert [w.text for w in parts] == [w.text for w in whole]
    assert sizes == [4, 2]
    assert done[-1] == 11


def test_a_single_answer_that_does_not_fit_says_what_to_set(student: Path, roomless: Callable[[int], None]) -> None:
    net, tokenizer = load_student(str(student))
    roomless(0)
    with pytest.raises(TrainError, match=r"Lower train\.evaluation\.max_new_tokens"):
        evaluate.write(net, tokenizer, [[{"role": "user", "content": "a"}]] * 2, max_new_tokens=4, batch_size=2)


def test_reasoning_is_kept_beside_the_answer_that_is_scored(tmp_path: Path) -> None:
    prompt = [{"role": "user", "content": "2 + 2?"}]
    row = Row("a", prompt, "<think>\nTwo and two.\n</think>\n4", None, None, "sums", None)
    s = EvaluationRows("test", [row], TaskSpec(output="text"))
    said = {"test": {"base": ["<think>\nNo idea"], "sft": ["<think>\nIt is four.\n</think>\n4"]}}
    measures = write_evaluation(tmp_path, [s], said)
    values = {(m["model"], m["metric"]): m["value"] for m in measures}
    assert (values["base", "exact_match"], values["sft", "exact_match"]) == (0.0, 1.0)
    assert (values["base", "endless_reasoning"], values["sft", "endless_reasoning"]) == (1.0, 0.0)
    line = json.loads((tmp_path / "answers/test/sft.jsonl").read_text())
    assert (line["answer"], line["expected"], line["reasoning"]) == ("4", "4", "It is four.")
    assert pq.read_table(tmp_path / "answers.parquet").to_pylist()[1]["completion"].startswith("<think>")

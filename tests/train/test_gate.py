"""The gate passes what is sound, refuses what was damaged, and says when it cannot see; what a person accepts is on record."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from train import drift, gate, metrics, model
from train.artifacts import Artifact, place
from train.config import Gate, TrainConfig
from train.dataset import Manifest
from train.errors import ConfigError, DataError
from train.merge import merge_run
from train.metrics import TaskSpec, read_answer
from train.sft import train_sft
from train.verdicts import held_back, read_gate, refused, summary, table
from train.watch import Silent

CLASSES = TaskSpec(output="text", labels=("a", "b"))


class Trained:
    """A toy run with an adapter, its merged model, and what the gate refers to."""

    def __init__(self, run_dir: Path, config: TrainConfig, manifest: Manifest) -> None:
        self.run_dir, self.config, self.manifest = run_dir, config, manifest
        self.sides = gate.held_out(config, manifest)
        self.reference = gate.refer(gate.load(place(run_dir, "adapter"), config), self.sides, config, Silent())

    def judge(self, folder: Path) -> gate.Judged:
        return gate.judge(Artifact("merged", "merged", folder), self.reference, self.sides, self.config, self.run_dir, Silent())


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory, student: Path, write_export: Callable[..., Path]) -> Trained:
    home = tmp_path_factory.mktemp("gate")
    manifest = Manifest.read(write_export(home / "data"))
    config = TrainConfig.model_validate(
        {
            "name": "toy",
            "data": home / "data",
            "out": home,
            "student": str(student),
            "lora": {"r": 8, "alpha": 16},
            "max_length": 128,
            "sft": {"per_device_train_batch_size": 8, "gradient_accumulation_steps": 1, "max_steps": 40, "learning_rate": 0.02},
            "evaluation": {"validation_rows": 4, "test_rows": 4, "points": 1, "max_new_tokens": 12, "batch_size": 8},
            "gate": {"delta": 20, "rows": 20},
        }
    )
    train_sft(config, manifest, home / "run", progress=Silent())
    merge_run(config, manifest, home / "run")
    return Trained(home / "run", config, manifest)


@pytest.fixture
def copy(trained: Trained, tmp_path: Path) -> Path:
    """A copy of the merged model, to damage."""
    return Path(shutil.copytree(trained.run_dir / "merged", tmp_path / "merged"))


def weights(folder: Path, change: Callable[[dict[str, torch.Tensor]], None]) -> None:
    tensors = load_file(folder / "model.safetensors")
    change(tensors)
    save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, folder / "model.safetensors", metadata={"format": "pt"})


def test_the_merged_model_passes_and_has_not_drifted(trained: Trained) -> None:
    judged = trained.judge(trained.run_dir / "merged")
    assert (judged.verdict, judged.why) == ("passed", [])
    assert judged.drift is not None
    assert judged.drift["top1"] == 1
    assert judged.drift["kl"] < 1e-6
    assert {score.side for score in judged.scores} == {"domain", "general"}


def test_a_scaled_layer_is_refused_and_named(trained: Trained, copy: Path) -> None:
    def scale(tensors: dict[str, torch.Tensor]) -> None:
        for name in [n for n in tensors if ".layers.1." in n and "norm" not in n]:
            tensors[name] = 4 * tensors[name]

    weights(copy, scale)
    judged = trained.judge(copy)
    assert judged.verdict != "passed"
    assert judged.drift is not None
    assert judged.drift["worst"]["name"] == "layer 1"
    layers = {found["name"]: found["error"] for found in judged.drift["places"]}
    assert layers["layer 0"] < 1e-4, "what comes before the damage is whole"
    assert layers["head"] < 1e-4, "and so is what comes after it, given the adapter's input"
    assert "layer 1" in gate.located([judged])[0]


def test_a_changed_template_is_refused_even_with_a_seal_of_its_own(trained: Trained, copy: Path) -> None:
    from train.template import seal

    path = copy / "chat_template.jinja"
    path.write_text(path.read_text().replace("<|im_end|>", "<|im_end|> "))
    judged = trained.judge(copy)
    assert judged.verdict == "failed"
    assert "cannot be loaded" in judged.why[0]
    (copy / "template.json").unlink()
    seal(model.load_tokenizer(str(copy)), copy)
    judged = trained.judge(copy)
    assert judged.verdict == "failed"
    assert any(line.startswith("template: ") and "first difference" in line for line in judged.why)


def test_a_dropped_stop_id_is_refused_though_our_own_loader_would_mend_it(trained: Trained, copy: Path) -> None:
    path = copy / "generation_config.json"
    settings = json.loads(path.read_text())
    settings["eos_token_id"] = 0
    path.write_text(json.dumps(settings))
    judged = trained.judge(copy)
    assert judged.verdict == "failed"
    assert "stops at [0], the adapter was trained and scored with [0, 2]" in judged.why[0]
    path.unlink()
    assert "a server would not know when to stop" in trained.judge(copy).why[0]


def test_a_lost_added_token_and_a_begin_token_are_refused(trained: Trained, copy: Path) -> None:
    path = copy / "tokenizer.json"
    whole = json.loads(path.read_text())
    lost = {**whole, "added_tokens": [token for token in whole["added_tokens"] if token["content"] != "<|im_start|>"]}
    path.write_text(json.dumps(lost))
    assert any(line.startswith("token ids: ") and "have other ids" in line for line in trained.judge(copy).why)
    begun = {
        "type": "TemplateProcessing",
        "pair": [{"Sequence": {"id": "A", "type_id": 0}}],
        "single": [{"SpecialToken": {"id": "<|endoftext|>", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}],
        "special_tokens": {"<|endoftext|>": {"id": "<|endoftext|>", "ids": [0], "tokens": ["<|endoftext|>"]}},
    }
    path.write_text(json.dumps({**whole, "post_processor": begun}))
    assert any("a text begins with the ids" in line for line in trained.judge(copy).why)


def test_an_adapter_merged_twice_is_refused(trained: Trained, copy: Path, student: Path) -> None:
    base = load_file(student / "model.safetensors")
    weights(copy, lambda tensors: tensors.update({n: 3 * tensors[n] - 2 * base[n] for n in tensors if n in base}))
    assert trained.judge(copy).verdict != "passed"


def test_weights_that_cannot_be_read_have_failed(trained: Trained, copy: Path) -> None:
    (copy / "model.safetensors").write_bytes(b"\x00" * 40)
    judged = trained.judge(copy)
    assert judged.verdict == "failed"
    assert "cannot be loaded" in judged.why[0]


def test_rows_that_one_pass_shows_to_be_equal_are_those_that_generation_gives(trained: Trained) -> None:
    told = trained.reference.told
    whole = gate.load(place(trained.run_dir, "merged"), trained.config)
    bare = model.load_student(trained.config.student)
    for student in (whole, bare):
        followed = drift.follow(student, told, batch_size=5)
        again = drift.tell(student, [row.prompt for row in told], max_new_tokens=12, batch_size=8)
        assert [f.whole for f in followed] == [
            row.ids == new.ids and row.stopped == new.stopped for row, new in zip(told, again, strict=True)
        ]


def answers(rights: list[bool]) -> list[Any]:
    return [read_answer(CLASSES, "x", "a" if right else "b", None, "a") for right in rights]


def weighed(lost: int, won: int, n: int, delta: float = 0.01) -> gate.Score:
    ours = [True] * lost + [False] * won + [i % 4 > 0 for i in range(n - lost - won)]
    theirs = [False] * lost + [True] * won + [i % 4 > 0 for i in range(n - lost - won)]
    side = gate.Side("domain", [None] * n, CLASSES, {"test": n})  # type: ignore[list-item]
    return next(s for s in gate.weigh(side, answers(ours), answers(theirs), delta=delta) if s.metric == "label_accuracy")


@pytest.mark.parametrize(
    ("lost", "won", "n", "verdict"),
    [(0, 0, 381, "passed"), (0, 0, 380, "undecided"), (3, 0, 967, "passed"), (5, 2, 967, "undecided"), (12, 0, 967, "failed")],
)
def test_equal_answers_are_no_proof_where_they_are_few(lost: int, won: int, n: int, verdict: str) -> None:
    score = weighed(lost, won, n)
    assert score.verdict == verdict, score.said
    assert (score.needed is None) == (verdict == "failed")
    assert ("too few to see 1; about" in score.said) == (verdict == "undecided")


def test_what_the_adapter_itself_never_gets_right_cannot_show_a_loss() -> None:
    side = gate.Side("domain", [None] * 900, CLASSES, {})  # type: ignore[list-item]
    scores = gate.weigh(side, answers([False] * 900), answers([False] * 900), delta=0.01)
    assert scores[0].verdict == "undecided"
    assert "the adapter has 0.0 %, which nothing could lose" in scores[0].said


def test_free_text_is_weighed_by_its_overlap_and_few_differences_widen_the_interval() -> None:
    task = TaskSpec(type="generation", output="text")
    listed = [[read_answer(task, "x", text, "the cat sat on the mat")] * 400 for text in ("the cat sat on the mat", "no")]
    side = gate.Side("domain", [None] * 400, task, {})  # type: ignore[list-item]
    (equal,) = gate.weigh(side, listed[0], listed[0], delta=0.01)
    assert (equal.metric, equal.verdict) == ("rouge_l", "passed")
    assert equal.low == pytest.approx(metrics.tango(0, 0, 400)[0])
    assert gate.weigh(side, listed[0], listed[1], delta=0.01)[0].verdict == "failed"


def test_the_score_interval_has_a_width_where_nothing_differs_and_holds_the_truth() -> None:
    low, high = metrics.tango(0, 0, 500)
    assert (low, high) == (pytest.approx(-3.8415 / 503.8415, abs=1e-5), pytest.approx(3.8415 / 503.8415, abs=1e-5))
    # Tango (1998), table II: 54 pairs both, 4 and 7 of one kind (of 75 or so) are not to hand; its symmetry and its limits are
    assert metrics.tango(4, 9, 60) == pytest.approx(tuple(-bound for bound in reversed(metrics.tango(9, 4, 60))))
    rng = np.random.default_rng(0)
    held = below = 0
    drawn = rng.multinomial(800, [0.015, 0.005, 0.98], 2000)  # a true loss of one point
    for lost, won, _ in drawn:
        low, high = metrics.tango(int(lost), int(won), 800)
        held += low <= -0.01 <= high
        below += low > -0.01
    assert held / 2000 > 0.93
    assert below / 2000 < 0.035, "an artifact that loses delta passes in about one case of forty"


def test_rows_are_those_of_all_held_out_sets_and_the_recipe_bounds_them(trained: Trained) -> None:
    config = trained.config.model_copy(update={"gate": Gate()})
    domain, general = gate.held_out(config, trained.manifest)
    assert domain.sets == {"test": 8, "validation": 8, "real": 4}
    assert general.sets == {"probe": 200, "gate": 768}
    bounded = gate.held_out(trained.config, trained.manifest)[1]
    assert len(bounded.rows) == sum(bounded.sets.values()) == 20


def whole(trained: Trained, tmp_path: Path) -> Path:
    return Path(shutil.copytree(trained.run_dir, tmp_path / "run"))


def test_a_refused_artifact_ships_only_when_a_person_accepts_it_on_record(trained: Trained, tmp_path: Path) -> None:
    run_dir = whole(trained, tmp_path)
    with pytest.raises(DataError, match="no artifact of this run was judged"):
        held_back(run_dir, "merged")
    strict = trained.config.model_copy(update={"gate": Gate(delta=1, rows=20)})
    record = gate.gate_run(run_dir, strict, trained.manifest)
    assert refused(record) == ["merged"]
    assert "nothing of this run ships" in summary(record)[-1]
    assert "undecided: label_accuracy".replace("_", " ") in str(held_back(run_dir, "merged"))
    assert "merged undecided" in str(held_back(run_dir, "adapter")), "nothing ships where the merged model may not"
    for wrong, words in (
        ({"name": "awq", "by": "ana", "because": "x"}, "the gate judged merged"),
        ({"name": "merged", "by": "", "because": "x"}, "say who decides and why"),
        ({"name": "merged", "by": "ana", "because": " "}, "say who decides and why"),
    ):
        name = wrong.pop("name")
        with pytest.raises(ConfigError, match=words):
            gate.accept(run_dir, name, at="2026-01-02T03:04:05+00:00", **wrong)
    gate.accept(run_dir, "merged", by="ana", because="twenty rows are all there are", at="2026-01-02T03:04:05+00:00")
    assert held_back(run_dir, "merged") is None
    assert "ana accepted it (2026-01-02): twenty rows" in "\n".join(summary(read_gate(run_dir)))
    again = gate.gate_run(run_dir, strict, trained.manifest)
    assert refused(again) == [], "the decision holds for the same files"
    assert table(again)[1][0][1] == "undecided, accepted"
    (run_dir / "merged/extra.txt").write_text("x")
    with pytest.raises(DataError, match=r"extra\.txt changed since the gate judged it"):
        held_back(run_dir, "merged")
    assert refused(gate.gate_run(run_dir, strict, trained.manifest)) == ["merged"], "other files want another decision"


def test_what_passed_needs_no_acceptance_and_an_edited_record_is_refused(trained: Trained, tmp_path: Path) -> None:
    run_dir = whole(trained, tmp_path)
    gate.gate_run(run_dir, trained.config, trained.manifest)
    assert held_back(run_dir, "merged") is None
    assert held_back(run_dir, "awq") == "awq was not judged"
    with pytest.raises(ConfigError, match="it passed"):
        gate.accept(run_dir, "merged", by="ana", because="x", at="2026")
    (run_dir / "gate.json").write_text("{")
    with pytest.raises(DataError, match="cannot be read as a gate's record"):
        read_gate(run_dir)


def test_a_run_without_a_merged_model_or_without_an_adapter_is_one_line(trained: Trained, tmp_path: Path) -> None:
    run_dir = whole(trained, tmp_path)
    shutil.rmtree(run_dir / "merged")
    with pytest.raises(DataError, match="has no merged model to judge"):
        gate.gate_run(run_dir, trained.config, trained.manifest)
    shutil.rmtree(run_dir / "sft")
    with pytest.raises(DataError, match="has no trained adapter"):
        gate.gate_run(run_dir, trained.config, trained.manifest)

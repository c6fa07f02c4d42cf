"""Embedding similarity: 1 for equal texts, the cosine of mean hidden states, and the metric that picks a checkpoint where it is named."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from train.config import TrainConfig
from train.dataset import Row
from train.errors import ModelError
from train.evaluate import EvaluationRows, write_evaluation
from train.metrics import TaskSpec, read_answer, score
from train.model import load_encoder, load_student
from train.sft import scorer
from train.similarity import Similarity

TASK = TaskSpec(type="generation", output="text")


def test_equal_texts_are_one_and_empty_ones_nothing(student: Path) -> None:
    similar = Similarity(str(student))
    pairs = [("snow is white", "snow is white"), ("", "snow"), ("coal", "grass is green")]
    found = similar([read_answer(TASK, "", said, wanted) for said, wanted in pairs])
    assert found[0].similarity == pytest.approx(1.0, abs=1e-5)
    assert found[1].similarity == 0.0
    assert 0 <= (found[2].similarity or 0) < 1


def test_it_is_the_cosine_of_mean_hidden_states_whatever_stands_beside_it(student: Path) -> None:
    net, tokenizer = load_encoder(str(student))

    def mean(text: str) -> torch.Tensor:
        with torch.no_grad():
            return (
                net(**{k: v for k, v in tokenizer(text, return_tensors="pt").items() if k != "token_type_ids"}).last_hidden_state[0].mean(0)
            )

    answers = [read_answer(TASK, "", "snow", "coal is black"), read_answer(TASK, "", "a much longer text about grass and snow", "blood")]
    for answer in Similarity(str(student))(answers):
        expected = torch.cosine_similarity(mean(answer.completion), mean(answer.reference or ""), dim=0).item()
        assert answer.similarity == pytest.approx(max(0.0, expected), abs=1e-5)


def test_answers_that_are_data_or_labels_are_left_alone(student: Path) -> None:
    answers = [read_answer(TaskSpec(output="json"), "", "{}", "{}"), read_answer(TaskSpec(output="text", labels=("a",)), "", "a", "a")]
    assert [a.similarity for a in Similarity(str(student))(answers)] == [None, None]
    assert "embedding_similarity" not in {m.metric for m in score({"x": answers}, resamples=10).measures["x"]}


def test_where_a_recipe_names_a_model_it_picks_the_checkpoint(
    student: Path, make_config: Callable[..., TrainConfig], tmp_path: Path
) -> None:
    config = make_config(evaluation={"embedding": str(student), "max_new_tokens": 4})
    net, tokenizer = load_student(str(student))
    rows = [Row(f"r{i}", [{"role": "user", "content": f"a{i}"}], "snow is white", None, None, None, None) for i in range(4)]
    assert scorer(net, tokenizer, rows, TASK, config)().metric == "embedding_similarity"
    said = {"test": {"base": ["snow is white"] * 4, "sft": [""] * 4}}
    measures = write_evaluation(tmp_path, [EvaluationRows("test", rows, TASK)], said, similar=Similarity(str(student)))
    values = {m["model"]: m["value"] for m in measures if m["metric"] == "embedding_similarity"}
    assert values == pytest.approx({"base": 1.0, "sft": 0.0}, abs=1e-5)


def test_a_model_that_cannot_be_loaded_is_named_with_its_setting(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"train\.evaluation\.embedding is .*none.*cannot be loaded"):
        Similarity(str(tmp_path / "none"))

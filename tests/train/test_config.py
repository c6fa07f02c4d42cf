"""A recipe's train half: what is read, what is refused, and in which words."""

from pathlib import Path

import pytest

from train.config import TrainConfig, check_options, near, read_config
from train.errors import ConfigError


def write(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "recipe.yaml"
    path.write_text(text, encoding="utf-8")
    return path


def test_the_data_half_of_a_recipe_is_left_alone(tmp_path: Path) -> None:
    config = read_config(write(tmp_path, "name: bank\nseed: 7\nteachers: {anything: 1}\nmix: {topic: 3}\ntrain: {method: qlora}\n"))
    assert (config.name, config.seed, config.method, config.data) == ("bank", 7, "qlora", Path("data/bank"))


def test_without_a_recipe_everything_has_a_default() -> None:
    config = read_config(None)
    assert config.sft_options["learning_rate"] == 2e-4
    assert config.dpo_options["loss_weights"] == [1.0, 0.2]


def test_the_command_line_wins_over_the_recipe(tmp_path: Path) -> None:
    recipe = write(tmp_path, "train: {student: a}")
    config = read_config(recipe, student="b", data=Path("d"), out=Path("o"))
    assert (config.student, config.data, config.out) == ("b", Path("d"), Path("o"))


def test_the_recipe_wins_over_the_defaults(tmp_path: Path) -> None:
    config = read_config(write(tmp_path, "train: {sft: {num_train_epochs: 1}, dpo: {beta: 0.5}}"))
    assert config.sft_options["num_train_epochs"] == 1
    assert config.dpo_options["beta"] == 0.5


def test_the_train_seed_wins_over_the_recipe_seed(tmp_path: Path) -> None:
    assert read_config(write(tmp_path, "seed: 1\ntrain: {seed: 2}")).seed == 2


def test_a_number_that_yaml_reads_as_text_is_a_number(tmp_path: Path) -> None:
    assert read_config(write(tmp_path, "train: {sft: {learning_rate: 2e-3}}")).sft["learning_rate"] == 2e-3


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("teecher: 1", ["unknown key `teecher`", "did you mean `teachers`?"]),
        ("train: {methud: lora}", ["unknown key `train.methud`", "did you mean `method`?"]),
        ("train: {lora: {rank: 4}}", ["train.lora.rank", "Known here: r, alpha"]),
        ("train: {evaluation: {point: 4}}", ["did you mean `points`?"]),
        ("train: {lora: {r: 0}}", ["train.lora.r is 0", "greater than or equal to 1"]),
        ("train: {method: dora}", ["train.method is 'dora'", "'lora', 'qlora' or 'full'"]),
        ("train: {general: {share: 1.5}}", ["train.general.share is 1.5"]),
        ("train: 3", ["train is int"]),
        ("train: {name: x}", ["train.name is not a setting"]),
        ("- a", ["a recipe is a mapping"]),
        ("a: [", ["cannot be read as YAML"]),
    ],
)
def test_a_wrong_recipe_is_refused_with_field_and_value(tmp_path: Path, text: str, words: list[str]) -> None:
    recipe = write(tmp_path, text)
    with pytest.raises(ConfigError) as error:
        read_config(recipe)
    assert all(word in str(error.value) for word in [str(recipe), *words])


def test_a_missing_recipe_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no such recipe"):
        read_config(tmp_path / "none.yaml")


def test_an_option_that_the_run_decides_is_refused_with_its_place() -> None:
    with pytest.raises(ConfigError, match=r"train\.sft\.max_length is set by the run.*train\.max_length"):
        check_options("train.sft", {"max_length": 3}, ["max_length"])


def test_an_unknown_option_is_refused_with_the_near_one() -> None:
    with pytest.raises(ConfigError, match=r"unknown option `learning_rat` .did you mean `learning_rate`"):
        check_options("train.sft", {"learning_rat": 3}, ["learning_rate"])


def test_nothing_near_suggests_nothing() -> None:
    assert near("zzz", ["learning_rate"]) == ""


def test_dpo_null_means_no_dpo(tmp_path: Path) -> None:
    assert read_config(write(tmp_path, "train: {dpo: null}")).dpo is None


def test_a_configuration_survives_json() -> None:
    config = TrainConfig(general={"share": 0.2})  # type: ignore[arg-type]
    assert TrainConfig.model_validate(config.model_dump(mode="json")) == config


def test_a_preset_gives_rank_and_layers_and_what_is_said_beside_it_wins() -> None:
    simple = TrainConfig.model_validate({"lora": {"preset": "simple"}}).lora
    assert (simple.r, simple.alpha, simple.target_modules) == (8, 16, "attention")
    domain = TrainConfig.model_validate({"lora": {"preset": "domain", "r": 64}}).lora
    assert (domain.r, domain.alpha, domain.target_modules) == (64, 64, "all-linear")


@pytest.mark.parametrize(("rows", "epochs"), [(4, 25), (10, 10), (33, 3), (34, 3), (5000, 3), (10_000, 2), (50_000, 1)])
def test_few_rows_are_seen_more_often_and_many_less(rows: int, epochs: int) -> None:
    assert TrainConfig().sft_epochs(rows) == epochs
    assert TrainConfig(sft={"num_train_epochs": 7}).sft_epochs(rows) == 7


def test_all_weights_learn_at_a_tenth_of_the_adapters_rate() -> None:
    assert TrainConfig(method="full").sft_options["learning_rate"] == pytest.approx(2e-5)
    assert TrainConfig(method="full", sft={"learning_rate": 1e-3}).sft_options["learning_rate"] == 1e-3

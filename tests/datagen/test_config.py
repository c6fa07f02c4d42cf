"""Recipes: what loads, what is refused, and how files that they name are read."""

from pathlib import Path

import pytest

from datagen.config import TextFile, load_evaluation_sets, load_recipe, load_seeds, read_texts
from datagen.errors import ConfigError

RECIPES = Path(__file__).parents[2] / "recipes"
RECIPE = """
name: shop
taxonomy: shop.yaml
teachers: {teacher: {model: test/big}}
mix: {topic: 8}
"""


def _write(folder: Path, text: str) -> Path:
    path = folder / "recipe.yaml"
    path.write_text(text)
    return path


@pytest.mark.parametrize("path", sorted(RECIPES.glob("*.yaml")), ids=lambda p: p.stem)
def test_every_recipe_that_is_shipped_loads(path: Path) -> None:
    assert load_recipe(path).recipe.name


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("concurency: 3", "concurency is not a known key. Did you mean 'concurrency'?"),
        ("concurrency: 0", "concurrency is 0"),
        ("budget_usd: lots", "budget_usd is 'lots'"),
        ("split: {test: 0.4, validation: 0.3}", "holds out more than half"),
        ("evaluation_sets: [{name: test, path: x}]", "names of their own"),
        ("teachers2: {}", "Did you mean 'teachers'?"),
    ],
)
def test_a_wrong_recipe_is_refused_with_its_field(tmp_path: Path, line: str, message: str) -> None:
    with pytest.raises(ConfigError) as error:
        load_recipe(_write(tmp_path, RECIPE + line))
    assert message in str(error.value)
    assert "recipe.yaml" in str(error.value)


def test_a_mix_of_nothing_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="asks for nothing"):
        load_recipe(_write(tmp_path, RECIPE.replace("{topic: 8}", "{topic: 0}")))


def test_another_teacher_takes_every_role(tmp_path: Path) -> None:
    recipe = load_recipe(_write(tmp_path, RECIPE), teacher="openai/gpt-4o").recipe
    assert {config.model for config in recipe.teachers.by_role().values()} == {"openai/gpt-4o"}


def test_scale_multiplies_the_mix(tmp_path: Path) -> None:
    assert load_recipe(_write(tmp_path, RECIPE), scale=0.5).recipe.mix == {"topic": 4}


def test_weak_and_judge_default_to_the_teacher(tmp_path: Path) -> None:
    roles = load_recipe(_write(tmp_path, RECIPE)).recipe.teachers.by_role()
    assert roles["weak"] == roles["judge"] == roles["teacher"]


def test_a_path_is_found_beside_the_recipe(tmp_path: Path) -> None:
    (tmp_path / "shop.yaml").write_text("x: 1")
    assert load_recipe(_write(tmp_path, RECIPE)).resolve("shop.yaml") == tmp_path / "shop.yaml"


def test_a_path_that_is_nowhere_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"'none\.yaml' is not there"):
        load_recipe(_write(tmp_path, RECIPE)).resolve("none.yaml")


def test_a_variable_that_is_not_set_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="needs an environment variable"):
        load_recipe(_write(tmp_path, RECIPE)).resolve("${NOT_SET_AT_ALL}/x")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ('{"text": "a"}\n{"text": ', ":2: not valid JSON"),
        ('{"txt": "a"}', ":1: has no text field 'text' \\(it has: txt\\)"),
        ("", "has no rows"),
        ("text,label\na,b\n", "is not JSON lines \\(begins with 'text,label"),
        ('{\n "text": "a"}', "is not JSON lines \\(a JSON document over several lines"),
        ('[{"text": "a"}]', ":1: has no text field 'text' \\(it has: a JSON list"),
        ("{" + '"a":[' * 100_000, ":1: not valid JSON"),
        (b'{"text": "a"}\n{"text": "caf\xe9"}\n', ":2: is not UTF-8 \\(byte 0xe9 at 14"),
        (b"PAR1\x15\x04", "is a Parquet file"),
        ('{"text": "half \\ud83d"}', ":1: holds NUL or half of a surrogate pair"),
    ],
)
def test_a_wrong_text_file_is_refused_with_its_line(tmp_path: Path, content: str | bytes, message: str) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(ConfigError, match=message):
        read_texts(path, TextFile(path=str(path)))


def test_a_line_ends_where_the_line_ends_and_not_at_a_sign_inside_a_text(tmp_path: Path) -> None:
    (tmp_path / "rows.jsonl").write_bytes(b"\xef\xbb\xbf" + '{"text": "one\u2028line"}\r\n\n{"text": "b"}'.encode())
    assert read_texts(tmp_path / "rows.jsonl", TextFile(path="")) == [("one\u2028line", None), ("b", None)]
    with pytest.raises(ConfigError, match="cannot be read"):
        read_texts(tmp_path, TextFile(path=""))


def test_unknown_labels_of_an_evaluation_set_are_dropped_or_abstained_from(tmp_path: Path) -> None:
    (tmp_path / "e.jsonl").write_text('{"text": "a", "label": "late"}\n{"text": "b", "label": "?"}\n')
    line = "evaluation_sets: [{name: one, path: e.jsonl}, {name: two, path: e.jsonl, unknown: abstain}]"
    sets, notes = load_evaluation_sets(load_recipe(_write(tmp_path, RECIPE + line)), {"late": ""}, "other")
    assert [s.labels for s in sets] == [("late", None), ("late", "other")]
    assert not notes


def test_an_optional_set_without_its_variable_is_left_out_with_a_note(tmp_path: Path) -> None:
    line = "evaluation_sets: [{name: real, path: '${NOT_SET_AT_ALL}/x.jsonl', optional: true}]"
    sets, notes = load_evaluation_sets(load_recipe(_write(tmp_path, RECIPE + line)), {}, None)
    assert sets == ()
    assert "'real' is left out" in notes[0]


def test_seeds_of_an_unknown_label_are_refused(tmp_path: Path) -> None:
    (tmp_path / "s.jsonl").write_text('{"text": "a", "label": "late"}\n{"text": "b", "label": "nope"}\n')
    loaded = load_recipe(_write(tmp_path, RECIPE + "seeds: {path: s.jsonl}"))
    with pytest.raises(ConfigError, match=":2: label is 'nope'"):
        load_seeds(loaded, {"late": ""})
    assert load_seeds(loaded, {"late": "", "nope": ""}) == {"late": ("a",), "nope": ("b",)}


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ("limits: {requests_per_minute: -1}", "teachers.teacher.limits.requests_per_minute is -1"),
        ("limits: {rpm: 5}", "rpm is not a known key"),
        ("lane: direkt", "teachers.teacher.lane is 'direkt'"),
        ("structured: yaml", "teachers.teacher.structured is 'yaml'"),
        ('api_bases: ["http://a"], params: {api_base: "http://b"}', "api_bases and params.api_base both name endpoints"),
    ],
)
def test_a_teachers_settings_are_checked(tmp_path: Path, fields: str, message: str) -> None:
    text = RECIPE.replace("{model: test/big}", "{model: test/big, " + fields + "}")
    with pytest.raises(ConfigError) as caught:
        load_recipe(_write(tmp_path, text))
    assert message in str(caught.value)

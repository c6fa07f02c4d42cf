"""Prompt files: parts, hashes, and variables that nobody gave."""

from pathlib import Path

import pytest

from datagen.errors import ConfigError
from datagen.plan import make_plan
from datagen.prompts import GIVEN, PROMPTS, load_prompt, own_texts, render
from datagen.taxonomy import Taxonomy, load_taxonomy


@pytest.mark.parametrize("path", sorted(PROMPTS.glob("*.md")), ids=lambda p: p.stem)
def test_every_prompt_has_a_comment_and_two_parts(path: Path) -> None:
    assert path.read_text().startswith("{#")
    parts = ("user",) if path.stem == "repair" else ("system", "user")  # a repair goes on with a conversation
    assert [part.role for part in load_prompt(path.stem, wanted=parts).parts] == list(parts)


def test_a_changed_prompt_has_another_hash(tmp_path: Path) -> None:
    (tmp_path / "a.md").write_text("[system]\nx\n[user]\ny")
    first, _ = render("a", {}, tmp_path)
    load_prompt.cache_clear()
    (tmp_path / "a.md").write_text("[system]\nx!\n[user]\ny")
    second, messages = render("a", {}, tmp_path)
    assert first.split("@")[0] == second.split("@")[0] == "a"
    assert first != second
    assert [message.content for message in messages] == ["x!", "y"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[system]\n{{ missing }}\n[user]\ny", "'missing' is undefined; given: there"),
        ("[system]\nx", "needs one [system] and one [user] part"),
        ("[system]\n{% if %}\n[user]\ny", "not valid Jinja"),
    ],
)
def test_a_wrong_prompt_is_refused_with_its_file(tmp_path: Path, text: str, message: str) -> None:
    load_prompt.cache_clear()
    (tmp_path / "bad.md").write_text(text)
    with pytest.raises(ConfigError) as error:
        render("bad", {"there": 1}, tmp_path)
    assert message in str(error.value)
    assert "bad.md" in str(error.value)


def test_an_unknown_prompt_names_the_known_ones() -> None:
    with pytest.raises(ConfigError, match="known: answer, compare"):
        load_prompt("nothing")


@pytest.mark.parametrize(
    ("generator", "prompt"), [("reasoning", "write_inputs"), ("seed", "rewrite_input"), ("adversarial", "write_adversarial")]
)
def test_every_part_of_a_brief_has_a_line_of_its_own(shop: Taxonomy, generator: str, prompt: str) -> None:
    item = make_plan(shop, {generator: 4}, per_call=4, seed=1, seeds={}, replace_seeds=False)[0]
    variables = {"domain": shop.description, "task": shop.task, "dimensions": shop.dimensions, "kinds": shop.adversarial, "item": item}
    lines = render(prompt, variables)[1][1].content.splitlines()
    starts = [line.split(":")[0] for line in lines]
    assert {"Topic", "About", "Tone", "Number of inputs"} <= set(starts)
    assert lines[-1] == f"Number of inputs: {item.count}"


@pytest.mark.parametrize("name", ["answer", "reason", "judge", "compare"])
def test_the_long_part_of_a_prompt_comes_first_and_is_the_same_for_every_item(name: str) -> None:
    """A provider caches the longest common beginning, from 1,024 tokens on: here the task, its labels and its policy."""
    taxonomy, _ = load_taxonomy(Path(__file__).parents[2] / "taxonomies/banking_support.yaml")
    variables = {"task": taxonomy.task, "labels": taxonomy.labels(), "policy": taxonomy.policy_lines()}
    texts = []
    for number in range(3):
        given = dict.fromkeys(GIVEN[name], f"{number} is this one's own")
        _, messages = render(name, {**variables, "item": None, **given})
        assert [m.role for m in messages] == ["system", "user"]
        texts.append("\n".join(m.content for m in messages))
    shared = next(i for i, signs in enumerate(zip(*texts, strict=False)) if len(set(signs)) > 1)
    assert shared > 4_500
    assert len(texts[0]) - shared < 200


@pytest.mark.parametrize("name", ["write_inputs", "rewrite_input", "write_adversarial"])
def test_no_prompt_s_system_message_depends_on_the_item(name: str) -> None:
    system = (PROMPTS / f"{name}.md").read_text().split("[user]")[0].split("[system]")[1]
    assert "item" not in system
    assert "{{ task.input }}" in system


def test_a_prompt_files_own_texts_are_what_stands_between_its_variables(tmp_path: Path) -> None:
    (tmp_path / "one.md").write_text(
        "{# why #}\n[system]\nSay {{ what }} to {% for name in names %}each {{ name }}{% endfor %}\n[user]\nNow.\n"
    )
    assert own_texts("A bank.", tmp_path) == {"domain": ("A bank.",), "one": ("\n[system]\nSay ", " to ", "each ", "\n[user]\nNow.")}


def test_a_file_that_is_no_prompt_is_named(tmp_path: Path) -> None:
    (tmp_path / "bad.md").write_text("{{ open")
    with pytest.raises(ConfigError, match=r"bad\.md: cannot be read as a prompt"):
        own_texts("", tmp_path)


def test_a_seeds_axis_is_told_to_the_teacher_only_where_there_is_one(shop: Taxonomy) -> None:
    (item, *_) = make_plan(shop, {"seed": 4}, per_call=4, seed=1, seeds={}, replace_seeds=False)
    variables = {"domain": shop.description, "task": shop.task, "dimensions": shop.dimensions, "item": item, "axes": {"edge_case": "rare"}}
    plain = render("rewrite_input", variables)[1][1].content
    told = render("rewrite_input", {**variables, "item": item.model_copy(update={"axis": "edge_case"})})[1][1].content
    line = "Differ from the seed, and from each other, above all in edge case: rare\n"
    assert line in told
    assert told.replace(line, "") == plain

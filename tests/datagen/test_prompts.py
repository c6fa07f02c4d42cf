"""Prompt files: parts, hashes, and variables that nobody gave."""

from pathlib import Path

import pytest

from datagen.errors import ConfigError
from datagen.plan import make_plan
from datagen.prompts import PROMPTS, load_prompt, render
from datagen.taxonomy import Taxonomy


@pytest.mark.parametrize("path", sorted(PROMPTS.glob("*.md")), ids=lambda p: p.stem)
def test_every_prompt_has_a_comment_and_two_parts(path: Path) -> None:
    assert path.read_text().startswith("{#")
    assert [role for role, _ in load_prompt(path.stem).parts] == ["system", "user"]


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

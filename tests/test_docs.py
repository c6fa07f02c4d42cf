"""The docs keep up: every command, target, recipe key, generator, filter, view and metric is documented; the README's SQL runs."""

import re
from pathlib import Path

import pytest
import yaml
from typer.main import get_command

from datagen import cli as datagen_cli
from datagen.filters import EXAMPLE_FILTERS, GATES, SET_FILTERS
from datagen.generators import GENERATORS
from datagen.store import Store
from train import cli as train_cli
from train.metrics import GLOSSARY

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
MAKEFILE = (ROOT / "Makefile").read_text(encoding="utf-8")


@pytest.mark.parametrize("name", [*GENERATORS, *EXAMPLE_FILTERS, *SET_FILTERS, *GATES])
def test_every_generator_and_filter_is_in_the_readme(name: str) -> None:
    assert f"`{name}`" in README


@pytest.mark.parametrize("target", re.findall(r"^([a-z-]+):.*##", MAKEFILE, re.MULTILINE))
def test_every_make_target_is_marked_phony_and_has_help(target: str) -> None:
    phony = re.search(r"^\.PHONY: (.*)$", MAKEFILE, re.MULTILINE)
    assert phony
    assert target in phony.group(1).split()


@pytest.mark.parametrize("target", re.findall(r"make ([a-z-]+)", README))
def test_every_make_target_of_the_readme_exists(target: str) -> None:
    assert re.search(rf"^{target}:", MAKEFILE, re.MULTILINE)


@pytest.mark.parametrize("cli", [datagen_cli, train_cli], ids=["datagen", "train"])
def test_every_command_and_every_option_has_help(cli: object) -> None:
    command = get_command(cli.app)  # type: ignore[attr-defined]
    for name, verb in command.commands.items():  # type: ignore[attr-defined]
        assert verb.help, name
    verbs = {"datagen": "plan generate costs curate review export report sql", "train": "run sft dpo evaluate merge predict report"}
    package = cli.__name__.split(".")[0]  # type: ignore[attr-defined]
    assert set(verbs[package].split()) <= set(command.commands)  # type: ignore[attr-defined]


def test_the_readme_opens_with_the_two_commands() -> None:
    block = README.split("```")[1]
    assert [line.split("#")[0].strip() for line in block.strip().splitlines()] == ["make datagen", "make train"]


def test_the_ci_runs_exactly_the_readmes_checks() -> None:
    assert "make check test" in README
    assert (ROOT / ".ci/run").read_text(encoding="utf-8").rstrip().splitlines()[-1] == "make check test"


@pytest.mark.parametrize("query", re.search(r"```sql\n(.*?)```", README, re.DOTALL).group(1).split(";"))  # type: ignore[union-attr]
def test_the_readmes_sql_runs(query: str, store: Store) -> None:
    if query.strip():
        store.query(query)


def test_every_view_is_in_the_readmes_sql() -> None:
    views = {"sft", "preference", "unpaired", "accepted", "rejected", "coverage", "costs", "spending", "missing", "lineage", "grounding"}
    sql = re.search(r"```sql\n(.*?)```", README, re.DOTALL)
    assert sql
    assert views == {view for view in views if re.search(rf"FROM {view}\b", sql.group(1))}


@pytest.mark.parametrize("recipe", sorted((ROOT / "recipes").glob("*.yaml")), ids=lambda p: p.stem)
def test_every_recipe_says_at_its_top_what_it_is(recipe: Path) -> None:
    assert recipe.read_text(encoding="utf-8").startswith("# ")
    assert yaml.safe_load(recipe.read_text(encoding="utf-8"))["description"]


def test_every_metric_has_a_sentence() -> None:
    assert all(len(str(sentence)) > 20 for sentence in GLOSSARY.values())


def test_the_changelog_names_this_version() -> None:
    version = re.search(r'^version = "(.*)"$', (ROOT / "pyproject.toml").read_text(encoding="utf-8"), re.MULTILINE)
    assert version
    assert f"## {version.group(1)}" in (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")

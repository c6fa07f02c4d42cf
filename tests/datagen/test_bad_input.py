"""What a user can get wrong before a run: each mistake is one clear line and exit 2, and nobody was asked."""

import resource
import subprocess
import sys
from pathlib import Path
from typing import Any

import duckdb
import pytest

from datagen import prompts
from datagen.cli import main
from datagen.store import MIGRATIONS, Store

RECIPE = """
name: shop
taxonomy: shop.yaml
teachers:
  teacher: {model: openai/local, max_tokens: 50, price: {input_per_million: 1, output_per_million: 2}, params: {api_base: "URL", api_key: none}}
mix: {topic: 8, adversarial: 4}
concurrency: 2
retries: 2
terms: {openai/local: {decision: a scripted server, by: tests}}
"""


@pytest.fixture
def recipe(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, server: Any, shop_path: Path, shop_reply: Any) -> Path:
    monkeypatch.chdir(tmp_path)
    server.reply = shop_reply
    path = tmp_path / "shop-recipe.yaml"
    path.write_text(RECIPE.replace("URL", server.url))
    return path


def refusal(capsys: pytest.CaptureFixture[str], *arguments: Any) -> str:
    """The one error line of a command that exits 2."""
    with pytest.raises(SystemExit) as exit_:
        main([str(argument) for argument in arguments])
    said = capsys.readouterr().err
    errors = [line for line in said.splitlines() if line.startswith("error: ")]
    assert exit_.value.code == 2, said
    assert len(errors) == 1
    assert "Traceback" not in said
    return errors[0]


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("budget", "", ""),
        ("concurrency: 2", "concurrency: -1", "concurrency is -1"),
        ("concurrency: 2", "budget_usd: -1", "budget_usd is -1"),
        ("concurrency: 2", "budget_usd: 0", "budget_usd is 0, so no call can be paid"),
        ("model: openai/local", "model: nobody/knows", "'nobody/knows', which no role uses".replace("'nobody/knows'", "openai/local")),
        ("price: {input_per_million: 1, output_per_million: 2}, ", "", "whose price is not known. Set teachers."),
        ("input_per_million: 1", "input_per_million: -1", "price.input_per_million is -1"),
        ("topic: 8", "topic: -8", "mix.topic is -8"),
        ("topic: 8, adversarial: 4", "topic: 0", "mix asks for nothing"),
        ("max_tokens: 50", "max_tokens: 0", "max_tokens is 0"),
        ("taxonomy: shop.yaml", "taxonomy: nowhere.yaml", "'nowhere.yaml' is not there"),
    ][1:],
)
def test_a_wrong_value_is_refused_by_name(
    recipe: Path, server: Any, capsys: pytest.CaptureFixture[str], old: str, new: str, message: str
) -> None:
    text = recipe.read_text()
    assert old in text
    recipe.write_text(text.replace(old, new))
    assert message in refusal(capsys, "generate", "--recipe", recipe)
    assert not server.bodies


def test_a_missing_key_names_its_variable(recipe: Path, server: Any, capsys: pytest.CaptureFixture[str]) -> None:
    recipe.write_text(recipe.read_text().replace(f'params: {{api_base: "{server.url}", api_key: none}}', "params: {}"))
    assert "needs OPENAI_API_KEY in the environment" in refusal(capsys, "generate", "--recipe", recipe)


def test_a_budget_of_0_is_enough_for_a_teacher_that_costs_nothing(recipe: Path, capsys: pytest.CaptureFixture[str]) -> None:
    recipe.write_text(
        recipe.read_text()
        .replace("concurrency: 2", "budget_usd: 0")
        .replace("input_per_million: 1, output_per_million: 2", "input_per_million: 0, output_per_million: 0")
    )
    with pytest.raises(SystemExit) as exit_:
        main(["generate", "--recipe", str(recipe)])
    assert not exit_.value.code


@pytest.mark.parametrize(
    ("name", "old", "new", "message"),
    [
        ("judge", "{{ answer }}", "{{ anwser }}", "judge.md: 'anwser' is undefined"),
        ("write_adversarial", "{{ item.kind }}", "{{ item.sort }}", "has no attribute 'sort'"),
        ("answer", "{{ input }}", "{{ input", "answer.md: not valid Jinja"),
        ("compare", "[user]", "[usr]", "needs one [system] and one [user] part"),
    ],
)
def test_a_mistake_in_a_prompt_is_found_before_the_first_call(
    recipe: Path, tmp_path: Path, server: Any, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch,
    name: str, old: str, new: str, message: str,
) -> None:  # fmt: skip
    folder = tmp_path / "prompts"
    folder.mkdir()
    for path in prompts.PROMPTS.glob("*.md"):
        text = path.read_text()
        assert path.stem != name or old in text
        (folder / path.name).write_text(text.replace(old, new) if path.stem == name else text)
    load, render = prompts.load_prompt, prompts.render
    monkeypatch.setattr(prompts, "render", lambda asked, variables, _=None: render(asked, variables, folder))
    monkeypatch.setattr(prompts, "load_prompt", lambda asked, _=None, *parts: load(asked, folder, *parts))
    assert message in refusal(capsys, "generate", "--recipe", recipe)
    assert not server.bodies


def test_every_prompt_file_is_checked() -> None:
    assert {*prompts.GIVEN, "repair"} == {path.stem for path in prompts.PROMPTS.glob("*.md")}


def test_a_store_of_a_newer_version_is_left_alone(recipe: Path, server: Any, capsys: pytest.CaptureFixture[str]) -> None:
    store = Store(Path("data/shop.duckdb"))
    store.set_settings({"version": "99"})
    before = store.path.read_bytes()
    message = refusal(capsys, "generate", "--recipe", recipe)
    assert f"has version 99; this program knows up to {len(MIGRATIONS)}" in message
    assert store.path.read_bytes() == before
    assert not server.bodies


def test_another_program_s_database_is_left_alone(recipe: Path, server: Any, capsys: pytest.CaptureFixture[str]) -> None:
    Path("data").mkdir()
    with duckdb.connect("data/shop.duckdb") as con:
        con.execute("CREATE TABLE theirs (x INTEGER)")
    assert "not a store of this program" in refusal(capsys, "generate", "--recipe", recipe)
    Path("data/shop.duckdb").write_text("no database")
    assert "is not a store that can be read" in refusal(capsys, "generate", "--recipe", recipe).replace(
        "cannot be opened", "is not a store that can be read"
    )
    assert not server.bodies


@pytest.mark.parametrize("place", ["/proc/retort/shop.duckdb", "a-file/shop.duckdb"])
def test_a_folder_that_cannot_be_written_is_named(recipe: Path, server: Any, capsys: pytest.CaptureFixture[str], place: str) -> None:
    Path("a-file").write_text("in the way")
    message = refusal(capsys, "generate", "--recipe", recipe, "--store", place)
    assert str(Path(place).parent) in message
    assert "--store" in message
    assert not server.bodies


def test_a_folder_for_the_export_that_cannot_be_written_is_named(recipe: Path, capsys: pytest.CaptureFixture[str]) -> None:
    recipe.write_text(recipe.read_text() + "split: {validation: 0, test: 0}\nfilters: {near_duplicate: {threshold: 0.99}}\n")
    for verb in ("generate", "curate"):
        with pytest.raises(SystemExit) as exit_:
            main([verb, "--recipe", str(recipe)])
        assert not exit_.value.code
    capsys.readouterr()
    assert "/proc/retort" in refusal(capsys, "export", "--recipe", recipe, "--out", "/proc/retort")


@pytest.mark.parametrize("room", [0, 64 * 1024])
def test_a_full_disk_is_one_line_and_before_the_first_call_if_it_was_full_then(recipe: Path, server: Any, room: int) -> None:
    """A limit on the size of files stands for the disk: writes beyond it fail alike, for root too."""
    done = subprocess.run(
        [sys.executable, "-m", "datagen", "generate", "--recipe", str(recipe)],
        env={"PYTHONPATH": str(Path(__file__).parents[2]), "PATH": "/usr/bin:/bin", "PYTHONDONTWRITEBYTECODE": "1"},
        capture_output=True, text=True, check=False, preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (room, room)),
    )  # fmt: skip
    errors = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert (done.returncode, len(errors)) == (2, 1), done.stderr
    assert "shop" in errors[0]
    assert "Traceback" not in done.stderr
    assert room or not server.bodies

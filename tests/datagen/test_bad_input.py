"""What a user can get wrong before a run: each mistake is one clear line and exit 2, and nobody was asked."""

import os
import resource
import signal
import subprocess
import sys
import threading
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
        ("concurrency: 2", "concurrency: -1", "concurrency is -1"),
        ("concurrency: 2", "budget_usd: -1", "budget_usd is -1"),
        ("concurrency: 2", "budget_usd: 0", "budget_usd is 0, so no call can be paid"),
        ("model: openai/local", "model: nobody/knows", "'nobody/knows', which no role uses".replace("'nobody/knows'", "openai/local")),
        ("model: openai/local", "model: nobody/knows", "shop-recipe.yaml: terms decides on openai/local"),
        ("price: {input_per_million: 1, output_per_million: 2}, ", "", "whose price is not known. Set teachers."),
        ("input_per_million: 1", "input_per_million: -1", "price.input_per_million is -1"),
        ("topic: 8", "topic: -8", "mix.topic is -8"),
        ("topic: 8, adversarial: 4", "topic: 0", "mix asks for nothing"),
        ("max_tokens: 50", "max_tokens: 0", "max_tokens is 0"),
        ("taxonomy: shop.yaml", "taxonomy: nowhere.yaml", "'nowhere.yaml' is not there"),
        ("concurrency: 2", "concurrency: 0", "concurrency is 0"),
        ("concurrency: 2", "limits: 1", "limits is not a known key"),
        ("max_tokens: 50", "max_tokens: 50, limits: {requests_per_minute: -1}", "limits.requests_per_minute is -1"),
        ("concurrency: 2", "\tconcurrency: 2", "shop-recipe.yaml:7:1: not valid YAML: a tab, and YAML indents with spaces alone"),
        ("topic: 8", "topik: 8", "mix.topik is not a known key. Did you mean 'topic'?"),
        ("name: shop", "name: sh\x00op", "shop-recipe.yaml:2: holds the character U+0000"),
        ('api_base: "http', 'api_base: "htp', "is no URL. Write it with http:// or https://"),
        ('api_base: "http://', 'api_base: "', "is no URL. Write it with http:// or https://"),
        ('api_base: "http://', 'api_base: "", top_p: 0.5, user: "', "the endpoint '' is no URL"),
        ('api_base: "http://127.0.0.1', 'api_base: "http://no-such-host.invalid', "nobody answers at http://no-such-host.invalid"),
        ("openai/local", "opnai/local", "no provider of that name is known"),
    ],
)
def test_a_wrong_value_is_refused_by_name(
    recipe: Path, server: Any, capsys: pytest.CaptureFixture[str], old: str, new: str, message: str
) -> None:
    text = recipe.read_text()
    assert old in text
    recipe.write_text(text.replace(old, new))
    assert message in refusal(capsys, "generate", "--recipe", recipe)
    assert not server.bodies


def html(status: int) -> Any:
    return status, {"Content-Type": "text/html"}, b"<!DOCTYPE html><html><head><title>Nothing here</title></head>" + b"<p>x</p>" * 200


@pytest.mark.parametrize(
    ("reply", "said"),
    [
        ((404, {}, b'{"error": {"message": "Not Found"}}'), "NotFoundError: 404: Not Found. Check the endpoint in the recipe (api_base;"),
        ((404, {}, b'{"error": {"message": "The model `local` does not exist"}}'), "does not exist. Check the endpoint in the recipe"),
        (
            html(404),
            "404: a web page ('Nothing here'). Check the endpoint in the recipe (api_base; most end with /v1) and the model's name",
        ),
        ((405, {}, b"Method Not Allowed"), "405: Method Not Allowed. Check the endpoint in the recipe"),
        (html(200), "the body is a web page ('Nothing here'); its cost is unknown. Check the endpoint in the recipe"),
        ((200, {}, b'{"status": "healthy"}'), 'no message in it ({"status": "healthy"}); its cost is unknown. Check the endpoint'),
    ],
    ids=["404", "unknown model", "404 page", "405", "page", "another service"],
)
def test_an_address_that_is_no_chat_api_is_one_line_with_the_address(
    recipe: Path, server: Any, capsys: pytest.CaptureFixture[str], reply: Any, said: str
) -> None:
    server.reply = lambda body, nth: reply
    message = refusal(capsys, "generate", "--recipe", recipe)
    assert f"openai/local at {server.url}: " in message
    assert said in message
    assert "<p>" not in message
    assert len(server.bodies) <= 4  # of two workers, with one retry each


def test_a_web_page_in_the_middle_of_a_run_is_one_failed_try(recipe: Path, server: Any, shop_reply: Any) -> None:
    server.reply = lambda body, nth: html(200) if len(server.bodies) == 6 else shop_reply(body, nth)
    with pytest.raises(SystemExit) as exit_:
        main(["generate", "--recipe", str(recipe)])
    assert not exit_.value.code
    assert [row["error"] for row in Store(Path("data/shop.duckdb")).query("FROM failures")] == ["InvalidResponse"]


@pytest.mark.parametrize(
    ("content", "message"),
    [(b"\xff\xfe\x00", "is no text in UTF-8 (byte 0)"), (b"", "is empty. Give the path"), (b"- a", "holds a list, not a mapping")],
)
def test_a_file_that_is_no_recipe_is_named(recipe: Path, capsys: pytest.CaptureFixture[str], content: bytes, message: str) -> None:
    recipe.write_bytes(content)
    assert message in refusal(capsys, "generate", "--recipe", recipe)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--recipe", "."), "cannot be read (Is a directory)"),
        (("--recipe", "nowhere.yaml"), "nowhere.yaml: cannot be read (No such file or directory)"),
        (("--engine", "ray", "--workers", "0"), "'--workers': Input should be greater than or equal to 1. See --help."),
        (("--engine", "spark"), "'spark' is not one of 'process', 'ray'"),
        (("--scale", "nan"), "'--scale'"),
    ],
)
def test_a_wrong_option_is_named(
    recipe: Path, server: Any, capsys: pytest.CaptureFixture[str], arguments: tuple[str, ...], message: str
) -> None:
    assert message in refusal(capsys, "generate", *(() if "--recipe" in arguments else ("--recipe", recipe)), *arguments)
    assert not server.bodies


def test_ray_that_is_not_installed_is_named_before_anything_else(
    recipe: Path, server: Any, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    assert "make setup-ray" in refusal(capsys, "generate", "--recipe", recipe, "--engine", "ray")
    assert not Path("data").exists()


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


@pytest.mark.parametrize("when", ["Store.answers_of_others", "prompts.check_prompts", "secrets.resolved"])
def test_ctrl_c_before_the_first_call_asks_nobody_and_says_how_to_go_on(
    recipe: Path, server: Any, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, when: str
) -> None:
    from datagen import secrets
    from datagen import store as stores

    place, _, name = when.partition(".")
    owner: Any = {"Store": stores.Store, "prompts": prompts, "secrets": secrets}[place]
    real = getattr(owner, name)

    def pressed(*args: Any, **kwargs: Any) -> Any:
        os.kill(os.getpid(), signal.SIGINT)
        return real(*args, **kwargs)

    monkeypatch.setattr(owner, name, pressed)
    with pytest.raises(SystemExit) as exit_:
        main(["generate", "--recipe", str(recipe)])
    said = capsys.readouterr().err
    assert exit_.value.code == 130
    assert "Interrupted; nothing is lost. The same command goes on from here." in said
    assert "Traceback" not in said
    assert not server.bodies


def test_ctrl_c_in_a_query_is_an_interrupt_and_no_bug(store: Store) -> None:
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background job begins with the signal ignored
    try:
        threading.Timer(0.5, os.kill, (os.getpid(), signal.SIGINT)).start()
        with pytest.raises(KeyboardInterrupt):
            store.query("SELECT count(*) FROM range(20000000000) t WHERE hash(t.range) = 7")  # ends by itself, were it not interrupted
    finally:
        signal.signal(signal.SIGINT, before)


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
    assert not server.bodies


def test_another_program_s_settings_are_left_alone(recipe: Path, server: Any, capsys: pytest.CaptureFixture[str]) -> None:
    Path("data").mkdir()
    for columns in ("a INTEGER", "name VARCHAR, value VARCHAR"):
        with duckdb.connect("data/shop.duckdb") as con:
            con.execute(f"CREATE OR REPLACE TABLE settings ({columns})")
        assert "not a store of this program. Name another by --store" in refusal(capsys, "generate", "--recipe", recipe)
    with duckdb.connect("data/shop.duckdb") as con:
        assert con.execute("SELECT table_name FROM information_schema.tables").fetchall() == [("settings",)]
    assert not server.bodies


@pytest.mark.parametrize("content", [b"no database", b"SQLite format 3\x00" + bytes(84), b""])
@pytest.mark.parametrize("verb", ["generate", "plan"])
def test_a_file_of_another_kind_is_left_alone(
    recipe: Path, server: Any, capsys: pytest.CaptureFixture[str], content: bytes, verb: str
) -> None:
    Path("mine.txt").write_bytes(content)
    message = refusal(capsys, verb, "--recipe", recipe, "--store", "mine.txt")
    assert message.startswith(f"error: mine.txt: is {'not a DuckDB file' if content else 'empty'}")
    assert message.endswith("Name another file by --store, or move this one away.")
    assert Path("mine.txt").read_bytes() == content
    assert not server.bodies


def test_a_store_that_is_a_folder_or_a_log_is_refused(recipe: Path, server: Any, capsys: pytest.CaptureFixture[str]) -> None:
    assert ": is a folder" in refusal(capsys, "generate", "--recipe", recipe, "--store", recipe.parent)
    assert "Name the store itself" in refusal(capsys, "generate", "--recipe", recipe, "--store", "shop.log")
    assert not Path("shop.log").exists()
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

"""The house's sentences (docs/architecture.md) held against the imports. Each test fails with the sentence that was broken."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
FILES = sorted([*(ROOT / "datagen").rglob("*.py"), *(ROOT / "train").rglob("*.py")])

# Floors from the ground up: a module may import from its own floor's line and those below, never from above.
FLOORS = {
    "datagen": [
        {"records", "errors"},
        {"policy", "yaml_file", "lines", "secrets", "ledger", "json_schema", "agreement", "tasks", "design"},
        {"taxonomy", "prompts", "parse", "config", "store", "filters", "offline", "pace", "prices", "wire_schema", "direct"},
        {
            "teacher",
            "batch_api",
            "terms",
            "plan",
            "ask",
            "generators",
            "judge",
            "second",
            "review",
            "calibration",
            "arrivals",
            "sources",
            "diversity",
            "svg",
        },
        {"compare", "generate", "curate", "export", "report", "coverage", "report_page", "card", "trace"},
        {"forecast", "progress", "batch", "ray_engine", "embed", "failures", "quota", "imported"},
        {"cli"},
        {"__main__"},
    ],
    "train": [
        {"errors", "metrics", "cost", "launch"},
        {"config", "advice", "calibration", "processes", "sums"},
        {"hub"},
        {"dataset", "students"},
        {"slices", "verdicts"},
        {"template"},
        {"model", "proof", "memory", "ollama"},
        {"cpu", "evaluate", "gguf_file", "similarity", "merge", "retain", "watch", "report"},
        {"artifacts", "drift"},
        {"gate", "provenance"},
        {"card"},
        {"sft", "preference", "dpo", "kto", "quantize"},
        {"run"},
        {"predict", "curve", "dist"},
        {"serving"},
        {"cli"},
        {"__main__"},
    ],
}

OWNERS = {
    "duckdb": {"datagen/store.py", "datagen/filters/sql.py", "train/serving/journal.py"},  # the second in memory only
    "litellm": {"datagen/teacher.py", "datagen/batch_api.py", "datagen/offline/__init__.py", "datagen/offline/provider.py"},
    "aiohttp": {"datagen/direct.py", "train/serving/app.py"},
    "bs4": {"datagen/sources.py"},
    "pypdf": {"datagen/sources.py"},
    "ray": {"datagen/ray_engine.py"},
    "tenacity": {"datagen/teacher.py"},
    "sklearn": {"datagen/filters/label_noise.py"},
    "datasketch": {"datagen/filters/similarity.py"},
    "detect_secrets": {"datagen/filters/privacy.py"},
    "py3langid": {"datagen/filters/language.py"},
    "auto_round": {"train/gguf_file.py", "train/quantize.py"},  # the former for the numbers of K-quants
    "gguf": {"train/gguf_file.py"},
    "huggingface_hub": {"train/hub.py", "train/card.py", "train/model.py"},  # card: the Hub's metadata; model: an error's class
    "jinja2": {"datagen/prompts.py", "datagen/report_page.py", "train/report.py", "train/template.py"},
    "jsonschema_rs": {"datagen/json_schema.py", "train/metrics.py"},
    "orjson": {"datagen/direct.py", "datagen/store.py"},
    "rich": {"datagen/cli.py", "datagen/coverage.py", "datagen/report.py", "train/cli.py"},
    "typer": {"datagen/cli.py", "train/cli.py"},
    "yaml": {"datagen/yaml_file.py", "datagen/terms.py", "train/config.py", "train/dist.py"},
}
TRAINING_LIBRARIES = {"torch", "trl", "peft", "bitsandbytes", "transformers", "datasets", "accelerate"}


def imports(path: Path) -> Iterator[str]:
    """The full names of the modules that a file imports, also inside functions and under TYPE_CHECKING."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def room(path: Path) -> str:
    """The room that a file is in: its module under the package, or the folder."""
    return path.relative_to(ROOT).parts[1].removesuffix(".py")


def floor_of(package: str, name: str) -> int | None:
    return next((number for number, rooms in enumerate(FLOORS[package]) if name in rooms), None)


@pytest.mark.parametrize("package", ["datagen", "train"])
def test_neither_package_imports_the_other(package: str) -> None:
    other = {"datagen": "train", "train": "datagen"}[package]
    for path in FILES:
        if path.relative_to(ROOT).parts[0] == package:
            wrong = [name for name in imports(path) if name.split(".")[0] == other]
            assert not wrong, f"datagen and train: never, either way. {path.relative_to(ROOT)} imports {wrong}"


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(ROOT)))
def test_an_import_goes_down_never_up(path: Path) -> None:
    package = path.relative_to(ROOT).parts[0]
    if room(path) == "__init__":
        return
    mine = floor_of(package, room(path))
    assert mine is not None, f"{path.relative_to(ROOT)} stands on no floor: give it one in FLOORS and in docs/architecture.md"
    for name in imports(path):
        parts = name.split(".")
        if parts[0] != package or len(parts) < 2 or parts[1] == room(path):
            continue
        theirs = floor_of(package, parts[1])
        assert theirs is not None, f"{path.relative_to(ROOT)} imports {name}, which stands on no floor"
        assert theirs <= mine, f"an import goes down, never up: {path.relative_to(ROOT)} imports {name}"


@pytest.mark.parametrize("library", OWNERS)
def test_a_library_has_one_owner(library: str) -> None:
    users = {str(path.relative_to(ROOT)) for path in FILES if library in {name.split(".")[0] for name in imports(path)}}
    assert users <= OWNERS[library], f"one owner per library: {library} is imported by {users - OWNERS[library]}"
    assert users, f"{library} is used by nobody"


def test_training_libraries_are_imported_in_train_only() -> None:
    for path in FILES:
        if path.relative_to(ROOT).parts[0] == "datagen":
            wrong = {name.split(".")[0] for name in imports(path)} & TRAINING_LIBRARIES
            assert not wrong, f"torch, trl, peft, bitsandbytes in train/ only: {path.relative_to(ROOT)} imports {wrong}"


def test_generators_and_judge_know_records_and_parse_only() -> None:
    allowed = {"records", "parse", "errors", "generators"}
    for path in [*(ROOT / "datagen/generators").glob("*.py"), ROOT / "datagen/judge.py"]:
        rooms = {name.split(".")[1] for name in imports(path) if name.startswith("datagen.")}
        assert rooms <= allowed, f"generators and judge import records and parse only; {path.name} imports {rooms - allowed}"


def test_a_generator_knows_no_other_generator() -> None:
    for path in (ROOT / "datagen/generators").glob("[a-z]*.py"):
        others = {name for name in imports(path) if name.startswith("datagen.generators.") and "._example" not in name}
        assert not others, f"none of them knows another of their kind: {path.name} imports {others}"


def test_filters_know_records_policy_schemas_and_secrets_only() -> None:
    for path in (ROOT / "datagen/filters").glob("*.py"):
        rooms = {name.split(".")[1] for name in imports(path) if name.startswith("datagen.")}
        assert rooms <= {"records", "policy", "secrets", "json_schema", "filters"}, (
            f"filters import records (policy and schemas) only; {path.name} imports {rooms}"
        )


def test_only_the_command_line_prints_or_exits() -> None:
    for path in FILES:
        name = str(path.relative_to(ROOT))
        if name in ("datagen/cli.py", "train/cli.py") or "students/tiny" in name:
            continue
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call):
                called = ast.unparse(node.func)
                assert called not in ("print", "sys.exit", "exit", "input"), f"only cli.py prints or exits: {name}:{node.lineno}"


def test_every_file_opens_with_a_docstring() -> None:
    for path in FILES:
        source = path.read_text(encoding="utf-8")
        assert not source.strip() or ast.get_docstring(ast.parse(source)), f"a file opens with a docstring: {path.relative_to(ROOT)}"


def test_the_picture_names_every_room() -> None:
    picture = (ROOT / "docs/architecture.md").read_text(encoding="utf-8")
    for path in FILES:
        name = path.name if room(path) == path.name.removesuffix(".py") else room(path) + "/"
        if path.name not in ("__init__.py", "__main__.py"):
            assert name in picture, f"docs/architecture.md does not name {name}"


def test_both_halves_know_the_same_keys_of_a_recipe() -> None:
    from datagen.config import Recipe
    from train.config import RECIPE_KEYS

    assert set(RECIPE_KEYS) == set(Recipe.model_fields)

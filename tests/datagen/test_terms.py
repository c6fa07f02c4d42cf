"""Whose outputs may train a student: the table, the stricter of host and weights, and a user's own decision, from recipe to manifest."""

import json
from pathlib import Path
from typing import Any

import pytest

from datagen.cli import main
from datagen.config import ModelConfig, TermsDecision, load_recipe
from datagen.errors import ConfigError
from datagen.store import Store
from datagen.terms import describe_teachers, of_the_data, require_settled, standing, terms_of

OURS = TermsDecision(decision="our contract of 2026-05 allows it", by="ana")


def run(*arguments: Any) -> int:
    with pytest.raises(SystemExit) as exit_:
        main([str(argument) for argument in arguments])
    return int(exit_.value.code or 0)


@pytest.mark.parametrize(
    ("model", "may_train", "settled"),
    [
        ("offline/banking", "yes", True),
        ("openai/gpt-4o", "no", False),
        ("gpt-4o-mini", "no", False),
        ("azure/gpt-4o", "no", False),
        ("anthropic/claude-sonnet-4-5", "no", False),
        ("bedrock/us.anthropic.claude-sonnet-4-5-v1:0", "no", False),
        ("bedrock/us.meta.llama3-1-70b-instruct-v1:0", "no", False),
        ("bedrock/us.amazon.nova-pro-v1:0", "no", False),
        ("gemini/gemini-2.5-pro", "no", False),
        ("vertex_ai/gemini-2.5-pro", "no", False),
        ("xai/grok-4", "no", False),
        ("cohere/command-a-03-2025", "no", False),
        ("mistral/mistral-large-latest", "unknown", False),
        ("openrouter/anthropic/claude-sonnet-4.5", "no", False),
        ("openrouter/qwen/qwen3-32b", "unknown", False),
        ("together_ai/Qwen/Qwen3-235B-A22B", "unknown", False),
        ("groq/openai/gpt-oss-120b", "unknown", False),
        ("groq/llama3-70b-8192", "no", False),
        ("hosted_vllm/Qwen/Qwen3-32B", "yes", True),
        ("hosted_vllm/Qwen/Qwen2.5-72B-Instruct", "unknown", False),
        ("hosted_vllm/openai/gpt-oss-20b", "yes", True),
        ("hosted_vllm/deepseek-ai/DeepSeek-R1-0528", "yes", True),
        ("hosted_vllm/deepseek-ai/DeepSeek-V3", "unknown", False),
        ("hosted_vllm/zai-org/GLM-4.5-Air", "yes", True),
        ("hosted_vllm/google/gemma-3-27b-it", "unknown", False),
        ("hosted_vllm/somebody/qwen3-claude-distill", "unknown", False),
        ("ollama/llama3.1:70b", "yes", True),
        ("ollama/llama3:8b", "no", False),
        ("ollama/llama2", "no", False),
        ("nobody/knows", "unknown", False),
    ],
)
def test_the_table_knows_a_model_by_its_host_and_its_family(model: str, may_train: str, settled: bool) -> None:
    terms = terms_of(model)
    assert (terms.may_train, terms.settled) == (may_train, settled)
    assert terms.says
    assert terms.source


@pytest.mark.parametrize("model", ["deepseek/deepseek-chat", "hosted_vllm/microsoft/phi-4", "hosted_vllm/moonshotai/Kimi-K2-Instruct"])
def test_a_yes_that_nobody_read_settles_nothing(model: str) -> None:
    terms = terms_of(model)
    assert (terms.may_train, terms.read, terms.settled) == ("yes", None, False)


def test_llama_s_naming_clause_is_carried_along() -> None:
    assert "begins with Llama" in terms_of("hosted_vllm/meta-llama/Llama-3.3-70B-Instruct").says
    assert "must be named Llama" in terms_of("hosted_vllm/deepseek-ai/DeepSeek-R1-Distill-Llama-70B").says


@pytest.mark.parametrize(
    "api_base", ["http://127.0.0.1:8000/v1", "http://localhost:8000", "http://gpu7:8000/v1", "http://10.0.0.4/v1", "http://box.local/v1"]
)
def test_behind_a_private_address_only_the_weights_count(api_base: str) -> None:
    assert terms_of("openai/qwen3-8b", api_base).settled
    assert not terms_of("openai/my-model", api_base).settled


def test_behind_a_strange_address_nothing_is_known() -> None:
    terms = terms_of("openai/qwen3-8b", "https://models.example.com/v1")
    assert (terms.may_train, terms.settled) == ("unknown", False)
    assert "models.example.com" in terms.says
    assert terms_of("openai/gpt-4o", "https://eu.api.openai.com/v1").may_train == "no"


def test_every_role_that_is_asked_must_be_settled_a_judge_too() -> None:
    roles = {"teacher": ModelConfig(model="offline/banking"), "judge": ModelConfig(model="openai/gpt-4o")}
    with pytest.raises(ConfigError) as refused:
        require_settled(describe_teachers(roles, {}), "r.yaml")
    text = str(refused.value)
    assert "\n" not in text
    for part in (
        "r.yaml",
        "openai/gpt-4o (judge)",
        "no: outputs may not",
        "https://openai.com/",
        "not read by us",
        "terms:",
        "--terms",
        "TERMS=",
    ):
        assert part in text
    require_settled(describe_teachers(roles, {"openai/gpt-4o": OURS}), "r.yaml")


def test_a_decision_holds_for_its_model_alone() -> None:
    teachers = describe_teachers(
        {"teacher": ModelConfig(model="openai/gpt-4o"), "weak": ModelConfig(model="openai/gpt-4o-mini")}, {"openai/gpt-4o": OURS}
    )
    assert [(t.settled, t.decision) for t in teachers] == [(True, OURS), (False, None)]


def test_a_decision_in_passing_leaves_settled_models_and_stated_decisions_alone() -> None:
    passing = TermsDecision(decision="said on the command line", by="ben")
    assert standing("teacher", "offline/banking", (), {}, passing).decision is None
    assert standing("teacher", "openai/gpt-4o", (), {"openai/gpt-4o": OURS}, passing).decision == OURS
    assert standing("weak", "openai/gpt-4o-mini", (), {}, passing).decision == passing


def test_data_keeps_the_decision_under_which_it_was_made() -> None:
    used = [{"role": "teacher", "model": "openai/gpt-4o", "api_base": None}]
    recorded = [[standing("teacher", "openai/gpt-4o", (), {"openai/gpt-4o": OURS}).model_dump(mode="json")]]
    assert of_the_data(used, recorded, {})[0].decision == OURS
    assert not of_the_data(used, [], {})[0].settled


def test_a_role_that_the_mix_does_not_ask_needs_no_decision(recipe: Path) -> None:
    recipe.write_text(recipe.read_text().replace("judge: true", "judge: false").replace("preference: 4", "preference: 0"))
    assert set(load_recipe(recipe).recipe.roles_asked()) == {"teacher"}


def test_a_decision_on_a_model_that_no_role_uses_is_refused(recipe: Path) -> None:
    recipe.write_text(recipe.read_text() + "terms: {openai/gpt-5: {decision: we may, by: ana}}\n")
    with pytest.raises(ConfigError, match="terms decides on openai/gpt-5, which no role uses"):
        load_recipe(recipe)


RECIPE = """
name: small
taxonomy: shop.yaml
seed: 3
teachers:
  teacher: {model: openai/local, max_tokens: 200, price: {input_per_million: 0, output_per_million: 0}, params: {api_base: "URL", api_key: none}}
mix: {topic: 12, preference: 4}
judge: true
split: {validation: 0, test: 0}
filters: {near_duplicate: {threshold: 0.99}}
"""


@pytest.fixture
def recipe(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, server: Any, shop_path: Path, shop_reply: Any) -> Path:
    monkeypatch.chdir(tmp_path)
    server.reply = shop_reply
    path = tmp_path / "small.yaml"
    path.write_text(RECIPE.replace("URL", server.url))
    return path


def test_an_unsettled_teacher_is_refused_before_any_call(recipe: Path, server: Any, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("generate", "--recipe", recipe) == 2
    errors = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error: ")]
    assert len(errors) == 1
    assert "openai/local (teacher, weak, judge)" in errors[0]
    assert not server.bodies
    assert not Path("data").exists()


def test_a_decision_goes_from_the_command_line_to_the_run_the_manifest_and_the_card(
    recipe: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("USER", "ana")
    assert run("generate", "--recipe", recipe, "--terms", "our own model on our own server") == 0
    assert "Terms of openai/local: by decision of ana" in capsys.readouterr().err
    (row,) = Store(Path("data/small.duckdb")).query("SELECT terms FROM runs")
    assert {(t["role"], t["decision"]["by"]) for t in json.loads(row["terms"])} == {("teacher", "ana"), ("weak", "ana"), ("judge", "ana")}
    assert run("curate", "--recipe", recipe) == 0
    capsys.readouterr()
    assert run("export", "--recipe", recipe, "--json") == 0  # without --terms: the run's decision holds for its data
    manifest = json.loads(capsys.readouterr().out)
    assert {(t["role"], t["settled"]) for t in manifest["teachers"]} >= {("teacher", True), ("judge", True)}
    assert "ana: our own model on our own server" in Path("data/small/README.md").read_text()


def test_data_from_before_decisions_were_kept_is_not_exported_without_one(recipe: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("generate", "--recipe", recipe, "--terms", "to be forgotten") == 0
    assert run("curate", "--recipe", recipe) == 0
    store = Store(Path("data/small.duckdb"))
    with store._connect(read_only=False) as con:
        con.execute("UPDATE runs SET terms = NULL")
    assert run("export", "--recipe", recipe) == 2
    assert "openai/local (teacher" in capsys.readouterr().err
    assert not Path("data/small/manifest.json").exists()
    assert run("export", "--recipe", recipe, "--terms", "our own model") == 0


def test_of_several_endpoints_the_strictest_terms_hold() -> None:
    own = ModelConfig(model="openai/Qwen3-8B", api_bases=("http://10.0.0.5/v1",))
    shared = own.model_copy(update={"api_bases": ("http://10.0.0.5/v1", "https://llm.example.com/v1")})
    assert [t.settled for t in describe_teachers({"teacher": own, "weak": shared}, {})] == [True, False]


def test_a_plan_says_how_the_terms_stand(recipe: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("plan", "--recipe", str(recipe)) == 0
    assert "Not settled" in capsys.readouterr().out
    assert run("plan", "--recipe", str(recipe), "--terms", "our lawyer agreed") == 0
    told = capsys.readouterr().out
    assert "our lawyer agreed" in told and "Not settled" not in told

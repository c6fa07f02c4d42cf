"""The command line: one subcommand per verb. The only place that prints, asks or exits.

Exit codes: 0 done; 1 done, but short of what was asked; 2 the user can mend it; 75 batches are pending, run again later;
130 interrupted, nothing lost.
"""

import asyncio
import contextlib
import errno
import hashlib
import json
import logging
import os
import signal
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, NoReturn

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from datagen.config import LoadedRecipe, Recipe, TermsDecision, load_evaluation_sets, load_recipe, load_seeds
from datagen.errors import ConfigError, RetortError
from datagen.failures import load_failures, with_failures
from datagen.ledger import money
from datagen.progress import Watch, between
from datagen.records import EvaluationSet, Example, Failure, PlanItem, Rubric, Task, embedding_space
from datagen.secrets import redact
from datagen.sources import passages_of
from datagen.tasks import volume
from datagen.taxonomy import MOST_SHOWN, Taxonomy, load_taxonomy, roll_up
from datagen.terms import TeacherTerms, describe, describe_teachers, of_the_data, require_settled

if TYPE_CHECKING:  # the store loads DuckDB, which --help can do without
    from datagen.ask import CompletesRequests
    from datagen.batch import BatchReport
    from datagen.embed import EmbedReport
    from datagen.quota import Filling, QuotaReport
    from datagen.store import Store

app = typer.Typer(add_completion=False, no_args_is_help=True, rich_markup_mode=None, pretty_exceptions_enable=False, help=__doc__)
# rich takes a pipe for 80 columns wide and would cut names
out = Console(width=None if sys.stdout.isatty() else 140)
talk = Console(stderr=True, highlight=False, soft_wrap=True)

RecipeOption = typer.Option(Path("recipes/banking.yaml"), "--recipe", help="The experiment, a YAML file.")
StoreOption = typer.Option(None, "--store", help="The DuckDB file; data/<recipe name>.duckdb when not given.")
OutOption = typer.Option(None, "--out", help="The data set's folder; data/<recipe name> when not given.")
JsonOption = typer.Option(False, "--json", help="Print the result as JSON on standard output.")
TeacherOption = typer.Option(None, "--teacher", help="Another teacher's model string, for every role.")
TermsOption = typer.Option(
    None, "--terms", help="Your decision that the teachers' outputs may train a model, in words; kept with the run and the data."
)
ScaleOption = typer.Option(1.0, "--scale", min=0.001, help="Multiply the recipe's mix.")


PENDING = 75  # EX_TEMPFAIL of sysexits.h: not an error, try again later


class Workspace(NamedTuple):
    """What every verb needs of a recipe."""

    loaded: LoadedRecipe
    taxonomy: Taxonomy
    taxonomy_sha256: str
    taxonomy_path: Path
    evaluation_sets: tuple[EvaluationSet, ...]
    store_path: Path
    failures: tuple[Failure, ...] = ()

    @property
    def labels(self) -> dict[str, str]:
        """The labels that an answer may have, with their descriptions."""
        return self.taxonomy.labels()

    @property
    def rubric(self) -> Rubric | None:
        """What the judge scores, by the recipe or else the taxonomy; None: the answer and the input."""
        return self.loaded.recipe.rubric or self.taxonomy.rubric


def _open(recipe: Path, store: Path | None, *, teacher: str | None = None, scale: float = 1.0) -> Workspace:
    loaded = load_recipe(recipe, teacher=teacher, scale=scale)
    path = loaded.resolve(loaded.recipe.taxonomy)
    taxonomy, sha256 = load_taxonomy(path)
    sets, notes = load_evaluation_sets(loaded, taxonomy.labels(), taxonomy.task.abstain_label)
    failures = load_failures(loaded, taxonomy)
    if loaded.recipe.failures:
        taxonomy = with_failures(taxonomy, failures.found, loaded.recipe.failures.weight)
    for note in (*notes, *failures.notes):
        talk.print(f"note: {note}")
    return Workspace(loaded, taxonomy, sha256, path, sets, store or loaded.store_path(), failures.found)


def _existing_store(path: Path) -> "Store":
    from datagen.store import Store

    if not path.exists() and not path.with_suffix(".log").exists():
        raise ConfigError(f"{path}: there is no store yet. Run `make datagen` first, or name another by --store.")
    return Store(path)


def _decision(said: str | None) -> TermsDecision | None:
    """What --terms said, with who said it."""
    return None if said is None else TermsDecision(decision=said, by=os.environ.get("USER") or "the command line")


def _say_decisions(teachers: Sequence[TeacherTerms]) -> None:
    for model, decision in {teacher.model: teacher.decision for teacher in teachers if teacher.decision}.items():
        talk.print(f"Terms of {model}: by decision of {decision.by}: {decision.decision}", markup=False)


def _plan(work: Workspace) -> list[PlanItem]:
    from datagen.plan import make_plan  # it loads numpy, which --help can do without

    recipe = work.loaded.recipe
    mix = {str(name): count for name, count in recipe.mix.items()}
    return make_plan(work.taxonomy, mix, per_call=recipe.per_call, max_turns=recipe.conversation.max_turns, **_sequences(work))


def _calls(settings: Recipe, items: Sequence[PlanItem]) -> int:
    from datagen.plan import count_calls

    return count_calls(items, settings.judge, settings.teachers.second is not None)


def _sequences(work: Workspace) -> dict[str, Any]:
    """What decides each cell's sequence of items."""
    recipe = work.loaded.recipe
    passages, shown = passages_of(work.loaded)
    return {
        "passages": passages, "shown": shown, "seed": recipe.seed, "seeds": load_seeds(work.loaded, work.labels), "design": recipe.design,
        "replace_seeds": recipe.seeds.replace if recipe.seeds else False, "several": recipe.several(), "failures": work.failures,
    }  # fmt: skip


def _filling(work: Workspace) -> "Filling | None":
    """The cells of a recipe with a quota; None for another."""
    settings = work.loaded.recipe
    if settings.quota is None:
        return None
    from datagen.plan import Planner, counted_mix, share_warning
    from datagen.quota import Filling

    mix = counted_mix({str(name): count for name, count in settings.mix.items()}, settings.quota.rows)
    if warning := share_warning(mix, work.taxonomy):
        talk.print(f"warning: {warning}")
    planner = Planner(work.taxonomy, **_sequences(work))
    cells = planner.cells(mix, settings.quota.min_per_topic)
    return Filling(planner, cells, settings.quota, settings.per_call, settings.conversation.max_turns)


def _settled(work: Workspace, said: str | None) -> list[TeacherTerms]:
    """The teachers whose terms and keys are settled. Raises ConfigError before anybody is asked."""
    asked = work.loaded.recipe.roles_asked()
    teachers = describe_teachers(asked, work.loaded.recipe.terms, _decision(said))
    require_settled(teachers, str(work.loaded.path))
    embedding = work.loaded.recipe.embedding
    for config in [*asked.values(), *([embedding] if embedding else [])]:
        config.secret_params()  # a variable that is not set is found now
    _say_decisions(teachers)
    return teachers


@app.command()
def plan(
    recipe: Path = RecipeOption, store: Path | None = StoreOption, teacher: str | None = TeacherOption,
    scale: float = ScaleOption, as_json: bool = JsonOption,
    pilot: int = typer.Option(0, "--pilot", min=0, help="Ask this many items per generator first (paid), and forecast from them."),
    yes: bool = typer.Option(False, "--yes", help="Pay for the pilot without asking."),
    terms: str | None = TermsOption,
) -> None:  # fmt: skip
    """Show the plan: cells, counts, calls, and what they will cost and take. Asks nobody, except for a pilot."""
    work = _open(recipe, store, teacher=teacher, scale=scale)
    filling = _filling(work)
    items = _plan(work) if filling is None else filling.next_items()
    if pilot:
        _pilot(work, items, pilot, yes, _settled(work, terms))
    cells: dict[tuple[str, str], int] = {} if filling is None else filling.targets
    for item in items if filling is None else ():
        cells[item.topic, item.generator] = cells.get((item.topic, item.generator), 0) + item.count
    calls = _calls(work.loaded.recipe, items)
    generators = [name for name, count in work.loaded.recipe.mix.items() if count]
    ahead = _forecast(work, items)
    if as_json:
        rows = [{"topic": topic, "generator": generator, "inputs": count} for (topic, generator), count in sorted(cells.items())]
        whole = {"items": len(items), "inputs": sum(item.count for item in items), "calls": calls, "cells": rows}
        whole["volume"] = volume(work.taxonomy.task, list(work.labels), items)
        if filling is not None:
            whole |= {"rows": sum(cells.values()), "most_inputs": filling.most_inputs}
        _print_json({**whole, "forecast": ahead.as_json() if ahead else None})
        return
    counted = "inputs asked for" if filling is None else "rows to be accepted"
    table = Table(title=f"{work.loaded.recipe.name}: {counted}, by topic and generator", title_justify="left")
    table.add_column("topic")
    for name in [*generators, "all"]:
        table.add_column(name, justify="right")
    shown = roll_up(topic for topic, _ in cells)
    counts: dict[str, Counter[str]] = {row: Counter() for row in dict.fromkeys(shown.values())}
    for (topic, generator), count in cells.items():
        counts[shown[topic]][generator] += count
    for row, own in list(counts.items())[:MOST_SHOWN]:
        table.add_row(row, *(str(own[name]) for name in generators), str(own.total()))
    if (more := len(counts) - MOST_SHOWN) > 0:
        table.add_row(f"and {more:,} more topics", *[""] * len(generators), "")
    totals = [sum(own[name] for own in counts.values()) for name in generators]
    table.add_row("all", *map(str, totals), str(sum(totals)), style="bold")
    out.print(table)
    if len(counts) < len(shown):
        out.print(f"{len(shown):,} topics, summed up to {len(counts)} branches; every one is in --json.")
    models = {role: config.model for role, config in work.loaded.recipe.roles_asked().items()}
    named = ", ".join(f"{model} ({role})" for role, model in models.items())
    out.print(f"{len(items)} items, {'at most' if 'conversation' in generators else 'about'} {calls:,} calls to {named}.")
    if filling is not None:
        out.print(
            f"That is the first round, of {sum(item.count for item in items):,} inputs for {sum(cells.values()):,} rows; later rounds ask "
            f"for what the filters drop, up to {filling.most_inputs:,} inputs in all."
        )
    out.print(f"{volume(work.taxonomy.task, list(work.labels), items)}.")
    if ahead is not None:
        _print_forecast(ahead, work)
    for stands in {
        t.model: t for t in describe_teachers(work.loaded.recipe.roles_asked(), work.loaded.recipe.terms, _decision(terms))
    }.values():
        if not stands.simulated:
            decided = f"; decided by {stands.decision.by}: {stands.decision.decision}" if stands.decision else ""
            refused = "" if stands.settled else " Not settled: a run is refused until the recipe's `terms` says why you may."
            out.print(f"Terms of {stands.model}: {describe(stands.terms)}{decided}.{refused}", markup=False)
    budget = work.loaded.recipe.budget_usd
    out.print(f"Budget: {'none set' if budget is None else f'${budget}'}. Next: make datagen RECIPE={recipe}")


def _forecast(work: Workspace, items: list[PlanItem]) -> Any:
    """What is still to be asked, and what it will take."""
    from datagen import forecast as ahead
    from datagen.ask import Asker
    from datagen.store import Store

    settings = work.loaded.recipe
    roles = settings.teachers.by_role()
    prices = ahead.known_prices(roles)
    left = {item.id: float(item.count) for item in items}
    with contextlib.ExitStack() as stack:
        path = work.store_path
        if not path.exists():  # a forecast leaves no store behind
            path = Path(stack.enter_context(tempfile.TemporaryDirectory())) / "empty.duckdb"
        asker = Asker(Store(path), ahead.nobody(), roles, _variables(work), attempts=settings.attempts, budget_usd=None)
        if path == work.store_path:
            left = ahead.open_inputs(items, asker, judged=settings.judge)
        return ahead.forecast(items, left, asker, prices, judged=settings.judge, concurrency=settings.concurrency)


def _print_forecast(ahead: Any, work: Workspace) -> None:
    table = Table(title="Still to be asked for: what it will take (and between which bounds)", title_justify="left")
    for column in ("generator", "inputs", "calls", "tokens in", "tokens out", "US$", "from"):
        table.add_column(column, justify="left" if column in ("generator", "from") else "right")
    for part in ahead.parts:
        basis = f"{part.basis} items of the store" if part.basis else "prompt lengths"
        table.add_row(
            part.generator, f"{part.inputs:,.0f}", f"{part.calls.mean:,.0f}", f"{part.prompt_tokens.mean:,.0f}",
            f"{part.completion_tokens.mean:,.0f}", f"{part.usd.mean:,.2f} ({part.usd.low:,.2f}-{part.usd.high:,.2f})", basis,
        )  # fmt: skip
    out.print(table)
    usd = ahead.usd
    others = [f"about {money(ahead.cached_usd)} where the provider caches prompts"] if ahead.cached_usd is not None else []
    others += [f"about {money(ahead.batch_usd)} by the batch API"] if ahead.batch_usd is not None else []
    out.print(
        f"In all {ahead.calls.mean:,.0f} calls, {money(usd.mean)} ({money(usd.low)} to {money(usd.high)})"
        f"{''.join(f', {other}' for other in others)}; {between(ahead.minutes.low * 60, ahead.minutes.high * 60)}."
    )
    if any(not part.basis for part in ahead.parts) and usd.mean:
        out.print(
            "Bounds from prompt lengths are half to double. For 95 % intervals ask some items first (paid): "
            f"python -m datagen plan --recipe {work.loaded.path} --pilot 5"
        )


def _pilot(work: Workspace, items: list[PlanItem], per_generator: int, yes: bool, teachers: Sequence[TeacherTerms]) -> None:
    """Ask some items of each generator for real, within a cap that is said before."""
    from datagen import forecast as ahead
    from datagen.ask import Asker
    from datagen.store import Store

    settings = work.loaded.recipe
    database = Store(work.store_path)
    _settle_batches(database, batch=False, drop=False)  # before a person is asked whether to pay
    nobody = Asker(database, ahead.nobody(), settings.teachers.by_role(), _variables(work), attempts=1, budget_usd=None)
    chosen = ahead.pilot_items(items, ahead.open_inputs(items, nobody, judged=settings.judge), per_generator)
    if not chosen:
        talk.print("Pilot: the store has an answer to everything already.")
        return
    most = ahead.worst_case_usd(chosen, nobody, _teacher(work, database), judged=settings.judge)
    committed = database.ledger.committed_usd
    cap = committed + most if settings.budget_usd is None else min(committed + most, settings.budget_usd)
    talk.print(
        f"Pilot: {len(chosen)} items, about {_calls(settings, chosen):,} calls; it costs at most "
        f"{money(max(0.0, cap - committed))}. What it answers is kept for the run."
    )
    if not yes:
        if not sys.stdin.isatty():
            raise ConfigError("--pilot pays for calls. Add --yes to agree without a terminal.")
        typer.confirm("Ask?", abort=True)
    with database.writing():
        _settle_batches(database, batch=False, drop=False)  # another run may have sent some meanwhile
        (result, _), _ = asyncio.run(
            _generate(work, items, database, teachers, "pilot", only=chosen, cap_usd=cap if most else settings.budget_usd)
        )
    if result.interrupted:
        raise KeyboardInterrupt
    talk.print(f"Pilot: {result.calls:,} calls made, {money(database.ledger.committed_usd - committed)}.")


QuietOption = typer.Option(False, "--quiet", help="No progress, only what matters in the end.")


@app.command()
def generate(
    recipe: Path = RecipeOption, store: Path | None = StoreOption, teacher: str | None = TeacherOption,
    scale: float = ScaleOption, terms: str | None = TermsOption, as_json: bool = JsonOption, quiet: bool = QuietOption,
    batch: bool = typer.Option(False, "--batch", help="Ask through the provider's batch API: half the price, answers within a day."),
    no_wait: bool = typer.Option(False, "--no-wait", help="With --batch: do what can be done now and exit, 75 while batches are pending."),
    drop_batches: bool = typer.Option(False, "--drop-batches", help="Give up open batches: their requests are asked again."),
    engine: Literal["process", "ray"] = typer.Option("process", "--engine", help="One process, or several by Ray."),
    workers: int | None = typer.Option(None, "--workers", min=1, help="How many processes ask, with --engine ray; 2 when not given."),
) -> None:  # fmt: skip
    """Run the plan: ask the teachers for what the store does not have yet."""
    if no_wait and not batch:
        raise ConfigError("--no-wait says how --batch runs. Add --batch, or leave it out.")
    actors = _actors(engine, workers)
    if actors and batch:
        raise ConfigError("--engine ray asks live, and --batch does not. Leave one of them out.")
    work = _open(recipe, store, teacher=teacher, scale=scale)
    teachers = _settled(work, terms)
    filling = _filling(work)
    items = _plan(work) if filling is None else filling.next_items()
    settings = work.loaded.recipe
    roles = settings.teachers.by_role()
    simulated = all(config.model.startswith("offline/") for config in roles.values())
    talk.print(
        f"Generating {settings.name}: {len(items)} items, {sum(item.count for item in items)} inputs, about "
        f"{_calls(settings, items):,} calls to {', '.join(sorted({config.model for config in roles.values()}))}"
        f"{' (offline: simulated, no model is asked)' if simulated else ''}. What the store has already is not asked again."
    )
    if filling is not None:
        talk.print(
            f"Until {sum(filling.targets.values()):,} rows are accepted, in {len(filling.targets):,} cells; at most "
            f"{filling.most_inputs:,} inputs are asked for."
        )
    from datagen.store import Store

    database = Store(work.store_path)
    for row in database.answers_of_others(items, {role: config.model for role, config in roles.items()}):
        talk.print(
            f"note: the store has {row['calls']:,} answers of {row['model']} as {row['role']} for {row['items']:,} items of this plan, "
            f"which now asks {roles[row['role']].model}. They stay stored; no example of theirs counts beside the new ones."
        )
    started = time.monotonic()
    ahead = None if simulated else _try_forecast(work, items)
    if ahead is not None:
        by_batch = f"; by the batch API about {money(ahead.batch_usd)}, at its own time" if batch and ahead.batch_usd is not None else ""
        talk.print(f"Forecast: {_told(ahead)}{by_batch}.")
    with database.writing():
        _settle_batches(database, batch=batch, drop=drop_batches)
        database.begin_data_set(f"{settings.name}/{settings.seed}", {} if filling is None else filling.targets)
        (result, pending), filled = asyncio.run(
            _generate(
                work, items, database, teachers, "generate", ahead=ahead, quiet=quiet, batch=batch, wait=not no_wait, actors=actors,
                filling=filling,
            )
        )  # fmt: skip
        embedded = asyncio.run(_embed(work, database)) if settings.embedding and not (result.interrupted or pending) else None
    if embedded is not None:
        talk.print(embedded.told(), markup=False)
    took = database.run_totals()
    if as_json:
        missing = [entry._asdict() for entry in result.missing]
        _print_json({**result._asdict(), "missing": missing, "pending": pending, "store": str(work.store_path),
                     "cost_usd": took["cost_usd"], "maybe_billed_usd": database.ledger.unknown_usd,
                     **({"quota": filled.as_json()} if filled else {})})  # fmt: skip
    else:
        out.print(
            f"{result.calls:,} calls made, {result.reused:,} answers found in the store, {result.new_examples:,} new examples; "
            f"items: {result.done} done, {result.empty} empty, {result.failed} failed."
        )
    if ahead is not None and not pending and filling is None:
        usd = ahead.batch_usd if batch and ahead.batch_usd is not None else ahead.usd.mean
        minutes = (time.monotonic() - started) / 60
        talk.print(
            f"Forecast against actual: calls {ahead.calls.mean:,.0f} / {result.calls:,}; tokens in {ahead.prompt_tokens.mean:,.0f} / "
            f"{took['prompt_tokens']:,}, out {ahead.completion_tokens.mean:,.0f} / {took['completion_tokens']:,}; "
            f"{money(usd)} / {money(took['cost_usd'])}; minutes {'as the provider likes' if batch else f'{ahead.minutes.mean:.1f}'} / "
            f"{minutes:.1f}."
        )
    unknown = database.ledger.unknown_usd
    if unknown:
        talk.print(
            f"Billed: {money(took['cost_usd'])}. Up to {money(unknown)} more may have been billed for calls that never came back; it "
            "counts against the budget. See: python -m datagen costs"
        )
    if result.interrupted:
        raise KeyboardInterrupt
    if pending:
        talk.print(f"{pending:,} requests are pending in batches. The same command goes on from here; answers come within 24 h.")
        raise typer.Exit(PENDING)
    if filled is not None:
        _end_of_quota(filled, result)
        return
    if result.stopped or result.failed or result.missing:
        talk.print(_short_of(result, sum(item.count for item in items)))
        raise typer.Exit(1)
    if embedded is not None and embedded.stopped:
        raise typer.Exit(1)


def _end_of_quota(filled: "QuotaReport", result: Any) -> None:
    """The last lines of a run with a quota: rows count, not inputs."""
    from datagen.quota import render

    if result.missing or result.stopped:
        talk.print(_short_of(result, filled.asked).replace("Short of what was asked", "Of what was asked"), markup=False)
    talk.print(render(filled), markup=False)
    if filled.short:
        raise typer.Exit(1)


def _settle_batches(database: "Store", *, batch: bool, drop: bool) -> None:
    """Nothing is asked live that a batch may answer: it would be paid twice. Raises ConfigError."""
    waiting = database.batches("submitting", "open")
    if drop:
        for entry in waiting:
            database.lose(entry.id, "BatchDropped", "given up by --drop-batches; the provider may charge for what it answered")
            database.set_batch(entry.model_copy(update={"status": "lost", "error": "given up by --drop-batches"}))
            talk.print(
                f"Given up: batch {entry.provider_id or entry.id} of {entry.requests:,} requests to {entry.model}. Up to "
                f"{money(entry.worst_usd)} may be billed for it and counts against the budget: python -m datagen costs --release"
            )
    elif waiting and not batch:
        raise ConfigError(
            f"{database.path}: {sum(entry.requests for entry in waiting):,} requests wait in batches and would be paid twice. "
            "Add --batch to `generate` to collect them, or --drop-batches to give them up."
        )


def _actors(engine: str, workers: int | None) -> int:
    """How many actors ask; 0 for this process alone. Raises ConfigError where Ray is asked for and is not there."""
    if engine == "process":
        if workers is not None:
            raise ConfigError(f"--workers is {workers}, but one process asks. Add --engine ray.")
        return 0
    from datagen.ray_engine import require_ray

    require_ray()
    return workers or 2


def _try_forecast(work: Workspace, items: list[PlanItem]) -> Any:
    """A forecast, or None for a model whose price only the teacher knows."""
    try:
        return _forecast(work, items)
    except ConfigError:
        return None


def _told(ahead: Any) -> str:
    usd = ahead.usd
    return (
        f"{ahead.calls.mean:,.0f} calls, {money(usd.mean)} ({money(usd.low)} to {money(usd.high)}), "
        f"{between(ahead.minutes.low * 60, ahead.minutes.high * 60)}"
    )


def _short_of(result: Any, inputs: int) -> str:
    """The last line of a run that is short: how many inputs are missing, why, and what they cost."""
    reasons = ", ".join(f"{entry.inputs} {entry.reason} ({money(entry.cost_usd)})" for entry in result.missing)
    lost, paid = sum(entry.inputs for entry in result.missing), sum(entry.cost_usd for entry in result.missing)
    parts = [f"stopped: {result.stopped}"] if result.stopped else []
    parts += [f"{lost:,} of {inputs:,} inputs are missing, which cost {money(paid)}: {reasons}"] if result.missing else []
    return f'Short of what was asked: {"; ".join(parts)}. See each: make sql Q="FROM missing"'


def _variables(work: Workspace) -> dict[str, Any]:
    """What every prompt may use of the taxonomy."""
    if work.loaded.recipe.filters:  # wrong settings of a filter are told before anybody is asked; without any, nothing need be loaded
        _filter_context(work)
    return {
        "domain": work.taxonomy.description, "task": work.taxonomy.task, "labels": work.labels, "policy": work.taxonomy.policy_lines(),
        "dimensions": work.taxonomy.dimensions, "kinds": work.taxonomy.adversarial, "axes": work.taxonomy.axis_notes(),
        "truth": partial(_truth, work), **({"rubric": work.rubric} if work.rubric else {}),
    }  # fmt: skip


def _side_file(work: Workspace) -> Path:
    """Where the simulated teacher writes down its faults."""
    return work.store_path.with_suffix(".faults.jsonl")


def _teacher(work: Workspace, database: "Store") -> Any:
    from datagen.teacher import Teacher

    settings = work.loaded.recipe
    return Teacher(
        settings.teachers.by_role(),
        concurrency=settings.concurrency,
        retries=settings.retries,
        on_failure=database.add_failure,
        side_file=_side_file(work),
    )


async def _embed(work: Workspace, database: "Store") -> "EmbedReport":
    """The embeddings that the recipe asks for, of what the plan stands for now."""
    from datagen.embed import ROLE, embed
    from datagen.teacher import Teacher

    settings = work.loaded.recipe
    assert settings.embedding is not None
    teacher = Teacher(
        {ROLE: settings.embedding}, concurrency=settings.concurrency, retries=settings.retries, on_failure=database.add_failure
    )  # fmt: skip
    return await embed(database, teacher, settings.embedding, budget_usd=settings.budget_usd, concurrency=settings.concurrency)


async def _generate(
    work: Workspace, items: list[PlanItem], database: "Store", teachers: Sequence[TeacherTerms], command: str, *,
    ahead: Any = None, quiet: bool = False, only: list[PlanItem] | None = None, cap_usd: float | None = None,
    batch: bool = False, wait: bool = True, actors: int = 0, filling: "Filling | None" = None,
) -> "tuple[BatchReport, QuotaReport | None]":  # fmt: skip
    from datagen.ask import Asker
    from datagen.batch import BatchReport, BatchRun
    from datagen.generate import generate as in_this_process
    from datagen.prompts import check_prompts

    settings = work.loaded.recipe
    run: Callable[..., Awaitable[Any]] = in_this_process
    started = datetime.now(UTC)
    variables = _variables(work)
    check_prompts(variables, items)
    teacher = _teacher(work, database)

    def make_asker(answers: "CompletesRequests") -> Asker:
        return Asker(
            database, answers, settings.teachers.by_role(), variables, attempts=settings.attempts,
            budget_usd=settings.budget_usd if cap_usd is None else cap_usd, concurrency=settings.concurrency,
        )  # fmt: skip

    asker = make_asker(teacher)  # with batches too: it refuses a budget that pays nothing

    def make_batches() -> BatchRun:
        return BatchRun(
            database, teacher, settings.teachers.by_role(), settings.batch, make_asker=make_asker,
            say=lambda line: None if quiet else talk.print(line, markup=False),
        )  # fmt: skip

    if batch:
        make_batches()  # it refuses what has no batch API
    context = None if filling is None else _filter_context(work)
    database.start_run(
        f"{started:%Y%m%dT%H%M%S}-{os.getpid()}",
        command,
        settings.model_dump(mode="json"),
        {name: version(name) for name in ("retort", "litellm", "duckdb")},
        [found.model_dump(mode="json") for found in teachers],
        ahead.as_json() if ahead is not None else None,
    )
    chosen = items if only is None else only
    if actors:
        from datagen import ray_engine

        run = partial(
            ray_engine.generate, workers=actors, retries=settings.retries, side_file=_side_file(work),
            say=lambda line: talk.print(line, markup=False),
        )  # fmt: skip
    filled = None
    with _interruptible() as interrupt:

        async def part(some: list[PlanItem], whole: list[PlanItem]) -> BatchReport:
            common: dict[str, Any] = {"judged": settings.judge, "concurrency": settings.concurrency, "interrupt": interrupt, "plan": whole}
            if batch:
                return await make_batches().run(some, wait=wait, **common)
            asker.calls = asker.reused = asker.examples = 0
            with _progress(some, asker, quiet) as ended:
                return BatchReport(await run(some, asker, database, progress=ended, **common), 0)

        try:
            await asyncio.sleep(0)  # a Ctrl-C that came before is heard now, and nobody is asked
            if filling is None or context is None:
                report = await part(chosen, items)
            else:
                from datagen.quota import fill

                report, filled = await fill(filling, chosen, part, database, context, say=lambda line: talk.print(line, markup=False))
        except BaseException as error:
            database.end_run(
                "interrupted" if isinstance(error, (KeyboardInterrupt, asyncio.CancelledError)) else f"failed: {redact(str(error))}"
            )
            if isinstance(error, asyncio.CancelledError):
                raise KeyboardInterrupt from error
            raise
    result = report.report
    short = filled.short if filled is not None else result.stopped or result.failed or result.missing
    database.end_run("interrupted" if result.interrupted else "pending" if report.pending else "short" if short else "done")
    return report, filled


@contextlib.contextmanager
def _interruptible() -> Iterator[asyncio.Event]:
    """Ctrl-C sets the event, so that calls in flight may end; a second one ends at once."""
    interrupt, loop, me = asyncio.Event(), asyncio.get_running_loop(), asyncio.current_task()

    def pressed() -> None:
        if interrupt.is_set() and me is not None:
            me.cancel()
            return
        interrupt.set()
        talk.print("Stopping: no further call is sent; calls in flight have 5 seconds to come back. Press Ctrl-C again to end at once.")

    try:
        loop.add_signal_handler(signal.SIGINT, pressed)
    except (NotImplementedError, RuntimeError, ValueError):  # not the main thread
        yield interrupt
        return
    try:
        yield interrupt
    finally:
        loop.remove_signal_handler(signal.SIGINT)


@app.command()
def costs(
    recipe: Path = RecipeOption, store: Path | None = StoreOption, as_json: bool = JsonOption,
    release: bool = typer.Option(False, "--release", help="Take what may have been billed off the budget: you have looked it up."),
) -> None:  # fmt: skip
    """Show what was paid by day, model, role and generator, what may have been billed besides, and what is left of the budget."""
    work = _open(recipe, store)
    database = _existing_store(work.store_path)
    if release:
        talk.print(f"Released {money(database.release_unknown())}.")
    rows, ledger, budget = database.query("FROM spending"), database.ledger, work.loaded.recipe.budget_usd
    if as_json:
        account = {"spent_usd": ledger.spent_usd, "maybe_billed_usd": ledger.unknown_usd, "reserved_usd": ledger.open_usd}
        _print_json({**account, "budget_usd": budget, "spending": rows})
        return
    _print_rows(rows, False)
    reserved = f"; {money(ledger.open_usd)} is reserved for jobs that are not back" if ledger.open_usd else ""
    left = "" if budget is None else f"; {money(max(0.0, budget - ledger.committed_usd))} of {money(budget)} is left"
    out.print(
        f"{money(ledger.spent_usd)} billed; up to {money(ledger.unknown_usd)} more may have been billed for calls that never came back"
        f"{reserved}{left}."
    )


@app.command()
def curate(
    recipe: Path = RecipeOption, store: Path | None = StoreOption,
    new: bool = typer.Option(False, "--new", help="Judge only what has no verdicts yet, against what is kept."),
    as_json: bool = JsonOption,
) -> None:  # fmt: skip
    """Decide what is fit: every filter over every example. Free and repeatable."""
    from datagen.curate import curate as run
    from datagen.curate import curate_new

    work = _open(recipe, store)
    database = _existing_store(work.store_path)
    split = work.loaded.recipe.split
    database.set_settings({"seed": str(work.loaded.recipe.seed), "split.test": str(split.test), "split.validation": str(split.validation)})
    context = _filter_context(work)
    result = curate_new(database, context) if new else None
    if result is not None:
        if as_json:
            _print_json(result._asdict())
        else:
            out.print(f"{result.examples:,} new examples, {result.accepted:,} of them accepted. See all: make report")
        return
    why = "The recipe, people's words or the plan changed since all were judged. " if new else ""
    talk.print(f"{why}Curating: every filter over every example; nothing is deleted, verdicts are made anew.")
    result = run(database, context)
    if as_json:
        _print_json(result._asdict())
        return
    _show_report(work, database)


def _truth(work: Workspace) -> Any:
    """What is known of right answers, for generators that ask."""
    return replace(_filter_context(work), evaluation_sets=())


def _filter_context(work: Workspace) -> Any:
    from datagen.curate import check_settings
    from datagen.filters import FilterContext
    from datagen.prompts import own_texts

    check_settings(work.loaded.recipe.filters, work.loaded.path, work.rubric)
    model = work.loaded.recipe.embedding
    return FilterContext(
        embedding=None if model is None else embedding_space(model.model, model.open_params),
        task=work.taxonomy.task, labels=work.labels, facts=work.taxonomy.facts, policy=work.taxonomy.policy,
        evaluation_sets=work.evaluation_sets, settings=work.loaded.recipe.filters, retired=frozenset(work.loaded.recipe.retired),
        prompts=own_texts(work.taxonomy.description), rubric=work.rubric, kinds=work.taxonomy.adversarial,
        failures=tuple(failure.input for failure in work.failures),
    )  # fmt: skip


@app.command()
def export(
    recipe: Path = RecipeOption, store: Path | None = StoreOption, out_dir: Path | None = OutOption,
    teacher: str | None = TeacherOption, scale: float = ScaleOption, terms: str | None = TermsOption, as_json: bool = JsonOption,
) -> None:  # fmt: skip
    """Write the data set: Parquet in TRL's columns, JSONL, ShareGPT, manifest.json and a dataset card."""
    from datagen.export import export as run

    work = _open(recipe, store, teacher=teacher, scale=scale)
    settings = work.loaded.recipe
    database = _existing_store(work.store_path)
    target = out_dir or work.loaded.export_dir()
    teachers = of_the_data(database.teachers_of_accepted(), database.terms_of_runs(), settings.terms, _decision(terms))
    require_settled(teachers, str(work.store_path))
    manifest = run(
        database,
        target,
        recipe=settings.model_dump(mode="json"),
        recipe_sha256=work.loaded.sha256,
        taxonomy={"name": work.taxonomy.name, "path": str(work.taxonomy_path), "sha256": work.taxonomy_sha256},
        task=work.taxonomy.task,
        labels=work.labels,
        seed=settings.seed,
        teachers=[found.model_dump(mode="json") for found in teachers],
        evaluation_sets=work.evaluation_sets,
        split=settings.split.model_dump(),
        reasoning=settings.export.reasoning,
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        retired={name: said.model_dump() for name, said in settings.retired.items()},
    )
    if as_json:
        _print_json(manifest)
        return
    rows = {name: entry["rows"] for name, entry in manifest["files"].items()}
    out.print(f"{target}: " + ", ".join(f"{name} {count:,}" for name, count in rows.items() if count is not None))
    out.print("Next: make review N=20 (look at a sample), make sql (ask the store), make train (tune the student).")


@app.command("import")
def import_files(
    files: list[Path] = typer.Argument(..., help="JSON lines: prompt and completion, messages, instruction-input-output, pairs, verdicts."),
    out_dir: Path = typer.Option(..., "--out", help="The data set's folder, as `python -m train run --data` reads it."),
    system: str | None = typer.Option(None, "--system", help="The student's system message, for rows that have none."),
    kind: str = typer.Option("generation", "--type", help="classification, extraction, question_answering, generation or conversation."),
    label_field: str | None = typer.Option(None, "--label-field", help="The field of a JSON answer that holds its label."),
    schema: Path | None = typer.Option(None, "--schema", help="The JSON schema of the answers."),
    exams: list[str] | None = typer.Option(None, "--exam", help="NAME=FILE.jsonl: what the student is measured on, kept out of the data."),
    terms: str | None = typer.Option(None, "--terms", help="Why these rows may train a model; kept in the manifest and on the card."),
    seed: int = typer.Option(0, "--seed", help="Draws the splits."),
    as_json: bool = JsonOption,
) -> None:  # fmt: skip
    """Make a data set of rows of your own: split by group, checked against evaluation sets, with a manifest to train on."""
    from datagen.imported import exam_of, import_rows, read_rows, task_of, told

    rows = read_rows(files, system=system, label_field=label_field)
    task = task_of(rows, kind, schema=schema, label_field=label_field)
    report = import_rows(
        rows, out_dir, name=out_dir.name, task=task, exams=[exam_of(said) for said in exams or ()], decision=_decision(terms),
        sources=files, created=datetime.now(UTC).isoformat(timespec="seconds"), seed=seed,
    )  # fmt: skip
    if as_json:
        _print_json({"manifest": report.manifest, "rows": report.rows, "left_out": report.left_out})
        return
    for line in told(report, out_dir):
        out.print(line, highlight=False)


@app.command()
def compare(
    first: Path = typer.Argument(..., help="One system's answers: JSON lines of id, input, answer, as runs/<id>/answers/ holds them."),
    second: Path = typer.Argument(..., help="The other's, to the same rows; the win rate is that of this one."),
    recipe: Path = RecipeOption, store: Path | None = StoreOption, teacher: str | None = TeacherOption,
    rows: int | None = typer.Option(None, "--rows", min=1, help="Compare this many, drawn by a hash of their ids; all when not given."),
    target: Path | None = typer.Option(None, "--out", help="The judgements, JSON; judged.<a>-<b>.json beside the second when not given."),
    as_json: bool = JsonOption,
) -> None:  # fmt: skip
    """Let the recipe's judge compare two systems' answers, each pair in both orders, and say how far the judge can be believed."""
    from datagen import compare as comparing

    work = _open(recipe, store, teacher=teacher)
    a, b = comparing.names_of(first, second)
    pairs = comparing.pair_up(first, second, rows)
    found, facts = _evaluate(work, "judge", "compare", partial(comparing.judge_pairs, pairs), len(pairs))
    judged = {"file": second.name, "sha256": hashlib.sha256(second.read_bytes()).hexdigest()}  # a report sees whether it is still so
    summary = {**facts, **comparing.summarize(found.results, a=a, b=b, seed=work.loaded.recipe.seed), "second": judged}
    target = target or second.parent / f"judged.{a}-{b}.json"
    target.write_text(json.dumps({**summary, "judgements": [j._asdict() for j in found.results]}, indent=1) + "\n", encoding="utf-8")
    if as_json:
        _print_json(summary)
    else:
        out.print("\n".join([*comparing.render(summary, facts["cost_usd"]), f"Each judgement: {target}"]), markup=False, highlight=False)
    if found.stopped or found.missing:
        raise typer.Exit(1)


@app.command()
def answer(
    source: Path = typer.Argument(..., help="Rows to answer: JSON lines of id, input, answer; any file of runs/<id>/answers/<set>/."),
    target: Path = typer.Option(..., "--out", help="Where the teacher's answers go, for `python -m train evaluate --answers`."),
    recipe: Path = RecipeOption, store: Path | None = StoreOption, teacher: str | None = TeacherOption, as_json: bool = JsonOption,
) -> None:  # fmt: skip
    """Let the recipe's teacher answer evaluation rows, to compare it with its student. None of it becomes training data."""
    from datagen import compare as comparing

    work = _open(recipe, store, teacher=teacher)
    given = list(comparing.read_answers(source).values())
    found, facts = _evaluate(work, "teacher", "answer", partial(comparing.answer_rows, given), len(given))
    target.write_text("".join(json.dumps(row._asdict(), ensure_ascii=False) + "\n" for row in found.results), encoding="utf-8")
    if as_json:
        _print_json(facts)
    else:
        out.print(f"{len(found.results):,} of {len(given):,} rows answered by {facts['teacher']}, {money(facts['cost_usd'])}: {target}")
    if len(found.results) < len(given):
        raise typer.Exit(1)


def _evaluate(work: Workspace, role: str, command: str, ask_all: Callable[..., Awaitable[Any]], rows: int) -> tuple[Any, dict[str, Any]]:
    """Ask one role about evaluation rows, inside the store and its budget; what came of it, with facts for a record."""
    from datagen.ask import Asker
    from datagen.compare import Weigher
    from datagen.store import Store

    settings = work.loaded.recipe
    config = settings.teachers.by_role()[role]
    config.secret_params()
    database, variables = Store(work.store_path), _variables(work)

    async def run() -> Any:
        teacher = _teacher(work, database)

        def asker(of: Any) -> Asker:
            return Asker(
                database, of, {role: config}, variables, attempts=settings.attempts, budget_usd=settings.budget_usd,
                concurrency=settings.concurrency,
            )  # fmt: skip

        weigher = Weigher(teacher)
        await ask_all(asker(weigher))
        talk.print(
            f"{rows:,} rows for {config.model}: {weigher.calls:,} calls that the store has no answer to, at most {money(weigher.usd)} "
            "for those; more where an answer cannot be read and is asked for again."
        )
        settings_now, started = settings.model_dump(mode="json"), datetime.now(UTC)
        versions = {name: version(name) for name in ("retort", "litellm", "duckdb")}
        database.start_run(f"{started:%Y%m%dT%H%M%S}-{os.getpid()}", command, settings_now, versions)
        with _interruptible() as interrupt:
            try:
                found = await ask_all(asker(teacher), interrupt)
            except BaseException as error:
                database.end_run(f"failed: {redact(str(error))}")
                raise
        database.end_run("interrupted" if interrupt.is_set() else "short" if found.stopped or found.missing else "done")
        return found

    with database.writing():
        _settle_batches(database, batch=False, drop=False)
        found = asyncio.run(run())
    cost = float(database.run_totals()["cost_usd"])
    if not found.results:
        raise ConfigError(f"{config.model} gave no answer that could be used: {found.stopped or found.missing}. Mend that, and run again.")
    facts = {"missing": found.missing, "stopped": found.stopped, "cost_usd": cost, "simulated": config.model.startswith("offline/")}
    return found, {role: config.model, **facts}


@app.command()
def report(recipe: Path = RecipeOption, store: Path | None = StoreOption, as_json: bool = JsonOption) -> None:
    """Show what was made, dropped and paid: tables here, a page with plots beside the store."""
    from datagen.report import summarize

    work = _open(recipe, store)
    database = _existing_store(work.store_path)
    if as_json:
        _print_json(summarize(database, work.loaded.recipe.terms))
    else:
        _show_report(work, database)


def _show_report(work: Workspace, database: "Store") -> None:
    from datagen.report import render, summarize
    from datagen.report_page import write_page

    summary, page = summarize(database, work.loaded.recipe.terms), work.store_path.with_suffix(".report.html")
    out.print(render(summary, f"{work.loaded.recipe.name} ({work.store_path})"))
    write_page(summary, work.loaded.recipe.name, page)
    out.print(f"With plots and dropped examples, as a page: {page}")


@app.command()
def coverage(recipe: Path = RecipeOption, store: Path | None = StoreOption, as_json: bool = JsonOption) -> None:
    """Show how near the data set is to its targets, by cell and by dimension, with intervals and tests."""
    from datagen import coverage as covering

    work = _open(recipe, store)
    weights = {name: {value: entry.weight for value, entry in values.items()} for name, values in work.taxonomy.dimensions.items()}
    seen = covering.look(_existing_store(work.store_path), weights)
    if as_json:
        _print_json(seen)
    else:
        out.print(covering.render(seen, f"{work.loaded.recipe.name} ({work.store_path})"), markup=False)


@app.command()
def sql(
    query: str | None = typer.Argument(None, help="One query; without it a prompt opens."),
    recipe: Path = RecipeOption, store: Path | None = StoreOption, as_json: bool = JsonOption,
) -> None:  # fmt: skip
    """Query the store, read-only. It is opened for each query alone, so a run that goes on is not in the way."""
    database = _existing_store(store or load_recipe(recipe).store_path())
    if query is not None:
        _print_rows(database.query(query), as_json)
        return
    with contextlib.suppress(ImportError):
        import readline  # noqa: F401  # gives input() history and editing
    out.print(f"{database.path}. End a query with ; and leave with .quit")
    _print_rows(
        database.query(
            "SELECT view_name AS name, comment FROM duckdb_views() WHERE NOT internal AND comment IS NOT NULL "
            "UNION ALL SELECT table_name, comment FROM duckdb_tables() WHERE comment IS NOT NULL ORDER BY name"
        ),
        as_json,
    )
    lines: list[str] = []
    while True:
        try:
            line = input("sql> " if not lines else "...> ")
        except EOFError:
            return
        if line.strip() in (".quit", ".exit", "quit", "exit"):
            return
        lines.append(line)
        if line.rstrip().endswith(";"):
            try:
                _print_rows(database.query("\n".join(lines)), as_json)
            except RetortError as error:
                talk.print(str(error), style="red", markup=False)
            lines = []


@app.command("trace")
def trace_example(
    example: str = typer.Argument(..., help="An example's id, the beginning of one, or words that stand in it."),
    recipe: Path = RecipeOption, store: Path | None = StoreOption,
    data: Path = typer.Option(Path("data"), "--data", help="Where exports are, to say which hold it."),
    runs: Path = typer.Option(Path("runs"), "--runs", help="Where training runs are, to say which trained on it."),
    as_json: bool = JsonOption,
) -> None:  # fmt: skip
    """Follow one example: its calls, cost, verdicts and reviewer, the exports that hold it, the runs that trained on it."""
    from datagen.trace import lines, trace

    found = trace(_existing_store(store or load_recipe(recipe).store_path()), example, data=data, runs=runs)
    if as_json:
        _print_json(found)
        return
    for line in lines(found):
        out.print(line, markup=False, highlight=False, soft_wrap=True)


@app.command()
def review(
    recipe: Path = RecipeOption, store: Path | None = StoreOption,
    n: int | None = typer.Option(None, "--n", min=1, help="How many to review; 5 % (at most 200) when not given."),
    reviewer: str = typer.Option(os.environ.get("USER") or "me", "--reviewer", help="Who gives the verdicts."),
    seed: int = typer.Option(0, "--seed", help="Draws another sample."),
    export_to: Path | None = typer.Option(None, "--export", help="Write the sample to a JSONL file instead of asking."),
    import_from: Path | None = typer.Option(None, "--import", help="Take the verdicts of such a file."),
    calibrate: bool = typer.Option(False, "--calibrate", help="Half of the sample from what the judge dropped: to hold it against people."),
    as_json: bool = JsonOption,
) -> None:  # fmt: skip
    """Review a seeded, stratified sample: accept, reject with a reason, or edit. A person's word is the last."""
    from datagen import calibration
    from datagen import review as reviewing

    work = _open(recipe, store)
    database = _existing_store(work.store_path)
    task = work.taxonomy.task
    if import_from is not None:
        reviewing.apply(database, reviewer, reviewing.import_jsonl(import_from), task)
    else:
        sample = (calibration.draw if calibrate else reviewing.draw_sample)(database, reviewer=reviewer, n=n, seed=seed)
        if export_to is not None:
            reviewing.export_jsonl(sample, export_to)
            out.print(
                f"{len(sample)} examples in {export_to}. Fill in `decision` (accept, reject, edit), then: review --import {export_to}"
            )
            return
        if sample and not sys.stdin.isatty():
            raise ConfigError("review asks in a terminal. Without one, use --export FILE and --import FILE.")
        _review_loop(database, reviewer, sample, task)
    rates, agreements = reviewing.defect_rates(database), reviewing.agreements(database)
    judged = calibration.judge_agreement(database)
    if as_json:
        _print_json(
            {
                "defects": [rate._asdict() for rate in rates],
                "agreement": [entry._asdict() for entry in agreements],
                "judge": calibration.as_json(judged),
            }
        )
        return
    for rate in rates:
        out.print(
            f"{rate.reviewer}, {rate.stratum}: {rate.defects} defects in {rate.reviewed} reviewed: "
            f"{rate.rate:.1%} (95 % exact interval {rate.low:.1%} to {rate.high:.1%})"
        )
    for entry in agreements:
        kappa = "not defined" if entry.kappa is None else f"{entry.kappa:.2f} (95 % interval {entry.low:.2f} to {entry.high:.2f})"
        out.print(f"{entry.first} and {entry.second} agree on {entry.agreement:.1%} of {entry.rows} rows; Cohen's kappa {kappa}")
    for line in calibration.lines(judged):
        out.print(line, markup=False, highlight=False)
    out.print(f"Next: make datagen RECIPE={recipe} exports without what was rejected and with what was edited.")


def _review_loop(database: "Store", reviewer: str, sample: Sequence[Example], task: Task) -> None:
    """Every decision is stored before the next is asked: stopping loses nothing."""
    from datagen import review as reviewing

    out.print(
        f"{len(sample)} examples. a = accept, r REASON = reject, e NEW ANSWER = edit, i NEW INPUT = edit the input, s = skip, q = stop"
    )
    for number, example in enumerate(sample, 1):
        kind = f", {example.kind}" if example.kind else ""
        out.rule(f"{number} of {len(sample)}: {example.topic}, {example.generator}{kind}")
        parts = (
            ("input", example.transcript),
            ("answer", example.completion),
            ("steps", example.reasoning),
            ("rejected", example.rejected),
        )
        for name, text in parts:
            if text:
                out.print(f"{name + ':':<10}{text}", markup=False, highlight=False)
        while True:
            try:
                typed = input("a / r / e / i / s / q > ")
            except EOFError:
                return
            if typed.strip() == "q":
                return
            if typed.strip() == "s":
                break
            try:
                reviewing.apply(database, reviewer, [reviewing.parse_decision(typed, example)], task)
                break
            except RetortError as error:
                talk.print(str(error), style="red", markup=False)


_TICK_S = 2.0
_LINE_EVERY_S = 15.0


@contextlib.contextmanager
def _progress(items: Sequence[PlanItem], asker: Any, quiet: bool) -> Iterator[Any]:
    """A bar with a line below it in a terminal; elsewhere a plain line now and then."""
    watch = Watch(items, asker, time.monotonic())
    bar = Progress(
        TextColumn("items"),
        BarColumn(bar_width=30),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("{task.description}"),
        console=talk,
    )
    task = bar.add_task("", total=len(items))
    live = talk.is_terminal and not quiet

    async def look() -> None:
        said = time.monotonic()
        while True:
            await asyncio.sleep(_TICK_S)
            watch.tick(time.monotonic())
            if live:
                bar.update(task, completed=watch.items_ended, description=watch.line())
            elif not quiet and time.monotonic() - said >= _LINE_EVERY_S:
                said = time.monotonic()
                talk.print(f"{watch.items_ended}/{len(items)} items | {watch.line()}")

    def ended(item: PlanItem, status: str) -> None:
        watch.ended(item)
        if live:
            bar.update(task, completed=watch.items_ended)

    looking = asyncio.get_running_loop().create_task(look())
    try:
        with bar if live else contextlib.nullcontext():
            yield ended
    finally:
        looking.cancel()
    if not quiet:
        talk.print(f"{watch.items_ended}/{len(items)} items | {watch.line()}")


def _print_json(value: Any) -> None:
    sys.stdout.write(json.dumps(value, ensure_ascii=False, indent=2, default=str) + "\n")


def _print_rows(rows: Sequence[dict[str, Any]], as_json: bool) -> None:
    if as_json:
        _print_json(rows)
        return
    if not rows:
        out.print("(no rows)")
        return
    table = Table(show_lines=False)
    for column in rows[0]:
        table.add_column(column, overflow="fold")
    for row in rows:
        table.add_row(*("" if value is None else str(value) for value in row.values()))
    out.print(table, markup=False)
    out.print(f"({len(rows)} rows)")


_DISK_ERRORS = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EACCES, errno.EPERM)


def _show_bug() -> int:
    sys.stderr.write(redact(traceback.format_exc()))
    return 1


def _clean_record(*args: Any, **kwargs: Any) -> logging.LogRecord:
    """A log line of any library, without keys."""
    record = logging.LogRecord(*args, **kwargs)
    record.msg, record.args = redact(record.getMessage()), ()
    if record.exc_info and record.exc_info[0] is not None:
        record.exc_text = redact("".join(traceback.format_exception(*record.exc_info)).rstrip())
    return record


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """Run a subcommand and exit by the house's codes."""
    logging.setLogRecordFactory(_clean_record)
    try:
        code = app(args=arguments, standalone_mode=False)
        if code == 130:  # typer turns an interrupt into this code itself
            raise KeyboardInterrupt
    except RetortError as error:
        talk.print(f"error: {redact(str(error))}", style="red", markup=False)
        code = 2
    except typer.TyperException as error:
        talk.print(f"error: {error.format_message().rstrip('.')}. See --help.", style="red", markup=False)
        code = 2
    except OSError as error:
        full = error.errno in _DISK_ERRORS
        if full:
            where = error.filename or "the disk"
            talk.print(f"error: {where}: {error.strerror}. Make room, or choose another place.", style="red", markup=False)
        code = 2 if full else _show_bug()
    except Exception:  # a bug: its traceback is shown whole, but for the keys that a provider's message may hold
        code = _show_bug()
    except (KeyboardInterrupt, typer.Abort):
        talk.print("Interrupted; nothing is lost. The same command goes on from here.")
        code = 130
    sys.exit(code if isinstance(code, int) else 0)

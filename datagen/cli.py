"""The command line: one subcommand per verb. The only place that prints, asks or exits.

Exit codes: 0 done; 1 done, but short of what was asked; 2 the user can mend it; 130 interrupted, nothing lost.
"""

import asyncio
import contextlib
import errno
import json
import logging
import os
import sys
import traceback
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, NoReturn

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Table

from datagen.config import LoadedRecipe, TermsDecision, load_evaluation_sets, load_recipe, load_seeds
from datagen.errors import ConfigError, RetortError
from datagen.plan import count_calls, make_plan
from datagen.records import EvaluationSet, Example, PlanItem, Task
from datagen.secrets import redact
from datagen.taxonomy import Taxonomy, load_taxonomy
from datagen.terms import TeacherTerms, describe_teachers, of_the_data, require_settled

if TYPE_CHECKING:  # the store loads DuckDB, which --help can do without
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


class Workspace(NamedTuple):
    """What every verb needs of a recipe."""

    loaded: LoadedRecipe
    taxonomy: Taxonomy
    taxonomy_sha256: str
    taxonomy_path: Path
    evaluation_sets: tuple[EvaluationSet, ...]
    store_path: Path

    @property
    def labels(self) -> dict[str, str]:
        """The labels that an answer may have, with their descriptions."""
        return self.taxonomy.labels()


def _open(recipe: Path, store: Path | None, *, teacher: str | None = None, scale: float = 1.0) -> Workspace:
    loaded = load_recipe(recipe, teacher=teacher, scale=scale)
    path = loaded.resolve(loaded.recipe.taxonomy)
    taxonomy, sha256 = load_taxonomy(path)
    sets, notes = load_evaluation_sets(loaded, taxonomy.labels(), taxonomy.task.abstain_label)
    for note in notes:
        talk.print(f"note: {note}")
    return Workspace(loaded, taxonomy, sha256, path, sets, store or loaded.store_path())


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
    recipe = work.loaded.recipe
    seeds = load_seeds(work.loaded, work.labels)
    replace = recipe.seeds.replace if recipe.seeds else False
    mix = {str(name): count for name, count in recipe.mix.items()}
    return make_plan(work.taxonomy, mix, per_call=recipe.per_call, seed=recipe.seed, seeds=seeds, replace_seeds=replace)


@app.command()
def plan(
    recipe: Path = RecipeOption, store: Path | None = StoreOption, teacher: str | None = TeacherOption,
    scale: float = ScaleOption, as_json: bool = JsonOption,
) -> None:  # fmt: skip
    """Show the plan: cells, counts and calls. Asks nobody."""
    work = _open(recipe, store, teacher=teacher, scale=scale)
    items = _plan(work)
    cells: dict[tuple[str, str], int] = {}
    for item in items:
        cells[item.topic, item.generator] = cells.get((item.topic, item.generator), 0) + item.count
    calls = count_calls(items, work.loaded.recipe.judge)
    generators = [name for name, count in work.loaded.recipe.mix.items() if count]
    topics = sorted({topic for topic, _ in cells})
    if as_json:
        rows = [{"topic": topic, "generator": generator, "inputs": count} for (topic, generator), count in sorted(cells.items())]
        _print_json({"items": len(items), "inputs": sum(cells.values()), "calls": calls, "cells": rows})
        return
    table = Table(title=f"{work.loaded.recipe.name}: inputs asked for, by topic and generator", title_justify="left")
    table.add_column("topic")
    for name in [*generators, "all"]:
        table.add_column(name, justify="right")
    for topic in topics:
        counts = [cells.get((topic, name), 0) for name in generators]
        table.add_row(topic, *map(str, counts), str(sum(counts)))
    totals = [sum(cells.get((topic, name), 0) for topic in topics) for name in generators]
    table.add_row("all", *map(str, totals), str(sum(totals)), style="bold")
    out.print(table)
    models = {role: config.model for role, config in work.loaded.recipe.teachers.by_role().items()}
    out.print(f"{len(items)} items, about {calls:,} calls to {', '.join(f'{model} ({role})' for role, model in models.items())}.")
    budget = work.loaded.recipe.budget_usd
    out.print(f"Budget: {'none set' if budget is None else f'${budget}'}. Next: make datagen RECIPE={recipe}")


@app.command()
def generate(
    recipe: Path = RecipeOption, store: Path | None = StoreOption, teacher: str | None = TeacherOption,
    scale: float = ScaleOption, terms: str | None = TermsOption, as_json: bool = JsonOption,
) -> None:  # fmt: skip
    """Run the plan: ask the teachers for what the store does not have yet."""
    work = _open(recipe, store, teacher=teacher, scale=scale)
    teachers = describe_teachers(work.loaded.recipe.roles_asked(), work.loaded.recipe.terms, _decision(terms))
    require_settled(teachers, str(recipe))
    for config in work.loaded.recipe.roles_asked().values():
        config.secret_params()  # a variable that is not set is found now
    _say_decisions(teachers)
    items = _plan(work)
    settings, recipe_data = work.loaded.recipe, work.loaded.recipe.model_dump(mode="json")
    roles = settings.teachers.by_role()
    simulated = all(config.model.startswith("offline/") for config in roles.values())
    talk.print(
        f"Generating {settings.name}: {len(items)} items, {sum(item.count for item in items)} inputs, about "
        f"{count_calls(items, settings.judge):,} calls to {', '.join(sorted({config.model for config in roles.values()}))}"
        f"{' (offline: simulated, no model is asked)' if simulated else ''}. What the store has already is not asked again."
    )
    from datagen.store import Store

    database = Store(work.store_path)
    with database.writing():
        result = asyncio.run(_generate(work, items, database, recipe_data, teachers))
    if as_json:
        _print_json({**result._asdict(), "store": str(work.store_path)})
    else:
        out.print(
            f"{result.calls:,} calls made, {result.reused:,} answers found in the store, {result.new_examples:,} new examples; "
            f"items: {result.done} done, {result.empty} empty, {result.failed} failed."
        )
    if result.stopped or result.failed or result.problems:
        talk.print(
            f"Short of what was asked: {result.stopped or f'{result.failed} items failed, {result.problems} with problems'}. "
            f'See why: make sql Q="SELECT id, error FROM items WHERE error IS NOT NULL"'
        )
    if result.stopped or result.failed:
        raise typer.Exit(1)


async def _generate(
    work: Workspace, items: list[PlanItem], database: "Store", recipe_data: dict[str, Any], teachers: Sequence[TeacherTerms]
) -> Any:
    from datagen.ask import Asker
    from datagen.generate import generate as run
    from datagen.prompts import check_prompts
    from datagen.teacher import Teacher

    settings = work.loaded.recipe
    roles = settings.teachers.by_role()
    started = datetime.now(UTC)
    teacher = Teacher(
        roles,
        concurrency=settings.concurrency,
        retries=settings.retries,
        on_failure=database.add_failure,
        side_file=work.store_path.with_suffix(".faults.jsonl"),
    )
    variables = {
        "domain": work.taxonomy.description, "task": work.taxonomy.task, "labels": work.labels, "policy": work.taxonomy.policy_lines(),
        "dimensions": work.taxonomy.dimensions, "kinds": work.taxonomy.adversarial,
    }  # fmt: skip
    check_prompts(variables, items)
    if settings.budget_usd == 0 and any(price for prices in teacher.prices.values() for price in prices):
        raise ConfigError(f"{work.loaded.path}: budget_usd is 0, so no call can be paid. Give an amount, or remove it for no cap.")
    asker = Asker(database, teacher, roles, variables, attempts=settings.attempts, budget_usd=settings.budget_usd)
    run_id = f"{started:%Y%m%dT%H%M%S}-{os.getpid()}"
    versions = {name: version(name) for name in ("retort", "litellm", "duckdb")}
    database.start_run(run_id, "generate", recipe_data, versions, [found.model_dump(mode="json") for found in teachers])
    with _progress("items", len(items)) as advance:
        try:
            result = await run(
                items, asker, database, judged=settings.judge, concurrency=settings.concurrency, progress=lambda item, status: advance()
            )
        except BaseException as error:
            database.end_run(
                "interrupted" if isinstance(error, (KeyboardInterrupt, asyncio.CancelledError)) else f"failed: {redact(str(error))}"
            )
            raise
    database.end_run("short" if result.stopped or result.failed else "done")
    return result


@app.command()
def curate(recipe: Path = RecipeOption, store: Path | None = StoreOption, as_json: bool = JsonOption) -> None:
    """Decide what is fit: every filter over every example. Free and repeatable."""
    from datagen import report as reporting
    from datagen.curate import curate as run

    work = _open(recipe, store)
    database = _existing_store(work.store_path)
    talk.print("Curating: every filter over every example; nothing is deleted, verdicts are made anew.")
    split = work.loaded.recipe.split
    database.set_settings({"seed": str(work.loaded.recipe.seed), "split.test": str(split.test), "split.validation": str(split.validation)})
    result = run(database, _filter_context(work))
    if as_json:
        _print_json(result._asdict())
        return
    summary, page = reporting.summarize(database), work.store_path.with_suffix(".report.html")
    out.print(reporting.render(summary, work.loaded.recipe.name))
    reporting.write_html(summary, work.loaded.recipe.name, page)
    out.print(f"The same as a page: {page}")


def _filter_context(work: Workspace) -> Any:
    from datagen.curate import check_settings
    from datagen.filters import FilterContext

    check_settings(work.loaded.recipe.filters, work.loaded.path)
    return FilterContext(
        task=work.taxonomy.task, labels=work.labels, facts=work.taxonomy.facts, policy=work.taxonomy.policy,
        evaluation_sets=work.evaluation_sets, settings=work.loaded.recipe.filters,
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
    )
    if as_json:
        _print_json(manifest)
        return
    rows = {name: entry["rows"] for name, entry in manifest["files"].items()}
    out.print(f"{target}: " + ", ".join(f"{name} {count:,}" for name, count in rows.items() if count is not None))
    out.print("Next: make review N=20 (look at a sample), make sql (ask the store), make train (tune the student).")


@app.command()
def report(recipe: Path = RecipeOption, store: Path | None = StoreOption, as_json: bool = JsonOption) -> None:
    """Show what was made, dropped and paid."""
    from datagen import report as reporting

    work = _open(recipe, store)
    summary = reporting.summarize(_existing_store(work.store_path))
    if as_json:
        _print_json(summary)
    else:
        out.print(reporting.render(summary, f"{work.loaded.recipe.name} ({work.store_path})"))


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


@app.command()
def review(
    recipe: Path = RecipeOption, store: Path | None = StoreOption,
    n: int | None = typer.Option(None, "--n", min=1, help="How many to review; 5 % (at most 200) when not given."),
    reviewer: str = typer.Option(os.environ.get("USER") or "me", "--reviewer", help="Who gives the verdicts."),
    seed: int = typer.Option(0, "--seed", help="Draws another sample."),
    export_to: Path | None = typer.Option(None, "--export", help="Write the sample to a JSONL file instead of asking."),
    import_from: Path | None = typer.Option(None, "--import", help="Take the verdicts of such a file."),
    as_json: bool = JsonOption,
) -> None:  # fmt: skip
    """Review a seeded, stratified sample: accept, reject with a reason, or edit. A person's word is the last."""
    from datagen import review as reviewing

    work = _open(recipe, store)
    database = _existing_store(work.store_path)
    task = work.taxonomy.task
    if import_from is not None:
        reviewing.apply(database, reviewer, reviewing.import_jsonl(import_from), task)
    else:
        sample = reviewing.draw_sample(database, reviewer=reviewer, n=n, seed=seed)
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
    if as_json:
        _print_json({"defects": [rate._asdict() for rate in rates], "agreement": [entry._asdict() for entry in agreements]})
        return
    for rate in rates:
        out.print(
            f"{rate.reviewer}, {rate.stratum}: {rate.defects} defects in {rate.reviewed} reviewed: "
            f"{rate.rate:.1%} (95 % exact interval {rate.low:.1%} to {rate.high:.1%})"
        )
    for entry in agreements:
        kappa = "not defined" if entry.kappa is None else f"{entry.kappa:.2f}"
        out.print(f"{entry.first} and {entry.second} agree on {entry.agreement:.1%} of {entry.rows} rows; Cohen's kappa {kappa}")
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
        parts = (("input", example.input), ("answer", example.completion), ("steps", example.reasoning), ("rejected", example.rejected))
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


@contextlib.contextmanager
def _progress(what: str, total: int) -> Iterator[Any]:
    with Progress(TextColumn(what), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), TimeRemainingColumn(), console=talk) as bar:
        task = bar.add_task(what, total=total)
        yield lambda: bar.advance(task)


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
        talk.print(f"error: {error.format_message()} See --help.", style="red", markup=False)
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

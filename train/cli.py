"""The command line: one subcommand per verb. The only place of `train` that prints or exits.

Exit codes: 0 done; 1 done, but short of what was asked; 2 the user can mend it; 130 interrupted, nothing lost.
"""

import json
import logging
import sys
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NoReturn

import rich.progress
import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from train import launch
from train.config import TrainConfig, read_config, with_formats
from train.errors import ConfigError, TrainError

# Everything that needs torch is imported inside the commands, so that --help answers at once.

app = typer.Typer(add_completion=False, no_args_is_help=True, rich_markup_mode=None, pretty_exceptions_enable=False, help=__doc__)
# A pipe has no width of its own; the evaluation table wants some.
out = Console(width=None if sys.stdout.isatty() else 150)
talk = Console(stderr=True, highlight=False, soft_wrap=True)

RUNS = Path("runs")
RecipeOption = typer.Option(None, "--recipe", help="The experiment, a YAML file; its `train:` section counts here.")
StudentOption = typer.Option(None, "--student", help="Another student than the recipe's: a hub id or a folder.")
DataOption = typer.Option(None, "--data", help="The exported data; data/<recipe name> when not given.")
OutOption = typer.Option(None, "--out", help="The run's folder; runs/<time>-<name> when not given. An interrupted run there goes on.")
RunOption = typer.Option(None, "--model", help="The run's folder; runs/latest when not given.")
ProcessesOption = typer.Option(1, "--processes", min=1, help="On several GPUs of this machine, one process each.")
JsonOption = typer.Option(False, "--json", help="Print the result as JSON on standard output.")


class Left(rich.progress.TimeRemainingColumn):
    """The time left: as the stage itself says, which knows at how many points it will stand still to score; else by the steps so far."""

    max_refresh = 0

    def render(self, task: rich.progress.Task) -> Text:
        """Hours, minutes, seconds."""
        left = task.fields.get("left")
        if left is None or task.finished:
            return super().render(task)
        minutes, seconds = divmod(round(left), 60)
        hours, minutes = divmod(minutes, 60)
        return Text(f"{hours}:{minutes:02d}:{seconds:02d}", style="progress.remaining")


class Terminal:
    """A train.watch.Progress on the terminal's error stream: a bar per stage."""

    def __init__(self) -> None:
        self.bar = rich.progress.Progress(
            rich.progress.TextColumn("{task.description:<16}"),
            rich.progress.BarColumn(),
            rich.progress.MofNCompleteColumn(),
            rich.progress.TimeElapsedColumn(),
            Left(),
            rich.progress.TextColumn("{task.fields[numbers]}"),
            console=talk,
        )
        self.task: rich.progress.TaskID | None = None
        self.numbers: dict[str, float] = {}

    def __enter__(self) -> "Terminal":
        self.bar.start()
        return self

    def __exit__(self, *error: object) -> None:
        self.bar.stop()

    def plan(self, title: str, facts: Mapping[str, str]) -> None:
        """Print what will be done."""
        table = Table(title=title, title_justify="left", show_header=False, box=None, padding=(0, 2, 0, 0))
        for name, value in facts.items():
            table.add_row(name, value)
        talk.print(table)

    def start(self, stage: str, total: int) -> None:
        """Open a bar."""
        self.numbers = {}
        self.task = self.bar.add_task(stage, total=total, numbers="")

    def advance(self, done: int, **numbers: float) -> None:
        """Move the bar and refresh the figures beside it."""
        left = numbers.pop("seconds_left", None)
        self.numbers.update(numbers)
        if self.task is not None and left is not None:
            self.bar.update(self.task, left=left)
        if self.task is not None:
            text = "  ".join(f"{name} {value:.3f}" for name, value in self.numbers.items())
            self.bar.update(self.task, completed=done, numbers=text)

    def note(self, text: str) -> None:
        """Print one line."""
        talk.print(f"note: {text}", markup=False)


@app.command("run")
def run_all(
    recipe: Path | None = RecipeOption, student: str | None = StudentOption, data: Path | None = DataOption,
    run_dir: Path | None = OutOption, processes: int = ProcessesOption, as_json: bool = JsonOption,
) -> int:  # fmt: skip
    """Tune the student: SFT, DPO or KTO, merge, quantize, gate, evaluation, card, report. Exits with 1 when the gate held a form back."""
    _launch(processes)
    config = read_config(recipe, student=student, data=data)
    where = _run(config, run_dir)
    _show_evaluation(where, as_json)
    code = _show_gate(where, as_json=None if as_json else False)
    if not as_json:
        files = "report.html to read, merged/ to use, failures.parquet for the next round of data"
        out.print(f"\nThe run is in {where}: {files}.", highlight=False)
        out.print(f"Next: python -m train predict --model {where} --input prompts.jsonl --output answers.jsonl", highlight=False)
    return code


@app.command()
def sft(
    recipe: Path | None = RecipeOption, student: str | None = StudentOption, data: Path | None = DataOption,
    run_dir: Path | None = OutOption, processes: int = ProcessesOption, as_json: bool = JsonOption,
) -> None:  # fmt: skip
    """Supervised fine-tuning alone, in a new or interrupted run."""
    _launch(processes)
    where = _run(read_config(recipe, student=student, data=data), run_dir, ("sft",))
    _show_stage(where, "sft", as_json, f"Next: python -m train dpo --model {where}")


@app.command()
def dpo(run_dir: Path | None = RunOption, processes: int = ProcessesOption, as_json: bool = JsonOption) -> None:
    """Preference optimization of a run that has done SFT."""
    _launch(processes)
    where = _existing(run_dir, ("dpo",), again=False)
    _show_stage(where, "dpo", as_json, f"Next: python -m train merge --model {where}")


@app.command()
def kto(run_dir: Path | None = RunOption, as_json: bool = JsonOption) -> None:
    """Learn from accepted and rejected answers, in a run that has done SFT and has no pairs."""
    where = _existing(run_dir, ("kto",), again=False)
    _show_stage(where, "kto", as_json, f"Next: python -m train merge --model {where}")


@app.command()
def merge(run_dir: Path | None = RunOption, as_json: bool = JsonOption) -> None:
    """Merge a run's adapter into its base, and check that it answers the same."""
    where = _existing(run_dir, ("merge",), again=True)
    _show_stage(where, "merge", as_json, f"Next: python -m train evaluate --model {where}")


@app.command()
def gate(
    run_dir: Path | None = RunOption,
    name: str | None = typer.Option(None, "--accept", help="Ship this artifact though it did not pass; with --because and --by."),
    because: str = typer.Option("", "--because", help="Why: kept in gate.json and on the card."),
    by: str = typer.Option("", "--by", help="Who decides."),
    as_json: bool = JsonOption,
) -> int:
    """Judge every artifact of a run against its adapter on the same rows; exits with 1 when something may not ship."""
    if name is None and (because or by):
        raise ConfigError("--because and --by belong to --accept NAME. Name the artifact.")
    if name is None:
        where = _existing(run_dir, ("gate", "card", "report"), again=True)
    else:
        from train.gate import accept
        from train.run import find_run

        accept(find_run(run_dir, RUNS), name, by=by, because=because, at=datetime.now(UTC).isoformat(timespec="seconds"))
        where = _existing(run_dir, ("card", "report"), again=True)
    return _show_gate(where, as_json)


@app.command()
def card(run_dir: Path | None = RunOption, as_json: bool = JsonOption) -> None:
    """Write a run's provenance and model card again."""
    where = _existing(run_dir, ("card",), again=True)
    if as_json:
        _print_json({"card": str(where / "README.md"), "provenance": str(where / "provenance.json")})
    else:
        out.print(f"{where / 'README.md'} and {where / 'provenance.json'} are written.", highlight=False)


@app.command()
def trace(
    row: str | None = typer.Argument(None, help="A training row's id, the beginning of one, or words that stand in it."),
    runs: Path = typer.Option(RUNS, "--runs", help="Where training runs are, or one run."),
    as_json: bool = JsonOption,
) -> None:
    """Follow one training row: the runs that read it, its teacher calls, their cost, the reviewer. Without a row: check the files."""
    from train import provenance

    if row is None:
        from train.run import find_run

        where = find_run(runs if (runs / "run.json").is_file() else None, runs)
        count = provenance.verify(where)
        if as_json:
            _print_json({"run": str(where), "files": count})
        else:
            out.print(f"{where}: {count} files of its artifacts and the record of its rows are what the run wrote.", highlight=False)
        return
    found = provenance.trace(row, runs)
    if as_json:
        _print_json([traced._asdict() for traced in found])
        return
    for line in provenance.tell(found):
        out.print(line, markup=False, highlight=False, soft_wrap=True)


@app.command()
def without(
    topics: list[str] | None = typer.Option(None, "--topic", help="Leave out rows of this topic, and of those below it."),
    generators: list[str] | None = typer.Option(None, "--generator", help="Leave out rows of this generator."),
    teachers: list[str] | None = typer.Option(None, "--teacher", help="Leave out rows whose answer this model wrote."),
    rows: Path | None = typer.Option(None, "--rows", help="Leave out the rows whose ids this file lists, one a line."),
    recipe: Path | None = RecipeOption, student: str | None = StudentOption, data: Path | None = DataOption,
    run_dir: Path | None = OutOption, as_json: bool = JsonOption,
) -> int:  # fmt: skip
    """Train again by the same recipe without some rows, as a new run."""
    from train.config import Without
    from train.dataset import read_ids

    left = Without(topics=topics or [], generators=generators or [], teachers=teachers or [], rows=read_ids(rows) if rows else [])
    if not left.named:
        raise ConfigError("name what to leave out: --topic, --generator, --teacher or --rows FILE.")
    config = read_config(recipe, student=student, data=data).model_copy(update={"without": left})
    where = _run(config, run_dir)
    _show_evaluation(where, as_json)
    return _show_gate(where, as_json=None if as_json else False)


@app.command()
def quantize(
    run_dir: Path | None = RunOption,
    formats: list[str] | None = typer.Option(None, "--format", help="A form to make; the recipe's when not given. Repeat for several."),
    as_json: bool = JsonOption,
) -> None:
    """Write the merged model as GGUF, AWQ and GPTQ: the forms of the recipe that are missing, or those given."""
    from train.quantize import described

    where = _existing(run_dir, ("quantize",), again=True, formats=formats)
    _show_stage(where, "quantize", as_json, described(where))


@app.command()
def dist(
    run_dir: Path | None = RunOption,
    target: Path = typer.Option(Path("dist"), "--out", help="Where the folder <recipe name>/ is made."),
    as_json: bool = JsonOption,
) -> int:
    """Put what passed the gate, with scores, licence notes and checksums, into one folder; exits with 1 when something was held back."""
    from train.dist import build, size
    from train.model import quiet
    from train.run import config_of, find_run
    from train.verdicts import read_gate, refused

    quiet()
    where = find_run(run_dir, RUNS)
    config = config_of(where)
    talk.print(f"{size(where) / 1e6:,.0f} MB are copied to {target / config.name}.", highlight=False)
    folder = build(where, config, target)
    left = refused(read_gate(where))
    if as_json:
        _print_json({"folder": str(folder), "held_back": left})
    else:
        if left:
            out.print(f"The gate held back {', '.join(left)}; `python -m train gate` says why.", highlight=False)
        out.print(f"{folder} is ready. Next: python -m train upload {folder} --repo owner/name --dry-run", highlight=False)
    return 1 if left else 0


@app.command()
def verify(
    folder: Path = typer.Argument(..., help="A folder that `dist` made, or a run's."), as_json: bool = JsonOption,
) -> None:  # fmt: skip
    """Check every file of a deploy folder, or of a run's quantized forms, against its checksum."""
    from train.sums import verify as check

    checked = check(folder)
    if as_json:
        _print_json({"folder": str(folder), "files": checked})
    else:
        out.print(f"{len(checked)} files are as they were written.", highlight=False)


@app.command()
def upload(
    folder: Path = typer.Argument(..., help="A folder that `dist` made."),
    repo: str = typer.Option(..., "--repo", help="owner/name on the Hugging Face Hub; made as private if it is not there."),
    dry_run: bool = typer.Option(False, "--dry-run", help="Only list what would be sent and what is missing; no network."),
    as_json: bool = JsonOption,
) -> None:
    """Send a deploy folder to the Hugging Face Hub, after checking it."""
    from train.hub import plan_upload
    from train.hub import upload as send

    plan = plan_upload(folder, repo)
    address = None if dry_run else send(folder, repo)
    if as_json:
        _print_json({**plan._asdict(), "address": address})
        return
    for name, count in plan.files.items():
        out.print(f"{count:>14,}  {name}", highlight=False)
    for name in plan.missing:
        out.print(f"missing: {name}", highlight=False)
    total = f"{sum(plan.files.values()):,} bytes in {len(plan.files)} files"
    out.print(f"{total} are in {address}" if address else f"{total} would go to {repo}; nothing was sent.", highlight=False)


@app.command()
def evaluate(
    model: str | None = typer.Option(None, "--model", help="A run's folder (runs/latest when not given), or any model's with --set."),
    sets: list[str] | None = typer.Option(None, "--set", help="NAME=FILE.jsonl to score a model on, instead of a run on its own sets."),
    others: list[str] | None = typer.Option(None, "--answers", help="NAME=FILE.jsonl: a system that takes part by its answers."),
    recipe: Path | None = RecipeOption, student: str | None = StudentOption, data: Path | None = DataOption,
    target: Path | None = typer.Option(None, "--out", help="Where to write the evaluation of a model with --set."),
    price: float | None = typer.Option(None, "--usd-per-hour", min=0, help="The serving machine's price; the recipe's when not given."),
    as_json: bool = JsonOption,
) -> None:  # fmt: skip
    """Evaluate base, SFT, DPO and merged of a run again; or, with --set, any model on a file."""
    if sets and others:
        raise ConfigError("--answers belongs to the evaluation of a run, --set to that of another model. Leave one of them out.")
    if not sets:
        if others:
            _give(Path(model) if model else None, others)
        where = _existing(Path(model) if model else None, ("evaluate", "report"), again=True, usd_per_hour=price)
        _show_evaluation(where, as_json)
        return
    from train.dataset import Manifest
    from train.evaluate import evaluate_model
    from train.model import quiet
    from train.run import config_of

    quiet()
    folder = Path(model) if model else RUNS / "latest"
    config = read_config(recipe, student=student, data=data)
    if (folder / "run.json").is_file():
        config = config_of(folder).model_copy(update={"data": data} if data else {})
        folder = folder / "merged"
    files = dict(_set(text) for text in sets)
    task = Manifest.read(config.data).task
    name = str(folder) if folder.is_dir() or not model else model
    with Terminal() as progress:
        measures = evaluate_model(name, files, task, config, out=target, progress=progress)
    _print_measures(measures, as_json)


@app.command()
def curve(
    recipe: Path | None = RecipeOption, student: str | None = StudentOption, data: Path | None = DataOption,
    shares: str = typer.Option("0.12,0.25,0.5,1", "--shares", help="Parts of the data to train on, rising."),
    seeds: int = typer.Option(1, "--seeds", min=1, help="Train every part so often, with other seeds and other parts."),
    as_json: bool = JsonOption,
) -> None:  # fmt: skip
    """Learning curve: SFT on growing parts of the data, a power law, and what the next 1,000 rows would bring and cost."""
    from train.curve import learn
    from train.dataset import Manifest
    from train.model import quiet

    quiet()
    config = read_config(recipe, student=student, data=data)
    try:
        parts = [float(part) for part in shares.split(",")]
    except ValueError as error:
        raise ConfigError(f"--shares {shares}: write numbers with commas, such as 0.25,0.5,1.") from error
    with Terminal() as progress:
        folder, found = learn(config, Manifest.read(config.data), progress=progress, shares=parts, seeds=seeds)
    if as_json:
        _print_json(found)
        return
    table = Table(title=f"{found['metric']} on {found['set']}, with 95 % intervals", title_justify="left")
    for column in ("part", "seed", "training rows", found["metric"]):
        table.add_column(column, justify="right")
    for p in found["points"]:
        value = f"{100 * p['value']:.1f} ({100 * p['low']:.1f}-{100 * p['high']:.1f})"
        table.add_row(f"{100 * p['share']:g} %", str(p["seed"]), f"{p['rows']:,}", value)
    out.print(table)
    for sentence in found["sentences"]:
        out.print(sentence, highlight=False)
    out.print(f"Everything is in {folder}. Next: python -m train report puts it into the last run's report.", highlight=False)


@app.command()
def report(run_dir: Path | None = RunOption, as_json: bool = JsonOption) -> None:
    """Write a run's report.html again."""
    where = _existing(run_dir, ("report",), again=True)
    if as_json:
        _print_json({"report": str(where / "report.html")})
    else:
        out.print(f"Open {where / 'report.html'}", highlight=False)


@app.command()
def predict(
    model: str = typer.Option(str(RUNS / "latest"), "--model", help="A run, a merged or adapter folder, or any student."),
    source: Path = typer.Option(..., "--input", help='JSON lines of {"prompt": messages or text, ...}.'),
    target: Path = typer.Option(..., "--output", help='Where to write them with "completion" added, in the same order.'),
    max_new_tokens: int | None = typer.Option(None, "--max-new-tokens", min=1, help="As in the model's training when not given."),
    batch_size: int = typer.Option(32, "--batch-size", min=1),
    as_json: bool = JsonOption,
) -> None:
    """Answer prompts from a file, in batches, as the evaluation does."""
    from train.model import quiet
    from train.predict import predict as answer

    quiet()
    with Terminal() as progress:
        count = answer(model, source, target, progress=progress, max_new_tokens=max_new_tokens, batch_size=batch_size)
    if as_json:
        _print_json({"answers": count, "output": str(target)})
    else:
        out.print(f"{count:,} answers are in {target}", highlight=False)


@app.command()
def serve(
    model: str | None = typer.Option(None, "--model", help="A run's, deploy, adapter or model folder; runs/latest when not given."),
    host: str = typer.Option("127.0.0.1", "--host", help="The address to listen on; loopback when not given."),
    port: int = typer.Option(8000, "--port", min=0, max=65535),
    ab: str | None = typer.Option(None, "--ab", help="An A/B test: NAME=WEIGHT,NAME=WEIGHT, such as dpo=90,sft=10."),
    served: str = typer.Option("retort", "--served-model-name", help="The name that the A/B test, or else the best adapter, answers to."),
    loras: list[str] | None = typer.Option(None, "--lora", help="NAME=FOLDER: a further adapter on the same base."),
    max_lora_rank: int | None = typer.Option(None, "--max-lora-rank", min=1, help="The highest rank to take; the adapters' by default."),
    batch_size: int = typer.Option(32, "--batch-size", min=1, help="Requests that are answered together."),
    max_queue: int = typer.Option(256, "--max-queue", min=1, help="Requests that may wait; more are told to come again (503)."),
    log: Path = typer.Option(RUNS / "serving.duckdb", "--log", help="Where answers and feedback are kept."),
    hashes_only: bool = typer.Option(False, "--log-hashes", help="Keep hashes of prompts and answers in the log, not their texts."),
    print_vllm: bool = typer.Option(False, "--print-vllm", help="Print the command that serves the same on vLLM; write it as a script."),
) -> None:  # fmt: skip
    """Serve a run's base and adapters by an OpenAI-compatible endpoint, with A/B tests and feedback."""
    from train.serving.start import Settings, serve_model, vllm_script

    settings = Settings(log, host, port, served, ab, batch_size, max_queue, max_lora_rank, hashes_only)
    where = model or str(RUNS / "latest")
    if print_vllm:
        script = vllm_script(where, loras or [], settings)
        out.print(script.read_text(encoding="utf-8"), markup=False, highlight=False, soft_wrap=True, end="")
        talk.print(f"The same is in {script}.")
        return
    answered = serve_model(where, loras or [], settings, say=lambda text: talk.print(text, markup=False))
    talk.print(f"{answered:,} answers are in {log}. Next: python -m train ab --log {log}", markup=False)


@app.command()
def ab(
    log: Path = typer.Option(RUNS / "serving.duckdb", "--log", help="The log of answers that `serve` wrote."),
    served: str | None = typer.Option(None, "--served-model-name", help="The test to show; all when not given."),
    as_json: bool = JsonOption,
) -> None:
    """Compare the arms of A/B tests by people's feedback, with intervals that hold however often one looks."""
    from train.serving.ab import compare

    tests = compare(log, served)
    if as_json:
        _print_json(tests)
        return
    if not tests:
        out.print(f"{log}: no name was answered by several arms. Serve with --ab dpo=90,sft=10.", highlight=False)
    for test in tests:
        table = Table(title=f"{test['served']}: rate of feedback, 95 % confidence sequences", title_justify="left")
        for column in ("arm", "answers", "users", "rated", "rate", "median s", "p95 s", "failed"):
            table.add_column(column, justify="left" if column == "arm" else "right", no_wrap=True)
        for arm in test["arms"]:
            rate = "" if arm["rate"] is None else f"{100 * arm['rate']:.1f} ({100 * arm['low']:.0f}-{100 * arm['high']:.0f})"
            counts = [f"{arm[key]:,}" for key in ("answers", "users", "rated")]
            table.add_row(arm["arm"], *counts, rate, f"{arm['median_s']:.2f}", f"{arm['p95_s']:.2f}", str(arm["failed"]))
        out.print(table)
        for sentence in test["sentences"]:
            out.print(sentence, highlight=False)


def _calm() -> None:
    """Bitsandbytes warns at import that a CPU kernel is not installed; it works without."""
    logging.getLogger("bitsandbytes").setLevel(logging.ERROR)


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """Run a subcommand and exit by the house's codes."""
    _calm()
    try:
        code = app(args=arguments, standalone_mode=False)
        if code == 130:  # typer turns an interrupt into this code itself
            raise KeyboardInterrupt
    except TrainError as error:
        talk.print(f"error: {error}", style="red", markup=False)
        code = 2
    except typer.TyperException as error:
        talk.print(f"error: {error.format_message()} See --help.", style="red", markup=False)
        code = 2
    except (KeyboardInterrupt, typer.Abort):
        talk.print("Interrupted; nothing is lost. The same command goes on from the last checkpoint.")
        code = 130
    sys.exit(code if isinstance(code, int) else 0)


def _launch(processes: int) -> None:
    """Where several processes are asked for, let them do this command and end with their code."""
    if processes > 1 and not launch.launched():
        raise typer.Exit(launch.launch(sys.argv[1:], processes))


def _run(config: TrainConfig, run_dir: Path | None, stages: tuple[str, ...] | None = None) -> Path:
    if not launch.follows():
        said = f"Training {config.student} on {config.data} ({config.name}). Loading the libraries takes some seconds."
        talk.print(said, highlight=False)
    from train import run
    from train.model import quiet

    quiet()
    return _told(config, run_dir, stages or run.STAGES, again=False)


def _told(config: TrainConfig, run_dir: Path | None, stages: tuple[str, ...], *, again: bool) -> Path:
    """Run, and say on the terminal how it goes; of several processes the first one says it, and the others end here."""
    from train import run
    from train.watch import Silent

    if launch.follows():
        run.run(config, now=datetime.now(UTC), progress=Silent(), stages=stages, run_dir=run_dir, again=again)
        raise typer.Exit
    with Terminal() as progress:
        return run.run(config, now=datetime.now(UTC), progress=progress, stages=stages, run_dir=run_dir, again=again)


def _existing(
    run_dir: Path | None, stages: tuple[str, ...], *, again: bool, usd_per_hour: float | None = None, formats: list[str] | None = None
) -> Path:
    from train import run
    from train.model import quiet

    quiet()
    where = run.find_run(run_dir, RUNS)
    config = run.config_of(where)
    if usd_per_hour is not None:
        config = config.model_copy(update={"evaluation": config.evaluation.model_copy(update={"usd_per_hour": usd_per_hour})})
    if formats:
        config = with_formats(config, formats)
    return _told(config, where, stages, again=again)


def _give(run_dir: Path | None, others: list[str]) -> None:
    from train.evaluate import give_answers
    from train.run import find_run

    where = find_run(run_dir, RUNS)
    for text in others:
        name, equals, path = text.partition("=")
        if not equals or not name:
            raise ConfigError(f"--answers {text}: write NAME=FILE.jsonl, such as --answers teacher=teacher.jsonl.")
        give_answers(where, name, Path(path))


def _set(text: str) -> tuple[str, Path]:
    name, equals, path = text.partition("=")
    if not equals or not name:
        raise ConfigError(f"--set {text}: write NAME=FILE.jsonl, such as --set mine=messages.jsonl.")
    return name, Path(path)


def _show_stage(where: Path, stage: str, as_json: bool, next_step: str) -> None:
    from train.run import read_record

    result = read_record(where)["stages"][stage]
    if as_json:
        _print_json({"run": str(where), stage: result})
        return
    for name, value in result.items():
        if isinstance(value, int | float | str) and name != "done":
            out.print(f"{name.replace('_', ' '):<24} {value}", highlight=False)
    out.print(f"{next_step}", highlight=False)


def _show_evaluation(where: Path, as_json: bool) -> None:
    _print_measures(json.loads((where / "evaluation.json").read_text(encoding="utf-8")), as_json)
    if not as_json:
        for said in json.loads((where / "analysis.json").read_text(encoding="utf-8"))["advice"]:
            out.print(said["sentence"], highlight=False)


def _show_gate(where: Path, as_json: bool | None) -> int:
    """Print a run's gate, unless `as_json` is None; the exit code: 1 when something of the run may not ship."""
    from train.verdicts import read_gate, refused, summary, table

    record = read_gate(where)
    if as_json:
        _print_json(record)
    elif as_json is not None:
        head, rows = table(record)
        shown = Table(title=f"Gate: artifact - adapter, points with 95 % intervals; the bar is -{record['delta']:g}", title_justify="left")
        for column in head:
            shown.add_column(column)
        for row in rows:
            shown.add_row(*row)
        out.print(shown)
        for line in summary(record):
            out.print(line, markup=False, highlight=False)
    return 1 if refused(record) else 0


def _print_measures(measures: list[dict[str, Any]], as_json: bool) -> None:
    if as_json:
        _print_json(measures)
        return
    models = list(dict.fromkeys(line["model"] for line in measures))
    table = Table(title="Evaluation, with 95 % intervals", title_justify="left")
    for column in ("set", "metric", "n"):
        table.add_column(column, no_wrap=True)
    for name in models:
        table.add_column(name, justify="right")
    cells: dict[tuple[str, str], dict[str, dict[str, Any]]] = {}
    for line in measures:
        if "/" not in line["metric"]:
            cells.setdefault((line["set"], line["metric"]), {})[line["model"]] = line
    for (name, metric), row in cells.items():
        values = [f"{100 * m['value']:.1f} ({100 * m['low']:.0f}-{100 * m['high']:.0f})" if m else "" for m in map(row.get, models)]
        table.add_row(name, metric, str(next(iter(row.values()))["n"]), *values)
    out.print(table)


def _print_json(value: Any) -> None:
    sys.stdout.write(json.dumps(value, ensure_ascii=False, indent=1, default=str) + "\n")

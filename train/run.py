"""The story of a training run: SFT, then DPO (or KTO, where there are no pairs), then merge, quantize and the gate, then evaluation, the
model card and the report.

    run_dir = run(config, now=datetime.now(UTC), progress=Silent())

A run lives in runs/<UTC time>-<name>/, and runs/latest points at the last. run.json is its record; a stage that is done
there is not done again, so an interrupted run goes on where it was when the same command is given again.
"""

import errno
import fcntl
import hashlib
import json
import os
import platform
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from importlib import metadata
from pathlib import Path
from typing import Any

from safetensors import SafetensorError

from train import processes
from train.config import TrainConfig
from train.dataset import Manifest, enough_judged, exclude
from train.errors import ConfigError, DataError, TemplateError, TrainError
from train.watch import Progress, write_json

STAGES = ("sft", "dpo", "kto", "merge", "quantize", "gate", "evaluate", "card", "report")
TRAINING = ("sft", "dpo", "kto")  # what several processes do together
LIBRARIES = ["torch", "transformers", "trl", "peft", "accelerate", "datasets", "bitsandbytes", "tokenizers"]
DISK = 500_000_000


def run(
    config: TrainConfig,
    *,
    now: datetime,
    progress: Progress,
    stages: tuple[str, ...] = STAGES,
    run_dir: Path | None = None,
    again: bool = False,
) -> Path:
    """Run the stages that are not done yet (or all of them `again`) and return the run's folder.

    A `run_dir` with a run in it goes on, if it has the same settings and data. Without `run_dir`, the last run goes on if
    it was interrupted; else a new one begins. Raises a TrainError, whose message says what to do.
    """
    processes.join()
    if set(stages) & set(TRAINING):
        check_settings(config)
    manifest = Manifest.read(config.data)
    latest = config.out / "latest"
    before = latest.resolve() if latest.is_symlink() else None
    given = run_dir
    run_dir = Path(processes.agree(lambda: locate(config, manifest, now, given)))
    record = read_record(run_dir)
    with held(run_dir):
        return _stages(config, manifest, run_dir, record, stages, again, before, progress)


def is_full(error: BaseException) -> bool:
    """Whether a disk, a quota or a limit on a file's size has ended a write; the writers of weights say it in words of their own."""
    codes = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
    words = [os.strerror(code) for code in codes] + ["PytorchStreamWriter failed", "unexpected pos"]
    return getattr(error, "errno", None) in codes or any(word in str(error) for word in words)


def check_settings(config: TrainConfig) -> None:
    """Try the settings of every training stage, before the first of them: a later one's would be found wrong after hours.

    Raises ConfigError.
    """
    from trl import DPOConfig, KTOConfig, SFTConfig

    from train.sft import build_arguments, known_options

    stages: list[tuple[str, Any, dict[str, Any]]] = [("train.sft", SFTConfig, config.sft_options)]
    if config.dpo is not None:
        stages.append(("train.dpo", DPOConfig, {**config.dpo_options, "precompute_ref_log_probs": True}))
    if config.kto is not None:
        stages.append(("train.kto", KTOConfig, {**config.kto_options, "precompute_ref_log_probs": True}))
    for where, kind, options in stages:
        known_options(where, {name: value for name, value in options.items() if name != "precompute_ref_log_probs"}, kind)
        build_arguments(where, kind, config, options, config.out / "work" / "stage", rows=1, parameters=1)


def locate(config: TrainConfig, manifest: Manifest, now: datetime, run_dir: Path | None) -> Path:
    """Find the run to go on with, or make a new one. Raises ConfigError where another run is in its place."""
    if run_dir is None:
        run_dir = resumable(config, manifest) or new_run(config, manifest, now)
    elif not (run_dir / "run.json").is_file():
        run_dir = new_run(config, manifest, now, run_dir)
    record = read_record(run_dir)
    if fingerprint(config_of(run_dir)) != fingerprint(config) or record["manifest_sha256"] != manifest.sha256:
        raise ConfigError(f"{run_dir}: a run with other settings or other data is here. Set --out to a new folder, or leave it out.")
    begun = record.get("processes", 1)
    if begun != processes.count() and any(run_dir.glob("work/*/checkpoint-*")):
        raise ConfigError(
            f"{run_dir}: was interrupted with {begun} processes, and its checkpoint is theirs. Go on with --processes {begun}, or begin "
            "anew with --out and a new folder."
        )
    if begun != processes.count():
        write_json(run_dir / "run.json", {**record, "processes": processes.count()})
    return run_dir


@contextmanager
def held(run_dir: Path) -> Iterator[None]:
    """Keep a second command out of a run's folder. Raises ConfigError where one is at work; the lock ends with its process."""
    if not processes.first():
        yield
        return
    with (run_dir / ".lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise ConfigError(f"{run_dir}: another command is at work on this run. Wait for it, or set --out to a new folder.") from error
        try:
            yield
        finally:
            (run_dir / ".lock").unlink(missing_ok=True)


def _stages(
    config: TrainConfig,
    manifest: Manifest,
    run_dir: Path,
    record: dict[str, Any],
    stages: tuple[str, ...],
    again: bool,
    before: Path | None,
    progress: Progress,
) -> Path:
    if config.without is not None and config.without.named:
        named = config.without.named
        try:
            manifest = processes.agree(lambda: exclude(manifest, named, run_dir / "data"))
        except DataError:
            if {path.name for path in run_dir.iterdir()} <= {"run.json", ".lock"}:
                discard(run_dir, config.out, before)
            raise
    for stage in stages:
        if stage not in TRAINING and processes.count() > 1:
            follows = not processes.first()
            processes.leave()  # the rest is one process's work
            if follows:
                return run_dir
        if record["stages"].get(stage, {}).get("done") and not again:
            continue
        try:
            result = perform(stage, config, manifest, run_dir, progress)
        except (OSError, RuntimeError, SafetensorError) as error:
            if not is_full(error):
                raise
            raise TrainError(
                f"{run_dir}: cannot be written any more: {' '.join(str(error).split())[:200]}. Free some space and give the same command "
                "again; it goes on from the last checkpoint."
            ) from error
        except TrainError as error:
            if not processes.first():
                raise
            if isinstance(error, TemplateError) and error.proof:
                write_json(config.out / "template_proof.json", {"student": config.student, **error.proof})
                progress.note(f"what was shown until it failed is in {config.out / 'template_proof.json'}")
            if {path.name for path in run_dir.iterdir()} <= {"run.json", ".lock"}:
                discard(run_dir, config.out, before)
            raise
        record["stages"][stage] = {**result, "done": True}
        if processes.first():
            write_json(run_dir / "run.json", record)
    if all(record["stages"].get(stage, {}).get("done") for stage in STAGES):
        record["status"] = "done"
        if processes.first():
            write_json(run_dir / "run.json", record)
    return run_dir


def perform(stage: str, config: TrainConfig, manifest: Manifest, run_dir: Path, progress: Progress) -> dict[str, Any]:
    """Do one stage; return its record."""
    # Imported here: each brings torch, and the command line should answer --help without it.
    if stage == "sft":
        from train.sft import train_sft

        return train_sft(config, manifest, run_dir, progress=progress)
    if stage == "dpo":
        from train.dpo import train_dpo

        if not (run_dir / "sft").is_dir():
            raise DataError(f"{run_dir}: DPO starts from an SFT result, and sft/ is missing. Run `python -m train sft` first.")
        if config.dpo is None or not manifest.count("preference/train.parquet"):
            why = "train.dpo is null" if config.dpo is None else "the data has no preference pairs"
            progress.note(f"DPO skipped: {why}")
            return {"skipped": why}
        return train_dpo(config, manifest, run_dir, progress=progress)
    if stage == "kto":
        unfit = no_kto(config, manifest, run_dir)
        if unfit:
            if not (run_dir / "dpo").is_dir():
                progress.note(f"KTO skipped: {unfit}")
            return {"skipped": unfit}
        from train.kto import train_kto

        return train_kto(config, manifest, run_dir, progress=progress)
    if stage == "merge":
        from train.merge import merge_run

        return merge_run(config, manifest, run_dir)
    if stage == "quantize":
        from train.quantize import quantize_run

        return quantize_run(config, manifest, run_dir, progress=progress)
    if stage == "gate":
        from train.gate import gate_run
        from train.verdicts import refused

        judged = gate_run(run_dir, config, manifest, progress=progress)
        return {"judged": [entry["name"] for entry in judged["artifacts"]], "not_shipped": refused(judged)}
    if stage == "card":
        from train.card import write_card
        from train.provenance import trace_run

        digest = trace_run(run_dir, config, manifest)
        return {"path": str(write_card(run_dir, config, manifest)), "provenance_sha256": digest}
    if stage == "evaluate":
        from train.evaluate import evaluate_run

        return {"measures": len(evaluate_run(run_dir, config, manifest, progress=progress))}
    from train.report import write_report

    return {"path": str(write_report(run_dir))}


def no_kto(config: TrainConfig, manifest: Manifest, run_dir: Path) -> str | None:
    """Why KTO has nothing to do in this run, or None: it stands in where no pairs were there for DPO. DataError without SFT's result."""
    if not (run_dir / "sft").is_dir():
        raise DataError(f"{run_dir}: KTO starts from an SFT result, and sft/ is missing. Run `python -m train sft` first.")
    if (run_dir / "dpo").is_dir():
        return "DPO learned from preference pairs"
    return "train.kto is null" if config.kto is None else enough_judged(manifest)


def new_run(config: TrainConfig, manifest: Manifest, now: datetime, run_dir: Path | None = None) -> Path:
    """Make a run's folder with its record, and point runs/latest at it. Raises ConfigError on a full disk."""
    if run_dir is None:
        base = f"{now:%Y%m%d-%H%M%S}-{config.name}"
        names = [base, *(f"{base}-{n}" for n in range(2, 100))]
        run_dir = next(config.out / name for name in names if not (config.out / name).exists())
    try:
        run_dir.mkdir(parents=True, exist_ok=True)
        free = shutil.disk_usage(run_dir).free
    except OSError as error:
        raise ConfigError(f"{run_dir}: cannot be written: {error}. Set --out DIR.") from error
    if free < DISK:
        raise ConfigError(f"{run_dir}: {free // 1_000_000} MB free, a run needs {DISK // 1_000_000} at least. Free some, or set --out.")
    write_json(
        run_dir / "run.json",
        {
            "id": run_dir.name,
            "name": config.name,
            "created": now.isoformat(timespec="seconds"),
            "status": "running",
            "student": config.student,
            "method": config.method,
            "seed": config.seed,
            "data": str(config.data),
            "manifest_sha256": manifest.sha256,
            "config": config.model_dump(mode="json"),
            "config_sha256": fingerprint(config),
            "versions": versions(),
            "processes": processes.count(),
            "stages": {},
        },
    )
    if run_dir.resolve().parent == config.out.resolve():
        point_latest(config.out, run_dir)
    return run_dir


def discard(run_dir: Path, out: Path, before: Path | None) -> None:
    """Undo a run that could not begin (an unknown student, say): its folder goes, and runs/latest points where it did."""
    shutil.rmtree(run_dir)
    latest = out / "latest"
    if latest.is_symlink() and not latest.exists():
        latest.unlink()
        if before is not None and before.exists():
            point_latest(out, before)


def resumable(config: TrainConfig, manifest: Manifest) -> Path | None:
    """Return the last run if it was interrupted and was this one: same settings, same data."""
    latest = config.out / "latest"
    if not (latest / "run.json").is_file():
        return None
    record = read_record(latest)
    same = record["config_sha256"] == fingerprint(config) and record["manifest_sha256"] == manifest.sha256
    return config.out / latest.resolve().name if same and record["status"] == "running" else None


def fingerprint(config: TrainConfig) -> str:
    """Hash what decides the result: not where it is written, in which further forms, what those must show, nor what the machine costs."""
    apart: dict[str, Any] = {"out": True, "data": True, "quantize": True, "gate": True, "evaluation": {"usd_per_hour"}}
    values = config.model_dump(mode="json", exclude=apart)
    if values["without"] is None:
        del values["without"]
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()


def read_record(run_dir: Path) -> dict[str, Any]:
    """Read run.json. Raises DataError when the folder is not a run."""
    path = run_dir / "run.json"
    try:
        return dict(json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError) as error:
        raise DataError(f"{path}: not there or not readable: {run_dir} is not a training run. Runs are in runs/.") from error


def config_of(run_dir: Path) -> TrainConfig:
    """Return the settings that a run was made with."""
    try:
        return TrainConfig.model_validate(read_record(run_dir)["config"])
    except (KeyError, ValueError) as error:
        raise DataError(f"{run_dir / 'run.json'}: its settings are not of this version: {error}. Train again.") from error


def find_run(path: Path | None, out: Path) -> Path:
    """Return the run to work on: the one given, or the last. Raises DataError when there is none."""
    run_dir = path or out / "latest"
    read_record(run_dir)
    return run_dir.resolve()


def point_latest(out: Path, run_dir: Path) -> None:
    """Let runs/latest point at a run."""
    fresh = out / ".latest"
    fresh.unlink(missing_ok=True)
    fresh.symlink_to(run_dir.name)
    try:
        fresh.replace(out / "latest")
    except OSError as error:
        raise TrainError(f"{out / 'latest'}: is in the way and not a link ({error}). Move it, and run again.") from error


def versions() -> dict[str, str]:
    """Versions of what decides the numbers."""
    found = {"python": platform.python_version()}
    for name in LIBRARIES:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found

"""What DPO and KTO share: the student that SFT left, a guard that says when it breaks, and the choice of what is kept.

    net, tokenizer = load_policy(config, run_dir)
    record = train_guarded("dpo", trainer, config, manifest, run_dir, length=11.5, tokens=80_000, progress=Silent())

The known danger is that the likelihood of good answers falls while margins look fine. The guard watches it, the entropy and the
length of what is written; what a stage leaves is then the last weights, the best point, or the SFT student.
"""

import json
import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from train import memory, model, processes
from train.config import TrainConfig
from train.dataset import Manifest, read_rows, take
from train.errors import Diverged
from train.metrics import Measure
from train.sft import finish, fit, rows_of, save, scorer
from train.template import Encoded
from train.watch import History, Progress, Watch, write_json

# Mean log-probability per token of the chosen answers may fall this far below the reference's (nats): a fall to 82 %.
COLLAPSE = 0.2
# A rise of the mean entropy per token (nats): a student that was sure no longer knows what to write.
ENTROPY = 1.0
# Answers may become this many times longer or shorter: the known drift of DPO is towards length (arXiv 2403.19159).
LENGTH = 1.5
SLACK = 20  # characters beside that: an answer of one word is not judged by another word
ENOUGH = 20  # answers, for a mean length that says something
# The task's metric on validation rows may fall this far below SFT's before the best point is kept instead: some two standard errors of a
# paired difference on 300 rows. A tighter bound threw away runs that were no worse on test rows; the final table shows the cost with
# its interval. Fewer rows say less: the bound grows with their error.
TOLERANCE = 0.03
ROWS = 300


class FindsNaN:
    """A trainer (put before TRL's) that ends where the loss of a step is no number, before the weights take it.

    rows    what the batches are made of, for their names
    """

    rows: Sequence[Encoded] = ()

    def compute_loss(self, model: Any, inputs: Any, *args: Any, **kwargs: Any) -> Any:
        """TRL's loss. Raises Diverged naming the rows of the batch where it is no number."""
        loss = super().compute_loss(model, inputs, *args, **kwargs)  # type: ignore[misc]
        if model.training and not torch.isfinite(loss):
            step = self.state.global_step + 1  # type: ignore[attr-defined]
            names = ", ".join(dict.fromkeys(rows_of(inputs["input_ids"], self.rows)))
            raise Diverged(f"the loss is {loss.item()} at step {step}, with the rows {names}: stopped")
        return loss


def load_policy(config: TrainConfig, run_dir: Path) -> model.Student:
    """Load what SFT left, trainable: the adapter on its base, or the whole model."""
    if config.method == "full":
        return model.load_student(str(run_dir / "sft"), config)
    net, tokenizer = model.load_student(config.student, config, adapter=run_dir / "sft")
    for name, parameter in net.named_parameters():
        parameter.requires_grad_("lora_" in name)
    net.peft_config["default"].inference_mode = False
    net.peft_config["default"].base_model_name_or_path = config.student
    return model.Student(net, tokenizer)


def add_proof(run_dir: Path, name: str, proof: Mapping[str, Any]) -> None:
    """Put a stage's proof beside that of SFT."""
    if not processes.first():
        return
    path = run_dir / "template_proof.json"
    before = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    write_json(path, {**before, name: proof})


def train_guarded(
    stage: str, trainer: Any, config: TrainConfig, manifest: Manifest, run_dir: Path, *, length: float, tokens: int, progress: Progress
) -> dict[str, Any]:
    """Train a stage under the guard, leave what is kept in run_dir/<stage>, and return what run.json holds of it.

    `length` is the mean number of tokens of a good answer, `tokens` those of an epoch.
    """
    net, tokenizer, folder = trainer.model, trainer.processing_class, run_dir / "work" / stage
    validation = []
    if manifest.count("sft/validation.parquet"):
        validation = take(read_rows(manifest.path("sft/validation.parquet")), config.evaluation.validation_rows, config.seed)
    history = History(run_dir / "metrics.jsonl")
    guard = Guard(trainer.args.beta, length)
    score = scorer(net, tokenizer, validation, manifest.task, config, guard.see, progress)
    start = sft_score(stage, history, score, guard)
    watch = Watch(
        stage,
        folder,
        history,
        progress,
        points=max(1, config.evaluation.points // 2),
        tokens_per_epoch=tokens,
        score=score,
        keep=lambda path: save(net, path),
        stop=guard,
    )
    seconds = fit_guarded(trainer, watch, folder)
    return {
        "steps": trainer.state.global_step,
        "tokens_per_second": watch.speed(seconds),
        "memory": memory.peak(trainer),
        **conclude(start, watch, run_dir, net, tokenizer, progress),
        "train_seconds": round(seconds, 1),
    }


def fit_guarded(trainer: Any, watch: Watch, folder: Path) -> float:
    """Train as `fit` does; a loss that is no number ends the stage like the guard does."""
    begin = time.monotonic()
    try:
        return fit(trainer, watch, folder)
    except Diverged as error:
        watch.stopped = str(error)
        return time.monotonic() - begin


class Guard:
    """Says that preference training breaks the student: by the likelihood of the chosen answers, the entropy, and the length of its own.

    beta and the mean number of tokens of a chosen answer turn its reward, beta * (log p - log p of the reference), into nats per
    token. Entropy is compared with the first three log lines, lengths with the answers of the SFT student on the same rows.
    """

    def __init__(self, beta: float, length: float) -> None:
        self._beta, self._length = beta, length
        self._entropies: list[float] = []
        self.before: float | None = None
        self._now: float | None = None

    def see(self, answers: Sequence[str]) -> None:
        """Take the answers of a scoring; those of the SFT student come first, or `before` was set from an interrupted run."""
        mean = sum(map(len, answers)) / len(answers)
        if len(answers) < ENOUGH:
            return
        if self.before is None:
            self.before = mean
        else:
            self._now = mean

    def __call__(self, numbers: Mapping[str, float]) -> str | None:
        """Look at a log line, or with an empty one at the answers seen last; the reason to stop, or None."""
        fall = -numbers.get("chosen_reward", 0.0) / self._beta / self._length
        if fall > COLLAPSE:
            return f"chosen answers lost {fall:.2f} nats per token against the SFT student (bound {COLLAPSE}): stopped"
        if "entropy" in numbers:
            self._entropies.append(numbers["entropy"])
            start = self._entropies[:3]
            rise = numbers["entropy"] - sum(start) / len(start)
            if rise > ENTROPY:
                return f"entropy rose by {rise:.2f} nats per token (bound {ENTROPY:g}): stopped"
        if self.before is not None and self._now is not None:
            ratio = (self._now + SLACK) / (self.before + SLACK)
            if not 1 / LENGTH <= ratio <= LENGTH:
                return f"answers became {ratio:.2f} times as long as the SFT student's (bound {LENGTH:g}): stopped"
        return None


def choose(start: Measure | None, watch: Watch) -> tuple[str, str | None]:
    """Return which weights to keep, "last", "best" or "sft", and why if not the last.

    The stage is meant to change behaviour that the task's metric may not see, so the last weights are kept unless likelihood
    collapsed or the metric fell by more than TOLERANCE (on ROWS rows or more); then the best point counts, the SFT student among them.
    """
    reason = watch.stopped
    if start is None or watch.last is None:
        return ("sft", f"{reason}; kept the SFT weights") if reason else ("last", None)
    fell = start.value - watch.last.value
    if not reason and fell <= TOLERANCE * max(1.0, ROWS / watch.last.n) ** 0.5:
        return "last", None
    reason = reason or f"{watch.last.metric} fell by {100 * fell:.1f} points below SFT's"
    if watch.best is None or watch.best.value < start.value:
        return "sft", f"{reason}; kept the SFT weights ({start.metric} {start.value:.3f})"
    return "best", f"{reason}; kept step {watch.best.step} ({start.metric} {watch.best.value:.3f})"


def sft_score(stage: str, history: History, score: Callable[[], Measure] | None, guard: Guard) -> Measure | None:
    """Measure the student before the stage, on the same rows; kept in the history as step 0 for a resumed run."""
    if score is None:
        return None
    for line in history.lines:
        if line["stage"] == stage and line["step"] == 0:
            guard.before = line.get("characters")
            return Measure(line["metric"], line["value"], line["low"], line["high"], line["n"])
    measure = score()
    history.add(stage, 0, 0, **measure._asdict(), **({} if guard.before is None else {"characters": guard.before}))
    return measure


def conclude(start: Measure | None, watch: Watch, run_dir: Path, net: Any, tokenizer: Any, progress: Progress) -> dict[str, Any]:
    """Put the weights that are kept into run_dir/<stage>, say why if they are not the last, and return what run.json holds of it."""
    folder = watch.folder
    kept, why = choose(start, watch)
    if kept == "last":
        save(net, folder / "chosen")
    elif processes.first():
        shutil.copytree(folder / "best" if kept == "best" else run_dir / "sft", folder / "chosen", dirs_exist_ok=True)
    if why:
        progress.note(why)
    finish(folder / "chosen", run_dir / watch.stage, tokenizer)
    return {
        "kept": kept,
        "guard": why,
        "sft_score": start.value if start else None,
        "last_score": watch.last.value if watch.last else None,
        "best": watch.best._asdict() if watch.best else None,
    }

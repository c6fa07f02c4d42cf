"""Watching a training run: progress, metrics.jsonl, the task's own metric at several points, the best checkpoint.

The trainer's loss says little about answers, so at `points` places of a run the student answers validation rows and the
task's metric is measured, as in the final evaluation. Where it was best, the weights are kept.
"""

import json
import resource
import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import torch
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from train import processes
from train.metrics import Measure

LOGGED = {
    "loss": "loss",
    "learning_rate": "learning_rate",
    "epoch": "epoch",
    "grad_norm": "grad_norm",
    "entropy": "entropy",
    "mean_token_accuracy": "token_accuracy",
    "general_drift": "general_drift",
    "logps/chosen": "chosen_logp",
    "logps/rejected": "rejected_logp",
    "rewards/chosen": "chosen_reward",
    "rewards/rejected": "rejected_reward",
    "rewards/margins": "margin",
    "rewards/accuracies": "preference_accuracy",
}


class Progress(Protocol):
    """What a run tells the person who waits. Only the command line knows how it looks."""

    def plan(self, title: str, facts: Mapping[str, str]) -> None:
        """Say what will be done, before it is done."""

    def start(self, stage: str, total: int) -> None:
        """Open a stage of `total` steps."""

    def advance(self, done: int, **numbers: float) -> None:
        """Say that `done` steps of the stage are done, with figures worth seeing."""

    def note(self, text: str) -> None:
        """Say one line."""


class Silent:
    """A Progress that says nothing."""

    def plan(self, title: str, facts: Mapping[str, str]) -> None:
        """Say nothing."""

    def start(self, stage: str, total: int) -> None:
        """Say nothing."""

    def advance(self, done: int, **numbers: float) -> None:
        """Say nothing."""

    def note(self, text: str) -> None:
        """Say nothing."""


class Budget:
    """How far general ability may fall below the base's while a stage runs.

    `score` measures it now, `base` is what the untrained student reached, `points` the fall that is allowed in percentage points.
    `over` is called when it fell further, and returns why the stage must end, or None where it took a remedy.
    """

    def __init__(self, score: Callable[[], Measure], base: float, points: float, over: Callable[[], str | None]) -> None:
        self.score, self.base, self.points, self.over = score, base, points, over

    def within(self, measure: Measure) -> bool:
        """Whether the fall is allowed."""
        return 100 * (self.base - measure.value) <= self.points + 1e-9


class Best(NamedTuple):
    """Where the task's metric was best: step and value."""

    step: int
    value: float


class History:
    """metrics.jsonl: a line {"stage", "step", "tokens", ...numbers} for all that is measured, on disk at once."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.lines = read_history(path)

    def add(self, stage: str, step: int, tokens: int, **numbers: float | str) -> None:
        """Append a line."""
        self.lines.append({"stage": stage, "step": step, "tokens": tokens, **numbers})
        if processes.first():
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with self.path.open("a", encoding="utf-8") as file:
                file.write(json.dumps(self.lines[-1]) + "\n")

    def rewind(self, stage: str, step: int) -> None:
        """Forget lines of a stage after `step`: the run goes on from there and will write them again."""
        self.lines = [line for line in self.lines if line["stage"] != stage or line["step"] <= step]
        if processes.first():
            self.path.parent.mkdir(parents=True, exist_ok=True)
            fresh = self.path.with_name(self.path.name + ".new")
            fresh.write_text("".join(json.dumps(line) + "\n" for line in self.lines), encoding="utf-8")
            fresh.replace(self.path)


def read_history(path: Path) -> list[dict[str, Any]]:
    """Read metrics.jsonl; a last line that a kill cut short is left out, and none at all is an empty list."""
    text = path.read_text(encoding="utf-8") if path.is_file() else ""
    return [json.loads(line) for line in text.splitlines(keepends=True) if line.endswith("\n")]


def memory_in_use() -> int:
    """The most memory that training took so far, in bytes: of the GPU where there is one, else of this process."""
    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated()
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


class Watch(TrainerCallback):
    """Logs, scores and keeps the best weights of one stage.

    `score` generates and measures; `keep` saves the weights to a folder; `stop` looks at a log line, or at what a score has
    shown (then the line is empty), and returns a reason to end the stage, or None. A checkpoint for resuming is written at every
    point, after its score. `tell` hands what is measured here to whoever else follows the run.
    """

    tell: Callable[[Mapping[str, float]], None] = staticmethod(lambda numbers: None)

    def __init__(
        self,
        stage: str,
        folder: Path,
        history: History,
        progress: Progress,
        *,
        points: int,
        tokens_per_epoch: int,
        score: Callable[[], Measure] | None,
        keep: Callable[[Path], None],
        stop: Callable[[Mapping[str, float]], str | None] = lambda numbers: None,
        budget: Budget | None = None,
    ) -> None:
        self.stage, self.folder, self.history, self.progress = stage, folder, history, progress
        self.points, self.tokens_per_epoch = points, tokens_per_epoch
        self.score, self.keep, self.stop, self.budget = score, keep, stop, budget
        self.stopped: str | None = None
        self.last: Measure | None = None
        self.best: Best | None = None
        note = folder / "best.json"
        if note.is_file():
            self.best = Best(**json.loads(note.read_text(encoding="utf-8")))

    def on_train_begin(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """Lay out the points at which to score."""
        self.at = {max(1, round(state.max_steps * (k + 1) / self.points)) for k in range(self.points)}
        self.history.rewind(self.stage, state.global_step)
        self.first = self.seen = self._tokens(state)
        self.begun, self.begun_at = time.monotonic(), state.global_step
        self.scoring, self.scored = 0.0, 0
        self.logged = (self.begun, self.seen, 0.0)
        self.progress.start(self.stage, state.max_steps)

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: dict[str, float] | None = None,
        **kwargs: Any,
    ) -> None:
        """Write the trainer's figures to the history and look whether to stop."""
        numbers = {name: float(logs[key]) for key, name in LOGGED.items() if logs and key in logs}
        if "loss" not in numbers:
            return
        self.history.add(self.stage, state.global_step, self._tokens(state), **numbers, **self._pace(state))
        self.progress.advance(state.global_step, loss=numbers["loss"])
        self._look(numbers, control)

    def _pace(self, state: TrainerState) -> dict[str, float]:
        """Tokens a second since the last line, scoring apart, and the memory in use."""
        now, tokens = time.monotonic(), self._tokens(state)
        before, had, scored = self.logged
        self.logged = (now, tokens, self.scoring)
        seconds = now - before - (self.scoring - scored)
        return {"tokens_per_second": round((tokens - had) / max(seconds, 1e-9)), "peak_bytes": memory_in_use()}

    def _left(self, state: TrainerState) -> float:
        """Seconds to the end of the stage: its steps, and the points at which it stands still to score."""
        steps = max(1, state.global_step - self.begun_at)
        a_step = (time.monotonic() - self.begun - self.scoring) / steps
        points = sum(at > state.global_step for at in self.at)
        return a_step * (state.max_steps - state.global_step) + points * self.scoring / max(1, self.scored)

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """Score at the points, keep the weights if they are the best so far, and ask for a checkpoint."""
        self.progress.advance(state.global_step, seconds_left=self._left(state))
        self.seen = self._tokens(state)
        if state.global_step not in self.at:
            return
        began = time.monotonic()
        self._measure(state, control)
        self.scoring, self.scored = self.scoring + time.monotonic() - began, self.scored + 1
        control.should_save = state.global_step < state.max_steps

    def _measure(self, state: TrainerState, control: TrainerControl) -> None:
        """Measure general ability and the task's metric, and keep the weights if they are the best so far."""
        fits = self.budget is None or self._spend(self.budget, state, control)
        if self.score is not None:
            self.last = measure = self.score()
            self.history.add(self.stage, state.global_step, self._tokens(state), **measure._asdict())
            self.progress.advance(state.global_step, **{measure.metric: measure.value})
            name = f"eval_{self.stage}_{measure.metric}"
            self.tell({name: measure.value, f"{name}_low": measure.low, f"{name}_high": measure.high})
            # At a tie the later one: it has seen more of the data.
            if fits and (self.best is None or measure.value >= self.best.value):
                self._keep(Best(state.global_step, measure.value))
            self._look({}, control)

    def _look(self, numbers: Mapping[str, float], control: TrainerControl) -> None:
        """Ask whether to end the stage."""
        self.stopped = self.stopped or self.stop(numbers)
        if self.stopped:
            control.should_training_stop = True

    def _spend(self, budget: Budget, state: TrainerState, control: TrainerControl) -> bool:
        """Measure general ability, write it down and act where it fell too far; whether this point may be kept."""
        general = budget.score()
        within = budget.within(general)
        numbers = {"general": general.value, "general_low": general.low, "general_high": general.high, "general_within": within}
        self.history.add(self.stage, state.global_step, self._tokens(state), **numbers)
        self.progress.advance(state.global_step, general=general.value)
        self.tell({"eval_general": general.value, "eval_general_low": general.low, "eval_general_high": general.high})
        if not within:
            fell = f"general ability fell by {100 * (budget.base - general.value):.1f} points (budget {budget.points:g})"
            reason = budget.over()
            self.progress.note(f"step {state.global_step}: {fell}; {reason or 'the hold on it is doubled'}")
            if reason:
                self.stopped = f"{fell}: {reason}"
                control.should_training_stop = True
        return within

    def speed(self, seconds: float) -> int:
        """Tokens a second since training began or went on."""
        return round((self.seen - self.first) / max(seconds, 1e-9))

    def _keep(self, best: Best) -> None:
        fresh = self.folder / "best.new"
        if processes.first():
            shutil.rmtree(fresh, ignore_errors=True)
        self.keep(fresh)
        if processes.first():
            shutil.rmtree(self.folder / "best", ignore_errors=True)
            fresh.rename(self.folder / "best")
            write_json(self.folder / "best.json", best._asdict())
        self.best = best

    def _tokens(self, state: TrainerState) -> int:
        return round((state.epoch or 0.0) * self.tokens_per_epoch)


# A training loss has fallen where it lost this part of itself, and a metric stands still where no point is above the first one's interval.
FELL = 0.2
POINTS = 3  # fewer say nothing of a trend
SOLVED = 0.95  # a metric as high as this has no way to go


def too_high(lines: Sequence[Mapping[str, Any]], stage: str) -> list[str]:
    """The signs in a stage's history that its learning rate is too high, in words; none where all is well.

    The loss falls while the task's metric falls by more than its interval from its best point, or never rises above the interval of its
    first; or general ability is outside its budget at the end.
    """
    own = [line for line in lines if line["stage"] == stage and line["step"]]
    points = [line for line in own if "value" in line]
    found = []
    if len(points) >= POINTS:
        first, last = points[0], points[-1]
        best = max(points, key=lambda line: line["value"])
        if best["value"] > last["high"] and (fell := _fell(own, best["step"])):
            found.append(
                f"the loss fell by {100 * fell:.0f} % after step {best['step']}, but {last['metric']} from {best['value']:.3f} to "
                f"{last['value']:.3f}"
            )
        elif best["value"] <= first["high"] and best["value"] < SOLVED and (fell := _fell(own, first["step"])):
            found.append(
                f"the loss fell by {100 * fell:.0f} % after step {first['step']}, but {last['metric']} did not clearly rise above "
                f"{first['value']:.3f}"
            )
    general = [line for line in own if "general_within" in line]
    if general and not general[-1]["general_within"]:  # where a stronger hold brought it back, the rate was not too high for it
        found.append(f"general ability was outside its budget at the end ({general[-1]['general']:.3f})")
    return found


def _fell(lines: Sequence[Mapping[str, Any]], step: int) -> float | None:
    """By which part the loss fell between `step` and the end, as means of a tenth of the log lines; None where it did not."""
    losses = [(line["step"], line["loss"]) for line in lines if "loss" in line]
    width = max(1, len(losses) // 10)
    before = [loss for at, loss in losses if at <= step][-width:]
    after = [loss for at, loss in losses if at > step][-width:]
    if not before or not after:
        return None
    fell = 1 - (sum(after) / len(after)) / (sum(before) / len(before))
    return fell if fell >= FELL else None


def last_checkpoint(folder: Path) -> Path | None:
    """Return the newest complete checkpoint of an interrupted stage."""
    found = [path for path in folder.glob("checkpoint-*") if (path / "trainer_state.json").is_file()]
    return max(found, key=lambda path: int(path.name.rpartition("-")[2]), default=None)


def write_json(path: Path, value: Any) -> None:
    """Write in one move, so that a kill leaves the old file or the new one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    fresh = path.with_name(path.name + ".new")
    fresh.write_text(json.dumps(value, ensure_ascii=False, indent=1, default=str) + "\n", encoding="utf-8")
    fresh.replace(path)


def texts(messages: Sequence[Mapping[str, str]]) -> str:
    """Return messages as plain text, one paragraph each."""
    return "\n\n".join(message["content"] for message in messages)

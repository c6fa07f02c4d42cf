"""Measure the way out: what all forms of a run cost, whether GGUF asks and answers as training does, and how far each form drifts.

    python benchmarks/artifacts.py [RUN [DATA]]        a finished run, runs/latest when not given; it is copied, not changed

llama.cpp's lines need llama-cpp-python (make setup-gguf).
"""

import os
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

os.environ.setdefault("HF_HUB_OFFLINE", "1")
sys.path.insert(0, str(Path(__file__).parents[1]))

import torch
from results_file import Result, machine, publish

from train import artifacts, model, quantize
from train.config import with_formats
from train.dataset import Manifest, read_rows
from train.evaluate import generate, sample
from train.merge import answer_logprobs, mean_divergence
from train.metrics import wilson
from train.run import config_of, read_record
from train.template import render
from train.watch import Silent

PROMPTS = 100
FORMS = ["gguf-f16", "gguf-q8_0", "gguf-q4_k_m", "gguf-lora", "awq", "gptq"]


@contextmanager
def llama(path: Path) -> Iterator[Any]:
    import llama_cpp

    loaded = llama_cpp.Llama(str(path), n_ctx=1024, n_threads=1, n_threads_batch=1, verbose=False)
    try:
        yield loaded
    finally:
        loaded.close()


def share(name: str, good: int, of: int, conditions: str) -> Result:
    low, high = wilson(good, of)
    return Result(name, 100 * good / of, f"% of {of}", 100 * low, 100 * high, conditions)


def made(run_dir: Path, config: Any, manifest: Manifest) -> list[Result]:
    """CPU seconds for all forms, and for each of them the divergence from the adapter and the answers that stay the same."""
    begin, wall = time.process_time(), time.monotonic()
    quantize.quantize_run(with_formats(config, FORMS), manifest, run_dir, progress=Silent())
    cpu = time.process_time() - begin
    results = [
        Result(
            "all six forms from merged/", cpu, "CPU s", cpu, cpu, f"{time.monotonic() - wall:.0f} s by the clock; {machine()}, one thread"
        )
    ]
    rows = sample(read_rows(manifest.path("sft/test.parquet")), PROMPTS, config.seed)
    prompts = [row.prompt for row in rows]
    reference = artifacts.load(artifacts.place(run_dir, "adapter"), config)
    right = answer_logprobs(reference.model, reference.tokenizer, rows, config)
    spoken = generate(reference.model, reference.tokenizer, prompts, max_new_tokens=config.evaluation.max_new_tokens, batch_size=50)
    for artifact in artifacts.found(run_dir)[1:]:
        student = artifacts.load(artifact, config)
        drift = mean_divergence(right, answer_logprobs(student.model, student.tokenizer, rows, config))
        results.append(
            Result(f"{artifact.name}: divergence from the adapter", drift, "nats", drift, drift, "mean over the answers' tokens")
        )
        answers = generate(student.model, student.tokenizer, prompts, max_new_tokens=config.evaluation.max_new_tokens, batch_size=50)
        same = sum(a == b for a, b in zip(spoken, answers, strict=True))
        results.append(share(f"{artifact.name}: answers equal to the adapter's", same, len(rows), "greedy, held-out test rows"))
    return results


def spoken(run_dir: Path, config: Any, manifest: Manifest) -> list[Result]:
    """llama.cpp against training and transformers, from the f16 file."""
    from llama_cpp.llama_chat_format import Jinja2ChatFormatter

    rows = read_rows(manifest.path("sft/test.parquet"))
    tokenizer = model.load_tokenizer(str(run_dir / "merged"))
    student = artifacts.load(artifacts.place(run_dir, "gguf-f16"), config)
    asked = [row.prompt for row in sample(rows, PROMPTS, config.seed)]
    length = config.evaluation.max_new_tokens
    ours = generate(student.model, student.tokenizer, asked, max_new_tokens=length, batch_size=50)
    with llama(artifacts.place(run_dir, "gguf-f16").path) as loaded:
        words = loaded._model.token_get_text
        formatter = Jinja2ChatFormatter(
            template=loaded.metadata["tokenizer.chat_template"], eos_token=words(loaded.token_eos()), bos_token=words(loaded.token_bos())
        )
        same_bytes = same_ids = 0
        for row in rows:
            text = render(tokenizer, row.prompt, generation_prompt=True)
            same_bytes += formatter(messages=row.prompt).prompt == text
            same_ids += loaded.tokenize(text.encode(), add_bos=False, special=True) == tokenizer(text, add_special_tokens=False).input_ids
        theirs = [
            loaded.create_chat_completion(messages=p, temperature=0, max_tokens=length)["choices"][0]["message"]["content"] for p in asked
        ]
    equal = sum(a == b for a, b in zip(ours, theirs, strict=True))
    return [
        share("GGUF prompt bytes equal to training's", same_bytes, len(rows), "all held-out prompts, llama-cpp-python's template engine"),
        share("GGUF prompt token ids equal to training's", same_ids, len(rows), "all held-out prompts, llama.cpp's tokenizer"),
        share("llama.cpp's greedy answers equal to transformers'", equal, len(asked), "the same f16 GGUF, held-out prompts"),
    ]


def main() -> None:
    torch.set_num_threads(1)
    model.quiet()
    source = Path(sys.argv[1] if len(sys.argv) > 1 else "runs/latest").resolve()
    if not source.is_dir():
        sys.exit(f"{source} is no run: make one with `make datagen train`, or name one")
    config = config_of(source)
    manifest = Manifest.read(Path(sys.argv[2]) if len(sys.argv) > 2 else Path(read_record(source)["data"]))
    with tempfile.TemporaryDirectory() as home:
        run_dir = Path(home) / source.name
        shutil.copytree(source, run_dir, ignore=shutil.ignore_patterns("quantized", "checkpoint-*"))
        results = made(run_dir, config, manifest)
        try:
            results += spoken(run_dir, config, manifest)
        except ImportError:
            print("llama-cpp-python is not installed (make setup-gguf): its lines are left out")
    publish("artifacts", results)


if __name__ == "__main__":
    main()

"""Make the built-in student: generate text, train a tokenizer and a small LLaMA-shaped model on it, write the model folder.

    python -m train.students.tiny.make --steps 20 --batch-tokens 4096 --out build/tiny --general build/general    # a try-out
    python -m train.students.tiny.make --steps 14000                                                             # the real one, on a GPU

The data stream is a pure function of the seed: chunk i is the same in any process and on any machine, so a run is
reproducible up to floating point. `--minutes` measures the speed and derives the number of steps, which it prints.
"""

import argparse
import collections
import itertools
import json
import math
import multiprocessing
import os
import random
import time
from collections.abc import Iterator
from pathlib import Path

os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")  # workers are processes already

import numpy as np
import torch
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import GenerationConfig, LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from . import language, skills

HERE = Path(__file__).parent
SPECIAL = ["<|pad|>", "<|system|>", "<|user|>", "<|assistant|>", "<|end|>", "<|text|>"]
PAD, SYSTEM, USER, ASSISTANT, END, TEXT = range(6)
VOCABULARY = 4096
LONGEST = 320  # tokens; longer documents are skipped
CHUNK = 16_384  # documents drawn from one seed
TEMPLATE = (
    "{% for message in messages %}{{ '<|' + message['role'] + '|>' + message['content'] + '<|end|>' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|assistant|>' }}{% endif %}"
)
LOSS_WEIGHTS = (0.0, 0.15, 1.0, 0.5)
"""Weight of a token's loss: padding, the asker's side of a conversation, the assistant's side, plain text."""


def train_tokenizer(seed: int, documents: int = 60_000) -> PreTrainedTokenizerFast:
    """Byte-level BPE on the student's own text; digits stand alone, the six special tokens come first."""
    tokenizer = Tokenizer(models.BPE())
    words = Regex(r"'(?:s|t|re|ve|m|ll|d)| ?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+")
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.Split(words, "isolated"), pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)])
    tokenizer.decoder = decoders.ByteLevel()
    rng = random.Random(f"{seed}/tokenizer")

    def lines() -> Iterator[str]:
        for _ in range(documents):
            text = skills.document(rng)
            for special in SPECIAL:
                text = text.replace(special, "\n")
            yield text.encode("ascii", "ignore").decode()  # beyond ASCII every byte stays a token, so all are trained and any character can be copied
        for form in language.FORMS:  # every everyday word, also at the start of a line, often enough to be a token
            yield from [f" {form} {form}\n{form}", f" {form}"] * 5

    trainer = trainers.BpeTrainer(vocab_size=VOCABULARY, special_tokens=SPECIAL, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False)
    tokenizer.train_from_iterator(lines(), trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, bos_token="<|text|>", eos_token="<|end|>", pad_token="<|pad|>", chat_template=TEMPLATE, model_max_length=1024,
        padding_side="left", clean_up_tokenization_spaces=False, extra_special_tokens=["<|system|>", "<|user|>", "<|assistant|>"],
    )


# ---------------------------------------------------------------- the stream, made by worker processes

_worker: dict = {}


def start_worker(tokenizer_json: str, held_out: frozenset[str]) -> None:
    """Give a worker process its tokenizer and the probe's questions."""
    _worker.update(tokenizer=Tokenizer.from_str(tokenizer_json), held_out=held_out)


def kinds(ids: np.ndarray) -> np.ndarray:
    """For each token of a document the index into LOSS_WEIGHTS: 1 asker's side, 2 assistant's side with its stop token, 3 plain text."""
    if ids[0] == TEXT:
        return np.full(len(ids), 3, np.uint8)
    out = np.ones(len(ids), np.uint8)
    ends = np.flatnonzero(ids == END)
    for start in np.flatnonzero(ids == ASSISTANT):
        out[start + 1 : ends[np.searchsorted(ends, start)] + 1] = 2
    return out


def make_chunk(seed: int, index: int, batch_tokens: int) -> list[tuple[np.ndarray, np.ndarray]]:
    """Chunk `index` of the stream as batches (ids uint16 [rows, length], kinds uint8), rows of like length together, right-padded."""
    rng = random.Random(f"{seed}/chunk/{index}")
    texts = [skills.document(rng, _worker["held_out"]) for _ in range(CHUNK)]
    rows = [np.array(e.ids, np.uint16) for e in _worker["tokenizer"].encode_batch_fast(texts, add_special_tokens=False)]
    rows = sorted((r for r in rows if len(r) <= LONGEST), key=len)
    batches = []
    while rows:
        length = -(-len(rows[-1]) // 8) * 8
        take = rows[-(batch_tokens // length) :]
        del rows[-len(take) :]
        if len(take) * length < batch_tokens * 0.5 and batches:
            break  # the rest of the shortest rows is too small for a step
        ids, kind = np.full((len(take), length), PAD, np.uint16), np.zeros((len(take), length), np.uint8)
        for i, row in enumerate(take):
            ids[i, : len(row)], kind[i, : len(row)] = row, kinds(row)
        batches.append((ids, kind))
    rng.shuffle(batches)
    return batches


def stream(seed: int, tokenizer_json: str, held_out: frozenset[str], batch_tokens: int, workers: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Batches for ever, in an order that depends on the seed alone; workers run a few chunks ahead."""
    with multiprocessing.get_context("spawn").Pool(workers, start_worker, (tokenizer_json, held_out)) as pool:
        ahead: collections.deque = collections.deque()
        for index in itertools.count():
            ahead.append(pool.apply_async(make_chunk, (seed, index, batch_tokens)))
            if len(ahead) > 3 * workers:
                yield from ahead.popleft().get()


# ---------------------------------------------------------------- the model


def new_model(seed: int) -> LlamaForCausalLM:
    """The untrained student: the widest shape of those tried that LoRA trains at 9,000 tokens a second on two CPU cores."""
    torch.manual_seed(seed)
    return LlamaForCausalLM(LlamaConfig(
        vocab_size=VOCABULARY, hidden_size=224, num_hidden_layers=4, num_attention_heads=4, num_key_value_heads=2, intermediate_size=512, max_position_embeddings=1024,
        tie_word_embeddings=True, pad_token_id=PAD, bos_token_id=TEXT, eos_token_id=END, attn_implementation="sdpa",
    ))


@torch.no_grad()
def answers(model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast, prompts: list[list[dict]], max_new_tokens: int = 96, batch: int = 256) -> list[str]:
    """Greedy answers to the prompts."""
    model.eval()
    out: list[str] = []
    for start in range(0, len(prompts), batch):
        texts = [tokenizer.apply_chat_template(p, tokenize=False, add_generation_prompt=True) for p in prompts[start : start + batch]]
        given = tokenizer(texts, return_tensors="pt", padding=True, add_special_tokens=False, return_token_type_ids=False).to(model.device)
        made = model.generate(**given, generation_config=GenerationConfig(max_new_tokens=max_new_tokens, do_sample=False, pad_token_id=PAD, eos_token_id=END))
        out += tokenizer.batch_decode(made[:, given["input_ids"].shape[1] :], skip_special_tokens=True)
    model.train()
    return out


def probe(model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast, rows: list[dict]) -> dict[str, float]:
    """Share of exactly right answers by skill, and over all rows under "all"."""
    right: dict[str, list[bool]] = {}
    for row, text in zip(rows, answers(model, tokenizer, [r["prompt"] for r in rows]), strict=True):
        right.setdefault(row["skill"], []).append(text == row["completion"])
    scores = {skill: sum(hits) / len(hits) for skill, hits in sorted(right.items())}
    return {"all": sum(map(sum, right.values())) / len(rows), **scores}


def train(model: LlamaForCausalLM, batches: Iterator[tuple[np.ndarray, np.ndarray]], steps: int, minutes: float | None, learning_rate: float, report: collections.abc.Callable) -> int:
    """Plain training loop: AdamW, linear warm-up, cosine to a twentieth; returns the number of steps."""
    device = model.device
    matrices = [p for p in model.parameters() if p.ndim == 2]
    others = [p for p in model.parameters() if p.ndim != 2]
    optimizer = torch.optim.AdamW([{"params": matrices, "weight_decay": 0.05}, {"params": others, "weight_decay": 0.0}], lr=learning_rate, betas=(0.9, 0.95), fused=True)
    weights = torch.tensor(LOSS_WEIGHTS, device=device)
    began = time.monotonic()
    warm = 0.0
    step = 0
    while step < steps:
        if step == 20:
            warm = time.monotonic()
        if minutes and step == 220:  # speed is known now: derive the number of steps that fits
            per_step = (time.monotonic() - warm) / 200
            steps = 220 + int((minutes * 60 - (time.monotonic() - began)) / per_step)
            print(f"{per_step * 1000:.1f} ms a step: {steps} steps", flush=True)
        ids_, kind_ = next(batches)
        ids = torch.from_numpy(ids_.astype(np.int32)).to(device, non_blocking=True).long()
        weight = weights[torch.from_numpy(kind_).to(device, non_blocking=True).long()][:, 1:]
        rate = learning_rate * min(1.0, (step + 1) / max(1, min(300, steps // 10))) * (0.05 + 0.95 * (1 + math.cos(math.pi * step / steps)) / 2)
        for group in optimizer.param_groups:
            group["lr"] = rate
        with torch.autocast(device.type, torch.bfloat16, enabled=device.type == "cuda"):
            logits = model(input_ids=ids, use_cache=False).logits[:, :-1]
        each = torch.nn.functional.cross_entropy(logits.reshape(-1, VOCABULARY).float(), ids[:, 1:].reshape(-1), reduction="none").view_as(weight)
        loss = (each * weight).sum() / weight.sum()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        step += 1
        if step % max(1, min(500, steps // 20)) == 0 or step == steps:
            answer, text = weight == LOSS_WEIGHTS[2], weight == LOSS_WEIGHTS[3]
            report(step, steps, {"loss": loss.item(), "answers": each[answer].mean().item(), "text": each[text].mean().item() if text.any() else float("nan"), "tokens": int(ids.numel()), "seconds": time.monotonic() - began})
    return step


def main() -> None:
    """Read the options and make the student."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=HERE, help="folder of the model files")
    parser.add_argument("--general", type=Path, default=HERE.parents[1] / "general", help="folder of train.jsonl and probe.jsonl")
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument("--steps", type=int, default=14_000)
    parser.add_argument("--minutes", type=float, help="derive the steps from this time budget instead")
    parser.add_argument("--batch-tokens", type=int, default=65_536)
    parser.add_argument("--learning-rate", type=float, default=3e-3)
    parser.add_argument("--workers", type=int, default=max(1, (os.cpu_count() or 2) - 1))
    options = parser.parse_args()

    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    torch.backends.cuda.matmul.allow_tf32 = True
    began = time.monotonic()
    tokenizer = train_tokenizer(options.seed)
    probe_rows = skills.general_rows(options.seed, "probe", 8)
    held_out = frozenset(r["prompt"][-1]["content"] for r in probe_rows)
    train_rows = skills.general_rows(options.seed, "train", 60, held_out)
    options.general.mkdir(parents=True, exist_ok=True)
    for name, rows in (("train", train_rows), ("probe", probe_rows)):
        (options.general / f"{name}.jsonl").write_text("".join(json.dumps(r, ensure_ascii=False) + "\n" for r in rows), encoding="utf-8")
    model = new_model(options.seed).to(device)
    parameters = sum(p.numel() for p in model.parameters())
    print(f"{parameters:,} parameters on {device}; {len(probe_rows)} probe rows, {len(train_rows)} general rows; {time.monotonic() - began:.0f} s so far", flush=True)

    history: list[dict] = []

    def report(step: int, steps: int, numbers: dict[str, float]) -> None:
        row = {"step": step, **{k: round(v, 4) for k, v in numbers.items()}}
        if len(history) % 4 == 3:
            row["probe"] = probe(model, tokenizer, probe_rows[::2])["all"]
        history.append(row)
        print(f"{step}/{steps}", {k: v for k, v in row.items() if k != "step"}, flush=True)

    batches = stream(options.seed, tokenizer.backend_tokenizer.to_str(), held_out, options.batch_tokens, options.workers)
    steps = train(model, batches, options.steps, options.minutes, options.learning_rate, report)
    batches.close()

    model = model.to(torch.bfloat16).float()  # what is scored is what is saved
    scores = probe(model, tokenizer, probe_rows)
    print("probe", json.dumps(scores), flush=True)
    rng = random.Random(f"{options.seed}/report")
    fresh = []
    for name in skills.EXACT:
        for _ in range(40):
            chat = skills.EXACT[name][1](rng)
            messages = [{"role": "system", "content": chat.system}] if chat.system else []
            for user, answer in chat.turns:
                messages += [{"role": "user", "content": user}, {"role": "assistant", "content": answer}]
            fresh.append({"prompt": messages[:-1], "completion": chat.turns[-1][1], "skill": name})
    fresh_scores = probe(model, tokenizer, fresh)
    print("fresh rows", json.dumps(fresh_scores), flush=True)

    options.out.mkdir(parents=True, exist_ok=True)
    model.generation_config = GenerationConfig(do_sample=False, max_new_tokens=96, pad_token_id=PAD, bos_token_id=TEXT, eos_token_id=END)
    model.to(torch.bfloat16).save_pretrained(options.out)
    tokenizer.save_pretrained(options.out)
    record = {"seed": options.seed, "steps": steps, "batch_tokens": options.batch_tokens, "learning_rate": options.learning_rate, "parameters": parameters, "device": str(device),
              "torch": torch.__version__, "seconds": round(time.monotonic() - began), "probe": scores, "fresh": fresh_scores, "history": history}
    (options.out / "pretraining.json").write_text(json.dumps(record, indent=1) + "\n")
    print(f"wrote {options.out} in {time.monotonic() - began:.0f} s", flush=True)


if __name__ == "__main__":
    main()

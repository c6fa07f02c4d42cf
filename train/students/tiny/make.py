"""Make the built-in student: generate text, train a tokenizer and a small LLaMA-shaped model on it, write the model folder.

    python -m train.students.tiny.make --steps 20 --batch-tokens 4096 --out build/tiny --general build/general    # a try-out
    python -m train.students.tiny.make                                                              # the real one, on a GPU

The data stream is a pure function of the seed: chunk i is the same in any process and on any machine, so a run is
reproducible up to floating point.
"""

import argparse
import json
import os
import random
import time
from pathlib import Path

from . import skills, stream

HERE = Path(__file__).parent


def main() -> None:
    """Read the options and make the student."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=HERE, help="folder of the model files")
    parser.add_argument(
        "--general", type=Path, default=HERE.parents[1] / "general", help="folder of train.jsonl, probe.jsonl and gate.jsonl"
    )
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument("--steps", type=int, default=10_000)
    parser.add_argument("--batch-tokens", type=int, default=32_768)
    parser.add_argument("--learning-rate", type=float, default=3e-3)
    parser.add_argument("--workers", type=int, default=max(1, (os.cpu_count() or 2) - 1))
    options = parser.parse_args()

    from . import pretrain  # here, because worker processes import this file and need neither torch nor transformers

    torch = pretrain.torch
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    torch.backends.cuda.matmul.allow_tf32 = True
    began = time.monotonic()
    bpe = stream.train_tokenizer(options.seed)
    tokenizer = pretrain.wrap(bpe)
    probe_rows = skills.general_rows(options.seed, "probe", 8)
    held_out = frozenset(r["prompt"][-1]["content"] for r in probe_rows)
    train_rows = skills.general_rows(options.seed, "train", 160, held_out)
    seen = held_out | {r["prompt"][-1]["content"] for r in train_rows}
    gate_rows = skills.general_rows(options.seed, "gate", 32, seen)  # what an artifact is held against its adapter on, with the probe
    options.general.mkdir(parents=True, exist_ok=True)
    for name, rows in (("train", train_rows), ("probe", probe_rows), ("gate", gate_rows)):
        (options.general / f"{name}.jsonl").write_text("".join(json.dumps(r, ensure_ascii=False) + "\n" for r in rows), encoding="utf-8")
    model = pretrain.new_model(options.seed).to(device)  # type: ignore[arg-type]
    parameters = sum(p.numel() for p in model.parameters())
    print(
        f"{parameters:,} parameters on {device}; {len(probe_rows)} probe rows, {len(train_rows)} general rows; {time.monotonic() - began:.0f} s so far",
        flush=True,
    )

    history: list[dict] = []

    def report(step: int, steps: int, numbers: dict[str, float]) -> None:
        row = {"step": step, **{k: round(v, 4) for k, v in numbers.items()}}
        if len(history) % 4 == 3:
            row["probe"] = pretrain.probe(model, tokenizer, probe_rows[::2])["all"]
        history.append(row)
        print(f"{step}/{steps}", {k: v for k, v in row.items() if k != "step"}, flush=True)

    batches = stream.stream(options.seed, bpe.to_str(), held_out, options.batch_tokens, options.workers)
    pretrain.train(model, batches, options.steps, options.learning_rate, report)
    batches.close()

    model = model.to(torch.bfloat16).float()  # what is scored is what is saved
    scores = pretrain.probe(model, tokenizer, probe_rows)
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
    fresh_scores = pretrain.probe(model, tokenizer, fresh)
    print("fresh rows", json.dumps(fresh_scores), flush=True)

    options.out.mkdir(parents=True, exist_ok=True)
    model.generation_config = pretrain.GenerationConfig(
        do_sample=False, max_new_tokens=96, pad_token_id=stream.PAD, bos_token_id=stream.TEXT, eos_token_id=stream.END
    )
    model.to(torch.bfloat16).save_pretrained(options.out)
    tokenizer.save_pretrained(options.out)
    record = {
        "seed": options.seed,
        "steps": options.steps,
        "batch_tokens": options.batch_tokens,
        "learning_rate": options.learning_rate,
        "parameters": parameters,
        "device": str(device),
        "torch": torch.__version__,
        "seconds": round(time.monotonic() - began),
        "probe": scores,
        "fresh": fresh_scores,
        "history": history,
    }
    (options.out / "pretraining.json").write_text(json.dumps(record, indent=1) + "\n")
    print(f"wrote {options.out} in {time.monotonic() - began:.0f} s", flush=True)


if __name__ == "__main__":
    main()

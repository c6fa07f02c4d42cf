"""Memory of a training step on a GPU: what is said before the first step against what training takes.

    python benchmarks/memory.py [CASE ...]     all cases, or those that begin with one of the words given; needs a CUDA GPU

Students are of Qwen 2.5's shapes with random weights, rows are random tokens of lengths between half the width and the width. The value is the
expected memory over PyTorch's peak while three steps were trained; the interval is from that to the two passes that were tried, over the same.
"""

import gc
import sys
import tempfile
from pathlib import Path
from typing import Any, NamedTuple

import torch
from datasets import Dataset
from results_file import Result, machine, publish
from transformers import AutoModelForCausalLM, AutoTokenizer, Qwen2Config
from trl import SFTConfig

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))  # the benchmark is run as a file

from train import memory, model  # noqa: E402
from train.config import BUILT_IN, TrainConfig  # noqa: E402
from train.sft import Trainer, build_arguments  # noqa: E402

SHAPES: dict[str, dict[str, Any]] = {
    "0.5B": {"hidden_size": 896, "num_hidden_layers": 24, "intermediate_size": 4864, "num_attention_heads": 14, "num_key_value_heads": 2},
    "1.5B": {"hidden_size": 1536, "num_hidden_layers": 28, "intermediate_size": 8960, "num_attention_heads": 12, "num_key_value_heads": 2},
    "7B": {
        "hidden_size": 3584, "num_hidden_layers": 28, "intermediate_size": 18944, "num_attention_heads": 28, "num_key_value_heads": 4,
        "tie_word_embeddings": False,
    },
}  # fmt: skip
STEPS = 3


class Case(NamedTuple):
    """A student, a method, rows of a micro-batch, tokens of the longest row."""

    size: str
    method: str
    rows: int
    width: int
    checkpointing: bool
    dora: bool = False
    packing: bool = False

    @property
    def name(self) -> str:
        """In words."""
        extras = [word for word, on in (("DoRA", self.dora), ("checkpointing", self.checkpointing), ("packing", self.packing)) if on]
        return f"{self.size} {self.method}, {self.rows} rows of {self.width}{''.join(', ' + word for word in extras)}"


CASES = [
    Case("0.5B", "lora", 8, 1024, False),
    Case("0.5B", "lora", 8, 1024, True),
    Case("0.5B", "lora", 8, 1024, False, dora=True),
    Case("0.5B", "lora", 8, 1024, False, packing=True),
    Case("0.5B", "full", 8, 1024, False),
    Case("1.5B", "qlora", 8, 1024, True),
    Case("1.5B", "lora", 16, 1024, True),
    Case("1.5B", "lora", 4, 1024, False),
    Case("1.5B", "lora", 48, 1024, False),  # does not fit 80 GB: goes in parts
    Case("1.5B", "full", 8, 1024, True),
    Case("7B", "qlora", 8, 1024, True),
    Case("7B", "lora", 8, 1024, True),
]


def student(size: str, folder: Path) -> str:
    """A folder with a random student of a size."""
    path = folder / size
    if not path.is_dir():
        config = Qwen2Config(vocab_size=151_936, max_position_embeddings=32_768, **{"tie_word_embeddings": True, **SHAPES[size]})
        torch.set_default_dtype(torch.bfloat16)
        with torch.device("cuda"):
            net = AutoModelForCausalLM.from_config(config)
        torch.set_default_dtype(torch.float32)
        net.save_pretrained(path)
        AutoTokenizer.from_pretrained(ROOT / BUILT_IN).save_pretrained(path)
        del net
        memory.release()
    return str(path)


def measure(case: Case, folder: Path) -> Result:
    """What was expected and tried, over what training took."""
    config = TrainConfig.model_validate(
        {"student": student(case.size, folder), "method": case.method, "lora": {"dora": case.dora}, "max_length": case.width}
    )
    net, tokenizer = model.load_student(config.student, config)
    if case.method != "full":
        net = model.add_lora(net, config)
    draw = torch.Generator().manual_seed(0)
    lengths = torch.randint(case.width // 2, case.width + 1, (case.rows * (STEPS + 1),), generator=draw).tolist()
    ids = [torch.randint(5, 1500, (length,), generator=draw).tolist() for length in lengths]
    options = {
        "per_device_train_batch_size": case.rows, "gradient_accumulation_steps": 1, "max_steps": STEPS, "learning_rate": 1e-5,
        "packing": case.packing, "activation_checkpointing": case.checkpointing,
    }  # fmt: skip
    arguments = build_arguments("bench", SFTConfig, config, options, folder / "out", len(ids), model.share(net).total)
    rows = Dataset.from_dict({"input_ids": ids, "labels": [[-100] * 8 + row[8:] for row in ids]})
    trainer = Trainer(model=net, args=arguments, train_dataset=rows, processing_class=tokenizer)
    room = memory.make_room(trainer, lengths)
    trainer.train()
    took = torch.cuda.max_memory_allocated()
    parts = f", in {trainer.parts} parts" if trainer.parts > 1 else ""
    where = f"expected {room.expected.total / 1e9:.2f} GB, tried {(room.probed or 0) / 1e9:.2f} GB, peak {took / 1e9:.2f} GB{parts}"
    expected, tried = room.expected.total / took, (room.probed or 0) / took
    print(f"{case.name}: {where}: {expected:.3f}", flush=True)
    return Result(
        f"memory: {case.name}",
        expected,
        "x",
        min(expected, tried),
        max(expected, tried),
        f"{where}; {torch.cuda.get_device_name()}, {machine()}",
    )


def main() -> None:
    model.quiet()
    wanted = tuple(sys.argv[1:]) or ("",)
    results = []
    with tempfile.TemporaryDirectory() as folder:
        for case in CASES:
            if case.name.startswith(wanted):
                results.append(measure(case, Path(folder)))
                gc.collect()
                memory.release()
    publish("memory", results)


if __name__ == "__main__":
    main()

"""GGUF files: tokenizer, template and stop ids out of a file's own fields."""

from pathlib import Path
from typing import NamedTuple

from transformers import AutoTokenizer, PreTrainedTokenizerBase


class Speech(NamedTuple):
    """How a GGUF file is spoken to: its tokenizer, with its template, and the ids at which it stops."""

    tokenizer: PreTrainedTokenizerBase
    stop_ids: list[int]


def read_speech(path: Path) -> Speech:
    """Build the tokenizer that a GGUF file describes."""
    tokenizer = AutoTokenizer.from_pretrained(str(path.parent), gguf_file=path.name)
    return Speech(tokenizer, [tokenizer.eos_token_id])

"""The student's tokenizer and its endless stream of training batches, made by worker processes.

Chunk i of the stream is a pure function of (seed, i): the same in any process and on any machine. Neither torch nor
transformers is imported here, because each worker process imports this file.
"""

import collections
import itertools
import multiprocessing
import os
import random
from collections.abc import Generator, Iterator

os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")  # workers are processes already

import numpy as np
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers

from . import language, skills

SPECIAL = ["<|pad|>", "<|system|>", "<|user|>", "<|assistant|>", "<|end|>", "<|text|>"]
PAD, SYSTEM, USER, ASSISTANT, END, TEXT = range(6)
VOCABULARY = 4096
LONGEST = 320  # tokens; longer documents are skipped
CHUNK = 16_384  # documents drawn from one seed
Batch = tuple[np.ndarray, np.ndarray]


def train_tokenizer(seed: int, documents: int = 60_000) -> Tokenizer:
    """Byte-level BPE on the student's own text; digits stand alone, the six special tokens come first."""
    tokenizer = Tokenizer(models.BPE())
    words = Regex(r"'(?:s|t|re|ve|m|ll|d)| ?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+")
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Split(words, "isolated"), pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)]
    )
    tokenizer.decoder = decoders.ByteLevel()
    rng = random.Random(f"{seed}/tokenizer")

    def lines() -> Iterator[str]:
        for _ in range(documents):
            text = skills.document(rng)
            for special in SPECIAL:
                text = text.replace(special, "\n")
            yield text.encode(
                "ascii", "ignore"
            ).decode()  # beyond ASCII every byte stays a token, so all are trained and any character can be copied
        for form in language.FORMS:  # every everyday word, also at the start of a line, often enough to be a token
            yield from [f" {form} {form}\n{form}", f" {form}"] * 5

    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY, special_tokens=SPECIAL, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False
    )
    tokenizer.train_from_iterator(lines(), trainer)
    return tokenizer


_worker: dict = {}  # what a worker process is given at its start


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


def make_chunk(seed: int, index: int, batch_tokens: int) -> list[Batch]:
    """Chunk `index` of the stream as batches (ids uint16 [rows, length], kinds uint8), rows of like length together, right-padded."""
    rng = random.Random(f"{seed}/chunk/{index}")
    texts = [skills.document(rng, _worker["held_out"]) for _ in range(CHUNK)]
    rows = [np.array(e.ids, np.uint16) for e in _worker["tokenizer"].encode_batch_fast(texts, add_special_tokens=False)]
    rows = sorted((r for r in rows if len(r) <= LONGEST), key=len)
    batches: list[Batch] = []
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


def stream(seed: int, tokenizer_json: str, held_out: frozenset[str], batch_tokens: int, workers: int) -> Generator[Batch, None, None]:
    """Batches for ever, in an order that depends on the seed alone; workers run a few chunks ahead."""
    with multiprocessing.get_context("spawn").Pool(workers, start_worker, (tokenizer_json, held_out)) as pool:
        ahead: collections.deque = collections.deque()
        for index in itertools.count():
            ahead.append(pool.apply_async(make_chunk, (seed, index, batch_tokens)))
            if len(ahead) > 3 * workers:
                yield from ahead.popleft().get()

"""How near an answer's meaning is to its reference's: the cosine of their embeddings, by a model that the recipe names.

    similar = Similarity("models/all-MiniLM-L6-v2")
    answers = similar(answers)          the same answers, with `similarity` where they are texts with a reference

A text's embedding is the mean of its tokens' last hidden states, padding left out (Reimers and Gurevych 2019). Nothing is asked of a
server, so it costs no money while training.
"""

from collections.abc import Sequence

import torch

from train.metrics import Answer
from train.model import load_encoder

BATCH = 64
LONGEST = 512  # tokens of a text that are looked at


class Similarity:
    """A loaded encoder, and the embeddings of the references that it has seen."""

    def __init__(self, name: str) -> None:
        self._net, self._tokenizer = load_encoder(name)
        self._known: dict[str, torch.Tensor] = {}

    def __call__(self, answers: Sequence[Answer]) -> list[Answer]:
        """The answers with their similarity from 0 to 1; a cosine below 0 counts as 0, an empty answer to a reference too."""
        rows = [a for a in answers if _applies(a)]
        new = [text for text in dict.fromkeys(a.reference or "" for a in rows) if text not in self._known]
        self._known |= dict(zip(new, self._embed(new), strict=True))
        said = list(dict.fromkeys(a.completion for a in rows))
        vectors = {**self._known, **dict(zip(said, self._embed(said), strict=True))}
        return [a._replace(similarity=_cosine(a, vectors)) if _applies(a) else a for a in answers]

    @torch.inference_mode()
    def _embed(self, texts: Sequence[str]) -> list[torch.Tensor]:
        """Vectors of length 1, in the order of the texts; short texts are embedded together."""
        found: dict[int, torch.Tensor] = {}
        order = sorted(range(len(texts)), key=lambda i: len(texts[i]))
        place = next(self._net.parameters()).device
        for start in range(0, len(order), BATCH):
            part = order[start : start + BATCH]
            batch = self._tokenizer(
                [texts[i] or " " for i in part], padding=True, truncation=True, max_length=LONGEST, return_tensors="pt"
            ).to(place)
            hidden = self._net(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"]).last_hidden_state.float()
            mask = batch["attention_mask"][..., None]
            mean = (hidden * mask).sum(1) / mask.sum(1).clamp(min=1)
            found |= dict(zip(part, torch.nn.functional.normalize(mean, dim=-1).cpu(), strict=True))
        return [found[i] for i in range(len(texts))]


def _applies(answer: Answer) -> bool:
    return answer.task.output == "text" and answer.reference is not None and not answer.task.labels


def _cosine(answer: Answer, vectors: dict[str, torch.Tensor]) -> float:
    if not answer.completion.strip() and (answer.reference or "").strip():
        return 0.0
    return min(1.0, max(0.0, float(vectors[answer.completion] @ vectors[answer.reference or ""])))

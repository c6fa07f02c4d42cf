"""A Modelfile for Ollama: which file to run, the chat template in Go's words, system message, stop tokens.

    text = modelfile("banking-q4_k_m.gguf", tokenizer, system, max_new_tokens=96, context=256)

The Go template is put together from what the student's own template writes between messages, and kept only if it renders conversations
of several shapes to the same text. Format: https://github.com/ollama/ollama/blob/main/docs/modelfile.md
"""

from typing import NamedTuple

from transformers import PreTrainedTokenizerBase

from train import template
from train.dataset import Message
from train.errors import TemplateError

S, U, A = "\ue000S\ue000", "\ue000U\ue000", "\ue000A\ue000"  # stand for contents: signs that no template writes
V, B = "\ue000V\ue000", "\ue000B\ue000"


class Joints(NamedTuple):
    """What a template writes at the beginning (with and without a system message) and after each message."""

    start: str
    start_without: str
    after_system: str
    after_user: str
    after_assistant: str


def modelfile(gguf: str, tokenizer: PreTrainedTokenizerBase, system: str, *, max_new_tokens: int, context: int) -> str:
    """The Modelfile of a GGUF that lies beside it. Without TEMPLATE where a Go template would not write the same, and says so."""
    lines = [f"FROM ./{gguf}"]
    found = joints(tokenizer)
    if found is None:
        lines.append("# The chat template could not be put into Ollama's form; Ollama takes what it makes of the one in the GGUF file.")
    else:
        lines.append(f'TEMPLATE """{go_template(found)}"""')
    if system:
        quoted = system.replace('"""', "'''")
        lines.append(f'SYSTEM """{quoted}"""')
    stop = template.adapt(tokenizer, gguf).stop
    lines += [
        f'PARAMETER stop "{stop}"',
        "PARAMETER temperature 0",
        f"PARAMETER num_predict {max_new_tokens}",
        f"PARAMETER num_ctx {context}",
    ]
    return "\n".join(lines) + "\n"


def joints(tokenizer: PreTrainedTokenizerBase) -> Joints | None:
    """Take a template apart; None where its parts, put together again, do not give what it writes."""
    bos = str(tokenizer.bos_token or "") if tokenizer("a").input_ids[:1] == [tokenizer.bos_token_id] else ""

    def write(*contents: str) -> str:
        roles = {S: "system", U: "user", V: "user", A: "assistant", B: "assistant"}
        messages: list[Message] = [{"role": roles[content], "content": content} for content in contents]
        return template.render(tokenizer, messages, generation_prompt=True).removeprefix(bos)  # Ollama writes it itself

    try:
        full = write(S, U, A, V)
        start, rest = full.split(S)
        after_system, rest = rest.split(U)
        after_user, rest = rest.split(A)
        after_assistant, _ = rest.split(V)
        found = Joints(start, write(U).split(U)[0], after_system, after_user, after_assistant)
        shapes = ((U,), (S, U), (S, U, A, V), (U, A, V), (S, U, A, V, B, U))
        same = all(write(*shape) == assemble(found, shape) for shape in shapes)
    except (TemplateError, ValueError):
        return None
    return found if same and '"""' not in go_template(found) else None


def assemble(found: Joints, contents: tuple[str, ...]) -> str:
    """What the Go template of these joints writes for a conversation."""
    after = {S: found.after_system, U: found.after_user, V: found.after_user, A: found.after_assistant, B: found.after_assistant}
    return (found.start if contents[0] == S else found.start_without) + "".join(content + after[content] for content in contents)


def go_template(found: Joints) -> str:
    """The joints as a Go template over Ollama's messages, on one line, since it would keep the ends of lines."""
    start, without, system, user, assistant = (_literal(joint) for joint in found)
    return (
        f"{{{{ if .System }}}}{start}{{{{ else }}}}{without}{{{{ end }}}}{{{{ range .Messages }}}}"
        f'{{{{ if eq .Role "system" }}}}{{{{ .Content }}}}{system}'
        f'{{{{ else if eq .Role "user" }}}}{{{{ .Content }}}}{user}'
        f'{{{{ else if eq .Role "assistant" }}}}{{{{ .Content }}}}{assistant}{{{{ end }}}}{{{{ end }}}}'
    )


def _literal(text: str) -> str:
    return text.replace("{{", '{{ "{{" }}')

"""What an example says, message by message: a conversation is judged in all its turns, since a student reads the earlier ones too."""

from typing import NamedTuple

from datagen.records import Example


class Said(NamedTuple):
    """A text, and what a reason calls it: "input", "completion"; in a conversation "input of turn 2", "answer of turn 1"."""

    name: str
    text: str


def inputs(example: Example) -> list[Said]:
    """What the user wrote, without a passage that is shown."""
    users = [message.content for message in example.prompt if message.role == "user"]
    if len(users) <= 1:
        return [Said("input", example.input)]
    return [Said(f"input of turn {number}", example.without_passage(text)) for number, text in enumerate(users, 1)]


def answers(example: Example) -> list[Said]:
    """What the assistant wrote: earlier turns, and the completion last."""
    earlier = [message.content for message in example.prompt if message.role == "assistant"]
    return [*(Said(f"answer of turn {number}", text) for number, text in enumerate(earlier, 1)), Said("completion", example.completion)]


def material(example: Example) -> str:
    """All that an answer may copy from: every user message, with the passage that is shown."""
    return "\n".join(message.content for message in example.prompt if message.role == "user")

"""The built-in teacher of the demo domain: no model, no key, no network; called offline and simulated wherever it shows.

`register` makes `offline/banking`, `offline/banking-weak` and `offline/banking-judge` known to litellm.

    grammar.py     the notation of sentences, and how they are drawn
    sentences.py   the sentences of the twelve intents; elsewhere.py those of everything else
    messages.py    a sentence becomes a customer's message: channel, persona, mistakes, tricks
    knowledge.py   shops, places, sums, times, and how to find them in a text
    reading.py     which intent a message has
    faults.py      the faults that it makes on purpose, and where they are recorded
    provider.py    the door: rendered prompt in, text out
"""

from pathlib import Path

MODELS = ("banking", "banking-weak", "banking-judge")


def register(side_file: Path | None = None) -> None:
    """Make litellm know the provider `offline`; faults are recorded in `side_file`. Calling it again sets the file anew."""
    import litellm  # here, so that importing this package costs nothing

    from datagen.offline.provider import OfflineTeacher

    known = next((entry["custom_handler"] for entry in litellm.custom_provider_map if entry["provider"] == "offline"), None)
    teacher = known if isinstance(known, OfflineTeacher) else OfflineTeacher()
    teacher.side_file = side_file
    if teacher is not known:
        litellm.custom_provider_map = [
            *(entry for entry in litellm.custom_provider_map if entry["provider"] != "offline"),
            {"provider": "offline", "custom_handler": teacher},
        ]

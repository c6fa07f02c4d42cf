"""A small bank whose examples pass every filter, and a chat server on this machine that answers as it is told."""

import json
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from datagen.filters import FilterContext
from datagen.policy import Fact, Rule
from datagen.records import EvaluationSet, Example, Message, PlanItem, Task
from datagen.store import Store

# Words with nothing in common: prompts made of them are no near-duplicates of one another
NAMES = [
    "amber",
    "birch",
    "cedar",
    "dune",
    "ember",
    "fjord",
    "grove",
    "heath",
    "inlet",
    "jetty",
    "knoll",
    "larch",
    "marsh",
    "north",
    "ocean",
    "plain",
    "quarry",
    "ridge",
    "stone",
    "tide",
    "umber",
    "vale",
    "willow",
    "yarrow",
    "zenith",
    "basin",
    "cliff",
    "delta",
    "estuary",
    "field",
    "garden",
    "harbour",
    "island",
    "jungle",
    "kettle",
    "lantern",
    "meadow",
    "nettle",
    "orchard",
    "paddle",
]

SYSTEM = "Reply with one JSON object: intent, urgency, entities and, where the policy demands, decision."
LABELS = {"card_arrival": "a card that has not come", "lost_card": "a lost card", "refund": "a refund", "out_of_scope": "else"}
SCHEMA = {
    "type": "object",
    "additionalProperties": False,
    "required": ["intent", "urgency", "entities"],
    "properties": {
        "intent": {"enum": list(LABELS)},
        "urgency": {"enum": ["low", "normal", "high"]},
        "entities": {"type": "object", "additionalProperties": {"type": "string"}},
        "decision": {"enum": ["block", "wait", "escalate", "clarify"]},
        "reason": {"type": "string"},
        "ask": {"enum": ["when"]},
    },
}
POLICY = (
    Rule(id="R1", when={"intent": "lost_card"}, then={"urgency": "high", "decision": "block", "reason": "R1"}),
    Rule(
        id="R2",
        when={"intent": "refund", "days": "missing"},
        then={"urgency": "normal", "decision": "clarify", "reason": "R2", "ask": "when"},
    ),
    Rule(id="R3", when={"intent": "refund", "days": ">= 10"}, then={"urgency": "high", "decision": "escalate", "reason": "R3"}),
    Rule(id="R4", when={"intent": "refund"}, then={"urgency": "low", "decision": "wait", "reason": "R4"}),
    Rule(id="R5", when={}, then={"urgency": "normal"}),
)


@pytest.fixture
def bank_task() -> Task:
    return Task(
        type="extraction",
        system=SYSTEM,
        input="one message to a bank",
        instructions="Answer by the table.",
        output_schema=SCHEMA,
        label_field="intent",
        abstain_label="out_of_scope",
        entities_field="entities",
        decision_fields=("urgency", "decision", "reason", "ask"),
        forbidden=("PIN", "security code"),
    )


@pytest.fixture
def text_task() -> Task:
    return Task(type="generation", system="Answer.", input="a question", instructions="Answer.", forbidden=("PIN",))


@pytest.fixture
def bank_context(bank_task: Task) -> FilterContext:
    return FilterContext(task=bank_task, labels=LABELS, facts={"days": Fact(entity="when", parse="days")}, policy=POLICY)


@pytest.fixture
def bank_example() -> Callable[..., Example]:
    """An example that passes every filter, with what a test changes: text, answer (dict), completion, label, rejected, ..."""

    def make(
        text: str = "My card has not arrived yet, where is it?",
        answer: dict[str, Any] | None = None,
        *,
        label: str | None = "card_arrival",
        **fields: Any,
    ) -> Example:
        said = {"intent": label or "card_arrival", "urgency": "normal", "entities": {}} if answer is None else answer
        fields.setdefault("completion", json.dumps(said, ensure_ascii=False, separators=(",", ":")))
        fields.setdefault("prompt", (Message(role="system", content=SYSTEM), Message(role="user", content=text)))
        fields.setdefault("item_id", "cards/arrival:topic:0")
        return Example(**{"topic": "cards/arrival", "generator": "topic", "label": label, "answer": said, **fields})

    return make


@pytest.fixture
def exam() -> Callable[..., EvaluationSet]:
    """An evaluation set of the given texts."""

    def make(*texts: str, name: str = "exam", labels: tuple[str | None, ...] | None = None) -> EvaluationSet:
        return EvaluationSet(
            name=name, path=f"{name}.jsonl", texts=texts, labels=labels or (None,) * len(texts), sha256=f"{len(texts):064x}"
        )

    return make


@pytest.fixture
def bank_store(tmp_path: Path) -> Callable[..., Store]:
    """A store that holds the given examples as what its plan stands for."""

    def make(examples: list[Example], name: str = "bank.duckdb") -> Store:
        store = Store(tmp_path / name)
        by_item: dict[str, list[Example]] = {}
        for example in examples:
            by_item.setdefault(example.item_id, []).append(example)
        with store.writing():
            for item_id, made in by_item.items():
                topic, generator, index = item_id.split(":")
                item = PlanItem(topic=topic, generator=generator, index=int(index), count=len(made))
                store.add_item(item, "done", made)
        return store

    return make


@pytest.fixture
def lineage_gaps() -> Callable[[Store], tuple[int, int]]:
    """How many training rows a store has, and how many of them the view `lineage` does not account for in full."""

    def count(store: Store) -> tuple[int, int]:
        columns = (
            "teacher prompt_hash rendered_prompt teacher_text topic item_id call_id prompt_tokens completion_tokens cost_usd verdicts asked"
        )
        missing = " OR ".join(f"l.{column} IS NULL" for column in columns.split())
        (row,) = store.query(
            f"SELECT count(*) AS rows, count(*) FILTER ({missing} OR len(l.rendered_prompt) = 0 OR len(l.asked) <> len(a.calls) "
            "OR len(l.verdicts) <> v.said) AS gaps FROM accepted a LEFT JOIN lineage l ON l.id = a.id LEFT JOIN "
            "(SELECT example_id, count(*) AS said FROM verdicts GROUP BY ALL) v ON v.example_id = a.id"
        )
        return row["rows"], row["gaps"]

    return count


Reply = tuple[int, dict[str, str], bytes]


def chat(text: str, *, finish: str = "stop", cached: int = 0) -> Reply:
    """A chat completion as an OpenAI-compatible server sends it."""
    body = {
        "id": "x", "object": "chat.completion", "created": 1, "model": "m",
        "choices": [{"index": 0, "finish_reason": finish, "message": {"role": "assistant", "content": text}}],
        "usage": {
            "prompt_tokens": 100, "completion_tokens": 20, "total_tokens": 120, "prompt_tokens_details": {"cached_tokens": cached},
        },
    }  # fmt: skip
    return 200, {}, json.dumps(body).encode()


def error(status: int, message: str, headers: dict[str, str] | None = None) -> Reply:
    return status, headers or {}, json.dumps({"error": {"message": message, "type": "x", "code": None}}).encode()


class ChatServer:
    """An OpenAI-compatible server whose replies are a function of the request's body and of how often it was sent."""

    def __init__(self) -> None:
        self.reply: Callable[[dict[str, Any], int], Reply] = lambda body, nth: chat("hello")
        self.seen: Counter[str] = Counter()
        self.bodies: list[dict[str, Any]] = []
        self.keys: list[str] = []
        lock, server = threading.Lock(), self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                key = json.dumps(body["messages"]) + str(body.get("temperature")) + str(body.get("seed"))
                with lock:
                    server.seen[key] += 1
                    server.bodies.append(body)
                    server.keys.append(self.headers.get("Authorization", ""))
                    nth = server.seen[key]
                status, headers, data = server.reply(body, nth)
                self.send_response(status)
                for name, value in {"Content-Type": "application/json", "Content-Length": str(len(data)), **headers}.items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(data)

            def log_message(self, *args: Any) -> None:
                pass

        self.http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.chat, self.error = chat, error
        self.url = f"http://127.0.0.1:{self.http.server_port}/v1"
        threading.Thread(target=self.http.serve_forever, daemon=True).start()


@pytest.fixture
def server() -> Iterator[ChatServer]:
    server = ChatServer()
    yield server
    server.http.shutdown()
    server.http.server_close()


MESSAGES = (
    "Where is my parcel? It should have come on Monday.",
    "The blue lamp that I ordered never arrived, please look into it.",
    "Still waiting for the shoes, the driver said tomorrow and nobody came.",
    "Your tracking page says delivered but there is nothing at my door.",
    "How long does a delivery to the islands take at the moment?",
    "I have been home all day and no courier rang the bell.",
    "Two weeks late already, and the birthday is over now.",
    "Can you tell me which depot holds the garden chairs?",
)


@pytest.fixture
def shop_reply() -> Callable[[dict[str, Any], int], Reply]:
    """A teacher of the small shop behind HTTP: different messages, right answers, scores."""

    def reply(body: dict[str, Any], nth: int) -> Reply:
        system, user = body["messages"][0]["content"], body["messages"][-1]["content"]
        if system.startswith(("You write", "You rewrite")):
            start = sum(map(ord, user)) % len(MESSAGES)
            return chat(json.dumps([MESSAGES[(start + n) % len(MESSAGES)] for n in range(4)]))
        if system.startswith("You judge"):
            return chat('{"answer": 5, "input": 5, "reason": "right"}')
        if system.startswith("You compare"):
            return chat('{"better": "A", "reason": "first"}')
        return chat('{"intent": "late", "entities": {}, "decision": "wait"}')

    return reply

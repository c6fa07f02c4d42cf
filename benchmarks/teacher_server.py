"""An OpenAI-compatible chat server that misbehaves as it is told, fast enough to measure clients against. One process, one file.

    python benchmarks/teacher_server.py [--port 8077] [--core 1] [--latency-ms 300 --sigma 0.3] [--rpm 1500] [--p500 0.05] ...

POST /v1/chat/completions   an answer, or a fault; which fault is a function of seed, messages and how often they came
GET  /stats                 what was asked, answered, billed: per key too with ?keys=1
POST /config                JSON of the options below; also resets the counts

A raw asyncio protocol: it parses just what it needs of HTTP/1.1. What a key is: the text between `<key>` and `</key>` in the messages, or
their hash. A poison key is one that starts with "poison".
"""

import argparse
import asyncio
import hashlib
import json
import math
import os
import random
import sys
import time
from collections import Counter
from typing import Any, NamedTuple


class Options(NamedTuple):
    """Probabilities are of each request; rates are per minute, 0 for none. Latency is lognormal with this median."""

    latency_ms: float = 0.0
    sigma: float = 0.3
    rpm: float = 0.0
    tpm: float = 0.0
    p500: float = 0.0
    drop_head: float = 0.0
    drop_body: float = 0.0
    truncated: float = 0.0
    malformed: float = 0.0
    prompt_tokens: int = 400
    completion_tokens: int = 350
    full_length: bool = False  # every answer uses max_tokens
    retry_after: bool = True
    headers: bool = True
    seed: int = 1


class Bucket:
    def __init__(self, per_minute: float) -> None:
        self.rate = per_minute / 60
        self.level = self.capacity = max(1.0, self.rate)  # one second's burst
        self.at = time.monotonic()

    def take(self, amount: float) -> float:
        """0 when there was enough, else the seconds until there is."""
        now = time.monotonic()
        self.level = min(self.capacity, self.level + (now - self.at) * self.rate)
        self.at = now
        needed = min(amount, self.capacity)
        if self.level >= needed:
            self.level -= amount
            return 0.0
        return (needed - self.level) / self.rate


class Server:
    def __init__(self, options: Options) -> None:
        self.reset(options)

    def reset(self, options: Options) -> None:
        self.options = options
        self.requests, self.tokens = Bucket(options.rpm or 1e12), Bucket(options.tpm or 1e12)
        self.seen: Counter[str] = Counter()
        self.good: Counter[str] = Counter()
        self.statuses: Counter[str] = Counter()
        self.prompt_tokens = self.completion_tokens = self.lost_prompt_tokens = self.lost_completion_tokens = 0
        self.latency_s = 0.0
        self.in_flight = self.most_in_flight = self.early = 0
        self.closed_until = 0.0
        self.first = self.last = 0.0
        self.random = random.Random(options.seed)

    def stats(self, keys: bool) -> dict[str, Any]:
        found: dict[str, Any] = {
            "requests": self.seen.total(),
            "keys": len(self.seen),
            "statuses": dict(self.statuses),
            "prompt_tokens": self.prompt_tokens,
            "completion_tokens": self.completion_tokens,
            "lost_prompt_tokens": self.lost_prompt_tokens,
            "lost_completion_tokens": self.lost_completion_tokens,
            "latency_s": self.latency_s,
            "most_in_flight": self.most_in_flight,
            "before_retry_after": self.early,
            "span_s": self.last - self.first,
            "most_good_answers_of_a_key": max(self.good.values(), default=0),
        }
        if keys:
            found["by_key"] = dict(self.seen)
            found["good_by_key"] = dict(self.good)
        return found


class Connection(asyncio.Protocol):
    def __init__(self, server: Server) -> None:
        self.server = server
        self.buffer = b""
        self.transport: Any = None

    def connection_made(self, transport: Any) -> None:
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        self.buffer += data
        while True:
            head_end = self.buffer.find(b"\r\n\r\n")
            if head_end < 0:
                return
            head = self.buffer[:head_end]
            length = 0
            for line in head.split(b"\r\n")[1:]:
                if line[:15].lower() == b"content-length:":
                    length = int(line[15:])
                elif line[:7].lower() == b"expect:":
                    self.transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")
            end = head_end + 4 + length
            if len(self.buffer) < end:
                return
            body, self.buffer = self.buffer[head_end + 4 : end], self.buffer[end:]
            self.handle(head.split(b" ", 2)[1].decode(), body)

    def send(self, status: int, body: bytes, headers: dict[str, str], cut: bool = False) -> None:
        if self.transport.is_closing():
            return
        lines = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
        head = f"HTTP/1.1 {status} X\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n{lines}\r\n".encode()
        if cut:
            self.transport.write(head + body[: len(body) // 2])
            self.transport.close()
        else:
            self.transport.write(head + body)

    def handle(self, path: str, body: bytes) -> None:
        server = self.server
        if path.startswith("/stats"):
            self.send(200, json.dumps(server.stats("keys=1" in path)).encode(), {})
        elif path.startswith("/config"):
            server.reset(Options(**json.loads(body)))
            self.send(200, b"{}", {})
        else:
            self.chat(body)

    def chat(self, body: bytes) -> None:
        server, options = self.server, self.server.options
        asked = json.loads(body)
        text = "\n".join(message["content"] for message in asked["messages"])  # in a repair the question is not the last one
        key = text.partition("<key>")[2].partition("</key>")[0] or hashlib.sha256(text.encode()).hexdigest()[:16]
        server.seen[key] += 1
        now = time.monotonic()
        server.first = server.first or now
        server.early += now < server.closed_until - 0.005
        server.in_flight += 1
        server.most_in_flight = max(server.most_in_flight, server.in_flight)
        headers: dict[str, str] = {}
        completion_tokens = int(asked.get("max_tokens") or options.completion_tokens) if options.full_length else options.completion_tokens
        wait = server.requests.take(1) or server.tokens.take(options.prompt_tokens + completion_tokens)
        if options.headers and options.rpm:
            headers["x-ratelimit-limit-requests"] = f"{options.rpm:g}"
            headers["x-ratelimit-remaining-requests"] = str(max(0, int(server.requests.level)))
        if options.headers and options.tpm:
            headers["x-ratelimit-limit-tokens"] = f"{options.tpm:g}"
            headers["x-ratelimit-remaining-tokens"] = str(max(0, int(server.tokens.level)))
        if wait:
            if options.retry_after:
                headers["Retry-After"] = f"{wait:.3f}"
                server.closed_until = max(server.closed_until, now + wait)
            self.end("429", 429, error("slow down"), headers)
            return
        if key.startswith("poison"):
            self.end("400", 400, error("this prompt is refused"), headers)
            return
        nth = server.seen[key]
        digest = hashlib.sha256(f"{options.seed}/{key}/{nth}".encode()).digest()
        fate = int.from_bytes(digest[:8], "big") / 2**64
        latency = options.latency_ms / 1000 * math.exp(options.sigma * server.random.gauss(0, 1)) if options.latency_ms else 0.0
        server.latency_s += latency
        for name in ("p500", "drop_head", "drop_body", "truncated", "malformed"):
            fate -= getattr(options, name)
            if fate < 0:
                break
        else:
            name = "good"
        if latency:
            asyncio.get_running_loop().call_later(latency, self.answer, name, key, asked, completion_tokens, headers)
        else:
            self.answer(name, key, asked, completion_tokens, headers)

    def answer(self, fate: str, key: str, asked: dict[str, Any], completion_tokens: int, headers: dict[str, str]) -> None:
        server, options = self.server, self.server.options
        if fate == "p500":
            self.end(fate, 500, error("the model fell over"), headers)
            return
        if fate == "drop_head":
            server.in_flight -= 1
            server.statuses[fate] += 1
            self.transport.close()
            return
        content = json.dumps({"key": key, "label": "late", "reason": "it is late " * 100})
        finish = "stop"
        if fate == "truncated":
            content, finish = content[: len(content) // 2], "length"
        if fate == "malformed":
            content = content[:-1] + ",,"
        data = json.dumps(
            {
                "id": "x", "object": "chat.completion", "created": 1, "model": asked["model"],
                "choices": [{"index": 0, "finish_reason": finish, "message": {"role": "assistant", "content": content}}],
                "usage": {
                    "prompt_tokens": options.prompt_tokens, "completion_tokens": completion_tokens,
                    "total_tokens": options.prompt_tokens + completion_tokens,
                },
            }
        ).encode()  # fmt: skip
        if fate == "drop_body" or self.transport.is_closing():
            server.lost_prompt_tokens += options.prompt_tokens
            server.lost_completion_tokens += completion_tokens
        else:
            server.prompt_tokens += options.prompt_tokens
            server.completion_tokens += completion_tokens
            server.good[key] += fate == "good"
        self.end(fate, 200, data, headers, cut=fate == "drop_body")

    def end(self, name: str, status: int, body: bytes, headers: dict[str, str], cut: bool = False) -> None:
        self.server.in_flight -= 1
        self.server.statuses[name] += 1
        self.server.last = time.monotonic()
        self.send(status, body, headers, cut)


def error(message: str) -> bytes:
    return json.dumps({"error": {"message": message, "type": "x", "code": None}}).encode()


async def serve(options: Options, port: int) -> None:
    server = Server(options)
    listener = await asyncio.get_running_loop().create_server(lambda: Connection(server), "127.0.0.1", port, backlog=4096)
    print(listener.sockets[0].getsockname()[1], flush=True)
    async with listener:
        await listener.serve_forever()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--core", type=int)
    for name, default in Options()._asdict().items():
        kind = (lambda text: text == "true") if isinstance(default, bool) else type(default)
        parser.add_argument(f"--{name.replace('_', '-')}", type=kind, default=default)
    given = vars(parser.parse_args())
    if given["core"] is not None and hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {given["core"] % (os.cpu_count() or 1)})
    try:
        asyncio.run(serve(Options(**{name: given[name] for name in Options._fields}), given["port"]))
    except KeyboardInterrupt:
        sys.exit(0)


if __name__ == "__main__":
    main()

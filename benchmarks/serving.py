"""Measure the endpoint on the built-in student, on a CPU: swaps in flight, batches against one after the other, the sequential test.

    python benchmarks/serving.py            all, some three minutes; writes benchmarks/results/serving.json
    python benchmarks/serving.py swap       one part: swap, speed or sequential

The two adapters are random, rank 64 on all linear layers, so every answer has the same length and nothing need be trained.
"""

import json
import logging
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import httpx
import numpy as np
import torch
from peft import LoraConfig, get_peft_model
from results_file import Result, machine, publish

from train import model, template
from train.evaluate import generate
from train.serving.app import Running, Settings, run_server
from train.serving.sequential import LEAST, radius
from train.serving.target import find_target

STUDENT = "train/students/tiny"
SYSTEM = "You are the support desk of a bank. Reply with one JSON object: intent, urgency, entities, decision."
QUESTIONS = [f"My card {verb} {when} and I {want}." for verb in ("was eaten by the machine", "has not arrived", "was charged twice")
             for when in ("yesterday", "a week ago", "in Lisbon", "after the update") for want in ("need it", "want my money back", "am at a loss", "cannot pay")]  # fmt: skip
TOKENS = 40
ROUNDS = 10


def adapters(folder: Path) -> Path:
    for seed, name in enumerate(("one", "two", "three"), 1):
        net, tokenizer = model.load_student(STUDENT)
        torch.manual_seed(seed)
        lora = get_peft_model(net, LoraConfig(r=64, lora_alpha=64, target_modules="all-linear", init_lora_weights=False))
        lora.peft_config["default"].base_model_name_or_path = STUDENT
        where = folder / name if name != "three" else folder / "aside" / name
        lora.save_pretrained(str(where))
        template.seal(tokenizer, where)
    (folder / "retort.json").write_text(json.dumps({"name": "bench", "system": SYSTEM, "max_new_tokens": TOKENS}))
    (folder / "aside" / "retort.json").write_text((folder / "retort.json").read_text())
    return folder


@contextmanager
def serving(folder: Path, **settings: object) -> Iterator[str]:
    ready: list[Running] = []
    there = threading.Event()
    options = Settings(log=folder / "log" / f"{time.monotonic_ns()}.duckdb", port=0)._replace(**settings)

    def run() -> None:
        run_server(find_target(str(folder)), options, say=lambda text: None, ready=lambda r: (ready.append(r), there.set()))

    thread = threading.Thread(target=run)
    thread.start()
    there.wait()
    try:
        yield ready[0].url
    finally:
        ready[0].stop()
        thread.join()


def asked(client: httpx.Client, name: str, question: str) -> httpx.Response:
    body = {"model": name, "messages": [{"role": "user", "content": question}], "max_tokens": TOKENS}
    return client.post("/chat/completions", json=body)


def swap(folder: Path) -> Iterator[Result]:
    """In each round 50 requests are in flight when the adapter behind their name is replaced by another."""
    paths = [folder / "one", folder / "aside" / "three"]
    prompts = [[{"role": "system", "content": SYSTEM}, {"role": "user", "content": q}] for q in (QUESTIONS * 2)[:50]]
    wanted = [generate(*model.load_student(STUDENT, adapter=p), prompts, max_new_tokens=TOKENS, batch_size=25) for p in paths]
    apart = sum(a != b for a, b in zip(*wanted, strict=True))
    failed = right = 0
    flying: list[int] = []
    with serving(folder) as url, httpx.Client(base_url=url, timeout=120, limits=httpx.Limits(max_connections=60)) as client:
        for number in range(ROUNDS):
            old = number % 2
            before = httpx.get(url.removesuffix("/v1") + "/health").json()["answered"]
            with ThreadPoolExecutor(50) as pool:
                futures = [pool.submit(asked, client, "one", prompt[1]["content"]) for prompt in prompts]
                while True:
                    state = httpx.get(url.removesuffix("/v1") + "/health").json()
                    if state["running"] + state["waiting"] + state["answered"] - before >= 50:
                        break
                flying.append(state["running"] + state["waiting"])
                body = {"lora_name": "one", "lora_path": str(paths[1 - old]), "load_inplace": True}
                client.post("/load_lora_adapter", json=body).raise_for_status()
                replies = [future.result() for future in futures]
            failed += sum(reply.status_code != 200 for reply in replies)
            right += sum(
                reply.status_code == 200 and reply.json()["choices"][0]["message"]["content"] == text
                for reply, text in zip(replies, wanted[old], strict=True)
            )
    n = 50 * ROUNDS
    conditions = f"{ROUNDS} swaps of 50 requests each, {min(flying)} to {max(flying)} of them unanswered at the swap; the adapters answer {apart} of 50 questions differently; {machine()}"
    yield Result("failed when an adapter is swapped under 50 requests in flight", failed, "of " + str(n), failed, failed, conditions)
    yield Result("answered by the version that was promised", right / n, "share", right / n, right / n, conditions)


def speed(folder: Path) -> Iterator[Result]:
    """96 answers of 40 tokens: by generation one after the other, by the server one after the other, and 32 at once."""
    prompts = [[{"role": "system", "content": SYSTEM}, {"role": "user", "content": q}] for q in QUESTIONS * 2]
    student = model.load_student(STUDENT, adapter=folder / "one")
    generate(*student, prompts[:2], max_new_tokens=TOKENS, batch_size=1)
    begin = time.process_time()
    generate(*student, prompts, max_new_tokens=TOKENS, batch_size=1)
    alone = time.process_time() - begin
    n = len(prompts)
    conditions = f"{n} answers of {TOKENS} tokens, rank 64; 1 torch thread; CPU seconds of server and clients together; {machine()}"
    yield Result("sequential generation", n / alone, "per CPU s", n / alone, n / alone, conditions)
    with serving(folder) as url, httpx.Client(base_url=url, timeout=120, limits=httpx.Limits(max_connections=40)) as client:
        for title, names, at_once in (
            ("endpoint, one after the other", ["one"], 1),
            ("endpoint, 32 at once, one adapter", ["one"], 32),
            ("endpoint, 32 at once, two adapters", ["one", "two"], 32),
            ("endpoint, 32 at once, two adapters and the base", ["one", "two", "base"], 32),
        ):
            seconds: list[float] = []

            def one(number: int, names: list[str] = names, seconds: list[float] = seconds) -> None:
                begin = time.monotonic()
                asked(client, names[number % len(names)], QUESTIONS[number % len(QUESTIONS)]).raise_for_status()
                seconds.append(time.monotonic() - begin)

            begin = time.process_time()
            with ThreadPoolExecutor(at_once) as pool:
                list(pool.map(one, range(n)))
            rate = n / (time.process_time() - begin)
            yield Result(title, rate, "per CPU s", rate, rate, conditions)
            yield Result(
                f"{title}: median latency",
                float(np.median(seconds)),
                "s",
                *np.quantile(seconds, [0.05, 0.95]),
                "wall; low and high are the 5 and 95 % quantiles; " + conditions,
            )


def sequential(folder: Path) -> Iterator[Result]:
    """Tests that are looked at after every rated answer."""
    tests, looks = 2000, 2000

    def ever(p: float, q: float, share: float) -> tuple[float, float]:
        rng = np.random.default_rng(0)
        seen, first = [], []
        for _ in range(tests // 250):
            in_b = rng.random((250, looks)) < share
            good = rng.random((250, looks)) < np.where(in_b, q, p)
            n_b, s_b = in_b.cumsum(1), (good & in_b).cumsum(1)
            n_a, s_a = (~in_b).cumsum(1), (good & ~in_b).cumsum(1)
            m_a, m_b = (s_a + 1) / (n_a + 2), (s_b + 1) / (n_b + 2)
            hit = np.abs(m_b - m_a) > radius(m_a * (1 - m_a) / (n_a + 1) + m_b * (1 - m_b) / (n_b + 1))
            hit &= np.minimum(n_a, n_b) >= LEAST
            seen.append(hit.any(1))
            first.append(np.where(hit.any(1), hit.argmax(1) + 1, looks))
        return float(np.concatenate(seen).mean()), float(np.median(np.concatenate(first)))

    same = {(p, share): ever(p, p, share)[0] for p in (0.05, 0.2, 0.5, 0.8, 0.95) for share in (0.5, 0.1)}
    worst = max(same, key=lambda key: same[key])
    how = f"{tests} simulated tests, looked at after each of {looks} rated answers"
    error = same[worst]
    half = 1.96 * (error * (1 - error) / tests) ** 0.5
    conditions = f"the worst of rates 0.05 to 0.95 and splits 50/50, 90/10: rate {worst[0]}, share {worst[1]}; {how}"
    yield Result("A/A tests that ever see a difference", error, "share", error - half, error + half, conditions)
    for better, share in ((0.75, 0.5), (0.8, 0.5), (0.8, 0.1), (0.9, 0.5), (0.9, 0.1)):
        power, median = ever(0.7, better, share)
        half = 1.96 * (power * (1 - power) / tests) ** 0.5
        title = f"power, 0.70 against {better:.2f}, {100 - 100 * share:.0f}/{100 * share:.0f}"
        yield Result(title, power, "share", max(0, power - half), min(1, power + half), f"seen after {median:.0f} answers (median); {how}")


PARTS = {"swap": swap, "speed": speed, "sequential": sequential}


def main() -> None:
    model.quiet()
    logging.getLogger("httpx").setLevel(logging.WARNING)
    torch.set_num_threads(1)
    chosen = sys.argv[1:] or list(PARTS)
    results: list[Result] = []
    with tempfile.TemporaryDirectory() as place:
        folder = adapters(Path(place))
        for part in chosen:
            for result in PARTS[part](folder):
                print(f"{result.bar}: {result.value:.4g} {result.unit}", file=sys.stderr, flush=True)
                results.append(result)
    if chosen == list(PARTS):
        publish("serving", results)


if __name__ == "__main__":
    main()

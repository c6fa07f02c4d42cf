"""A deploy folder with two adapters that answer differently, and servers on loopback that run in a thread."""

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import httpx
import pytest
import torch
from peft import LoraConfig, get_peft_model

from train import model, template
from train.evaluate import generate
from train.serving.app import Running, Settings, run_server
from train.serving.target import find_target

SYSTEM = "Name the colour as JSON."


def make_adapter(folder: Path, student: Path, seed: int, *, r: int = 4, base: str | None = None) -> Path:
    """Save a random adapter that changes what the student writes."""
    net, tokenizer = model.load_student(str(student))
    torch.manual_seed(seed)
    lora = get_peft_model(net, LoraConfig(r=r, lora_alpha=4 * r, target_modules="all-linear", init_lora_weights=False))
    lora.peft_config["default"].base_model_name_or_path = base or str(student)
    lora.save_pretrained(str(folder))
    template.seal(tokenizer, folder)
    return folder


@pytest.fixture(scope="session")
def adapter_of() -> Callable[..., Path]:
    return make_adapter


@pytest.fixture(scope="session")
def deployed(tmp_path_factory: pytest.TempPathFactory, student: Path) -> Path:
    """A folder with the adapters `one` and `two`, and the card of their training."""
    folder = tmp_path_factory.mktemp("deployed")
    for seed, name in enumerate(("one", "two"), 1):
        make_adapter(folder / name, student, seed)
    (folder / "retort.json").write_text(json.dumps({"name": "toy", "system": SYSTEM, "max_new_tokens": 24}))
    return folder


@pytest.fixture(scope="session")
def say(student: Path, deployed: Path) -> Callable[..., str]:
    """What an adapter (None is the base) answers to a question, by the evaluation's own code."""

    @cache
    def loaded(path: Path | None) -> model.Student:
        return model.load_student(str(student), adapter=path)

    @cache
    def answer(adapter: Path | str | None, question: str, *, max_new_tokens: int = 24, system: str = SYSTEM) -> str:
        net, tokenizer = loaded(deployed / adapter if isinstance(adapter, str) else adapter)
        prompt = [{"role": "system", "content": system}, {"role": "user", "content": question}]
        return generate(net, tokenizer, [prompt], max_new_tokens=max_new_tokens, batch_size=1)[0]

    return answer


class Endpoint(NamedTuple):
    """A server that runs: a client for it, its log, and how it is stopped."""

    client: httpx.Client
    url: str
    log: Path
    stop: Callable[[], None]

    def chat(self, question: str, name: str = "retort", **options: Any) -> httpx.Response:
        body = {"model": name, "messages": [{"role": "user", "content": question}], **options}
        return self.client.post("/chat/completions", json=body)


@pytest.fixture(scope="session")
def serve(deployed: Path) -> Callable[..., Any]:
    """A context manager that serves a folder with these settings."""

    @contextmanager
    def run(log: Path, folder: Path = deployed, headers: dict[str, str] | None = None, **settings: Any) -> Iterator[Endpoint]:
        ready: list[Running] = []
        there = threading.Event()
        failed: list[BaseException] = []

        def target() -> None:
            try:
                run_server(
                    find_target(str(folder)),
                    Settings(log=log, port=0, **settings),
                    say=lambda text: None,
                    ready=lambda running: (ready.append(running), there.set()),
                )
            except BaseException as error:
                failed.append(error)
            there.set()

        thread = threading.Thread(target=target)
        thread.start()
        assert there.wait(60)
        if failed:
            raise failed[0]

        def stop() -> None:
            if thread.is_alive():
                ready[0].stop()
            thread.join(30)
            assert not thread.is_alive()

        try:
            with httpx.Client(base_url=ready[0].url, timeout=60, headers=headers) as client:
                yield Endpoint(client, ready[0].url, log, stop)
        finally:
            stop()
        if failed:
            raise failed[0]

    return run


@pytest.fixture(scope="module")
def endpoint(serve: Callable[..., Any], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Endpoint]:
    """A server with the A/B test two=90, one=10."""
    with serve(tmp_path_factory.mktemp("log") / "serving.duckdb", ab="two=90,one=10", batch_size=16) as running:
        yield running

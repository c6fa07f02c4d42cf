"""Several processes for one store: shards, workers' logs and their replay; and, with Ray (slow), the same rows whoever is killed."""

import os
import resource
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from datagen import ray_engine
from datagen.errors import ConfigError, StoreError
from datagen.records import Message, PlanItem, Request, Response, Verdict
from datagen.store import Store, WorkerLog

ROOT = Path(__file__).parents[2]
ITEMS = [PlanItem(topic="parcels/late", generator="topic", index=n, count=1) for n in range(200)]


def request(number: int) -> Request:
    messages = (Message(role="user", content=f"question {number}"),)
    return Request(item_id=f"i{number}", prompt="p@1", role="teacher", model="m", messages=messages, params={}, sample="0")


def answer(log: Store, number: int, usd: float = 0.01, worst: float = 0.05) -> None:
    asked = request(number)
    log.reserve(asked.id, worst)
    log.add_call(asked, Response(request_id=asked.id, text="an answer", cost_usd=usd))


def opened(store: Store, number: int = 0, share: float | None = None) -> WorkerLog:
    return WorkerLog(store.open_worker(number, share))


def test_every_item_is_in_one_shard_whatever_the_others_are() -> None:
    three = ray_engine.shards(ITEMS, 3)
    assert sorted(item.id for part in three for item in part) == sorted(item.id for item in ITEMS)
    assert all(40 < len(part) < 95 for part in three)
    assert [len(part) for part in ray_engine.shards(ITEMS[:7], 3)] == [len([i for i in part if i in ITEMS[:7]]) for part in three]


def test_a_workers_answers_are_in_the_store_once_however_often_its_log_is_read(store: Store) -> None:
    with store.writing():
        log = opened(store)
        with log.writing():
            answer(log, 1)
            answer(log, 2)
        first = store.take_in(log.log_path)
        assert (first.calls, first.usd) == (2, pytest.approx(0.02))
        assert store.take_in(log.log_path, first.offset).calls == 0
        store.flush()
        store.take_in(log.log_path)
    assert len(store.answers()) == 2
    assert len(store.answers(["i1"])) == 1


def test_a_line_that_is_half_written_is_read_when_it_is_whole(store: Store) -> None:
    with store.writing():
        log = opened(store)
        with log.writing():
            answer(log, 1)
        whole = log.log_path.read_bytes()
        log.log_path.write_bytes(whole[:-10])
        taken = store.take_in(log.log_path)
        assert taken.calls == 0
        log.log_path.write_bytes(whole)
        assert store.take_in(log.log_path, taken.offset).calls == 1


def test_logs_that_a_killed_driver_left_are_taken_in_when_the_store_is_opened(store: Store) -> None:
    with store.writing():
        logs = [opened(store, number, 0.5) for number in (0, 1)]
    asked = request(3)
    for number, log in enumerate(logs):
        assert log._lock()
        answer(log, number)
    logs[1].reserve(asked.id, 0.05)  # in flight when it was killed
    for log in logs:
        log._unlock()
    with logs[1].log_path.open("ab") as file:
        file.write(b'["calls",{"id":"to')
    again = Store(store.path)
    assert len(again.answers()) == 2
    assert (again.ledger.spent_usd, again.ledger.unknown_usd, again.ledger.open_usd) == (pytest.approx(0.02), pytest.approx(0.05), 0)
    assert not list(store.path.parent.glob("*.worker-*"))


def test_a_lost_call_of_a_dead_worker_is_counted_once_when_the_driver_dies_while_it_takes_it_in(store: Store) -> None:
    with store.writing():
        log = opened(store)
        assert log._lock()
        log.reserve(request(1).id, 0.05)
        log._unlock()
        for _ in range(2):
            store.close_worker(log.log_path)
        store.take_in(log.log_path)
        store.flush()
    again = Store(store.path)  # the log is still there
    assert again.ledger.unknown_usd == pytest.approx(0.05)


def test_a_damaged_line_of_a_worker_is_named(store: Store) -> None:
    store.path.with_name("shop.worker-0.log").write_text('["calls",{"id":"x"}]\nnonsense\n["nowhere",{}]\n')
    with pytest.raises(StoreError, match=r"shop\.worker-0\.log:2: is damaged"):
        Store(store.path)


def test_a_share_stays_counted_and_shrinks_by_what_its_worker_spent(store: Store) -> None:
    with store.writing():
        store.ledger.cap_usd = 1.0
        log = opened(store, 0, 0.5)
        assert store.ledger.left_usd == pytest.approx(0.5)
        with log.writing():
            answer(log, 1, usd=0.2)
        taken = store.take_in(log.log_path)
        store.share_of(log.log_path, 0.5 - taken.usd)
        assert (store.ledger.spent_usd, store.ledger.left_usd) == (pytest.approx(0.2), pytest.approx(0.5))
        store.flush()
        assert store.query("SELECT id, usd, lasting FROM sent") == [{"id": "worker-0", "usd": pytest.approx(0.3), "lasting": True}]


def test_a_worker_spends_no_more_than_its_share(store: Store) -> None:
    with store.writing():
        log = WorkerLog(store.open_worker(0, 0.5), spent_usd=1.5)
    log.ledger.cap_usd = 2.0
    assert log.ledger.fits(0.5)
    assert not log.ledger.fits(0.51)


def test_a_worker_that_lives_keeps_its_log(store: Store) -> None:
    with store.writing():
        log = opened(store)
        with log.writing(), pytest.raises(StoreError, match="a worker of an earlier run is still writing it"):
            with WorkerLog(log.log_path, wait_s=0.1).writing():
                pass
        log.log_path.unlink()
        with pytest.raises(StoreError), log.writing():
            pass
        assert not log.log_path.exists()


def test_without_ray_the_error_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(ConfigError, match=r"make setup-ray.*retort\[ray\]"):
        ray_engine.require_ray()


def test_workers_without_ray_are_refused(capsys: pytest.CaptureFixture[str]) -> None:
    from datagen.cli import main

    with pytest.raises(SystemExit) as exit_:
        main(["generate", "--workers", "2"])
    assert exit_.value.code == 2
    assert "Add --engine ray" in capsys.readouterr().err


# -- with Ray

KEY = "sk-planted-0123456789abcdef"
RECIPE = """
name: shop
taxonomy: shop.yaml
concurrency: 8
{budget}
teachers:
  teacher:
    model: hosted_vllm/m
    price: {{input_per_million: 1000, output_per_million: 1000}}
    max_tokens: 100
    params: {{api_base: "{url}", api_key: "${{SHOP_API_KEY}}"}}
mix: {{topic: 80, preference: 40}}
"""


@pytest.fixture
def shop(tmp_path: Path, shop_path: Path, server: Any, shop_reply: Callable[..., Any]) -> Callable[..., subprocess.Popen[str]]:
    """Starts `generate` on the small shop against a slow server, by Ray or not."""

    def reply(body: dict[str, Any], nth: int) -> Any:
        time.sleep(0.1)
        return shop_reply(body, nth)

    server.reply = reply

    def start(store: str, *options: str, budget: str = "", before: Callable[[], None] | None = None) -> subprocess.Popen[str]:
        (tmp_path / "r.yaml").write_text(RECIPE.format(url=server.url, budget=budget))
        command = [sys.executable, "-m", "datagen", "generate", "--recipe", "r.yaml", "--store", store, "--terms", "a test", *options]
        env = {**os.environ, "PYTHONPATH": str(ROOT), "SHOP_API_KEY": KEY}
        return subprocess.Popen(
            command, cwd=tmp_path, env=env, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE, start_new_session=True,
            preexec_fn=before,
        )  # fmt: skip

    return start


def processes(driver: int) -> dict[int, str]:
    """All that a driver started, and what these started: process to its name."""
    parents = {}
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            fields, command = (folder / "stat").read_text().rpartition(")")[2].split(), (folder / "cmdline").read_text()
        except OSError:
            continue
        parents[int(folder.name)] = int(fields[1]), command.partition("\0")[0].rpartition("/")[2]

    def above(pid: int) -> set[int]:
        found = set()
        while pid in parents:
            pid = parents[pid][0]
            found.add(pid)
        return found

    return {pid: name for pid, (_, name) in parents.items() if driver in above(pid)}


def named(driver: int, name: str) -> list[int]:
    """The processes of a driver whose name begins so."""
    return [pid for pid, found in processes(driver).items() if found.startswith(name)]


def wait_for_answers(folder: Path, store: str, count: int) -> None:
    deadline = time.monotonic() + 90
    while sum(log.read_text().count('["calls"') for log in folder.glob(f"{store}.worker-*.log")) < count:
        assert time.monotonic() < deadline
        time.sleep(0.05)


def content(path: Path) -> Any:
    store = Store(path)
    return [
        store.query("SELECT id, text, cost_usd FROM calls ORDER BY id"),
        store.query("SELECT id, status, error, example_ids FROM items ORDER BY id"),
        [example.model_dump() for example in store.current_examples()],
    ]


ray_needed = pytest.mark.skipif(not find_spec("ray"), reason="needs Ray: make setup-ray")


@pytest.mark.slow
@ray_needed
def test_two_actors_make_the_rows_of_one_process_though_one_is_killed(
    shop: Any, tmp_path: Path, server: Any, lineage_gaps: Callable[[Store], tuple[int, int]]
) -> None:
    one = shop("one.duckdb")
    one.communicate(timeout=120)
    asked = len(server.bodies)
    two = shop("two.duckdb", "--engine", "ray", "--workers", "2")
    wait_for_answers(tmp_path, "two", 40)
    os.kill(named(two.pid, "ray::Lane")[0], signal.SIGKILL)
    _, err = two.communicate(timeout=120)
    assert two.returncode == one.returncode, err
    assert "died; another goes on" in err
    assert content(tmp_path / "one.duckdb") == content(tmp_path / "two.duckdb")
    made = Store(tmp_path / "two.duckdb")
    made.add_verdicts(Verdict(example_id=example.id, by="human:ana", keep=True) for example in made.current_examples())
    rows, gaps = lineage_gaps(made)
    assert (rows > 0, gaps) == (True, 0)
    assert asked <= len(server.bodies) - asked <= asked + 4  # of eight in flight, the four of the killed one
    before = len(server.bodies)
    again = shop("two.duckdb", "--engine", "ray", "--workers", "3")
    out, _ = again.communicate(timeout=120)
    assert out.startswith("0 calls made")
    assert len(server.bodies) == before
    assert set(server.keys) == {f"Bearer {KEY}"}
    for path in tmp_path.glob("*"):
        assert KEY not in path.read_bytes().decode(errors="replace"), path


@pytest.mark.slow
@ray_needed
def test_a_killed_driver_loses_nothing(shop: Any, tmp_path: Path, server: Any) -> None:
    shop("one.duckdb").communicate(timeout=120)
    asked = len(server.bodies)
    run = shop("two.duckdb", "--engine", "ray")
    wait_for_answers(tmp_path, "two", 40)
    run.kill()
    run.communicate()
    out, err = shop("two.duckdb").communicate(timeout=120)
    assert "answers found in the store" in out, err
    assert content(tmp_path / "one.duckdb") == content(tmp_path / "two.duckdb")
    assert asked <= len(server.bodies) - asked <= asked + 8


@pytest.mark.slow
@ray_needed
@pytest.mark.parametrize("victim", ["raylet", "gcs_server", "ray::DashboardAgent", "ray::RuntimeEnvAgent"])
def test_a_run_whose_ray_is_killed_ends_with_one_line_and_goes_on_when_it_is_run_again(
    shop: Any, tmp_path: Path, server: Any, victim: str
) -> None:
    run = shop("two.duckdb", "--engine", "ray", "--json")
    wait_for_answers(tmp_path, "two", 40)
    actors = named(run.pid, "ray::Lane")
    os.kill(named(run.pid, victim)[0], signal.SIGKILL)
    out, err = run.communicate(timeout=60)
    assert run.returncode == 2, err
    errors = [line for line in err.splitlines() if line.startswith("error: ")]
    process = "gcs_server" if victim == "gcs_server" else "raylet"  # which ends with either of its agents
    assert errors == [
        f"error: Ray's own process {process} ended (killed, or no memory?). All that was answered is kept: "
        "the same command goes on from here."
    ]
    assert "Traceback" not in err
    assert not out
    deadline = time.monotonic() + 10  # a killed process takes a moment to be gone
    while left := [pid for pid in actors if Path(f"/proc/{pid}").exists()]:
        assert time.monotonic() < deadline, f"actors are left: {left}"
        time.sleep(0.05)
    kept = len(Store(tmp_path / "two.duckdb").answers())
    assert kept >= 40
    assert len(server.bodies) - kept <= 8  # in flight
    before = len(server.bodies)
    out, err = shop("two.duckdb").communicate(timeout=120)
    assert f"{kept} answers found in the store" in out, err
    asked = len(server.bodies) - before
    shop("one.duckdb").communicate(timeout=120)
    assert len(server.bodies) - before - asked == asked + kept
    assert content(tmp_path / "one.duckdb") == content(tmp_path / "two.duckdb")


@pytest.mark.slow
@ray_needed
def test_ray_listens_on_loopback_alone_and_reports_nothing(shop: Any, tmp_path: Path) -> None:
    run = shop("two.duckdb", "--engine", "ray")
    wait_for_answers(tmp_path, "two", 40)
    started = {run.pid: "driver", **processes(run.pid)}
    sockets = set()
    for link in (link for pid in started for link in Path(f"/proc/{pid}/fd").iterdir()):
        with suppress(OSError):  # closed meanwhile
            sockets.add(str(link.readlink()))
    listening = [
        fields[1].rpartition(":")[0]
        for family in ("tcp", "tcp6")
        for fields in (line.split() for line in Path(f"/proc/net/{family}").read_text().splitlines()[1:])
        if fields[3] == "0A" and f"socket:[{fields[9]}]" in sockets
    ]
    mapped = "0000000000000000FFFF00000100007F"  # ::ffff:127.0.0.1
    assert len(listening) >= 4
    assert set(listening) <= {"0100007F", mapped, "00000000000000000000000001000000"}
    told = [Path(f"/proc/{pid}/environ").read_bytes() for pid, name in started.items() if name == "ray::Lane"]
    assert told
    assert all(b"RAY_USAGE_STATS_ENABLED=0" in environment for environment in told)
    run.communicate(timeout=120)


@pytest.mark.slow
@ray_needed
def test_a_key_that_the_server_echoes_is_in_none_of_rays_files(
    shop: Any, tmp_path: Path, server: Any, shop_reply: Callable[..., Any]
) -> None:
    def reply(body: dict[str, Any], nth: int) -> Any:
        time.sleep(0.1)
        return server.error(500, f"Bearer {KEY}") if len(server.bodies) % 7 == 0 else shop_reply(body, nth)

    server.reply = reply
    run = shop("two.duckdb", "--engine", "ray")
    wait_for_answers(tmp_path, "two", 40)
    (session,) = Path(tempfile.gettempdir()).glob(f"ray-*/session_*_{run.pid}")
    logs = [path for path in session.rglob("*") if path.is_file()]
    assert len(logs) > 5
    assert not [path for path in logs if KEY.encode() in path.read_bytes()]
    os.kill(named(run.pid, "raylet")[0], signal.SIGKILL)  # which makes Ray print the ends of its files
    out, err = run.communicate(timeout=60)
    assert KEY not in out + err
    assert not session.exists()
    assert not [path for path in tmp_path.glob("*") if KEY.encode() in path.read_bytes()]


@pytest.mark.slow
@ray_needed
def test_ray_that_cannot_start_is_one_line_and_nobody_was_asked(shop: Any, tmp_path: Path, server: Any) -> None:
    """A limit on the size of files stands for a full disk: Ray's shared memory does not fit."""
    run = shop("two.duckdb", "--engine", "ray", before=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 26, 1 << 26)))
    _, err = run.communicate(timeout=150)
    errors = [line for line in err.splitlines() if line.startswith("error: ")]
    assert (run.returncode, len(errors)) == (2, 1), err
    assert errors[0].startswith("error: Ray cannot start in ")
    assert "Traceback" not in err
    assert not server.bodies


@pytest.mark.slow
@ray_needed
def test_the_budget_is_a_cap_over_all_actors_and_a_stop_drains(shop: Any, tmp_path: Path, server: Any) -> None:
    run = shop("two.duckdb", "--engine", "ray", budget="budget_usd: 15")
    out, err = run.communicate(timeout=200)
    assert run.returncode == 1, out + err
    assert "of budget_usd 15" in err
    spent = Store(tmp_path / "two.duckdb").ledger
    assert 13 < len(server.bodies) * 0.12 <= 15
    assert (spent.spent_usd, spent.open_usd) == (pytest.approx(len(server.bodies) * 0.12), 0)
    run = shop("two.duckdb", "--engine", "ray")
    wait_for_answers(tmp_path, "two", 10)
    started = time.monotonic()
    os.killpg(run.pid, signal.SIGINT)
    _, err = run.communicate(timeout=60)
    assert run.returncode == 130, err
    assert time.monotonic() - started < 12
    assert len(Store(tmp_path / "two.duckdb").answers()) == len(server.bodies)
    assert Store(tmp_path / "two.duckdb").ledger.unknown_usd == 0

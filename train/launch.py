"""Several processes of one training command on this machine, and one answer from them.

    code = launch(["run", "--recipe", "recipes/banking.yaml"], 2)

Each process runs the same command with its number in the environment, under the names that torchrun and `accelerate launch` use, so
either of those can start the processes as well (on several machines, say). The first one talks; what another says on its error
stream is shown only where it was the one that failed.
"""

import os
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from types import FrameType
from typing import IO

# The process that started this one: a process whose starter is gone ends, or it would go on training unseen.
STARTER = "RETORT_STARTER"
GRACE = 10.0  # seconds that the first process has to say itself what is wrong, where another has failed


def launched() -> bool:
    """Whether this process is one of several already, whoever started them."""
    return "RANK" in os.environ


def follows() -> bool:
    """Whether this process is one that neither writes nor talks."""
    return os.environ.get("RANK", "0") != "0"


def launch(arguments: Sequence[str], count: int) -> int:
    """Run `python -m train ARGUMENTS` in `count` processes and return the exit code: that of the first process to fail, or 0."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    threads = str(max(1, (os.cpu_count() or 1) // count))
    shared = {
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
        "WORLD_SIZE": str(count),
        "LOCAL_WORLD_SIZE": str(count),
        "OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS", threads),
        STARTER: str(os.getpid()),
    }
    said: list[IO[bytes]] = []
    started: list[subprocess.Popen[bytes]] = []
    before = signal.signal(signal.SIGTERM, _interrupt)
    try:
        for rank in range(count):
            said.append(tempfile.TemporaryFile())  # noqa: SIM115 - closed below, with the others
            started.append(
                subprocess.Popen(
                    [sys.executable, "-m", "train", *arguments],
                    env={**os.environ, **shared, "RANK": str(rank), "LOCAL_RANK": str(rank)},
                    stdout=None if rank == 0 else subprocess.DEVNULL,
                    stderr=None if rank == 0 else said[rank],
                )
            )
        failed = _first_to_fail(started)
        if failed is None:
            return 0
        first = _wait(started[0], GRACE)
        if first:
            return first
        said[failed].seek(0)
        sys.stderr.write(said[failed].read().decode("utf-8", "replace"))
        return abs(int(started[failed].returncode))
    except KeyboardInterrupt:
        for process in started:  # Ctrl-C reaches them by itself, another signal does not
            if process.poll() is None:
                process.send_signal(signal.SIGINT)
        if started:
            _wait(started[0], GRACE)
        return 130
    finally:
        for process in started:
            if process.poll() is None:
                process.kill()
            process.wait()
        for stream in said:
            stream.close()
        signal.signal(signal.SIGTERM, before)


def end_with_starter() -> None:
    """End this process when the one that started it is gone."""
    starter = int(os.environ.get(STARTER, "0"))
    if starter:
        threading.Thread(target=_watch, args=(starter,), daemon=True).start()


def _watch(starter: int) -> None:
    while os.getppid() == starter:
        time.sleep(0.5)
    os._exit(1)


def _first_to_fail(processes: Sequence["subprocess.Popen[bytes]"]) -> int | None:
    """Wait until all are done, or one has failed; the number of that one."""
    while True:
        codes = [process.poll() for process in processes]
        for rank, code in enumerate(codes):
            if code:
                return rank
        if None not in codes:
            return None
        time.sleep(0.1)


def _wait(process: "subprocess.Popen[bytes]", seconds: float) -> int | None:
    """Return a process's exit code, or None where it does not end in time."""
    try:
        return process.wait(seconds)
    except subprocess.TimeoutExpired:
        return None


def _interrupt(number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt

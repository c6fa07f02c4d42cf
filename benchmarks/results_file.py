"""What every benchmark shares: rows with a bar, a value, its interval and conditions; a table on the terminal, a JSON file."""

import json
import os
import platform
from pathlib import Path
from typing import NamedTuple

RESULTS = Path(__file__).parent / "results"


class Result(NamedTuple):
    """One measured value. `low` and `high` are a 95 % interval, or the value itself where nothing was sampled."""

    bar: str
    value: float
    unit: str
    low: float
    high: float
    conditions: str


def machine() -> str:
    """Where it was measured, in words."""
    return f"{os.cpu_count()} cores, {platform.system()} {platform.machine()}, Python {platform.python_version()}"


def publish(name: str, results: list[Result]) -> None:
    """Print the results and write results/NAME.json."""
    width = max(len(result.bar) for result in results)
    for result in results:
        interval = f"[{result.low:.4g}, {result.high:.4g}]" if result.low != result.high else ""
        print(f"{result.bar:<{width}}  {result.value:>10.4g} {result.unit:<8} {interval}")
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / f"{name}.json").write_text(json.dumps([result._asdict() for result in results], indent=1, ensure_ascii=False) + "\n")

"""What every test may use: the folder of real data, and an environment without keys."""

import os
from pathlib import Path

import pytest


@pytest.fixture(autouse=True)
def _no_keys(monkeypatch: pytest.MonkeyPatch) -> None:
    """No test can reach a provider by a key that happens to be set."""
    for name in list(os.environ):
        if name.endswith("_API_KEY"):
            monkeypatch.delenv(name)


@pytest.fixture(scope="session")
def real_data() -> Path:
    """The folder with slices of public data sets; tests that need it are marked `real_data`."""
    folder = os.environ.get("REAL_DATA")
    if not folder or not Path(folder).is_dir():
        pytest.skip("needs real data: set REAL_DATA to its folder")
    return Path(folder)

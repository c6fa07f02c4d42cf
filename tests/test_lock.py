"""The lock: every package of the base environment with its hashes, at the tested versions, from no particular index."""

import re
import tomllib
from pathlib import Path

import pytest

from datagen.errors import TeacherError
from datagen.teacher import POISONED, refuse_poisoned

ROOT = Path(__file__).parents[1]
LOCK = (ROOT / "requirements.lock").read_text(encoding="utf-8")
PINS = dict(re.findall(r"^([A-Za-z0-9._-]+)==(\S+) \\$", LOCK, re.MULTILINE))
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]


def normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def constrained() -> dict[str, str]:
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    return {normal(name): version for name, version in (line.split("==") for line in lines if "==" in line)}


def test_every_package_of_the_lock_has_hashes() -> None:
    blocks = re.split(r"\n(?=[A-Za-z0-9])", LOCK.split("#\n")[-1].strip())
    assert len(blocks) == len(PINS) > 50
    assert all("--hash=sha256:" in block for block in blocks)


def test_the_lock_names_no_index_and_no_file() -> None:
    assert not re.search(r"https?://|file:|index-url|find-links|trusted-host", LOCK)


def test_the_lock_holds_the_tested_versions() -> None:
    assert {name: version for name, version in PINS.items() if constrained()[normal(name)] != version} == {}


def test_the_lock_holds_every_dependency_of_the_project() -> None:
    wanted = {normal(re.split(r"[<>=!~ \[]", line)[0]) for line in PROJECT["dependencies"]}
    assert wanted <= set(map(normal, PINS))


def test_litellm_is_pinned_exactly_and_alike_everywhere() -> None:
    (pin,) = [line for line in PROJECT["dependencies"] if line.startswith("litellm")]
    assert re.fullmatch(r"litellm==[\d.]+", pin)
    assert pin.split("==")[1] == PINS["litellm"] == constrained()["litellm"]


@pytest.mark.parametrize("poisoned", ["1.82.7", "1.82.8"])
def test_a_poisoned_litellm_is_nowhere_and_refused(poisoned: str) -> None:
    assert poisoned in POISONED
    assert f"litellm=={poisoned}" not in LOCK + (ROOT / "constraints.txt").read_text() + str(PROJECT)
    with pytest.raises(TeacherError, match=rf"litellm {re.escape(poisoned)} is a compromised release"):
        refuse_poisoned(poisoned)


def test_the_pinned_litellm_is_taken() -> None:
    refuse_poisoned(PINS["litellm"])


def test_the_base_environment_is_installed_by_the_lock() -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    assert "--require-hashes -r requirements.lock" in makefile

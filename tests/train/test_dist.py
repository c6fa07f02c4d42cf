"""A deploy folder is whole, notices a changed byte, is not overwritten when it is somebody's own, and can be sent."""

import json
import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from train import dist, gate, hub, quantize, sums
from train.config import with_formats
from train.errors import ConfigError, DataError, ModelError, TrainError
from train.watch import Silent


@pytest.fixture(scope="module")
def made(finish: Callable[..., Any], student: Path, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A run with two forms, a card and scores."""
    done = finish(tmp_path_factory.mktemp("dist"), student, gate={"rows": 10})
    config = with_formats(done.config, ["gguf-q8_0", "gguf-lora"])
    quantize.quantize_run(config, done.manifest, done.run_dir, progress=Silent())
    gate.gate_run(done.run_dir, config, done.manifest)
    for name in ("merged", "gguf-q8_0"):  # what can nothing cannot show that it lost nothing
        gate.accept(done.run_dir, name, by="ana", because="a toy", at="2026-01-02T03:04:05+00:00")
    (done.run_dir / "evaluation.json").write_text("[]")
    (done.run_dir / "README.md").write_text("# toy\n")
    (done.run_dir / "sft/checkpoint-3").mkdir()
    (done.run_dir / "sft/checkpoint-3/optimizer.pt").write_text("large")
    return done


@pytest.fixture
def folder(made: Any, tmp_path: Path) -> Path:
    return dist.build(made.run_dir, made.config, tmp_path / "dist")


def test_the_folder_has_everything_and_nothing_of_the_training(folder: Path) -> None:
    names = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
    assert {
        *("README.md", "evaluation.json", "LICENCES.md", "SHA256SUMS", "adapter/adapter_model.safetensors", "merged/model.safetensors"),
        *("gguf/toy-q8_0.gguf", "gguf/toy-lora.gguf", "gguf/Modelfile"),
    } <= names
    assert not [name for name in names if "checkpoint" in name]
    assert folder.name == "toy"


def test_the_modelfile_runs_the_smallest_form_with_template_stop_and_system_message(folder: Path) -> None:
    lines = (folder / "gguf/Modelfile").read_text().splitlines()
    assert lines[0] == "FROM ./toy-q8_0.gguf"
    text = "\n".join(lines)
    assert 'SYSTEM """Name the colour as JSON."""' in text
    assert 'PARAMETER stop "<|im_end|>"' in text
    assert "PARAMETER num_predict 12" in text
    assert "<|im_start|>system\n{{ else }}<|im_start|>user\n{{ end }}{{ range .Messages }}" in text


@pytest.mark.parametrize("name", ["adapter/adapter_model.safetensors", "merged/chat_template.jinja", "gguf/toy-q8_0.gguf", "LICENCES.md"])
def test_one_changed_byte_is_told_with_the_files_name(name: str, folder: Path) -> None:
    assert name in sums.verify(folder)
    content = bytearray((folder / name).read_bytes())
    content[len(content) // 2] ^= 1
    (folder / name).write_bytes(content)
    with pytest.raises(DataError, match=f"{name}: has changed since it was written"):
        sums.verify(folder)


def test_a_missing_file_is_told(folder: Path) -> None:
    (folder / "merged/tokenizer.json").unlink()
    with pytest.raises(DataError, match=r"merged/tokenizer\.json: is gone"):
        sums.verify(folder)


def test_the_checksums_are_those_of_sha256sum(folder: Path) -> None:
    assert subprocess.run(["sha256sum", "--check", "--quiet", "SHA256SUMS"], cwd=folder).returncode == 0


def test_a_runs_own_forms_are_verified_too(made: Any, tmp_path: Path) -> None:
    run_dir = tmp_path / "run"
    shutil.copytree(made.run_dir, run_dir)
    assert sums.verify(run_dir) == ["quantized/gguf-lora/adapter.gguf", "quantized/gguf-q8_0/model.gguf"]
    with (run_dir / "quantized/gguf-q8_0/model.gguf").open("ab") as file:
        file.write(b"x")
    with pytest.raises(DataError, match=r"gguf-q8_0/model\.gguf: has changed"):
        sums.verify(run_dir)


def test_a_folder_with_nothing_to_check_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="nothing to check against"):
        sums.verify(tmp_path)


@pytest.mark.parametrize("line", ["abc", "a" * 64 + "  /etc/passwd", "a" * 64 + "  ../x"])
def test_a_line_of_checksums_that_is_none_is_refused(line: str, folder: Path) -> None:
    (folder / "SHA256SUMS").write_text(line + "\n")
    with pytest.raises(DataError, match="SHA256SUMS:1: not a checksum"):
        sums.verify(folder)


def test_the_folder_is_made_again_but_not_over_what_somebody_changed_or_added(made: Any, folder: Path) -> None:
    out = folder.parent
    assert dist.build(made.run_dir, made.config, out) == folder
    (folder / "notes.txt").write_text("mine")
    with pytest.raises(ConfigError, match=r"notes\.txt: is not one of ours"):
        dist.build(made.run_dir, made.config, out)
    (folder / "notes.txt").unlink()
    (folder / "README.md").write_text("# better\n")
    with pytest.raises(ConfigError, match=r"is in the way and not as `dist` wrote it .*README\.md"):
        dist.build(made.run_dir, made.config, out)
    assert (folder / "README.md").read_text() == "# better\n"


def test_a_run_that_was_not_merged_has_nothing_to_hand_out(made: Any, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="has no merged model to hand out"):
        dist.build(tmp_path, made.config, tmp_path / "dist")


def test_too_little_disk_is_told_first(made: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=10))  # type: ignore[attr-defined]
    with pytest.raises(ConfigError, match=r"toy: 0 MB free, its files take \d"):
        dist.build(made.run_dir, made.config, tmp_path / "dist")
    assert not (tmp_path / "dist").exists()


def test_a_base_says_its_licence_or_where_it_is(tmp_path: Path) -> None:
    assert dist.base_licence("train/students/tiny").startswith("Apache-2.0")
    assert dist.base_licence("Qwen/Qwen2.5-0.5B") == "see https://huggingface.co/Qwen/Qwen2.5-0.5B."
    assert "says nothing" in dist.base_licence(str(tmp_path))
    (tmp_path / "LICENSE.txt").write_text("words")
    assert dist.base_licence(str(tmp_path)) == "see its file LICENSE.txt."
    (tmp_path / "README.md").write_text("---\nlicense: other\nlicense_name: qwen-research\nlicense_link: https://x/y\n---\n# Base\n")
    assert dist.base_licence(str(tmp_path)) == "qwen-research, https://x/y, as its card says."
    (tmp_path / "README.md").write_text("---\n: [\n---\n")
    assert dist.base_licence(str(tmp_path)) == "see its file LICENSE.txt."


def test_licence_notes_name_each_teacher_its_terms_and_the_users_decision() -> None:
    teachers = [
        {
            "role": "teacher",
            "model": "m/a",
            "terms": {"says": "no rivals", "source": "https://t", "read": "2026-01-02"},
            "decision": "asked them",
        },
        {"role": "judge", "model": "m/b", "simulated": True, "terms": {}},
    ]
    text = dist.licences("train/students/tiny", teachers)
    assert '- Teacher `m/a`, asked: no rivals (https://t, read 2026-01-02). Decided by the user: "asked them".' in text
    assert "- Judge `m/b`, simulated: no terms are on record." in text


def test_a_dry_run_lists_files_sizes_and_what_is_missing(folder: Path) -> None:
    (folder / "README.md").unlink()
    sums.write_sums(folder)
    plan = hub.plan_upload(folder, "me/toy")
    assert plan.missing == ["README.md"]
    assert plan.files["merged/model.safetensors"] == (folder / "merged/model.safetensors").stat().st_size
    with pytest.raises(ConfigError, match="--repo toy: is no repository of the Hub"):
        hub.plan_upload(folder, "toy")


def test_without_a_token_nothing_is_sent(folder: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("huggingface_hub.get_token", lambda: None)
    with pytest.raises(TrainError, match="no token for the Hub"):
        hub.upload(folder, "me/toy")


class Hub(BaseHTTPRequestHandler):
    """As much of the Hub as an upload of small files asks for; `refuses` answers the first question with 403."""

    seen: list[tuple[str, bytes]]
    refuses: bool

    def do_POST(self) -> None:
        size = int(self.headers.get("Content-Length") or 0)
        body = self.rfile.read(size) if size else self._chunks()
        type(self).seen.append((self.path, body))
        if self.refuses:
            self._answer({"error": "not yours"}, 403)
        elif self.path.endswith("/preupload/main"):
            names = [file["path"] for file in json.loads(body)["files"]]
            self._answer({"files": [{"path": name, "uploadMode": "regular", "shouldIgnore": False} for name in names]})
        elif "/commit/" in self.path:
            self._answer(
                {
                    "success": True,
                    "commitOid": "0" * 40,
                    "commitUrl": f"http://{self.headers['Host']}/me/toy/commit/{'0' * 40}",
                    "hookOutput": "",
                }
            )
        else:
            self._answer({"url": f"http://{self.headers['Host']}/me/toy", "errors": [], "warnings": []})

    def _chunks(self) -> bytes:
        found = b""
        while self.headers.get("Transfer-Encoding") == "chunked" and (size := int(self.rfile.readline(), 16)):
            found += self.rfile.read(size)
            self.rfile.readline()
        return found

    def _answer(self, value: Any, status: int = 200) -> None:
        content = json.dumps(value).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *_: Any) -> None:
        pass


@pytest.fixture(params=[False, True], ids=["takes", "refuses"])
def server(request: pytest.FixtureRequest) -> Iterator[Any]:
    handler = type("OneHub", (Hub,), {"seen": [], "refuses": request.param})
    listening = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=listening.serve_forever, daemon=True)
    thread.start()
    yield handler, f"http://127.0.0.1:{listening.server_port}"
    listening.shutdown()
    listening.server_close()
    thread.join()


def test_an_upload_is_one_commit_of_every_file_into_a_private_repository(server: Any, folder: Path, tmp_path: Path) -> None:
    handler, address = server
    settings = {**os.environ, "HF_ENDPOINT": address, "HF_TOKEN": "hf_x", "HF_HUB_OFFLINE": "0", "HF_HOME": str(tmp_path / "hf")}
    command = [sys.executable, "-m", "train", "upload", str(folder), "--repo", "me/toy"]
    done = subprocess.run(command, env=settings, capture_output=True, text=True, timeout=120)
    if handler.refuses:
        assert done.returncode == 2
        assert "me/toy: the Hub did not take it: " in done.stderr
        return
    assert done.returncode == 0, done.stderr
    assert "files are in http://" in done.stdout
    paths = [path for path, _ in handler.seen]
    assert paths[0] == "/api/repos/create"
    assert json.loads(handler.seen[0][1])["visibility"] == "private"
    commits = [body for path, body in handler.seen if "/commit/" in path]
    assert len(commits) == 1
    sent = {json.loads(line)["value"]["path"] for line in commits[0].splitlines()[1:]}
    assert sent == {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}


def test_what_the_gate_held_back_stays_behind(made: Any, tmp_path: Path) -> None:
    run_dir = Path(shutil.copytree(made.run_dir, tmp_path / "run"))
    record = json.loads((run_dir / "gate.json").read_text())
    decisions = record["accepted"]
    (run_dir / "gate.json").write_text(json.dumps({**record, "accepted": [d for d in decisions if d["artifact"] == "merged"]}))
    folder = dist.build(run_dir, made.config, tmp_path / "dist")
    assert (folder / "merged").is_dir()
    assert not (folder / "gguf/toy-q8_0.gguf").exists()
    (run_dir / "gate.json").write_text(json.dumps({**record, "accepted": []}))
    with pytest.raises(DataError, match="nothing of this run ships: merged undecided"):
        dist.build(run_dir, made.config, tmp_path / "dist")
    (run_dir / "gate.json").unlink()
    with pytest.raises(DataError, match="no artifact of this run was judged"):
        dist.build(run_dir, made.config, tmp_path / "dist")

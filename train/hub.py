"""A deploy folder's way to the Hugging Face Hub.

plan = plan_upload(folder, "owner/name")     what would be sent and what is missing, without a network
address = upload(folder, "owner/name")
"""

import os
import re
from pathlib import Path
from typing import NamedTuple

import huggingface_hub
from huggingface_hub.errors import HfHubHTTPError, OfflineModeIsEnabled

from train.errors import ConfigError, TrainError
from train.sums import files_of, verify

WANTED = ("README.md", "evaluation.json", "LICENCES.md")  # what a reader of the Hub's page looks for first


class Upload(NamedTuple):
    """What an upload sends: bytes by file, and the papers that the folder lacks."""

    repo: str
    files: dict[str, int]
    missing: list[str]


def plan_upload(folder: Path, repo: str) -> Upload:
    """What an upload of a checked folder would send. Raises ConfigError for a name that is none, DataError for a changed file."""
    if not re.fullmatch(r"[\w.-]+/[\w.-]+", repo):
        raise ConfigError(f"--repo {repo}: is no repository of the Hub. Write owner/name.")
    verify(folder)
    files = {path.relative_to(folder).as_posix(): path.stat().st_size for path in files_of(folder)}
    return Upload(repo, files, [name for name in WANTED if name not in files])


def upload(folder: Path, repo: str, *, private: bool = True) -> str:
    """Send a checked folder to the Hub in one commit, into a private repository that is made if need be; return its address.

    Raises TrainError when there is no token, no network, or the Hub refuses.
    """
    plan_upload(folder, repo)
    if not huggingface_hub.get_token():
        raise TrainError(f"{repo}: no token for the Hub. Log in with `hf auth login`, or set HF_TOKEN.")
    hub = huggingface_hub.HfApi(endpoint=os.environ.get("HF_ENDPOINT"))
    try:
        hub.create_repo(repo, private=private, exist_ok=True)
        commit = hub.upload_folder(repo_id=repo, folder_path=folder, commit_message=f"{folder.name}: adapter, merged and quantized models")
    except (HfHubHTTPError, OfflineModeIsEnabled, OSError) as error:
        raise TrainError(
            f"{repo}: the Hub did not take it: {' '.join(str(error).split())[:300]}. Try again with the same command."
        ) from error
    return str(commit.commit_url)

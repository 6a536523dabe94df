"""Upload to the Hugging Face hub."""

from __future__ import annotations

import textwrap
from pathlib import Path


def upload_folder(folder: Path, repository: str, *, private: bool = False, token: str | None = None) -> str:
    """Upload the files of a folder into a repository, which is made where there is none; return its address.

    Raises:
        FileNotFoundError: there is no such folder.
        ValueError: the name is not OWNER/NAME; or the hub cannot be reached or refuses the upload. In one line.
    """
    if repository.count("/") != 1 or not all(repository.split("/")):
        raise ValueError(f"a repository of the hub is OWNER/NAME, not {repository!r}")
    if not folder.is_dir():
        raise FileNotFoundError(f"{folder}: no such folder")
    # Here: the client takes a second to import.
    from huggingface_hub import HfApi

    try:
        client = HfApi(token=token)
        client.create_repo(repository, private=private, exist_ok=True)
        return str(client.upload_folder(repo_id=repository, folder_path=folder, commit_message="Upload with Boxwright"))
    except Exception as error:  # Of the client, of its HTTP library, and of the disk.
        reason = textwrap.shorten(str(error) or type(error).__name__, 200, placeholder=" ...")
        raise ValueError(f"{repository}: could not be uploaded to the hub ({reason})") from error

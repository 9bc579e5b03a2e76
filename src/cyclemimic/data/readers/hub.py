# SPDX-License-Identifier: Apache-2.0
"""Data sets on the Hugging Face Hub: what describes one is downloaded at once, its data files when they are asked for."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ..episode import DataError

_REPOSITORY = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")


@dataclass(frozen=True)
class HubFolder:
    """The local copy, in the Hub's own cache, of as much of a data set as has been asked for.

    Args:
        repository (`str`): Id on the Hub, `owner/name`.
        path (`Path`): Folder of the local copy, of one commit.
    """

    repository: str
    path: Path

    def fetch(self, relative: str) -> None:
        """Download a file of the data set, if it has one of that name and it is not here.

        Raises:
            DataError: If the download fails.
        """
        from huggingface_hub import hf_hub_download
        from huggingface_hub.errors import EntryNotFoundError, LocalEntryNotFoundError

        if (self.path / relative).is_file():
            return
        try:
            # The folder's name is the commit: all files are of one, whatever is pushed meanwhile.
            hf_hub_download(self.repository, relative, repo_type="dataset", revision=self.path.name)
        except LocalEntryNotFoundError as error:
            raise DataError(f"{self.repository}: {relative} does not download ({error}); try again") from error
        except EntryNotFoundError:
            return
        except (OSError, ValueError) as error:
            raise DataError(f"{self.repository}: {relative} does not download ({error}); try again") from error


def is_repository_id(path: str | Path) -> bool:
    """Whether a path could be the id of a data set on the Hub."""
    return _REPOSITORY.fullmatch(str(path)) is not None


def public_name(path: str | Path) -> str:
    """What to call a folder, or an id on the Hub, where others read it: a path is of this machine alone."""
    return str(path) if is_repository_id(path) and not Path(path).exists() else Path(path).resolve().name


def open_hub_folder(
    repository: str, revision: str | None = None, patterns: Sequence[str] = ("meta/*", "README.md")
) -> HubFolder:
    """Download files of a data set; by default what describes one of LeRobot, its folder `meta/` and its card.

    Args:
        repository (`str`): Id on the Hub, `owner/name`.
        revision (`str`, *optional*): Branch, tag or commit; the main branch by default.
        patterns (`Sequence[str]`, *optional*): The files.

    Raises:
        DataError: If there is no such data set, or no access to it or to the Hub.
    """
    from huggingface_hub import snapshot_download

    try:
        folder = snapshot_download(repository, repo_type="dataset", revision=revision, allow_patterns=list(patterns))
    except (OSError, ValueError) as error:
        at = f" at revision {revision!r}" if revision else ""
        raise DataError(
            f"{repository} is no folder here, and no data set that the Hub gives{at} ({type(error).__name__}: {error})"
        ) from error
    return HubFolder(repository, Path(folder))

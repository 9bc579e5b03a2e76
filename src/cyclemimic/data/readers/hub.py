# SPDX-License-Identifier: Apache-2.0
"""Data sets on the Hugging Face Hub: what describes one is downloaded at once, its data files when they are asked for."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path

from ...hub.integrity import check_downloads
from ...hub.names import split_revision
from ...hub.redaction import describe_error
from ..episode import DataError


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
            check_downloads([self.path / relative])
            return
        # Whatever the client or its libraries raise, as here and below: a transfer that breaks off is no `OSError`.
        except Exception as error:
            if isinstance(error, EntryNotFoundError) and not isinstance(error, LocalEntryNotFoundError):
                return
            reason = describe_error(error)
        raise DataError(f"{self.repository}: {relative} does not download ({reason}); try again")


def at_revision(path: str | Path, revision: str | None = None) -> tuple[str | Path, str | None]:
    """A path or id, and the revision that it ends with (`owner/name@revision`) or that is given.

    Raises:
        DataError: If there are both.
    """
    name, pinned = split_revision(path)
    if pinned is None:
        return path, revision
    if revision is not None:
        raise DataError(f"{path} names its revision; leave out another, got {revision!r}")
    return name, pinned


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
        files = {path.relative_to(folder).as_posix(): path for path in Path(folder).rglob("*") if path.is_file()}
        # As the client reads patterns: a star stands for slashes, too.
        asked = {name for name in files for pattern in patterns if fnmatch(name, pattern)}
        check_downloads(files[name] for name in sorted(asked))
        return HubFolder(repository, Path(folder))
    except Exception as error:
        reason = describe_error(error)
    at = f" at revision {revision!r}" if revision else ""
    raise DataError(f"{repository} is no folder here, and no data set that the Hub gives{at} ({reason})")

# SPDX-License-Identifier: Apache-2.0
"""Sends a folder to the Hub, as one commit."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import TYPE_CHECKING

from .names import is_repository_id
from .publication import CARD, Publication, read_publication
from .redaction import describe_error

if TYPE_CHECKING:
    from huggingface_hub import CommitInfo

logger = logging.getLogger(__name__)


def push_folder(
    folder: str | Path,
    repo_id: str,
    private: bool | None = None,
    revision: str | None = None,
    commit_message: str | None = None,
    base_model: str | None = None,
    token: str | None = None,
) -> CommitInfo:
    """
    Publish a checkpoint, an adapter or labels. All files appear on the Hub together or not at all; of an upload that
    broke off, the next one leaves out what has arrived. Weights and labels of an earlier push that are not in the
    folder any more are removed from the branch, and stay in its history.

    Args:
        folder (`str` or `Path`): See [`read_publication`] for what is sent of it.
        repo_id (`str`): `owner/name`; made if it is not there.
        private (`bool`, *optional*): For a repository that is made; the owner's default without.
        revision (`str`, *optional*, defaults to `"main"`): Branch to commit to; it must exist.
        commit_message (`str`, *optional*).
        base_model (`str`, *optional*): Id on the Hub of an adapter's model.
        token (`str`, *optional*): Defaults to `HF_TOKEN`, or what `hf auth login` has stored.

    Returns:
        `CommitInfo`: Its `oid` is the revision to load by, for exactly these files.

    Raises:
        ValueError: the folder is not fit to be published, `repo_id` is none, or there is no token.
        OSError: the Hub refuses, or the connection breaks.
    """
    from huggingface_hub import get_token

    if not is_repository_id(repo_id):
        raise ValueError(f"`repo_id` must be OWNER/NAME, got {repo_id}.")
    token = token or get_token()
    if token is None:
        raise ValueError("`HF_TOKEN` must be set to an access token, or stored by `hf auth login`, got none.")
    publication = read_publication(folder, base_model, token, repo_id)
    logger.info("%s: to be published are %s", repo_id, ", ".join(publication.files))
    if CARD not in publication.files:
        logger.warning("%s: %s has no card, %s; finished trainings and `label` write one", repo_id, folder, CARD)
    try:
        return _commit(publication, repo_id, private, revision, commit_message or "Upload with cyclemimic", token)
    # Whatever the client or its libraries raise.
    except Exception as error:
        # The client's own says which file it was about, and not why.
        cause = error.__cause__ if isinstance(error, RuntimeError) and error.__cause__ else error
        reason = describe_error(cause, token)
    raise OSError(f"{repo_id}: nothing was committed ({reason}); what has arrived is not sent again by the next push")


def _commit(
    publication: Publication, repo_id: str, private: bool | None, revision: str | None, message: str, token: str
) -> CommitInfo:
    from huggingface_hub import CommitOperationAdd, CommitOperationDelete, HfApi

    api, repo_type = HfApi(token=token), publication.repo_type
    api.create_repo(repo_id, repo_type=repo_type, private=private, exist_ok=True)
    earlier = api.list_repo_files(repo_id, repo_type=repo_type, revision=revision)
    operations: list[CommitOperationAdd | CommitOperationDelete] = [
        *(CommitOperationAdd(name, file) for name, file in publication.files.items()),
        *(CommitOperationDelete(name) for name in earlier if publication.is_replaced(name)),
    ]
    return api.create_commit(repo_id, operations, commit_message=message, repo_type=repo_type, revision=revision)

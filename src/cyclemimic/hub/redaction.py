# SPDX-License-Identifier: Apache-2.0
"""Keeps access tokens out of what is said: what a server answers may hold what it was asked with."""

from __future__ import annotations

import re

TOKEN_PATTERN = r"hf_(?:oauth|jwt)_[A-Za-z0-9._-]{30,}|hf_[A-Za-z0-9]{30,}"
"""What looks like an access token of the Hub, of a person or, in three parts with dots between, of an app."""


def redacted(text: str, token: str | None = None) -> str:
    """The text without what looks like a token of the Hub, without the user's own, and without `token`."""
    from huggingface_hub import get_token

    for secret in filter(None, (token, get_token())):
        text = text.replace(secret, "***")
    return re.sub(TOKEN_PATTERN, "***", text)


def first_line(error: BaseException) -> str:
    """The first line of what went wrong, to go on within a message; its type where it says nothing."""
    return redacted((str(error).strip() or type(error).__name__).splitlines()[0])


def describe_error(error: BaseException, token: str | None = None) -> str:
    """One line of what went wrong. To be raised outside of `except`, or the error itself goes with it."""
    return redacted(" ".join(f"{type(error).__name__}: {error}".split()), token)

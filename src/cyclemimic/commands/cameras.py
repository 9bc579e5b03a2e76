# SPDX-License-Identifier: Apache-2.0
"""Which cameras of some data sets a policy sees with."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from cyclemimic.data import EpisodeSource, open_source


def choose_cameras(
    camera: str | None, cameras: Sequence[str] | None, of_policy: Sequence[str] | None, skip_broken: bool = False
) -> tuple[str | None, list[str] | None]:
    """The camera that data sets are opened with, and where there are several all their names: those asked for, or where
    none is asked for those of the policy to go on from.

    Raises:
        ValueError: `camera` and `cameras` are both given; or broken episodes are to be looked for, which is done for one
            camera.
    """
    if camera is not None and cameras:
        raise ValueError(f"`camera` must be left out with `cameras`, got {camera!r} and {list(cameras)}.")
    names = list(cameras or (of_policy if camera is None else None) or [])
    if skip_broken and len(names) > 1:
        raise ValueError(
            f"`skip_broken` must be left out with several cameras, since it looks at one alone, got {names}."
        )
    return (names[0] if names else camera), (names if len(names) > 1 else None)


def open_further_cameras(
    paths: Sequence[str | Path],
    names: Sequence[str] | None,
    sources: Sequence[EpisodeSource],
    fps: float | None = None,
) -> list[list[EpisodeSource]]:
    """The episodes of some data sets once more for every camera but the first of `names`; none where there are no names.

    Raises:
        DataError: a data set has no such camera.
        ValueError: two names are of one camera.
    """
    if names is None:
        return []
    views: list[list[EpisodeSource]] = []
    for name in names[1:]:
        view = [
            open_source(path, name, episodes=[episode.index for episode in source], fps=fps)
            for path, source in zip(paths, sources, strict=True)
        ]
        for opened in zip(view, sources, *views, strict=True):
            if len({source.camera for source in opened}) < len(opened):
                raise ValueError(
                    f"`cameras` must be different ones, got {list(names)}, of which two are {opened[0].camera}."
                )
        views.append(view)
    return views

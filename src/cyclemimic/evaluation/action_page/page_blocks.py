# SPDX-License-Identifier: Apache-2.0
"""Lays the page out in Gradio: three ways to choose two frames, and below them what their action is."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from cyclemimic.data import DataError

from ..page import render_page
from .action_explorer import ActionExplorer, ActionView
from .uploads import MAX_BYTES, MAX_MOMENTS, MAX_SECONDS, Moment, read_moments, read_picture, read_pictures, shrink

if TYPE_CHECKING:
    import gradio

_HINT = "Choose a pair above: its latent action is shown here."
# One at a time: the tokenizer has one device, and the frame store one owner.
_EVENT: dict[str, Any] = {"concurrency_id": "tokenizer", "concurrency_limit": 1, "api_visibility": "private"}


class ActionPage:
    """
    The page, and what its buttons do. Every function returns HTML in which all text is escaped; what is wrong with the
    input is said there.

    Args:
        explorer ([`ActionExplorer`]): Computes what is shown.
        title (`str`): Of the page.
        subtitle (`str`): Which tokenizer and which data.
        interval_s (`float`): Seconds between the frames of a pair, to begin with.
    """

    def __init__(self, explorer: ActionExplorer, title: str, subtitle: str, interval_s: float) -> None:
        self.explorer = explorer
        self.title = title
        self.subtitle = subtitle
        self.interval_s = interval_s
        self.examples = explorer.examples()

    def build(self) -> gradio.Blocks:
        """The page as Gradio blocks, which collect no statistics and keep no upload for longer than an hour."""
        import gradio

        with gradio.Blocks(title=self.title, analytics_enabled=False, delete_cache=(600, 3600)) as blocks:
            gradio.Markdown(f"# {self.title}")
            gradio.HTML(render_page("action.html", problem="", hint=self.subtitle, view=None))
            with gradio.Tabs():
                with gradio.Tab("From the data"):
                    examples = self._gallery("Click a pair: current and future frame", self._example_tiles())
                with gradio.Tab("Two frames of your own"):
                    two_frames, show = self._frame_inputs()
                with gradio.Tab("A video of your own"):
                    video, interval_s, read = self._video_inputs()
                    moments = gradio.State([], time_to_live=3600)
                    tiles = self._gallery("Click a moment of the video", [])
            result = gradio.HTML(self._html(hint=_HINT), elem_id="result", min_height=120)
            examples.select(_told_place(self.show_example), None, result, **_EVENT)
            show.click(self.show_pair, two_frames, result, **_EVENT)
            read.click(self.show_video, [video, interval_s], [tiles, moments, result], **_EVENT)
            tiles.select(_told_place(self.show_moment), moments, result, **_EVENT)
        return blocks

    def show_example(self, place: int) -> str:
        """The pair at a place of `examples`."""
        return self._shown(lambda: self.explorer.view_example(self.examples[place]))

    def show_pair(self, current: str | None, future: str | None, other: str | None) -> str:
        """Two uploaded pictures, and if given a third to apply the action to."""

        def view() -> ActionView:
            frames = read_pictures(current, future)
            return self.explorer.view(*frames, None if other is None else shrink(read_picture(other, "other body's")))

        return self._shown(view)

    def show_video(self, path: str | None, interval_s: float | None) -> tuple[list[Any], list[Moment], str]:
        """Pairs of an uploaded video: tiles for the gallery, themselves, and what is said below."""
        try:
            moments = read_moments(path, interval_s or 0)
            codes = self.explorer.encode([m.current for m in moments], [m.future for m in moments])
        except DataError as error:
            return [], [], self._html(problem=str(error))
        tiles = [
            (side_by_side(moment.current, moment.future), f"{moment.start_s:.1f} s · {' '.join(map(str, words))}")
            for moment, words in zip(moments, codes.tolist(), strict=True)
        ]
        return tiles, moments, self._html(hint="Click a moment of the video: its latent action is shown here.")

    def show_moment(self, moments: list[Moment], place: int) -> str:
        """The pair at a place of a video."""
        return self._shown(lambda: self.explorer.view(moments[place].current, moments[place].future))

    def _shown(self, view: Callable[[], ActionView]) -> str:
        try:
            return self._html(view=view())
        except (DataError, IndexError) as error:
            return self._html(problem=str(error))

    def _html(self, problem: str = "", hint: str = "", view: ActionView | None = None) -> str:
        return render_page(
            "action.html",
            problem=problem,
            hint=hint,
            view=view,
            codebook_size=self.explorer.tokenizer.config.codebook_size,
            num_labelled=f"{len(self.explorer.labelled.indices):,}",
        )

    def _example_tiles(self) -> list[tuple[np.ndarray, str]]:
        pairs = [self.explorer.example(index) for index in self.examples]
        return [(side_by_side(shrink(pair.current), shrink(pair.future)), pair.caption) for pair in pairs]

    @staticmethod
    def _gallery(label: str, tiles: list[tuple[np.ndarray, str]]) -> gradio.Gallery:
        import gradio

        gradio.Markdown(label)
        return gradio.Gallery(
            tiles,
            label=label,
            show_label=False,
            columns=4,
            height="auto",
            object_fit="contain",
            allow_preview=False,
            interactive=False,
            buttons=[],
            elem_classes="pairs-to-click",
        )

    @staticmethod
    def _frame_inputs() -> tuple[list[gradio.Image], gradio.Button]:
        import gradio

        labels = ("Current frame", "Future frame, a moment later", "Another body's frame (optional)")
        with gradio.Row():
            options: dict[str, Any] = {
                "type": "filepath",
                "image_mode": None,
                "sources": ["upload", "clipboard"],
                "height": 260,
            }
            images = [_take_as_sent(gradio.Image(label=label, **options)) for label in labels]
        return images, gradio.Button("Show the latent action", variant="primary")

    def _video_inputs(self) -> tuple[gradio.Video, gradio.Number, gradio.Button]:
        import gradio

        with gradio.Row():
            label = f"Video, at most {MAX_SECONDS} s and {MAX_BYTES >> 20} MB"
            video = _take_as_sent(gradio.Video(label=label, sources=["upload"], height=260))
            with gradio.Column():
                interval_s = gradio.Number(self.interval_s, label="Seconds between the two frames of a pair")
                gradio.Markdown(f"Up to {MAX_MOMENTS} pairs are taken, evenly spread over the video.")
                read = gradio.Button("Read the video", variant="primary")
        return video, interval_s, read


def side_by_side(current: np.ndarray, future: np.ndarray) -> np.ndarray:
    """The two frames of a pair as one picture, a white line between them."""
    line = np.full((current.shape[0], max(2, current.shape[1] // 40), 3), 255, dtype=np.uint8)
    return np.concatenate([current, line, future], axis=1)


def _told_place(show: Callable[..., str]) -> Callable[..., str]:
    """The function with the place that was clicked as its last argument."""
    import gradio

    def on_select(*values: Any) -> str:
        return show(*values[:-1], values[-1].index)

    # Gradio finds the argument for the event by its type, which has no name here before Gradio is imported.
    parameters = list(inspect.signature(show).parameters.values())
    parameters[-1] = parameters[-1].replace(annotation=gradio.SelectData)
    told: Any = on_select
    told.__signature__ = inspect.Signature(parameters)
    told.__annotations__ = {parameters[-1].name: gradio.SelectData}
    return told


def _take_as_sent(component: Any) -> Any:
    """
    The component, which hands over the path of an upload: it is decoded by our own reader, with its bounds, and not by
    Gradio before. A link in place of an upload is refused, as Gradio would fetch it, whatever its size.
    """
    keep = component.async_move_resource_to_block_cache

    async def keep_upload(path: str | Path | None) -> str | None:
        if path is not None and "://" in str(path):
            raise ValueError("an upload must be a file, got a link")
        return await keep(path)

    component.async_move_resource_to_block_cache = keep_upload
    component.preprocess = lambda payload: payload.path if payload else None
    return component

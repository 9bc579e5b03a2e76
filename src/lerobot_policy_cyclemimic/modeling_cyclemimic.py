# SPDX-License-Identifier: Apache-2.0
"""The policy as LeRobot has them: batches of a data set, a simulator or a robot in; a loss, or actions, out."""

from __future__ import annotations

from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from huggingface_hub import snapshot_download
from lerobot.configs import FeatureType, PolicyFeature, PreTrainedConfig
from lerobot.policies.pretrained import PreTrainedPolicy

from cyclemimic import LatentActionTokenizerImageProcessor, LatentActionTokenizerModel
from cyclemimic.checkpoints import load_tokenizer, read_config
from cyclemimic.models.cyclemimic.execution_cyclemimic import ActionChunkQueue
from cyclemimic.policies import load_for_actions

from .configuration_cyclemimic import CycleMimicConfig
from .features_cyclemimic import ACTION, STATE, choose_cameras, percentiles, wanted_sizes

# Of a LeRobot checkpoint: the folder with a whole checkpoint of the package, which its own commands take.
CHECKPOINT_FOLDER = "cyclemimic"


class CycleMimicPolicy(PreTrainedPolicy):
    r"""
    [`CycleMimicForActionPrediction`] with its processor. A batch holds, with B samples:

    | key | dtype, shape | content |
    |---|---|---|
    | `observation.image`, `observation.images.NAME` | float32 (B, 3, H, W) | RGB in [0, 1], one a camera |
    | `observation.state` | float32 (B, S) | physical units; read where the policy reads a robot state |
    | `task` | B texts | the instructions |
    | `action` | float32 (B, T, A) | in training: physical units |
    | `action_is_pad` | bool (B, T) | in training: True past the end of an episode |

    In training observations have one more axis, (B, 2, …): now, and when the latent action has taken place. Actions
    come out in physical units, by the statistics that the checkpoint keeps.

    Args:
        config ([`CycleMimicConfig`]): What to load; sizes, cameras and features that it leaves open are filled in.
        dataset_stats (`dict`, *optional*): In training, the statistics of the data, a feature each.
        dataset_meta (`LeRobotDatasetMetadata`, *optional*): With these, its name and frame rate.
        checkpoint (`str` or `Path`, *optional*): Loaded in place of `config.checkpoint_path`.

    Raises:
        ValueError: no checkpoint, one that does not fit the features, or one that cannot act yet and no data to learn
            from; cameras that cannot be told; statistics without percentiles.
    """

    config_class = CycleMimicConfig
    name = "cyclemimic"

    def __init__(
        self,
        config: CycleMimicConfig,
        dataset_stats: dict[str, dict[str, Any]] | None = None,
        dataset_meta: Any = None,
        checkpoint: str | Path | None = None,
    ) -> None:
        super().__init__(config)
        checkpoint = checkpoint or config.checkpoint_path
        if checkpoint is None:
            raise ValueError("`checkpoint_path` must be a CycleMimic checkpoint, a folder or a Hub id, got None.")
        loaded = read_config("checkpoint_path", checkpoint, "cyclemimic")
        if dataset_stats is None and not loaded.is_finetuned:
            raise ValueError(f"`checkpoint_path` must be fine-tuned, to act, got {checkpoint}, which is not.")
        config.cameras = choose_cameras(config, loaded)
        # To be trained, in full precision, whatever it was saved in.
        dtype = "auto" if dataset_stats is None else torch.float32
        self.model, self.processor = load_for_actions(str(checkpoint), wanted_sizes(config, loaded), {}, dtype)
        config.chunk_size = self.model.config.chunk_size
        config.n_action_steps = config.n_action_steps or self.model.config.num_executed_steps
        if self.model.config.temporal_ensemble_coeff is None:
            # So that whoever loads the checkpoint without LeRobot executes as many.
            self.model.config.n_action_steps = config.n_action_steps
        self._describe_features()
        config.validate_features()
        if dataset_stats is not None:
            self._keep_statistics(dataset_stats, dataset_meta)
        config.dataset = self.processor.resolve_dataset(config.dataset)
        self.reset()

    @classmethod
    def from_pretrained(
        cls,
        pretrained_name_or_path: str | Path,
        *,
        config: CycleMimicConfig | None = None,
        dataset_stats: dict[str, dict[str, Any]] | None = None,
        dataset_meta: Any = None,
        **kwargs: Any,
    ) -> CycleMimicPolicy:
        """
        Loads a LeRobot checkpoint: what `lerobot-train` and [`convert`] write.

        Args:
            pretrained_name_or_path (`str` or `Path`): A folder, or an id on the Hub.
            config ([`CycleMimicConfig`], *optional*): By default that of the checkpoint.
            dataset_stats, dataset_meta: As for a new policy.
            kwargs: How to reach the Hub: `revision`, `token`, `cache_dir` …
        """
        config = config or PreTrainedConfig.from_pretrained(pretrained_name_or_path, **kwargs)
        folder = Path(pretrained_name_or_path)
        if not folder.is_dir():
            folder = Path(snapshot_download(str(folder), allow_patterns=f"{CHECKPOINT_FOLDER}/*", **kwargs))
        policy = cls(config, dataset_stats, dataset_meta, checkpoint=folder / CHECKPOINT_FOLDER)
        return policy.to(config.device).eval()

    def get_optim_params(self) -> Any:
        """All parameters."""
        return self.parameters()

    def reset(self) -> None:
        """Forget the actions under way: an episode begins."""
        coefficient = self.model.config.temporal_ensemble_coeff
        self._queue = ActionChunkQueue(self.config.n_action_steps, coefficient)

    def forward(self, batch: dict[str, Any]) -> tuple[torch.Tensor, dict[str, float]]:
        """The loss of a training batch, and its two terms for the log."""
        inputs = self._inputs(
            batch,
            latent_actions=self._latent_actions(batch),
            actions=batch[ACTION],
            actions_mask=~batch[f"{ACTION}_is_pad"] if f"{ACTION}_is_pad" in batch else None,
        )
        outputs = self.model(**inputs)
        terms = ("latent_action_loss", "action_loss")
        return outputs.loss, {name: outputs[name].item() for name in terms}

    @torch.no_grad()
    def predict_action_chunk(self, batch: dict[str, Any], **kwargs: Any) -> torch.Tensor:
        """The next actions, float32 (B, T, A) in physical units."""
        chunk = self.model.predict_action_chunk(**self._inputs(batch))
        actions = self.processor.post_process_actions(chunk, self.config.dataset)
        return torch.from_numpy(actions).to(chunk.device)

    @torch.no_grad()
    def select_action(self, batch: dict[str, Any], **kwargs: Any) -> torch.Tensor:
        """The next action, float32 (B, A); the batch is looked at only where a chunk is used up."""
        if self._queue.needs_chunk:
            self._queue.push(self.predict_action_chunk(batch))
        return self._queue.pop(len(batch[self.config.cameras[0]]))

    def _inputs(self, batch: dict[str, Any], **targets: Any) -> dict[str, torch.Tensor]:
        views = [as_frames(_now(batch[key], num_axes=4)) for key in self.config.cameras]
        images = list(views[0]) if len(views) == 1 else [list(sample) for sample in zip(*views, strict=True)]
        if self.model.config.state_dim is not None:
            targets["robot_state"] = _now(batch[STATE], num_axes=2)
        texts = [task or self.config.instruction or "" for task in batch["task"]]
        return self.processor(images, texts, dataset=self.config.dataset, **targets).to(self.model.device)

    @torch.no_grad()
    def _latent_actions(self, batch: dict[str, Any]) -> torch.Tensor:
        frames = batch[self.config.cameras[0]]
        if self.config.tokenizer_path is None or frames.ndim != 5:
            raise ValueError(
                "`tokenizer_path` and two frames a sample must be given to train, got "
                f"{self.config.tokenizer_path} and images of shape {tuple(frames.shape)}."
            )
        tokenizer, image_processor = self._tokenizer
        pairs = image_processor(*(list(as_frames(frames[:, moment])) for moment in (0, 1)))
        return tokenizer.encode(**pairs.to(tokenizer.device)).codes

    @cached_property
    def _tokenizer(self) -> tuple[LatentActionTokenizerModel, LatentActionTokenizerImageProcessor]:
        """In a tuple, and so no part of the policy: it is neither trained nor saved with it."""
        tokenizer, image_processor = load_tokenizer(self.config.tokenizer_path, self.model.device)
        sizes, wanted = (
            (config.num_latent_tokens, config.codebook_size) for config in (tokenizer.config, self.model.config)
        )
        if sizes != wanted:
            raise ValueError(
                f"`tokenizer_path` must make {wanted[0]} tokens out of {wanted[1]}, as the policy reads, got "
                f"{sizes[0]} out of {sizes[1]}."
            )
        return tokenizer.eval(), image_processor

    def _keep_statistics(self, dataset_stats: dict[str, dict[str, Any]], dataset_meta: Any) -> None:
        name = dataset_meta.repo_id.split("/")[-1]
        self.processor.add_action_statistics(name, percentiles(dataset_stats, ACTION) | {"fps": dataset_meta.fps})
        if self.model.config.state_dim is not None:
            self.processor.add_state_statistics(name, percentiles(dataset_stats, STATE))
        self.config.dataset = name

    def _describe_features(self) -> None:
        """The features of a policy that is made without data or simulator, which would say."""
        config, model = self.config, self.model.config
        if not config.input_features:
            # Images of other sizes are resized; LeRobot wants one named.
            config.input_features = {key: PolicyFeature(FeatureType.VISUAL, (3, 224, 224)) for key in config.cameras}
            if model.state_dim is not None:
                config.input_features[STATE] = PolicyFeature(FeatureType.STATE, (model.state_dim,))
        if not config.output_features:
            config.output_features = {ACTION: PolicyFeature(FeatureType.ACTION, (model.action_dim,))}

    def _save_pretrained(self, save_directory: Path, state_dict: dict[str, torch.Tensor] | None = None) -> None:
        self.config._save_pretrained(save_directory)
        # What a sharded run gathered, under the names that the policy has it by.
        gathered = None if state_dict is None else {key.removeprefix("model."): state_dict[key] for key in state_dict}
        self.model.save_pretrained(save_directory / CHECKPOINT_FOLDER, state_dict=gathered)
        self.processor.save_pretrained(save_directory / CHECKPOINT_FOLDER)


def as_frames(images: torch.Tensor) -> np.ndarray:
    """Float images `(B, 3, height, width)` in [0, 1] → uint8 `(B, height, width, 3)`: those they were made of."""
    return images.mul(255).round().clamp(0, 255).to(torch.uint8).permute(0, 2, 3, 1).cpu().numpy()


def _now(values: torch.Tensor, num_axes: int) -> torch.Tensor:
    """Without the second moment of a training batch."""
    return values[:, 0] if values.ndim > num_axes else values


__all__ = ["CycleMimicPolicy"]

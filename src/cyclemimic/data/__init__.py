# SPDX-License-Identifier: Apache-2.0
"""Readers, one view of an episode, frame pairs, latent action labels, demonstrations, collators."""

from .augmentation import PairAugmentation
from .collators import CycleMimicCollator, LatentActionTokenizerCollator
from .demonstrations import DemonstrationDataset
from .episode import DataError, Episode, EpisodeReader
from .episode_source import EpisodeSource
from .frame_store import FrameStore
from .labelled_mixture import LabelledMixture
from .labels.label_folder import LabelFolder, write_labels
from .labels.latent_labels import LatentLabels, open_labels
from .mixture import MixtureEntry, open_mixture, read_mixture
from .mixture_dataset import MixtureDataset, WeightedSource
from .pairs import FramePairDataset
from .readers.image_folders import ImageFolderSource
from .readers.in_memory import InMemorySource
from .readers.lerobot import LeRobotSource
from .readers.rlds import RldsSource
from .readers.sources import open_source
from .readers.video import decode_frames
from .readers.video_column import VideoColumnSource
from .readers.video_files import VideoFileSource
from .statistics import compute_action_statistics, compute_state_statistics
from .writers.lerobot_writer import LeRobotWriter
from .writers.video import encode_video

__all__ = [
    "CycleMimicCollator",
    "DataError",
    "DemonstrationDataset",
    "Episode",
    "EpisodeReader",
    "EpisodeSource",
    "FramePairDataset",
    "FrameStore",
    "ImageFolderSource",
    "InMemorySource",
    "LabelledMixture",
    "LabelFolder",
    "LatentActionTokenizerCollator",
    "LatentLabels",
    "LeRobotSource",
    "LeRobotWriter",
    "MixtureDataset",
    "MixtureEntry",
    "PairAugmentation",
    "RldsSource",
    "VideoColumnSource",
    "VideoFileSource",
    "WeightedSource",
    "compute_action_statistics",
    "compute_state_statistics",
    "decode_frames",
    "encode_video",
    "open_labels",
    "open_mixture",
    "open_source",
    "read_mixture",
    "write_labels",
]

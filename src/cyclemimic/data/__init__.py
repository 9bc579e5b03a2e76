# SPDX-License-Identifier: Apache-2.0
"""Readers, one view of an episode, frame pairs, latent action labels, demonstrations, collators."""

from .augmentation import PairAugmentation
from .collators import CycleMimicCollator, LatentActionTokenizerCollator
from .demonstrations import DemonstrationDataset
from .episode import DataError, Episode, EpisodeReader, EpisodeSource
from .frame_store import FrameStore
from .image_folders import ImageFolderSource
from .in_memory import InMemorySource
from .label_folder import LabelFolder
from .label_writer import write_labels
from .labelled_mixture import LabelledMixture
from .labels import LatentLabels
from .lerobot import LeRobotSource
from .lerobot_writer import LeRobotWriter
from .mixture import MixtureEntry, open_mixture, read_mixture
from .mixture_dataset import MixtureDataset, WeightedSource
from .pairs import FramePairDataset
from .rlds import RldsSource
from .sources import open_source
from .statistics import compute_action_statistics
from .video import decode_frames, encode_video
from .video_files import VideoFileSource

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
    "VideoFileSource",
    "WeightedSource",
    "compute_action_statistics",
    "decode_frames",
    "encode_video",
    "open_mixture",
    "open_source",
    "read_mixture",
    "write_labels",
]

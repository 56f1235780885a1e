"""A proxy's pooled features, by the vision tower."""

from collections.abc import Iterator
from functools import lru_cache
from itertools import islice

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from transformers import SiglipVisionConfig, SiglipVisionModel

from marathon_pipeline.errors import Failed
from marathon_pipeline.hour_llava.configuration import HourLlavaConfig
from marathon_pipeline.hour_llava.data.proxies import opened
from marathon_pipeline.hour_llava.features import FeatureSettings
from marathon_pipeline.hour_llava.vision import VisionTower, without_last_norm


def extracted(proxy: bytes, name: str, settings: FeatureSettings) -> Tensor:
    """(frames, tokens, dim) bf16, on the CPU; of the frames themselves only a chunk is in memory.

    On a GPU where there is one. Raises Failed `unreadable` for a damaged proxy, `tower` where there is no such tower.
    """
    tower, side = _tower(settings)
    with opened(proxy, name, side) as ((count, *_), pictures):
        features = None
        for start, chunk in _chunks(pictures, tower.frames_per_chunk):
            with torch.no_grad():
                made = tower(chunk)
            if features is None:
                features = torch.empty((count, *made.shape[1:]), dtype=torch.bfloat16)
            features[start : start + len(made)] = made.to("cpu", torch.bfloat16)
    assert features is not None
    return features


def _chunks(pictures: Iterator[NDArray[np.uint8]], size: int) -> Iterator[tuple[int, Tensor]]:
    """Chunks of frames, (frames, 3, side, side) uint8, and the number of the first frame of each."""
    start = 0
    while chunk := list(islice(pictures, size)):
        yield start, torch.from_numpy(np.stack(chunk)).permute(0, 3, 1, 2)
        start += len(chunk)


@lru_cache(maxsize=1)
def _tower(settings: FeatureSettings) -> tuple[VisionTower, int]:
    """Loaded once in a process, and the side of the pictures it takes."""
    device = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        tower, side = load_tower(settings)
    except (OSError, ValueError) as error:
        line = str(error).strip().partition("\n")[0]
        raise Failed("tower", f"features.tower {settings.tower}: cannot be loaded ({line})", transient=True) from None
    return tower.to(device, torch.bfloat16 if device == "cuda" else torch.float32), side


def load_tower(settings: FeatureSettings) -> tuple[VisionTower, int]:
    """The vision tower with its weights, on the CPU, and the side of the pictures that it takes.

    Raises OSError or ValueError where there is no such checkpoint, or it is none of SigLIP's.
    """
    found, _ = SiglipVisionConfig.get_config_dict(settings.tower, revision=settings.revision)
    if found.get("model_type") not in ("siglip", "siglip_vision_model"):
        raise ValueError(f"a checkpoint of type {found.get('model_type')!r}, not of SigLIP")
    vision = SiglipVisionConfig.from_pretrained(settings.tower, revision=settings.revision)
    config = HourLlavaConfig(
        vision_config=vision, pooling=settings.pooling, pooled_side=settings.side, frames_per_chunk=settings.chunk
    )
    with torch.device("meta"):  # its random weights would only be thrown away
        tower = VisionTower(config)
    siglip = SiglipVisionModel.from_pretrained(
        settings.tower, revision=settings.revision, config=config.tower_config, dtype=torch.float32
    )
    tower.siglip = without_last_norm(siglip)
    assert isinstance(vision.image_size, int)
    return tower.eval(), vision.image_size

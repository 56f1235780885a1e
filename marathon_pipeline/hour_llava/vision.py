"""From frames to pooled features: SigLIP in chunks of frames, each pooled before the next one is computed."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers import SiglipVisionModel

from marathon_pipeline.hour_llava.configuration import HourLlavaConfig


class VisionTower(nn.Module):
    """SigLIP without its last encoder layer, its last norm and its head, then pooling.

    Beyond the pooled features it takes the memory of one chunk of frames, whatever the number of frames: also in
    training, where it is frozen or gradient checkpointing is on.
    """

    gradient_checkpointing = False  # transformers sets both
    _gradient_checkpointing_func: Callable[..., Any]

    def __init__(self, config: HourLlavaConfig) -> None:
        super().__init__()
        self.frames_per_chunk = config.frames_per_chunk
        self.pooling, self.pooled_side = config.pooling, config.pooled_side
        self.siglip = without_last_norm(SiglipVisionModel(config.tower_config))

    def forward(self, pixel_values: Tensor) -> Tensor:
        """pixel_values: (frames, 3, side, side), uint8, or floats from -1 to 1; they may lie on another device.

        Returns (frames, pooled_side ** 2, dim) of the tower's dtype, in raster order.
        """
        chunks = pixel_values.split(self.frames_per_chunk)
        if torch.is_grad_enabled() and any(parameter.requires_grad for parameter in self.parameters()):
            if self.gradient_checkpointing and self.training:
                return torch.cat([self._gradient_checkpointing_func(self._pooled, chunk) for chunk in chunks])
            return torch.cat([self._pooled(chunk) for chunk in chunks])
        weight = self.siglip.embeddings.patch_embedding.weight
        shape = (len(pixel_values), self.pooled_side**2, weight.shape[0])
        features = torch.empty(shape, dtype=weight.dtype, device=weight.device)
        with torch.no_grad():
            for place, chunk in zip(features.split(self.frames_per_chunk), chunks, strict=True):
                place.copy_(self._pooled(chunk))
        return features

    def _pooled(self, pixel_values: Tensor) -> Tensor:
        weight = self.siglip.embeddings.patch_embedding.weight
        pixels = pixel_values.to(weight.device, non_blocking=True)
        scaled = pixels.to(weight.dtype) / 127.5 - 1 if pixels.dtype == torch.uint8 else pixels.to(weight.dtype)
        return pool(self.siglip(pixel_values=scaled).last_hidden_state, self.pooled_side, self.pooling)


def pool(features: Tensor, side: int, how: str) -> Tensor:
    """Square maps of features, (frames, tokens, dim), to side x side: (frames, side ** 2, dim)."""
    frames, tokens, dim = features.shape
    across = round(tokens**0.5)
    maps = features.transpose(1, 2).reshape(frames, dim, across, across)
    if how == "average":
        pooled = functional.adaptive_avg_pool2d(maps, side)
    else:
        pooled = functional.interpolate(maps, size=(side, side), mode="bilinear")
    return pooled.flatten(2).transpose(1, 2)


def without_last_norm(siglip: SiglipVisionModel) -> SiglipVisionModel:
    """It belongs to the layers that are dropped."""
    siglip.post_layernorm = nn.Identity()  # type: ignore[assignment]
    return siglip

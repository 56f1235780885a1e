"""The settings of Hour-LLaVA. Defaults are those of the paper (sections 4, 5.4 and A.3)."""

import copy
import math
from typing import Any, ClassVar, Literal

from huggingface_hub.dataclasses import strict
from transformers import AutoConfig, PreTrainedConfig, Qwen2Config, SiglipVisionConfig

IGNORED = -100  # the label of a token that is no answer

SPATIAL = Literal["random", "uniform", "none"]
TEMPORAL = Literal["uniform", "random", "keyframe", "question", "none"]


@strict
class HourLlavaConfig(PreTrainedConfig):
    """A SigLIP tower, a Qwen2 language model, and what lies between.

    The baselines of the paper are settings: `memaug_depth=0` turns MemAug off; `spatial_forgetting="none"` and
    `temporal_forgetting="none"` let every token through; `temporal_keep=1.0` with `max_frames=N` samples N frames
    evenly; `memory="decayed"` lets MemAug see only what is left, and a share below 1 fewer frames, evenly sampled.
    """

    model_type = "hour_llava"
    sub_configs_defaults: ClassVar[Any] = {"vision_config": SiglipVisionConfig, "text_config": Qwen2Config}

    vision_config: Any = None  # SiglipVisionConfig or its fields: as published, with all its layers
    text_config: Any = None  # Qwen2Config or its fields
    vision_layers_dropped: int = 1  # the last ones: the features before them describe places better
    frames_per_chunk: int = 32  # that pass the tower at once; more take memory that an hour's video does not have
    pooling: Literal["average", "bilinear"] = "average"  # the paper says average, its code does the other
    pooled_side: int = 8

    spatial_forgetting: SPATIAL = "random"
    spatial_keep: float = 0.25
    temporal_forgetting: TEMPORAL = "uniform"
    temporal_keep: float = 0.25
    min_frames: int = 32  # that stay; a short video would lose its context
    max_frames: int = 512  # that stay; a day's video would not fit the language model
    forgetting_seed: int = 0  # of samples without one of their own, such as at inference: the same answer every time

    memory: float | int | Literal["decayed"] = 1.0  # the share of frames that MemAug can recall
    memaug_depth: int = 4  # blocks
    memaug_mlp_ratio: int = 4
    memaug_rotary_share: float = 0.5  # of each head; 0: MemAug knows no order
    memaug_norm_eps: float = 1e-5

    media_token_id: int = 151656  # of the token in whose place the video's tokens come: `<|video_pad|>` of Qwen2.5
    tie_word_embeddings: bool = False

    def __post_init__(self, **kwargs: Any) -> None:
        super().__post_init__(**kwargs)
        self.tie_word_embeddings = self.text_config.tie_word_embeddings
        kept_side = self.pooled_side * math.sqrt(self.spatial_keep)
        if self.spatial_forgetting == "uniform" and not kept_side.is_integer():
            raise ValueError(
                f"spatial_keep: {self.spatial_keep} of {self.pooled_side} x {self.pooled_side} tokens is no square "
                "grid; take a share such as 0.25, or spatial_forgetting: random"
            )
        for name in ("spatial_keep", "temporal_keep"):
            if not 0 < getattr(self, name) <= 1:
                raise ValueError(f"{name}: {getattr(self, name)} is no share; give a number above 0 and up to 1")
        if self.memory != "decayed" and not 0 < self.memory <= 1:
            raise ValueError(f"memory: {self.memory} is no share; give a number above 0 and up to 1, or `decayed`")

    @property
    def tower_config(self) -> SiglipVisionConfig:
        """Of the layers that are used."""
        config: SiglipVisionConfig = copy.deepcopy(self.vision_config)
        config.num_hidden_layers -= self.vision_layers_dropped
        config.vision_use_head = False
        return config

    @property
    def patch_side(self) -> int:
        """Of a patch of the tower, in pixels."""
        return int(self.vision_config.patch_size)

    @property
    def patches(self) -> int:
        """Of a frame, before pooling: 729."""
        return (int(self.vision_config.image_size) // self.patch_side) ** 2

    @property
    def tokens_per_frame(self) -> int:
        """With the newline: 65."""
        return self.pooled_side**2 + 1

    @property
    def recalls(self) -> bool:
        return self.memaug_depth > 0


AutoConfig.register(HourLlavaConfig.model_type, HourLlavaConfig, exist_ok=True)

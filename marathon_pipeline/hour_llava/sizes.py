"""The two sizes of the paper: SigLIP so400m with Qwen2.5-3B-Instruct or Qwen2-7B-Instruct, as these were published."""

from typing import Any

from transformers import Qwen2Config, SiglipVisionConfig

from marathon_pipeline.hour_llava.configuration import HourLlavaConfig

TEXT: dict[str, dict[str, Any]] = {
    "3B": {
        "hidden_size": 2048,
        "intermediate_size": 11008,
        "num_hidden_layers": 36,
        "num_attention_heads": 16,
        "num_key_value_heads": 2,
        "vocab_size": 151_936,
        "tie_word_embeddings": True,
    },
    "7B": {
        "hidden_size": 3584,
        "intermediate_size": 18_944,
        "num_hidden_layers": 28,
        "num_attention_heads": 28,
        "num_key_value_heads": 4,
        "vocab_size": 152_064,
        "tie_word_embeddings": False,
    },
}


def size(name: str, **settings: Any) -> HourLlavaConfig:
    """`3B` or `7B`; settings: of HourLlavaConfig."""
    vision = SiglipVisionConfig(
        hidden_size=1152,
        intermediate_size=4304,
        num_hidden_layers=27,
        num_attention_heads=16,
        image_size=384,
        patch_size=14,
    )
    text = Qwen2Config(
        **TEXT[name], rope_parameters={"rope_type": "default", "rope_theta": 1_000_000.0}, eos_token_id=151_645
    )
    return HourLlavaConfig(vision_config=vision, text_config=text, **settings)

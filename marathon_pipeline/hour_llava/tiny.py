"""Small models and a tokenizer made on the spot: for demonstrations and tests that train from scratch on a CPU."""

from collections.abc import Iterable
from typing import Any

from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast, Qwen2Config, SiglipVisionConfig

from marathon_pipeline.hour_llava.configuration import HourLlavaConfig
from marathon_pipeline.hour_llava.processing import MEDIA_TOKEN, HourLlavaProcessor

SPECIAL = ("<|endoftext|>", "<|im_start|>", "<|im_end|>", MEDIA_TOKEN)


def tiny_tokenizer(texts: Iterable[str], size: int = 512) -> PreTrainedTokenizerFast:
    """A byte-level BPE, as Qwen's, learned from a few texts: every text can be written with it."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=size,
        special_tokens=list(SPECIAL),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token=SPECIAL[0],
        eos_token=SPECIAL[2],
        clean_up_tokenization_spaces=False,
    )


def tiny_processor(texts: Iterable[str], *, image_side: int = 32, size: int = 512) -> HourLlavaProcessor:
    return HourLlavaProcessor(tiny_tokenizer(texts, size), image_side=image_side, system="")


def tiny_config(
    processor: HourLlavaProcessor,
    *,
    dim: int = 64,
    layers: int = 2,
    heads: int = 4,
    key_value_heads: int = 2,
    vision_dim: int = 32,
    vision_layers: int = 3,
    patch: int = 4,
    **settings: Any,
) -> HourLlavaConfig:
    """Sizes for a processor's tokenizer and image side. settings: of HourLlavaConfig."""
    tokenizer = processor.tokenizer
    vision = SiglipVisionConfig(
        hidden_size=vision_dim,
        intermediate_size=2 * vision_dim,
        num_hidden_layers=vision_layers,
        num_attention_heads=2,
        image_size=processor.image_side,
        patch_size=patch,
    )
    text = Qwen2Config(
        vocab_size=len(tokenizer),
        hidden_size=dim,
        intermediate_size=3 * dim,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        num_key_value_heads=key_value_heads,
        tie_word_embeddings=True,
        pad_token_id=tokenizer.pad_token_id,
        eos_token_id=tokenizer.eos_token_id,
    )
    return HourLlavaConfig(
        vision_config=vision, text_config=text, media_token_id=processor.media_token_id, **{"pooled_side": 4} | settings
    )

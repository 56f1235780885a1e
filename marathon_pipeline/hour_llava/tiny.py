"""Small models and a tokenizer made on the spot: for demonstrations and tests that train from scratch on a CPU."""

from collections.abc import Iterable

from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

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

"""The model and its processor that training begins with."""

from pathlib import Path

import torch
from transformers import AutoTokenizer, PreTrainedTokenizerBase

from marathon_pipeline.errors import UserError
from marathon_pipeline.hour_llava.configuration import HourLlavaConfig
from marathon_pipeline.hour_llava.modeling import HourLlavaForConditionalGeneration
from marathon_pipeline.hour_llava.processing import HourLlavaProcessor
from marathon_pipeline.hour_llava.tiny import tiny_tokenizer
from marathon_pipeline.hour_llava.training.settings import ModelSettings

Model = HourLlavaForConditionalGeneration


def build(settings: ModelSettings, seed: int) -> tuple[Model, HourLlavaProcessor]:
    """In fp32, on the CPU: what is trained would lose small steps in bf16. Raises UserError where there is none."""
    if settings.path:
        return load(settings.path)
    torch.manual_seed(seed)
    try:
        if isinstance(settings.vision, dict) and isinstance(settings.llm, dict):
            return _from_scratch(settings, settings.vision, settings.llm)
        assert isinstance(settings.vision, str) and isinstance(settings.llm, str)
        tokenizer = AutoTokenizer.from_pretrained(settings.tokenizer or settings.llm)
        model = Model.from_pretrained_parts(
            settings.vision, settings.llm, dtype=torch.float32, media_token_id=0, **settings.config()
        )
    except (OSError, ValueError) as error:
        raise UserError(f"model: {_first_line(error)}") from None
    processor = _processor(tokenizer, _image_side(model.config), settings.system)
    model.config.media_token_id = processor.media_token_id
    return model, processor


def load(path: str | Path, dtype: torch.dtype = torch.float32) -> tuple[Model, HourLlavaProcessor]:
    """A saved Hour-LLaVA with its processor, to be trained in fp32. Raises UserError where there is none."""
    try:
        model = Model.from_pretrained(path, dtype=dtype)
        return model, HourLlavaProcessor.from_pretrained(path)
    except (OSError, ValueError) as error:
        raise UserError(f"model.path {path}: {_first_line(error)}") from None


def _from_scratch(
    settings: ModelSettings, vision: dict[str, object], llm: dict[str, object]
) -> tuple[Model, HourLlavaProcessor]:
    tokenizer = AutoTokenizer.from_pretrained(settings.tokenizer) if settings.tokenizer else tiny_tokenizer([])
    processor = _processor(tokenizer, int(str(vision.get("image_size", 384))), settings.system)
    llm = {"vocab_size": len(tokenizer), **llm}
    if int(str(llm["vocab_size"])) < len(tokenizer):
        raise ValueError(f"llm.vocab_size: the tokenizer has {len(tokenizer)} tokens; give as many, or leave it out")
    config = HourLlavaConfig(
        vision_config=vision,
        text_config=llm,
        media_token_id=processor.media_token_id,
        **settings.config(),
    )
    return Model(config), processor


def _processor(tokenizer: PreTrainedTokenizerBase, image_side: int, system: str) -> HourLlavaProcessor:
    return HourLlavaProcessor(tokenizer, image_side=image_side, system=system)


def _image_side(config: HourLlavaConfig) -> int:
    side = config.tower_config.image_size
    return side if isinstance(side, int) else side[0]


def _first_line(error: Exception) -> str:
    return next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)[:300]

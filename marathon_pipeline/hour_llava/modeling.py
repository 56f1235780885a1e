"""Hour-LLaVA (arXiv 2506.05332, section 4): a memory of the whole video, forgetting, MemAug, language model."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Self, cast

import torch
from torch import Tensor, nn
from transformers import (
    GenerationMixin,
    PreTrainedModel,
    Qwen2Config,
    Qwen2ForCausalLM,
    Qwen2Model,
    SiglipVisionConfig,
    SiglipVisionModel,
)
from transformers import initialization as init
from transformers.modeling_outputs import CausalLMOutputWithPast

from marathon_pipeline.hour_llava.configuration import IGNORED, HourLlavaConfig
from marathon_pipeline.hour_llava.memaug import MemAug
from marathon_pipeline.hour_llava.selection import Selection, chooses_by_content, select
from marathon_pipeline.hour_llava.splicing import Splice, splice
from marathon_pipeline.hour_llava.vision import VisionTower, without_last_norm


@dataclass(frozen=True)
class Videos:
    """Of a batch, one a row: pooled features or pixels, and how each forgets."""

    features: Tensor | None
    pixel_values: Tensor | None
    counts: list[int]  # of frames
    seeds: list[int]


class HourLlavaForConditionalGeneration(PreTrainedModel, GenerationMixin):
    """Answers questions about videos of up to an hour and more.

    Parts, each of which a training stage may freeze: `vision_tower`, `projector` and `newline`, `memaug`,
    `language_model` and `lm_head`.
    """

    config: HourLlavaConfig
    config_class = HourLlavaConfig
    base_model_prefix = "hour_llava"
    main_input_name = "input_ids"
    input_modalities = ["video", "text"]  # noqa: RUF012
    supports_gradient_checkpointing = True
    _no_split_modules = ["SiglipEncoderLayer", "SiglipVisionEmbeddings", "MemAugBlock", "Qwen2DecoderLayer"]  # noqa: RUF012
    _tied_weights_keys = {"lm_head.weight": "language_model.embed_tokens.weight"}  # noqa: RUF012
    _supports_sdpa = True
    _supports_flash_attn = True
    _supports_flex_attn = True
    _supports_attention_backend = True

    def __init__(self, config: HourLlavaConfig) -> None:
        super().__init__(config)
        text = config.text_config
        self.vision_tower = VisionTower(config)
        self.projector = nn.Sequential(
            nn.Linear(config.vision_config.hidden_size, text.hidden_size),
            nn.GELU(),
            nn.Linear(text.hidden_size, text.hidden_size),
        )
        self.newline = nn.Parameter(torch.empty(text.hidden_size))
        self.memaug = MemAug(
            config.memaug_depth,
            text.hidden_size,
            text.num_attention_heads,
            text.num_key_value_heads,
            mlp_ratio=config.memaug_mlp_ratio,
            eps=config.memaug_norm_eps,
            rotary_base=text.rope_parameters["rope_theta"],
            rotary_share=config.memaug_rotary_share,
        )
        self.language_model = Qwen2Model(text)
        self.lm_head = nn.Linear(text.hidden_size, text.vocab_size, bias=False)
        self.post_init()

    @classmethod
    def from_pretrained_parts(
        cls, vision: str | Path, text: str | Path, *, dtype: torch.dtype | str = "auto", **settings: Any
    ) -> Self:
        """Join a SigLIP and a Qwen2 or Qwen2.5 checkpoint, by name or path; what lies between begins at random.

        settings: of HourLlavaConfig; `media_token_id` is that of the processor. Raises ValueError for other models.
        """
        config = HourLlavaConfig(
            vision_config=_config_of(SiglipVisionConfig, vision, ("siglip", "siglip_vision_model")),
            text_config=_config_of(Qwen2Config, text, ("qwen2",)),
            **settings,
        )
        language = Qwen2ForCausalLM.from_pretrained(text, dtype=dtype)
        tower = SiglipVisionModel.from_pretrained(vision, config=config.tower_config, dtype=language.dtype)
        with torch.device("meta"):
            model = cls(config)
        for new in (model.projector, model.memaug):
            new.to_empty(device="cpu").to(language.dtype).apply(model._init_weights)
        model.newline = nn.Parameter(torch.empty(config.text_config.hidden_size, dtype=language.dtype))
        model._init_weights(model)
        model.vision_tower.siglip = without_last_norm(tower)
        model.language_model, model.lm_head = language.model, language.lm_head
        model.generation_config = language.generation_config
        model.config.dtype = language.dtype
        return model.eval()  # as every from_pretrained

    def _init_weights(self, module: nn.Module) -> None:
        super()._init_weights(module)
        if module is self:
            init.normal_(self.newline, std=self.config.text_config.hidden_size**-0.5)

    def get_input_embeddings(self) -> nn.Embedding:
        return self.language_model.embed_tokens

    def set_input_embeddings(self, value: nn.Module) -> None:
        self.language_model.embed_tokens = value  # type: ignore[assignment]

    def get_output_embeddings(self) -> nn.Module:
        return self.lm_head

    def compile_blocks(self, **options: Any) -> None:
        """Compile each block of the tower, of MemAug and of the language model by itself, for any length, in place.

        Much faster than `torch.compile(model)`: blocks are alike, so that three are compiled, and what chooses tokens
        is left out of it. options: of torch.compile.
        """
        parts = self.vision_tower.siglip.encoder.layers, self.memaug.blocks, self.language_model.layers
        for block in (block for part in parts for block in part):
            block.compile(**{"dynamic": True} | options)

    def encode_frames(self, pixel_values: Tensor) -> Tensor:
        """What `features` hold: (frames, 3, side, side) to (frames, 64, vision_dim), in the memory of one chunk."""
        return self.vision_tower(pixel_values)

    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        labels: Tensor | None = None,
        question_mask: Tensor | None = None,
        features: Tensor | None = None,
        pixel_values: Tensor | None = None,
        frame_counts: Tensor | None = None,
        forgetting_seeds: Tensor | None = None,
        inputs_embeds: Tensor | None = None,
        position_ids: Tensor | None = None,
        logits_to_keep: int | Tensor = 0,
        **kwargs: Any,
    ) -> CausalLMOutputWithPast:
        """With videos: one a row, in the place of the row's one media token (configuration.media_token_id).

        input_ids, attention_mask, labels, question_mask: (batch, length), padded on either side. features: (sum of
        frame_counts, 64, vision_dim), or pixel_values: (sum of frame_counts, 3, side, side), one video after another.
        forgetting_seeds: (batch,), none: `config.forgetting_seed` for all. question_mask marks what MemAug reads; none:
        every token that has no label, is no padding and not the media token.

        Logits are (batch, length, vocabulary), aligned to input_ids: those in the media token's place follow the
        video's last token, those of padding mean nothing. The language model itself, its cache and its hidden states
        know the video's tokens one by one. Raises ValueError where a row has not exactly one media token.

        Without videos it is the language model.
        """
        if labels is not None:
            kwargs.setdefault("use_cache", False)  # nobody reads it, and it is as large as the video
        if features is None and pixel_values is None:
            outputs = self.language_model(
                input_ids=input_ids,
                inputs_embeds=inputs_embeds,
                attention_mask=attention_mask,
                position_ids=position_ids,
                **kwargs,
            )
            hidden = outputs.last_hidden_state
        else:
            if question_mask is None and labels is not None:
                question_mask = labels == IGNORED
            videos = _videos(features, pixel_values, frame_counts, forgetting_seeds, self.config)
            embeds, spliced = self._spliced("right", input_ids, attention_mask, question_mask, videos)
            mask = None if bool(spliced.mask.all()) else spliced.mask.to(embeds.device)
            outputs = self.language_model(inputs_embeds=embeds, attention_mask=mask, **kwargs)
            rows = torch.arange(len(embeds), device=embeds.device)[:, None]
            hidden = outputs.last_hidden_state[rows, spliced.slots.to(embeds.device)]
        if labels is None:
            hidden = hidden[:, slice(-logits_to_keep, None) if isinstance(logits_to_keep, int) else logits_to_keep]
        logits = self.lm_head(hidden)
        loss = None
        if labels is not None:
            loss = self.loss_function(
                logits=logits, labels=labels, vocab_size=self.config.text_config.vocab_size, **kwargs
            )
        rest = {name: value for name, value in outputs.items() if name != "last_hidden_state"}
        return CausalLMOutputWithPast(loss=loss, logits=logits, **rest)

    @torch.no_grad()
    def generate(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        question_mask: Tensor | None = None,
        features: Tensor | None = None,
        pixel_values: Tensor | None = None,
        frame_counts: Tensor | None = None,
        forgetting_seeds: Tensor | None = None,
        **kwargs: Any,
    ) -> Any:
        """Answer a batch of prompts: the new tokens alone, (batch, new). Takes what forward takes."""
        kwargs.pop("labels", None)
        if features is None and pixel_values is None:
            return super().generate(input_ids, attention_mask=attention_mask, **kwargs)
        videos = _videos(features, pixel_values, frame_counts, forgetting_seeds, self.config)
        embeds, spliced = self._spliced("left", input_ids, attention_mask, question_mask, videos)
        return super().generate(inputs_embeds=embeds, attention_mask=spliced.mask.to(embeds.device).long(), **kwargs)

    def _spliced(
        self,
        padding: Literal["left", "right"],
        input_ids: Tensor | None,
        attention_mask: Tensor | None,
        question_mask: Tensor | None,
        videos: Videos,
    ) -> tuple[Tensor, Splice]:
        """The language model's input: (batch, longest, dim)."""
        if input_ids is None or len(input_ids) != len(videos.counts):
            raise ValueError(f"{len(videos.counts)} videos need as many rows of input_ids, one media token in each")
        present = torch.ones_like(input_ids) if attention_mask is None else attention_mask
        media = input_ids == self.config.media_token_id
        asked = present.bool() & ~media if question_mask is None else question_mask.bool() & present.bool() & ~media
        text = self.get_input_embeddings()(input_ids.masked_fill(media, 0))
        questions = text[asked].split(asked.sum(1).tolist())
        video, lengths = self._video(videos, questions)
        spliced = splice(media, present, lengths, padding)
        source = torch.cat((text.flatten(0, 1), video.to(text.dtype)))
        return source[spliced.index.to(source.device)], spliced

    def _video(self, videos: Videos, questions: Sequence[Tensor]) -> tuple[Tensor, list[int]]:
        """The tokens of every video that the language model reads, packed, and how many each has."""
        config, frames = self.config, videos.features
        vectors = means = None
        if chooses_by_content(config):
            frames = self.encode_frames(cast(Tensor, videos.pixel_values)) if frames is None else frames
            with torch.no_grad():
                seen = frames if config.temporal_forgetting == "keyframe" else self._project(frames)
                vectors = seen.mean(1, dtype=torch.float32)
                means = [question.mean(0, dtype=torch.float32) for question in questions]
        selection = select(config, videos.counts, videos.seeds, vectors, means)
        if frames is None:
            used = self.encode_frames(_taken(videos.pixel_values, selection.frames))
        else:
            used = _taken(frames, selection.frames)
        tokens = self._project(used)
        newline = self.newline.to(tokens.dtype).expand(len(tokens), 1, -1)
        tokens = torch.cat((tokens, newline), dim=1).flatten(0, 1)
        return self._recall(tokens, selection, questions), selection.decayed.lengths

    def _project(self, features: Tensor) -> Tensor:
        return self.projector(features.to(self.newline.device, self.newline.dtype))

    def _recall(self, tokens: Tensor, selection: Selection, questions: Sequence[Tensor]) -> Tensor:
        """MemAug on [decayed tokens; question]; the question stands behind the full video."""
        decayed = _taken(tokens, selection.decayed.index)
        if not self.config.recalls:
            return decayed
        memory = _taken(tokens, selection.memory.index)
        query, query_positions, query_lengths = _query(decayed, selection, questions)
        recalled = self.memaug(
            query,
            memory,
            query_positions,
            selection.memory.positions.to(tokens.device),
            query_lengths,
            selection.memory.lengths,
        )
        parts = recalled.split(
            [n for sample in zip(selection.decayed.lengths, map(len, questions), strict=True) for n in sample]
        )
        return torch.cat(parts[::2])


def _query(decayed: Tensor, selection: Selection, questions: Sequence[Tensor]) -> tuple[Tensor, Tensor, list[int]]:
    """Each sample's decayed tokens and then its question, packed, with positions and the samples' lengths.

    A question's tokens stand in their order behind the full video: no video token, decayed or remembered, is shifted.
    """
    tokens = decayed.split(selection.decayed.lengths)
    positions = selection.decayed.positions.split(selection.decayed.lengths)
    behind = [torch.arange(end, end + len(one)) for end, one in zip(selection.ends, questions, strict=True)]
    return (
        torch.cat([x for pair in zip(tokens, questions, strict=True) for x in pair]),
        torch.cat([x for pair in zip(positions, behind, strict=True) for x in pair]).to(decayed.device),
        [len(video) + len(question) for video, question in zip(tokens, questions, strict=True)],
    )


def _taken(rows: Any, index: Tensor) -> Any:
    """Rows by ascending indices without repetition; all of them are not copied."""
    return rows if len(index) == len(rows) else rows[index.to(rows.device)]


def _videos(
    features: Tensor | None,
    pixel_values: Tensor | None,
    frame_counts: Tensor | None,
    seeds: Tensor | None,
    config: HourLlavaConfig,
) -> Videos:
    frames = pixel_values if features is None else features
    if frames is None or frame_counts is None or (features is not None and pixel_values is not None):
        raise ValueError("videos come as features or as pixel_values, either with frame_counts")
    counts = frame_counts.tolist()
    if not counts or min(counts) < 1 or sum(counts) != len(frames):
        raise ValueError(f"frame_counts {counts} do not add up to the {len(frames)} frames, or one of them is 0")
    own = [config.forgetting_seed] * len(counts) if seeds is None else seeds.tolist()
    return Videos(features, pixel_values, counts, own)


def _config_of(kind: type[Any], checkpoint: str | Path, expected: tuple[str, ...]) -> Any:
    found, _ = kind.get_config_dict(checkpoint)
    if found.get("model_type") not in expected:
        raise ValueError(f"{checkpoint}: a checkpoint of type {found.get('model_type')!r}; give one of {expected[0]!r}")
    return kind.from_pretrained(checkpoint)

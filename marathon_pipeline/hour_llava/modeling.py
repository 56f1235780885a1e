"""Hour-LLaVA (arXiv 2506.05332, section 4): a memory of the whole video, forgetting, and MemAug before the language model."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, Self

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

from marathon_pipeline.hour_llava.configuration import HourLlavaConfig
from marathon_pipeline.hour_llava.memaug import MemAug
from marathon_pipeline.hour_llava.selection import Selection, chooses_by_content, select
from marathon_pipeline.hour_llava.splicing import Splice, splice
from marathon_pipeline.hour_llava.vision import VisionTower, without_last_norm


class HourLlavaForConditionalGeneration(PreTrainedModel, GenerationMixin):  # type: ignore[misc]
    """Answers questions about videos of up to an hour and more.

    Parts, each of which a training stage may freeze: `vision_tower`, `projector` and `newline`, `memaug`,
    `language_model` and `lm_head`.
    """

    config: HourLlavaConfig
    config_class = HourLlavaConfig
    base_model_prefix = "hour_llava"
    main_input_name = "input_ids"
    input_modalities = ("video", "text")
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
        """Join a SigLIP and a Qwen2 or Qwen2.5 checkpoint, by name or path; projector, newline and MemAug begin at random.

        settings: of HourLlavaConfig; `media_token_id` is that of the processor (`HourLlavaProcessor.from_tokenizer`).
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

    def get_input_embeddings(self) -> nn.Module:
        return self.language_model.embed_tokens  # type: ignore[no-any-return]

    def set_input_embeddings(self, value: nn.Module) -> None:
        self.language_model.embed_tokens = value

    def get_output_embeddings(self) -> nn.Module:
        return self.lm_head

    def encode_frames(self, pixel_values: Tensor) -> Tensor:
        """What `features` hold: (frames, 3, side, side) to (frames, 64, vision_dim), without memory beyond one chunk."""
        return self.vision_tower(pixel_values)  # type: ignore[no-any-return]

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

        Logits are (batch, length, vocabulary), aligned to input_ids: those in the media token's place follow the video's
        last token, those of padding mean nothing. The language model itself, its cache and its hidden states know the
        video's tokens one by one. Raises ValueError where a row has not exactly one media token.

        Without videos it is the language model.
        """
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
            embeds, spliced = self._spliced(
                "right",
                input_ids,
                attention_mask,
                labels,
                question_mask,
                features,
                pixel_values,
                frame_counts,
                forgetting_seeds,
            )
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
    def generate(  # type: ignore[override]
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
        """Answer a batch of prompts: the new tokens alone, (batch, new). Takes what forward takes, padded on either side."""
        kwargs.pop("labels", None)
        if features is None and pixel_values is None:
            return super().generate(input_ids, attention_mask=attention_mask, **kwargs)
        embeds, spliced = self._spliced(
            "left",
            input_ids,
            attention_mask,
            None,
            question_mask,
            features,
            pixel_values,
            frame_counts,
            forgetting_seeds,
        )
        return super().generate(inputs_embeds=embeds, attention_mask=spliced.mask.to(embeds.device).long(), **kwargs)

    def _spliced(
        self,
        padding: Literal["left", "right"],
        input_ids: Tensor | None,
        attention_mask: Tensor | None,
        labels: Tensor | None,
        question_mask: Tensor | None,
        features: Tensor | None,
        pixel_values: Tensor | None,
        frame_counts: Tensor | None,
        forgetting_seeds: Tensor | None,
    ) -> tuple[Tensor, Splice]:
        if input_ids is None or frame_counts is None:
            raise ValueError("a video needs input_ids with its media token, and frame_counts")
        attention_mask = torch.ones_like(input_ids) if attention_mask is None else attention_mask
        media = input_ids == self.config.media_token_id
        if question_mask is None:
            question_mask = attention_mask.bool() & ~media
            question_mask = question_mask if labels is None else question_mask & (labels == -100)
        counts = _frame_counts(frame_counts, len(input_ids), features if features is not None else pixel_values)
        seeds = [self.config.forgetting_seed] * len(counts) if forgetting_seeds is None else forgetting_seeds.tolist()
        text = self.get_input_embeddings()(input_ids.masked_fill(media, 0))
        questions = text[question_mask.bool()].split(question_mask.sum(1).tolist())
        video, lengths = self._video(features, pixel_values, counts, seeds, questions)
        spliced = splice(media, attention_mask, lengths, padding)
        source = torch.cat((text.flatten(0, 1), video.to(text.dtype)))
        return source[spliced.index.to(source.device)], spliced

    def _video(
        self,
        features: Tensor | None,
        pixel_values: Tensor | None,
        counts: Sequence[int],
        seeds: Sequence[int],
        questions: Sequence[Tensor],
    ) -> tuple[Tensor, list[int]]:
        """The tokens of every video that the language model reads, packed, and how many each has."""
        config = self.config
        if chooses_by_content(config):
            features = self.encode_frames(pixel_values) if features is None else features
            if config.temporal_forgetting == "keyframe":
                selection = select(config, counts, seeds, features.mean(1, dtype=torch.float32))
            else:
                with torch.no_grad():
                    vectors = self._project(features).mean(1, dtype=torch.float32)
                    means = [question.mean(0, dtype=torch.float32) for question in questions]
                selection = select(config, counts, seeds, vectors, means)
            used = _taken(features, selection.frames)
        elif features is not None:
            selection = select(config, counts, seeds)
            used = _taken(features, selection.frames)
        else:
            assert pixel_values is not None
            selection = select(config, counts, seeds)
            used = self.encode_frames(_taken(pixel_values, selection.frames))
        tokens = self._project(used)
        newline = self.newline.to(tokens.dtype).expand(len(tokens), 1, -1)
        tokens = torch.cat((tokens, newline), dim=1).flatten(0, 1)
        return self._recall(tokens, selection, questions), selection.decayed.lengths

    def _project(self, features: Tensor) -> Tensor:
        weight = self.projector[0].weight
        return self.projector(features.to(device=weight.device, dtype=weight.dtype))  # type: ignore[no-any-return]

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
        parts = recalled.split([n for sample in zip(selection.decayed.lengths, map(len, questions)) for n in sample])
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


def _taken(rows: Tensor, index: Tensor) -> Tensor:
    """Rows by ascending indices without repetition; all of them are not copied."""
    return rows if len(index) == len(rows) else rows[index.to(rows.device)]


def _frame_counts(frame_counts: Tensor, batch: int, frames: Tensor | None) -> list[int]:
    counts: list[int] = frame_counts.tolist()
    found = 0 if frames is None else len(frames)
    if len(counts) != batch or min(counts) < 1 or sum(counts) != found:
        raise ValueError(
            f"frame_counts {counts} do not fit {batch} rows and {found} frames: one video a row, none empty"
        )
    return counts


def _config_of(kind: type[Any], checkpoint: str | Path, expected: tuple[str, ...]) -> Any:
    found, _ = kind.get_config_dict(checkpoint)
    if found.get("model_type") not in expected:
        raise ValueError(f"{checkpoint}: a checkpoint of type {found.get('model_type')!r}; give one of {expected[0]!r}")
    return kind.from_pretrained(checkpoint)

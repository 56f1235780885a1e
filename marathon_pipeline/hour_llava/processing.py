"""From conversations about videos to a batch: chat text in Qwen's format, labels, what MemAug reads, and the frames."""

import hashlib
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional
from transformers import BatchFeature, PreTrainedTokenizerBase, ProcessorMixin

from marathon_pipeline.hour_llava.configuration import IGNORED
from marathon_pipeline.hour_llava.example import Example

MEDIA_TOKEN = "<|video_pad|>"  # noqa: S105 - Qwen2.5 has it; to others it is added, and needs no row of the embedding
START, END = "<|im_start|>", "<|im_end|>"
FRAMES_AT_ONCE = 256  # that are resized together


class HourLlavaProcessor(ProcessorMixin):
    """Tokenizes ChatML, `media_token` and a line break before the first question.

    image_side: of the vision tower's input, in pixels. system: the text of the system turn; empty: there is none.
    """

    def __init__(
        self,
        tokenizer: PreTrainedTokenizerBase,
        image_side: int = 384,
        system: str = "You are a helpful assistant.",
        chat_template: str | None = None,
    ) -> None:
        self.image_side, self.system = image_side, system
        super().__init__(tokenizer, chat_template=chat_template)
        tokenizer.add_special_tokens({"extra_special_tokens": [MEDIA_TOKEN]}, replace_extra_special_tokens=False)
        self.media_token_id = int(tokenizer.convert_tokens_to_ids(MEDIA_TOKEN))  # type: ignore[arg-type]

    def __call__(self, examples: Sequence[Example], *, prompt: bool = False, seed: int | None = None) -> BatchFeature:
        """A batch, padded on the right, for forward, or with `prompt` for generate: the last answers are left out.

        seed: of the run and epoch; a sample's own follows from it and the sample's key. None, as at inference: all
        samples share the fixed one. Raises ValueError naming a sample that has no turn, or not one video.
        """
        rows = [self._tokens(example, prompt) for example in examples]
        longest = max(len(ids) for ids, _ in rows)
        pad = self.tokenizer.pad_token_id or 0
        input_ids = torch.full((len(rows), longest), pad)
        labels = torch.full((len(rows), longest), IGNORED)
        attention_mask = torch.zeros(len(rows), longest, dtype=torch.int64)
        answered = torch.zeros(len(rows), longest, dtype=torch.bool)
        for row, (ids, answers) in enumerate(rows):
            input_ids[row, : len(ids)] = torch.tensor(ids)
            attention_mask[row, : len(ids)] = 1
            answered[row, : len(ids)] = torch.tensor(answers)
        labels[answered] = input_ids[answered]
        data = {
            "input_ids": input_ids,
            "attention_mask": attention_mask,
            "question_mask": attention_mask.bool() & ~answered & (input_ids != self.media_token_id),
            "forgetting_seeds": torch.tensor([seed_of(seed, example.key) for example in examples]),
            **self._videos(examples),
        }
        return BatchFeature(data if prompt else data | {"labels": labels})

    def _tokens(self, example: Example, prompt: bool) -> tuple[list[int], list[bool]]:
        """Of a conversation, and which of them are answers (with the token that ends each).

        Each part is tokenized by itself: so an answer's tokens are the same in training as where it is generated. Text
        of users cannot make special tokens, the media token among them.
        """
        if not example.turns:
            raise ValueError(f"sample {example.key}: no turn, and so no media token; leave it out")
        ids: list[int] = []
        answers: list[bool] = []

        def add(text: str, *, plain: bool = False, answer: bool = False) -> None:
            added = self.tokenizer(text, add_special_tokens=False, split_special_tokens=plain)["input_ids"]
            ids.extend(added)
            answers.extend([answer] * len(added))

        if self.system:
            add(f"{START}system\n{self.system}{END}\n")
        for number, (question, answer) in enumerate(example.turns):
            add(f"{START}user\n" + (f"{MEDIA_TOKEN}\n" if number == 0 else ""))
            add(question, plain=True)
            add(f"{END}\n{START}assistant\n")
            if prompt and number == len(example.turns) - 1:
                break
            add(answer, plain=True, answer=True)
            add(END, answer=True)
            if number < len(example.turns) - 1:
                add("\n")
        return ids, answers

    def _videos(self, examples: Sequence[Example]) -> dict[str, Tensor]:
        videos = []
        for example in examples:
            video = example.features if example.frames is None else example.frames
            if video is None or (example.features is not None and example.frames is not None) or not len(video):
                raise ValueError(
                    f"sample {example.key}: needs either frames or features of a video, at least one frame"
                )
            videos.append(video)
        if len({example.frames is None for example in examples}) > 1:
            kinds = [f"{example.key}: {'features' if example.frames is None else 'frames'}" for example in examples]
            raise ValueError(f"a batch holds either frames or features, not both ({'; '.join(kinds)})")
        counts = torch.tensor([len(video) for video in videos])
        if examples[0].frames is None:
            return {"features": torch.cat(videos), "frame_counts": counts}
        return {"pixel_values": torch.cat([self.resize(video) for video in videos]), "frame_counts": counts}

    def resize(self, frames: Tensor) -> Tensor:
        """uint8 (frames, height, width, 3) to uint8 (frames, 3, side, side), bicubic; the tower makes them floats."""
        side = (self.image_side, self.image_side)
        resized = torch.empty(len(frames), 3, *side, dtype=torch.uint8)
        for place, chunk in zip(resized.split(FRAMES_AT_ONCE), frames.split(FRAMES_AT_ONCE), strict=True):
            pixels = chunk.permute(0, 3, 1, 2)
            if pixels.shape[-2:] != side:
                pixels = functional.interpolate(pixels, size=side, mode="bicubic", antialias=True)
            place.copy_(pixels)
        return resized

    @property
    def model_input_names(self) -> list[str]:
        names = ["input_ids", "attention_mask", "question_mask", "forgetting_seeds", "frame_counts"]
        return [*names, "features", "pixel_values"]

    def decode(self, tokens: Any) -> str:
        """The text of one answer."""
        return str(self.tokenizer.decode(tokens, skip_special_tokens=True)).strip()


def seed_of(seed: int | None, key: str) -> int:
    """A sample's own seed: the same in each batch, on each rank, in each process. None: the fixed one."""
    if seed is None:
        return 0
    return int.from_bytes(hashlib.sha256(f"{seed}/{key}".encode()).digest()[:7], "big")

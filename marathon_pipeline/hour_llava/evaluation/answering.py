"""Which option a model takes, in three ways.

- `letters`: the question is put with its options, and the letter wins that the model finds likeliest as its answer;
- `texts`: it is put without them, and the option wins whose text is the likeliest answer, all of its tokens counted:
  this needs no skill with letters, as small models have none;
- `generation`: it is put with them, and what the model says is read: a letter first, or an option's text.

Without the video, the prompt is the same but for the media token, and the language model alone answers.
"""

import re
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from marathon_pipeline.hour_llava.data.conversation import asked
from marathon_pipeline.hour_llava.evaluation.questions import Question, shown
from marathon_pipeline.hour_llava.evaluation.settings import How
from marathon_pipeline.hour_llava.example import Example
from marathon_pipeline.hour_llava.modeling import HourLlavaForConditionalGeneration
from marathon_pipeline.hour_llava.processing import END, HourLlavaProcessor
from marathon_pipeline.records import LETTERS

_LETTER = re.compile(  # what follows `A` has to say that it is no article
    r"^[\s(\[*\"']*(?:the )?(?:best |correct |right )?(?:answer|option)?(?: is)?[\s:(*]*"
    r"(?:([A-D])(?=$|[).:,;\]*\n\"'-])|([B-D])(?=\s))",
    re.I,
)


class Answerer:
    """Asks one model. Its forgetting is the fixed one, so it gives the same answer every time."""

    def __init__(
        self, model: HourLlavaForConditionalGeneration, processor: HourLlavaProcessor, max_new_tokens: int = 16
    ) -> None:
        self.model, self.processor = model.eval(), processor
        self._most = max_new_tokens

    @torch.no_grad()
    def features(self, video: Example) -> Tensor:
        """Of a video, on the model's device: computed once for all that is asked about it."""
        if video.features is not None:
            return video.features
        assert video.frames is not None
        return self.model.encode_frames(self.processor.resize(video.frames))

    @torch.no_grad()
    def answer(self, question: Question, how: How, video: Example, features: Tensor, *, blind: bool) -> str:
        """The letter that is chosen; empty where nothing that was said can be taken for one."""
        options = question.options
        text = question.question if how == "texts" else asked(question.question, options)
        prompt = self._prompt(shown(video, features, text), blind)
        if how == "generation":
            return letter_of(self._said(prompt), options)
        answers = list(options) if how == "texts" else list(LETTERS[: len(options)])
        scores = self._likelihoods(prompt, answers)
        return LETTERS[scores.index(max(scores))]

    @torch.no_grad()
    def loglikelihood(self, example: Example, answer: str) -> tuple[float, bool]:
        """Of an answer to the last question of an example, and whether it is the one that greedy decoding gives."""
        prompt = self._prompt(example, blind=False)
        said = self.model.generate(**prompt, **self._greedy(max_new_tokens=len(self._tokens(answer))))[0].tolist()
        return self._likelihoods(prompt, [answer])[0], said == self._tokens(answer)

    def generate(self, example: Example, max_new_tokens: int) -> str:
        """The answer to the last question of an example."""
        return self._said(self._prompt(example, blind=False), max_new_tokens)

    def _prompt(self, example: Example, blind: bool) -> dict[str, Tensor]:
        batch: dict[str, Any] = dict(self.processor([example], prompt=True))
        device = self.model.newline.device
        if blind:
            ids = batch["input_ids"]
            ids = ids[ids != self.processor.media_token_id][None]
            return {"input_ids": ids.to(device), "attention_mask": torch.ones_like(ids).to(device)}
        texts = ("input_ids", "attention_mask", "question_mask")
        return {name: value.to(device) if name in texts else value for name, value in batch.items()}

    def _tokens(self, answer: str) -> list[int]:
        """As in training: an answer's tokens and the one that ends it."""
        tokenizer = self.processor.tokenizer
        ids = tokenizer(answer, add_special_tokens=False, split_special_tokens=True)["input_ids"]
        return [*ids, int(tokenizer.convert_tokens_to_ids(END))]

    @torch.no_grad()
    def _likelihoods(self, prompt: dict[str, Tensor], answers: Sequence[str]) -> list[float]:
        """Log-likelihood of each answer with its end. The video is read once, whatever the number of answers."""
        tokens = [self._tokens(answer) for answer in answers]
        read = self.model(**prompt, use_cache=True, logits_to_keep=1)
        device = read.logits.device
        first = read.logits[0, -1].float().log_softmax(-1)
        cache = read.cache
        cache.batch_repeat_interleave(len(answers))
        padded = torch.nn.utils.rnn.pad_sequence([torch.tensor(own[:-1]) for own in tokens], batch_first=True)
        later = self.model(input_ids=padded.to(device), cache=cache, use_cache=True).logits
        later = later.float().log_softmax(-1)
        return [
            float(first[own[0]]) + sum(float(row[place, token]) for place, token in enumerate(own[1:]))
            for own, row in zip(tokens, later, strict=True)
        ]

    def _said(self, prompt: dict[str, Tensor], max_new_tokens: int | None = None) -> str:
        new = self.model.generate(**prompt, **self._greedy(max_new_tokens=max_new_tokens or self._most))[0]
        if "frame_counts" not in prompt:
            new = new[prompt["input_ids"].shape[1] :]  # without a video it is the language model's own, prompt and all
        return self.processor.decode(new)

    def _greedy(self, **more: int) -> dict[str, Any]:
        end = int(self.processor.tokenizer.convert_tokens_to_ids(END))
        pad = self.processor.tokenizer.pad_token_id
        return {"do_sample": False, "eos_token_id": end, "pad_token_id": end if pad is None else pad, **more}


def letter_of(said: str, options: Sequence[str]) -> str:
    """The option that a generated answer is, whose letter it begins with, or that it alone names; else empty."""
    whole = [option.strip().casefold().rstrip(".") for option in options]
    text = said.strip().casefold().rstrip(".")
    if text in whole:
        return LETTERS[whole.index(text)]
    if (found := _LETTER.match(said.strip())) and (letter := (found[1] or found[2]).upper()) in LETTERS[: len(options)]:
        return letter
    named = [re.search(rf"\b{re.escape(option)}\b", text) for option in whole]
    held = [letter for letter, name in zip(LETTERS, named, strict=False) if name]
    return held[0] if len(held) == 1 else ""

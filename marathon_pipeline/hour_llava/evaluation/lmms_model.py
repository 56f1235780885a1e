"""Hour-LLaVA as a model of lmms-eval (its "simple" interface): MLVU, LongVideoBench, Video-MME, LVBench and the others.

Only lmms-eval imports this module: it finds it by the entry point `lmms_eval.models` of this package.
"""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import av
import ffmpeg
import numpy as np
import torch
from lmms_eval.api.model import lmms
from torch import Tensor
from tqdm import tqdm

from marathon_pipeline.ffmpeg import ffmpeg_binary
from marathon_pipeline.hour_llava.evaluation.answering import Answerer
from marathon_pipeline.hour_llava.evaluation.questions import shown
from marathon_pipeline.hour_llava.example import Example
from marathon_pipeline.hour_llava.training.build import load

_AT_ONCE = 256  # frames that are decoded before they pass the tower


def manifest() -> Any:
    from lmms_eval.models.registry_v2 import ModelManifest

    return ModelManifest(model_id="hour_llava", simple_class_path=f"{__name__}.HourLlava")


class HourLlava(lmms):  # type: ignore[misc]
    """pretrained: a trained model, name or folder. min_frames: shorter videos are sampled faster than 1 FPS, as in the
    paper. A request that is no video, or several, is an error that names it.
    """

    is_simple = True

    def __init__(
        self,
        pretrained: str,
        device: str | None = None,
        dtype: str = "bfloat16",
        batch_size: int | str = 1,
        min_frames: int = 128,
        max_batch_size: int | None = None,
    ) -> None:
        super().__init__()
        if int(batch_size) != 1:
            raise ValueError(f"batch_size {batch_size}: hour_llava reads one video at a time; give 1")
        self._place(device)
        model, processor = load(pretrained)
        model.to(self._device, getattr(torch, dtype))
        self._answerer, self._side, self._least = Answerer(model, processor), processor.image_side, int(min_frames)
        self._last: tuple[str, Tensor] | None = None  # several questions in a row are about one video

    def _place(self, device: str | None) -> None:
        if int(os.environ.get("WORLD_SIZE", "1")) > 1:  # under `accelerate launch`
            from accelerate import Accelerator

            self.accelerator = Accelerator()  # by it the evaluator collects the processes' answers
            self._rank, self._world_size = self.accelerator.process_index, self.accelerator.num_processes
            self._device = self.accelerator.device
        else:
            self._device = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))

    def generate_until(self, requests: list[Any]) -> list[str]:
        said = []
        for request in self._told(requests):
            context, settings, doc_to_visual, doc_id, task, split = request.args
            example = self._example(context, doc_to_visual, doc_id, task, split)
            text = self._answerer.generate(example, int(settings.get("max_new_tokens", 128)))
            ends = settings.get("until") or []
            for end in [ends] if isinstance(ends, str) else ends:
                text = text.split(end)[0] if end.strip() else text
            said.append(text)
            self.cache_hook.add_partial("generate_until", (context, settings), text)
        return said

    def loglikelihood(self, requests: list[Any]) -> list[tuple[float, bool]]:
        found = []
        for request in self._told(requests):
            context, doc_to_target, doc_to_visual, doc_id, task, split = request.args
            doc = self.task_dict[task][split][doc_id]
            target = doc_to_target if isinstance(doc_to_target, str) else doc_to_target(doc)
            example = self._example(context, doc_to_visual, doc_id, task, split)
            found.append(self._answerer.loglikelihood(example, str(target).strip()))
        return found

    def generate_until_multi_round(self, requests: list[Any]) -> list[str]:
        raise NotImplementedError("hour_llava answers one question at a time; take a task of type generate_until")

    def _told(self, requests: list[Any]) -> Any:
        return tqdm(requests, disable=self.rank != 0, desc="hour_llava")

    def _example(self, context: str, doc_to_visual: Any, doc_id: Any, task: str, split: str) -> Example:
        visuals = doc_to_visual(self.task_dict[task][split][doc_id])
        if len(visuals) != 1 or not isinstance(visuals[0], str | Path):
            raise ValueError(f"{task} {doc_id}: hour_llava takes one video file, not {len(visuals)} of {visuals[:1]!r}")
        path = str(visuals[0])
        if self._last is None or self._last[0] != path:
            self._last = None  # its memory, before the next one's
            self._last = path, self._features(path)
        video = Example(path, path, (), (), None, self._last[1], 0.0)
        return shown(video, self._last[1], context.replace("<image>", "").strip())

    @torch.no_grad()
    def _features(self, path: str) -> Tensor:
        model = self._answerer.model
        made = [model.encode_frames(chunk) for chunk in sampled(path, self._side, self._least)]
        if not made:
            raise ValueError(f"{path}: holds no frame that decodes")
        return torch.cat(made)


def sampled(path: str, side: int, least: int) -> Iterator[Tensor]:
    """A video's frames at 1 FPS, or evenly so that there are `least` of them: chunks of (frames, 3, side, side) uint8.

    Raises ValueError where ffmpeg cannot read it.
    """
    with av.open(path, mode="r") as container:
        seconds = container.duration / 1e6 if container.duration else 0.0
    rate = max(1.0, least / seconds) if seconds else 1.0
    picture = ffmpeg.input(path, protocol_whitelist="file,pipe", threads=1).video.filter("fps", fps=f"{rate:.6f}")
    output = picture.filter("scale", side, side, flags="bicubic").output("pipe:", format="rawvideo", pix_fmt="rgb24")
    size = side * side * 3
    with output.global_args("-loglevel", "error", "-nostdin").run_async(
        cmd=ffmpeg_binary(), pipe_stdout=True
    ) as decoder:
        while data := decoder.stdout.read(size * _AT_ONCE):
            whole = np.frombuffer(data, np.uint8, count=len(data) // size * size)
            yield torch.from_numpy(whole.copy()).view(-1, side, side, 3).permute(0, 3, 1, 2)
        decoder.wait()
    if decoder.returncode:
        raise ValueError(f"{path}: ffmpeg cannot read it to its end")

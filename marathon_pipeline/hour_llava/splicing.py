"""The language model's input: the video's tokens in the place of the media token, as indices into what is packed."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor


@dataclass(frozen=True)
class Splice:
    """index points into the rows of [all embeddings of the text, row after row; all video tokens, packed]."""

    index: Tensor  # int64 (batch, longest)
    mask: Tensor  # bool (batch, longest): no padding
    slots: Tensor  # int64 (batch, length): where each input token went; the media token, to the video's last token


@torch.compiler.disable
def splice(
    media: Tensor, attention_mask: Tensor, video_lengths: Sequence[int], padding: Literal["left", "right"]
) -> Splice:
    """media: bool (batch, length). Whatever side the input is padded on, the result is padded on `padding`.

    Raises ValueError unless each row holds exactly one media token.
    """
    media, attention_mask = media.cpu(), attention_mask.cpu().bool()
    batch, length = media.shape
    check_media(media & attention_mask)
    rows, places = [], []
    first_video = batch * length
    for row, count in enumerate(video_lengths):
        real = attention_mask[row].nonzero().flatten()
        place = int(media[row, real].nonzero())
        video = torch.arange(first_video, first_video + count)
        rows.append(torch.cat((real[:place] + row * length, video, real[place + 1 :] + row * length)))
        places.append((real, place))
        first_video += count
    longest = max(map(len, rows))
    index = torch.zeros(batch, longest, dtype=torch.int64)
    mask = torch.zeros(batch, longest, dtype=torch.bool)
    slots = torch.zeros(batch, length, dtype=torch.int64)
    for row, (tokens, (real, place)) in enumerate(zip(rows, places, strict=True)):
        start = longest - len(tokens) if padding == "left" else 0
        index[row, start : start + len(tokens)] = tokens
        mask[row, start : start + len(tokens)] = True
        moved = torch.arange(len(real)) + start
        moved[place:] += video_lengths[row] - 1
        slots[row, real] = moved
    return Splice(index, mask, slots)


def check_media(media: Tensor) -> None:
    counts = media.sum(1).tolist()
    for row, count in enumerate(counts):
        if count != 1:
            raise ValueError(
                f"row {row} of the batch holds {count} media tokens; each has exactly one, where the video belongs"
            )

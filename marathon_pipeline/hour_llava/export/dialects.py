"""How existing trainers want a conversation about a video written down.

They differ in the token that stands for the video. LLaVA-NeXT and hourllava know `<image>` alone, for videos too: with
`<video>` they train without seeing anything, and say nothing. LLaMA-Factory wants a `<video>` for each of `videos`.
"""

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any, Literal

Format = Literal["llava-next", "hourllava", "llamafactory"]
PLACEHOLDER = re.compile(r"<(?:image|video|audio)>")  # in a text, they would be taken for one more picture


@dataclass(frozen=True)
class Conversation:
    """`video`: the file's path within the export, as the trainer is to find it."""

    id: str
    data_source: str
    video: PurePosixPath
    turns: Sequence[tuple[str, str]]


def written(format: Format, conversation: Conversation) -> dict[str, Any]:
    """As one entry of the trainer's JSON."""
    token = "<video>" if format == "llamafactory" else "<image>"
    said = []
    for number, (question, answer) in enumerate(conversation.turns):
        said.append({"from": "human", "value": f"{token}\n{question}" if number == 0 else question})
        said.append({"from": "gpt", "value": answer})
    if format == "llamafactory":
        return {"id": conversation.id, "conversations": said, "videos": [str(conversation.video)]}
    if format == "llava-next":
        place = {"video": str(conversation.video), "data_source": conversation.data_source}
        return {"id": conversation.id, **place, "conversations": said}
    # hourllava joins its root, `data_source` and `video`, then puts `features` for `videos` and `.pt` for `.mp4`.
    place = {"video": f"{conversation.video.stem}.mp4", "data_source": conversation.video.parent.name}
    return {"id": conversation.id, **place, "conversations": said}


def list_of(format: Format, split: str) -> str:
    """The path of the file that all entries are in."""
    return {
        "llava-next": f"{split}.json",
        "hourllava": f"VideoMarathon/jsons/videomarathon{'' if split == 'train' else f'-{split}'}.json",
        "llamafactory": f"{split}.json",
    }[format]


def place_of(format: Format, video_id: str, data_source: str) -> PurePosixPath:
    """Where a video, or its features, lie in the export."""
    if format != "hourllava":
        return PurePosixPath("videos", f"{video_id}.mp4")
    folder = re.sub(r"[^A-Za-z0-9_-]", "_", data_source) or "unknown"
    return PurePosixPath("VideoMarathon", "features", folder, f"{video_id}.pt")


def beside(format: Format, split: str, name: str) -> dict[str, str]:
    """Further files that the trainer reads, by path."""
    if format == "llamafactory":
        entry = {
            "file_name": list_of(format, split),
            "formatting": "sharegpt",
            "columns": {"messages": "conversations", "videos": "videos"},
        }
        return {"dataset_info.json": json.dumps({f"{name}_{split}".replace("-", "_"): entry}, indent=2) + "\n"}
    return {}

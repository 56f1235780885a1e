"""MovieChat-1K (Song et al., CVPR 2024): its folder of JSON files, `jsons/` (training) or `annotations/`, `gt/` (test).

A file a video: `{"info": {"video_path", "url", "num_frame", "fps", "h", "w", "class"}, "caption", "global":
[{"question", "answer"}], "breakpoint": [{"time": frame, "question", "answer"}]}`; `url` is mostly empty, and the videos
are files of the dataset. Captions and questions are not taken over. https://huggingface.co/datasets/Enxin/MovieChat-1K_train
"""

import re
from pathlib import Path

from marathon_pipeline.errors import UserError
from marathon_pipeline.sources.identity import SourceError
from marathon_pipeline.sources.importers.entry import Entries, Entry, loaded, number, text

_FORM = "one of MovieChat-1K's JSON files, or their folder"
_EVIDENCE = "https://huggingface.co/datasets/Enxin/MovieChat-1K_train states none for the films it is cut from"


def entries(path: Path) -> Entries:
    files = sorted(path.glob("*.json"), key=lambda file: (len(file.stem), file.stem)) if path.is_dir() else [path]
    if not files:
        raise UserError(f"{path} holds no .json file (give {_FORM})")
    for file in files:
        try:
            yield file.name, _entry(file)
        except SourceError as error:
            yield file.name, error
        except UserError as error:  # one of many
            if not path.is_dir():
                raise
            yield file.name, SourceError(str(error).removeprefix(f"{file} "), "correct it, or delete the file")


def _entry(file: Path) -> Entry:
    info = loaded(file, _FORM).get("info")
    if not isinstance(info, dict):
        raise SourceError("has no object named info", f"give {_FORM}")
    url, video = text(info, "url"), text(info, "video_path")
    if not url and not video:
        raise SourceError("url and video_path are both empty", "complete one, or delete the file")
    folders = {path.parent.name for path in (file.absolute(), file.resolve())}  # also where it is given as `.` or `..`
    frames, fps = number(info, "num_frame"), number(info, "fps")
    return Entry(
        url=url,
        file="" if url else video,
        id=re.sub(r"[^A-Za-z0-9_-]", "_", Path(video or file.name).stem),
        data_source="moviechat-1k",
        licence_evidence=_EVIDENCE,
        held_out=not folders.isdisjoint(("annotations", "gt")),
        metadata={"seconds": round(frames / fps, 3) if frames and fps else None, "class": text(info, "class")},
    )

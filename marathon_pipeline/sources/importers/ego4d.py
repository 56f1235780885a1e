"""Ego4D (Grauman et al., CVPR 2022): `ego4d.json`, the metadata of its videos.

`{"date", "version", "description", "videos": [{"video_uid", "duration_sec", "scenarios": [...], "s3_path",
"origin_video_id", "video_source", "device", "is_stereo", "split_em", "split_av", "split_fho",
"has_redacted_regions", "redacted_intervals": [{"start_sec", "end_sec"}], "video_components": [...], ...}], ...}`.
The videos are not on the web: the consortium's own command fetches them, one file `<video_uid>.mp4` each, for who has
signed its licence. https://ego4d-data.org/docs/data/metadata/ https://ego4ddataset.com/ego4d-license/
"""

from pathlib import Path

from marathon_pipeline.errors import UserError
from marathon_pipeline.sources.identity import SourceError
from marathon_pipeline.sources.importers.entry import Cells, Entries, Entry, loaded, number, text

_FORM = "Ego4D's ego4d.json"
_HELD_OUT = frozenset({"val", "test", "multi"})  # `multi`: its clips are of several splits


def entries(path: Path) -> Entries:
    videos = loaded(path, _FORM).get("videos")
    if not isinstance(videos, list):
        raise UserError(f"{path} has no list named videos (give {_FORM})")
    for index, cells in enumerate(videos):
        place = f"videos[{index}]"
        try:
            if not isinstance(cells, dict):
                raise SourceError("is no object", "correct it, or delete the entry")
            yield place, _entry(cells)
        except SourceError as error:
            yield place, error


def _entry(cells: Cells) -> Entry:
    uid = text(cells, "video_uid", needed=True)
    held_out = {text(cells, name) for name in ("split_em", "split_av", "split_fho")} & _HELD_OUT
    scenarios = cells.get("scenarios")
    return Entry(
        file=f"{uid}.mp4",
        id=uid,
        data_source="ego4d",
        licence="Ego4D License Agreement",
        licence_evidence="https://ego4ddataset.com/ego4d-license/",
        held_out=bool(held_out),
        metadata={
            "seconds": number(cells, "duration_sec"),
            "scenarios": [str(each) for each in scenarios] if isinstance(scenarios, list) else [],
            "video_source": text(cells, "video_source"),
            "stereo": cells.get("is_stereo") is True,
            "redacted": cells.get("has_redacted_regions") is True,
        },
    )

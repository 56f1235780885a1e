"""YouCook2 (Zhou et al., AAAI 2018): `youcookii_annotations_trainval.json` and `..._test_segments_only.json`.

`{"database": {<YouTube id>: {"video_url", "subset": "training" | "validation" | "testing", "duration": seconds,
"recipe_type", "annotations": [{"id", "segment": [start, end], "sentence"}]}}}`. Sentences are not taken over.
http://youcook2.eecs.umich.edu
"""

from pathlib import Path

from marathon_pipeline.sources.identity import SourceError
from marathon_pipeline.sources.importers.entry import Cells, Entries, Entry, annotated, by_id, loaded, number, text

_FORM = "YouCook2's JSON, such as youcookii_annotations_trainval.json"
_EVIDENCE = (
    "listed by YouCook2 (http://youcook2.eecs.umich.edu); the video's own licence is its uploader's: see its page"
)


def entries(path: Path) -> Entries:
    for place, name, cells in by_id(loaded(path, _FORM).get("database"), path, _FORM):
        try:
            if isinstance(cells, SourceError):
                raise cells
            yield place, _entry(name, cells)
        except SourceError as error:
            yield place, error


def _entry(name: str, cells: Cells) -> Entry:
    subset = text(cells, "subset")
    return Entry(
        url=text(cells, "video_url") or f"https://www.youtube.com/watch?v={name}",
        data_source="youcook2",
        licence_evidence=_EVIDENCE,
        held_out=subset in ("validation", "testing"),
        segments=annotated(cells.get("annotations")),
        metadata={
            "subset": subset,
            "seconds": number(cells, "duration"),
            "recipe_type": str(cells.get("recipe_type", "")),
        },
    )

"""ActivityNet 1.2 and 1.3 (Caba Heilbron et al., CVPR 2015): `activity_net.v1-3.min.json`.

`{"version", "taxonomy": [...], "database": {<YouTube id>: {"url", "subset": "training" | "validation" | "testing",
"duration": seconds, "resolution": "WxH", "annotations": [{"segment": [start, end], "label"}]}}}`.
https://github.com/activitynet/ActivityNet
"""

from pathlib import Path

from marathon_pipeline.sources.identity import SourceError
from marathon_pipeline.sources.importers.entry import Cells, Entries, Entry, annotated, by_id, loaded, number, text

_FORM = "ActivityNet's JSON, such as activity_net.v1-3.min.json"
_EVIDENCE = "listed by ActivityNet (http://activity-net.org); the video's own licence is its uploader's: see its page"


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
    segments = annotated(cells.get("annotations"))
    annotations = cells.get("annotations")
    labels = {str(each["label"]) for each in annotations if "label" in each} if isinstance(annotations, list) else ()
    return Entry(
        url=text(cells, "url") or f"https://www.youtube.com/watch?v={name}",
        data_source="activitynet",
        licence_evidence=_EVIDENCE,
        held_out=subset in ("validation", "testing"),
        segments=segments,
        metadata={"subset": subset, "seconds": number(cells, "duration"), "labels": [*sorted(labels)]},
    )

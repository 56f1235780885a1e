"""Clips that are captioned again, against a server that shows its model the frames of another request."""

import asyncio
import gzip
import json
import math
from pathlib import Path

import served
from by_hand import TAXONOMY, clip, pictures
from by_hand import settings as model

from marathon_pipeline.annotators.served.annotator import Served
from marathon_pipeline.dataset.journal import Answers, Journal
from marathon_pipeline.dataset.storage import Storage
from marathon_pipeline.records import ClipCaption

CLIPS, PROBE, SWAPPED = 250, 0.4, 0.15


def captioned(folder: Path, faults: dict[str, float], probe: float) -> tuple[list[ClipCaption], Answers]:
    """Captions of all clips, and what is counted."""
    journal = Journal(Storage(str(folder)), "caption_clips", "video")
    answers = Answers(journal, "")

    async def caption(url: str) -> list[ClipCaption]:
        annotator = Served(model(probe=probe, max_in_flight=32).model_copy(update={"endpoints": (url,)}), TAXONOMY)
        writer = annotator.for_work(answers)
        try:
            return await asyncio.gather(*(writer.caption_clip(clip(n), [], pictures) for n in range(CLIPS)))
        finally:
            await annotator.close()

    with served.running(model="test", latency=0.02, slots=32, faults=faults) as server:
        captions = asyncio.run(caption(server.url))
    journal.join()
    return captions, answers


def came(folder: Path) -> dict[str, str]:
    """The summary in the answer to each question: about a clip, about it again, about it once more."""
    (path,) = folder.glob("journal/*/*/*.jsonl.gz")
    lines = [json.loads(line) for line in gzip.decompress(path.read_bytes()).splitlines()]
    return {line["unit"]: json.loads(line["text"])["summary"] for line in lines if "request" in line}


def test_a_probe_finds_the_share_of_swapped_frames_that_it_is_said_to_find(tmp_path: Path) -> None:
    true, nothing = captioned(tmp_path / "true", {}, probe=0.0)
    assert (nothing.probed, nothing.lost) == (0, {})
    captions, answers = captioned(tmp_path / "swapped", {"swap_frames": SWAPPED}, PROBE)

    right, said = {caption.clip_id: caption.summary for caption in true}, came(tmp_path / "swapped")
    wrong = {unit for unit, summary in said.items() if summary != right[unit[:5]]}
    swapped = {clip_id for clip_id in right if clip_id in wrong}
    found = {caption.clip_id for caption in captions if caption.summary != said[caption.clip_id]}
    clean = {clip_id for clip_id in swapped if f"{clip_id} again" in said}
    clean -= {unit[:5] for unit in wrong if " " in unit}  # whose probes were of its own frames
    assert found == clean and answers.lost == {"other_pictures": len(found)}
    assert all(caption.summary == right[caption.clip_id] for caption in captions if caption.clip_id in found)

    share = len(swapped) / CLIPS
    expected, recall = PROBE * (1 - share) ** 2, len(found) / len(swapped)
    print(f"{len(swapped)} of {CLIPS} swapped, {answers.probed} probed: recall {recall:.3f}, expected {expected:.3f}")
    assert abs(recall - expected) < 4 * math.sqrt(expected * (1 - expected) / len(swapped))

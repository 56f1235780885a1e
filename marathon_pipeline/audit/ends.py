"""How everything that entered a stage ended there, as the ledger tells it."""

from collections import Counter, defaultdict
from collections.abc import Iterator

from marathon_pipeline.audit.statistics import StageEnd
from marathon_pipeline.dataset.ledger import Ledger

_BY_VIDEO = ("segment", "caption_clips", "caption_events", "summarize")  # in order, after `download`

End = tuple[str, str]  # status and reason


class Ends:
    """What a later edit cut off upstream has not entered."""

    def __init__(self, ledger: Ledger) -> None:
        found: defaultdict[tuple[str, str], dict[str, End]] = defaultdict(dict)  # by stage and part: of each video
        entered: set[str] = set()
        known: dict[End, End] = {}  # each once: there are a million outcomes, and a dozen ends
        for stage, part, video_id, status, reason in ledger.rows("stage", "part", "video_id", "status", "reason"):
            end = (status, reason)
            found[stage, part][video_id] = known.setdefault(end, end)
        for status, videos in ledger.rows("status", "videos", stages=["download"]):
            entered.update(videos if status == "ok" else ())
        downloads = found["download", ""]
        self._stages = [("download", len(downloads), Counter(downloads.values()))]
        for stage in _BY_VIDEO:
            count = len(entered)
            ends, entered = _pass(entered, found[stage, ""])
            self._stages.append((stage, count, ends))
        self.of_task: dict[str, Counter[End]] = {}  # of writing its QA: how many videos came to each end
        verified, to_verify = Counter[End](), 0
        for task in sorted(part for stage, part in found if stage == "qa"):
            self.of_task[task], written = _pass(entered, found["qa", task])
            verified += _pass(written, found["verify", task])[0]
            to_verify += len(written)
        written_ends = sum(self.of_task.values(), Counter[End]())
        self._stages.append(("qa", len(entered) * len(self.of_task), written_ends))
        self._stages.append(("verify", to_verify, verified))

    def stages(self) -> Iterator[StageEnd]:
        for stage, entered, ends in self._stages:
            yield StageEnd(
                stage=stage,
                entered=entered,
                ok=ends["ok", ""],
                filtered=reasons(ends, "filtered"),
                failed=reasons(ends, "failed"),
                waiting=entered - ends.total(),
            )


def _pass(entered: set[str], ends: dict[str, End]) -> tuple[Counter[End], set[str]]:
    """How those that entered ended, and which of them went on."""
    ended = {video_id: ends[video_id] for video_id in entered if video_id in ends}
    return Counter(ended.values()), {video_id for video_id, (status, _) in ended.items() if status == "ok"}


def reasons(ends: Counter[End], status: str) -> dict[str, int]:
    return {reason: count for (of, reason), count in sorted(ends.items()) if of == status}

"""A worker on files that nobody trusts: `python hostile_worker.py DATASET SETTINGS MOST < paths`.

Takes each path as a manifest's row and through download and segment (the first MOST videos of each), as a run does, and
prints a line of JSON for each: the outcomes, and the peak memory so far of this process and of those it started.
"""

import asyncio
import json
import resource
import sys
from pathlib import Path

from marathon_pipeline.dataset.dataset import Dataset
from marathon_pipeline.errors import UserError
from marathon_pipeline.pipeline.stage_list import StageSettings
from marathon_pipeline.pipeline.work import Order, carry_out
from marathon_pipeline.records import Outcome, Source
from marathon_pipeline.sources.inputs import sources_of_inputs
from marathon_pipeline.stages.download import Download
from marathon_pipeline.stages.segment import Segment
from marathon_pipeline.stages.stage import Stage


def main() -> None:
    dataset = Dataset(sys.argv[1], create=True)
    settings = StageSettings.model_validate_json(sys.argv[2])
    download = Download(settings.download, settings.parts, settings.segment.decode, dataset.storage)
    segment = Segment(settings.segment, dataset.storage)

    def work(stage: Stage, owner: str, source: Source) -> Outcome:
        order = Order(owner, source.source_id, {"": "f"}, {}, True, True, source)
        return asyncio.run(carry_out(stage, dataset, order))[0]

    def way(path: str) -> list[Outcome]:
        sources, problems = sources_of_inputs([path])
        if problems:
            raise UserError(problems[0].problem)
        fetched = work(download, sources[0].source_id, sources[0])
        return [fetched, *(work(segment, owner, sources[0]) for owner in fetched.videos[: int(sys.argv[3])])]

    for path in sys.stdin.read().splitlines():
        try:
            ends = way(path)
            said = [f"{end.status} {end.reason}".strip() for end in ends]
            message = next((end.message for end in ends if end.message), "")
        except UserError as error:
            said, message = ["row"], str(error)
        peaks = [own_peak(), resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss]
        name = Path(path).name
        print(json.dumps({"name": name, "ends": said, "message": message, "peaks": peaks}), flush=True)


def own_peak() -> int:
    """In kilobytes. `getrusage` would begin with what the process had that started this one."""
    status = Path("/proc/self/status")
    if not status.exists():
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return next(int(line.split()[1]) for line in status.read_text().splitlines() if line.startswith("VmHWM"))


if __name__ == "__main__":
    main()

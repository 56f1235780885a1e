"""Measure every QA pair; what is done about a measure is decided later, by the audit and the release."""

from marathon_pipeline.audit.measures import measure
from marathon_pipeline.records import Clip, QAPair, Verdict
from marathon_pipeline.stages.stage import Given
from marathon_pipeline.taxonomy import Taxonomy


class Verify:
    name, version = "verify", 3
    reads, writes = (Clip, QAPair), (Verdict,)
    annotator = None

    def __init__(self, taxonomy: Taxonomy, tasks: tuple[str, ...]) -> None:
        self._taxonomy, self.parts = taxonomy, tasks

    def settings(self, part: str) -> object:
        return [self._taxonomy.rules.forbidden, self._taxonomy.rules.allowed, self._taxonomy.rules.general]

    async def run(self, given: Given, part: str) -> list[Verdict]:
        clips = {clip.clip_id: clip for clip in given.all(Clip)}
        seconds = max(clip.end for clip in clips.values())
        task, rules = self._taxonomy.tasks[part], self._taxonomy.rules
        verdicts = [measure(pair, seconds, clips, task, rules) for pair in given.all(QAPair)]
        given.answers.lose("rejected", sum(bool(verdict.problems) for verdict in verdicts))
        return verdicts

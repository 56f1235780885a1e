"""Measure every QA pair; what is done about a measure is decided later, by the audit and the release."""

from collections.abc import Sequence

from marathon_pipeline.annotators.protocol import JudgingAnnotator
from marathon_pipeline.audit.measures import measure
from marathon_pipeline.records import Clip, ClipCaption, QAPair, Record, Verdict
from marathon_pipeline.stages.judging import JudgeSettings, cited, said_of
from marathon_pipeline.stages.stage import Given, together
from marathon_pipeline.taxonomy import Taxonomy


class Verify:
    """`judge`: the served model that says what no rule can; None: nobody does, and no server is needed."""

    name, version = "verify", 6
    writes = (Verdict,)

    def __init__(
        self,
        taxonomy: Taxonomy,
        tasks: tuple[str, ...],
        judge: JudgingAnnotator | None,
        settings: JudgeSettings,
    ) -> None:
        self._taxonomy, self.parts, self.annotator, self._settings = taxonomy, tasks, judge, settings
        self.reads: tuple[type[Record], ...] = (Clip, ClipCaption, QAPair) if judge else (Clip, QAPair)

    def settings(self, part: str) -> object:
        rules = [self._taxonomy.rules.forbidden, self._taxonomy.rules.allowed, self._taxonomy.rules.general]
        if self.annotator is None:
            return rules
        return [*rules, self.annotator.name, self._taxonomy.judge.rendered_rules(), self._settings.orders]

    async def run(self, given: Given, part: str) -> list[Verdict]:
        clips = {clip.clip_id: clip for clip in given.all(Clip)}
        seconds = max(clip.end for clip in clips.values())
        task, rules, pairs = self._taxonomy.tasks[part], self._taxonomy.rules, given.all(QAPair)
        verdicts = [measure(pair, seconds, clips, task, rules) for pair in pairs]
        given.answers.lose("rejected", sum(bool(verdict.problems) for verdict in verdicts))
        return verdicts if self.annotator is None else await self._judged(self.annotator, given, pairs, verdicts)

    async def _judged(
        self, annotator: JudgingAnnotator, given: Given, pairs: Sequence[QAPair], verdicts: Sequence[Verdict]
    ) -> list[Verdict]:
        """A pair that cannot be judged says why, and leaves the others theirs. Where no pair can, the task fails."""
        judge, captions = annotator.judge_for(given.answers), given.all(ClipCaption)
        given.answers.judge = annotator.name
        said, _ = await together([said_of(judge, pair, cited(pair, captions), self._settings.orders) for pair in pairs])
        failures = [failure for each in said for failure in each.failures]
        if passing := [failure for failure in failures if failure.transient]:
            raise passing[0]
        if failures and not any(each.measures for each in said):
            raise failures[0]
        given.answers.lose("unjudged", sum(bool(each.failures) for each in said))
        return [
            verdict.model_copy(update=measures | {"unjudged": failed[0].reason if failed else ""})
            for verdict, (measures, failed) in zip(verdicts, said, strict=True)
        ]

"""Find out how often a judge errs: plant answers whose worth is known, and have them judged as every other pair is.

A right answer is the pair's own, and the notes (in a blind answer, the question) are made to state it: whether a pair
is right as it stands is what the judge is asked, and cannot be what it is measured by.
"""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

from marathon_pipeline.annotators.protocol import Judge, JudgingAnnotator
from marathon_pipeline.errors import Failed
from marathon_pipeline.records import (
    LETTERS,
    Calibration,
    ClipCaption,
    JudgedMeasure,
    Planted,
    QAPair,
    Record,
    digest,
)
from marathon_pipeline.stages.judging import JudgeSettings, chosen, cited
from marathon_pipeline.stages.stage import Given, together
from marathon_pipeline.taxonomy import Plants, Taxonomy
from marathon_pipeline.wording import words


class Plant(NamedTuple):
    """A pair as the judge is shown it. `answer`: the planted one; `captions`: none where it is to answer blind."""

    measure: JudgedMeasure
    planted: Planted
    pair: QAPair
    captions: Sequence[ClipCaption]


class Calibrate:
    name, version = "calibrate", 1
    reads: tuple[type[Record], ...] = (ClipCaption, QAPair)
    writes = (Calibration,)

    def __init__(
        self, judge: JudgingAnnotator, taxonomy: Taxonomy, tasks: tuple[str, ...], settings: JudgeSettings
    ) -> None:
        self.annotator, self._taxonomy, self.parts, self._settings = judge, taxonomy, tasks, settings

    def settings(self, part: str) -> object:
        templates = [self._taxonomy.judge.rendered_rules(), self._taxonomy.plants.rendered_rules()]
        return [self.annotator.name, *templates, self._settings.calibrate]

    async def run(self, given: Given, part: str) -> list[Calibration]:
        """What cannot be judged is left out; where nothing can, the task fails."""
        judge, pairs = self.annotator.judge_for(given.answers), given.all(QAPair)
        given.answers.judge = self.annotator.name
        captions = given.all(ClipCaption)
        planted = [
            plant
            for pair in pairs
            if int(digest(["calibrate", pair.qa_id])[:8], 16) < self._settings.calibrate * 2**32
            for plant in plants(pair, pairs, cited(pair, captions), self._taxonomy.plants)
        ]
        rows, failures = await together([_tried(judge, plant) for plant in planted], Failed)
        if passing := [failure for failure in failures if failure.transient]:
            raise passing[0]
        if failures and not rows:
            raise failures[0]
        given.answers.lose("unjudged", len(failures))
        for row in rows:
            given.answers.tallies[f"{row.measure} {row.planted}"] += 1
            given.answers.tallies[f"{row.measure} {row.planted} accepted"] += row.accepted
        return rows


async def _tried(judge: Judge, plant: Plant) -> Calibration:
    measure, planted, pair, captions = plant
    unit = f"{pair.qa_id} {measure} {planted}"
    if measure == "judged":
        said, binding = await judge.weigh(unit, pair, captions)
        accepted = said == "right"
    else:
        accepted, binding = await chosen(judge, unit, pair, captions)
    return Calibration(
        qa_id=pair.qa_id,
        video_id=pair.video_id,
        task=pair.task,
        measure=measure,
        planted=planted,
        accepted=accepted,
        binding=binding,
    )


def plants(
    pair: QAPair, pairs: Sequence[QAPair], captions: Sequence[ClipCaption], templates: Plants
) -> Iterator[Plant]:
    """What is made of a pair; none where its form does not allow to judge it. `pairs`: all of its task and video."""
    if not captions:
        return
    place = int(digest([pair.qa_id])[:8], 16)
    vague = templates.vague[place % len(templates.vague)]
    told = f"{captions[0].summary} {templates.render('stated', pair.question, pair.answer)}"
    stated = [captions[0].model_copy(update={"summary": told}), *captions[1:]]
    foreign = _foreign(pair, pairs)
    other = foreign[place % len(foreign)] if foreign else ""
    if pair.format == "open":
        yield Plant("judged", "right", pair, stated)
        if other:
            yield Plant("judged", "specific", pair.model_copy(update={"answer": other}), captions)
        yield Plant("judged", "vague", pair.model_copy(update={"answer": vague}), captions)
    elif len(pair.options) == len(LETTERS) and pair.answer in pair.options:
        wrong = [option for option in pair.options if option != pair.answer][place % (len(LETTERS) - 1)]
        yield Plant("blind", "right", _leaking(pair, pair.answer, templates), ())
        yield Plant("blind", "specific", _leaking(pair, wrong, templates), ())
        yield Plant("grounded", "right", pair, stated)
        if other:
            yield Plant("grounded", "specific", _instead(pair, other), captions)
        yield Plant("grounded", "vague", _instead(pair, vague), captions)


def _foreign(pair: QAPair, pairs: Sequence[QAPair]) -> list[str]:
    """Answers to questions about other clips (else about the same), or options of theirs, that are none of its own."""
    own = [{*words(text)} for text in (pair.answer, *pair.options)]

    def is_foreign(text: str) -> bool:
        bag = {*words(text)}
        return bool(bag) and not any(bag <= each or each <= bag for each in own)

    elsewhere = [other for other in pairs if {*other.clip_ids}.isdisjoint(pair.clip_ids)]
    others = elsewhere or [other for other in pairs if other.question != pair.question]
    answers = sorted({other.answer for other in others if is_foreign(other.answer)})
    return answers or sorted({option for other in others for option in other.options if is_foreign(option)})


def _leaking(pair: QAPair, answer: str, templates: Plants) -> QAPair:
    return pair.model_copy(update={"question": templates.render("leaked", pair.question, answer)})


def _instead(pair: QAPair, answer: str) -> QAPair:
    """The pair with another answer, which stands in the place of the right option."""
    options = tuple(answer if option == pair.answer else option for option in pair.options)
    return pair.model_copy(update={"options": options, "answer": answer})

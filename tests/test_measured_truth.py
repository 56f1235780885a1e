"""What the offline annotator measures in synthetic videos is held against the scripts that they were rendered from."""

from measured_truth import OFF, Told, is_true, seen, told, told_of

from marathon_pipeline.annotators.measured.qa.material import Material
from marathon_pipeline.records import Fact
from marathon_pipeline.synthetic.script import Action

__all__ = ["told", "told_of"]  # fixtures


def test_every_merged_fact_is_in_the_script(told: Told) -> None:
    assert wrong_facts(told) == []


def wrong_facts(told: Told) -> list[Fact]:
    unchecked = ("stray", "glimpse", "most", "activity", "busy", "cut")
    return [fact for fact in told.timeline.facts if fact.kind not in unchecked and not is_true(told.script, fact)]


def test_between_its_stretches_in_view_a_thing_is_not_in_the_picture(told: Told) -> None:
    assert overlooked(told) == []


def overlooked(told: Told) -> list[tuple[str, float, float]]:
    material = Material(told.timeline, tuple(told.events), told.summary)
    return [
        (subject.name, gap.start, gap.end)
        for subject in told.timeline.subjects
        for gap in told.timeline.absences(subject)
        if not any(material.blurred(subject.name, moment) for moment in (gap.start, gap.end))
        and seen(told.script, subject.name, gap.start + OFF, gap.end - OFF)
    ]


def test_the_actions_of_the_script_are_among_the_facts_but_for_one(told: Told) -> None:
    assert len(missing_actions(told)) <= 1


def missing_actions(told: Told) -> list[Action]:
    kinds = {
        "move": "moves",
        "pace": "paces",
        "grow": "grows",
        "shrink": "shrinks",
        "turn": "turns",
        "touch": "reaches",
        "leave": "leaves",
        "enter": "enters",
        "return": "enters",
    }
    missing = []
    for thing in told.script.things:
        for action in thing.actions:
            if action.kind == "rest":
                continue
            facts = told.timeline.of_kind(kinds[action.kind])
            if not any(
                thing.shape in fact.subject and fact.start < action.end + OFF and fact.end > action.start - OFF
                for fact in facts
            ):
                missing.append(action)
    return missing


def test_what_is_said_to_be_away_is_not_in_the_picture(told: Told) -> None:
    material = Material(told.timeline, tuple(told.events), told.summary)
    for start in range(0, int(told.script.seconds) - 20, 7):
        for name in material.away(start, start + 20):
            assert not seen(told.script, name, start + OFF, start + 20 - OFF), (name, start)
    for name in material.never:
        assert not seen(told.script, name, 0, told.script.seconds)


def test_of_the_22_tasks_all_but_one_are_asked_in_both_formats(told: Told) -> None:
    assert len({task for task, _ in told.filtered}) <= 1
    assert len(told.pairs) >= 105

"""Where one thing comes up against another, and what becomes of that one."""

from marathon_pipeline.annotators.measured.qa.material import CLEAR, NEAR, Material
from marathon_pipeline.annotators.measured.story import TOWARDS
from marathon_pipeline.annotators.measured.words import OPPOSITE
from marathon_pipeline.records import Fact


def known_contacts(material: Material) -> list[Fact]:
    known = {subject.name for subject in material.subjects}
    return [fact for fact in material.timeline.of_kind("reaches") if {fact.subject, fact.other} <= known]


def pairs_of(material: Material) -> list[tuple[str, str]]:
    """Who comes up against whom, as often as that happens, or may have happened."""
    return [(fact.subject, fact.other) for fact in material.timeline.of_kind("reaches", "nears")]


def effects(material: Material, contact: Fact) -> list[tuple[Fact, str]]:
    """What becomes of the other thing, as (fact, words)."""
    found = [
        fact
        for fact in material.timeline.of_kind("sets_off", "recolours", subject=contact.subject)
        if fact.other == contact.other and abs(fact.start - contact.start) <= 2
    ]
    return [
        (fact, f"begins to move {TOWARDS[fact.value]}" if fact.kind == "sets_off" else f"turns {fact.value}")
        for fact in found
    ]


def other_effects(material: Material, contact: Fact, said: str) -> list[str]:
    """What the effect is not, so that there are two ways to move and two colours to choose from, as often right each.

    Empty where the facts do not refute them all.
    """
    then = contact.start - CLEAR, contact.end + NEAR
    ways = ("to the left", "to the right") if side_of(material, contact) else ("up", "down")
    still = material.not_done(contact.other, *then)
    moves = [f"begins to move {way}" for way in ways if f"moves {way}" in still]
    colours = [f"turns {colour}" for colour in material.other_colours(contact.other, *then)]
    needed = 2 if said.startswith("turns") else 1
    return [*moves, *colours[: 3 - needed]] if len(moves) == needed else []


def side_of(material: Material, contact: Fact) -> str:
    """The side from which the one comes up against the other."""
    for fact in material.timeline.of_kind("moves", subject=contact.subject):
        if fact.start < contact.start < fact.end + 1 and fact.value in ("left", "right"):
            return OPPOSITE[fact.value]
    return ""


def only_cause(material: Material, contact: Fact, effect: Fact) -> bool:
    """Whether no other thing has such an effect, or may have had."""
    return {fact.subject for fact in material.timeline.of_kind(effect.kind, "nears")} == {contact.subject}

"""Questions about the setting."""

from collections.abc import Iterator
from itertools import pairwise, permutations

from marathon_pipeline.annotators.measured.qa.action import located
from marathon_pipeline.annotators.measured.qa.material import NEAR, Item, Material, around
from marathon_pipeline.annotators.measured.scenery import COLOURS
from marathon_pipeline.annotators.measured.timeline import Setting
from marathon_pipeline.annotators.measured.words import about, number, sentence, view_of
from marathon_pipeline.errors import Filtered
from marathon_pipeline.records import Span

_RARE = 0.2  # of the picture: a colour that never covers more is neither above nor below


def scene_recognition(material: Material) -> Iterator[Item]:
    """What the view looks like at a moment."""
    if not material.settings:
        raise Filtered("no_setting", "no colours prevail in the view for long enough")
    for setting in material.settings:
        if setting.end - setting.start < 10:
            continue
        time = material.when(setting.start + 2, setting.end - 2, hush="view")
        question = material.vary(
            setting.start, f"What does the view look like {time}?", f"Which colours does the view have {time}?"
        )
        wrong = other_views(material, setting)
        yield Item(
            question,
            setting.view,
            wrong,
            (setting.span,),
            setting.view,
            sentence(f"the view is {setting.view}"),
        )


def scene_transition(material: Material) -> Iterator[Item]:
    """How and when one view gives way to another."""
    changes = [
        (before, after)
        for before, after in pairwise(material.settings)
        if after.start - before.end <= 4 and before.view != after.view
    ]
    if not changes:
        raise Filtered("single_setting", "no setting is seen to give way to another")
    timed: list[tuple[float, Item]] = []
    for before, after in changes:
        spans = (around((before.end + after.start) / 2, 6, 6),)
        moment = (before.end + after.start) / 2
        if sum(one.view == before.view for one, _ in changes) == 1:
            question = material.vary(
                before.start,
                f"What does the view change to after it has been {before.view}?",
                f"Which view takes the place of the one that is {before.view}?",
            )
            right, wrong = after.view, other_views(material, after, but=before.view)
            yield Item(
                question,
                right,
                wrong,
                spans,
                f"{before.view} on",
                sentence(f"it becomes {right}"),
            )
        if sum(one.view == after.view for _, one in changes) == 1:
            question = f"What is the view like just before it becomes {after.view}?"
            right, wrong = before.view, other_views(material, before, but=after.view)
            yield Item(
                question,
                right,
                wrong,
                spans,
                f"{after.view} before",
                sentence(f"before that, it is {right}"),
            )
        if sum((one.view, two.view) == (before.view, after.view) for one, two in changes) == 1:
            question = f"When does the view change from {before.view} to {after.view}?"
            full = sentence(f"the view changes {about(moment)}")
            timed.append((moment, Item(question, about(moment), (), spans, f"{after.view} time", full)))
    yield from located(material, "changes", timed)
    if _covered(material) and len(changes) == len(material.settings) - 1:
        question = "How many times does the view change from one setting to another?"
        yield Item(
            question,
            number(len(changes)),
            (),
            (Span(start=material.timeline.start, end=material.timeline.end),),
            "count",
            sentence(f"it changes {number(len(changes))} time{'s' * (len(changes) > 1)}"),
        )


def other_views(material: Material, setting: Setting, but: str = "") -> list[str]:
    """Another view, and the two that the halves of both make: so each half stands twice, and the other view is right
    at another time, where the video has one. Of one colour: others of one colour. Empty where there are none."""
    near = {one.view for one in material.settings if one.start < setting.end + NEAR and one.end > setting.start - NEAR}
    upper, lower = setting.upper, setting.lower
    halves = [(one.upper, one.lower) for one in material.settings]
    seen = list(dict.fromkeys(colour for pair in halves for colour in pair))
    rare = [colour for colour in COLOURS if material.timeline.most(colour) <= _RARE]
    if upper == lower:
        plain = [*material.draw(("plain", setting.start), seen), *material.draw(("plain", setting.start), rare)]
        views = dict.fromkeys(view_of(colour, colour) for colour in plain)
        return [view for view in views if view not in (but, *near)][:3]
    for known in (halves, list(permutations(seen, 2)), list(permutations(rare, 2))):
        for up, low in material.draw(("views", setting.start), known):
            others = [view_of(up, low), view_of(up, lower), view_of(upper, low)]
            if len({upper, lower, up, low}) == 4 and not {but, *near} & {*others}:
                return others
    return []


def _covered(material: Material) -> bool:
    seconds = sum(setting.end - setting.start for setting in material.settings)
    return seconds >= 0.97 * (material.timeline.end - material.timeline.start)

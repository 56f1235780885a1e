"""Questions about the setting."""

from collections.abc import Iterator
from itertools import pairwise

from marathon_pipeline.annotators.measured.qa.action import other_times
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
            material.three(question, setting.view, wrong),
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
    for before, after in changes:
        spans = (around((before.end + after.start) / 2, 6, 6),)
        moment = (before.end + after.start) / 2
        if sum(one.view == before.view for one, _ in changes) == 1:
            question = material.vary(
                before.start,
                f"What does the view change to after it has been {before.view}?",
                f"Which view takes the place of the one that is {before.view}?",
            )
            right, wrong = after.view, [view for view in other_views(material, after) if view != before.view]
            yield Item(
                question,
                right,
                material.three(question, right, wrong),
                spans,
                f"{before.view} on",
                sentence(f"it becomes {right}"),
            )
        if sum(one.view == after.view for _, one in changes) == 1:
            question = f"What is the view like just before it becomes {after.view}?"
            right, wrong = before.view, [view for view in other_views(material, before) if view != after.view]
            yield Item(
                question,
                right,
                material.three(question, right, wrong),
                spans,
                f"{after.view} before",
                sentence(f"before that, it is {right}"),
            )
        if sum((one.view, two.view) == (before.view, after.view) for one, two in changes) == 1:
            question = f"When does the view change from {before.view} to {after.view}?"
            right = about(moment)
            yield Item(
                question,
                right,
                other_times(material, question, moment),
                spans,
                f"{after.view} time",
                sentence(f"the view changes {right}"),
            )
    if _covered(material) and len(changes) == len(material.settings) - 1:
        question = "How many times does the view change from one setting to another?"
        wrong = [number(count) for count in range(max(1, len(changes) - 2), len(changes) + 4)]
        yield Item(
            question,
            number(len(changes)),
            material.three(question, number(len(changes)), wrong),
            (Span(start=material.timeline.start, end=material.timeline.end),),
            "count",
            sentence(f"it changes {number(len(changes))} time{'s' * (len(changes) > 1)}"),
        )


def other_views(material: Material, setting: Setting) -> list[str]:
    """Views that the video has at other times, then the same colours put together otherwise."""
    near = {one.view for one in material.settings if one.start < setting.end + NEAR and one.end > setting.start - NEAR}
    known = [one.view for one in material.settings if one.view not in near]
    halves = list(dict.fromkeys((one.upper, one.lower) for one in material.settings))
    made = [view_of(one[0], two[1]) for one in halves for two in halves] + [view_of(low, up) for up, low in halves]
    rare = [colour for colour in COLOURS if material.timeline.most(colour) <= _RARE]
    made += [view_of(colour, setting.lower) for colour in rare] + [view_of(setting.upper, colour) for colour in rare]
    made = list(dict.fromkeys(made))
    views = dict.fromkeys([*known, *material.draw(("views", setting.start), made)])
    return [view for view in views if view not in near][:5]


def _covered(material: Material) -> bool:
    seconds = sum(setting.end - setting.start for setting in material.settings)
    return seconds >= 0.97 * (material.timeline.end - material.timeline.start)

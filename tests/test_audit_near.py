"""Near duplicates: planted ones are found, and honest look-alikes are not taken for them."""

import random
from collections import defaultdict
from collections.abc import Iterator, Sequence

import pytest

from marathon_pipeline.audit.near import Near, Signatures
from marathon_pipeline.audit.said import Said
from marathon_pipeline.records import Format

PEOPLE = ("woman", "boy", "cook", "driver", "gardener", "teacher", "painter", "nurse", "farmer", "climber")
THINGS = ("knife", "bucket", "ladder", "basket", "hammer", "kettle", "blanket", "guitar", "lamp", "suitcase", "rope")
PLACES = ("kitchen", "garage", "garden", "workshop", "station", "harbour", "classroom", "market", "forest", "stable")
DEEDS = ("carries", "drops", "picks up", "cleans", "throws away", "repairs", "paints", "hides", "borrows", "weighs")
COLOURS = ("red", "green", "blue", "yellow", "white", "black")
SYNONYMS = {
    "woman": "lady", "boy": "lad", "cook": "chef", "carries": "holds", "drops": "releases", "cleans": "washes",
    "repairs": "mends", "bucket": "pail", "suitcase": "bag", "forest": "wood", "enters": "reaches", "happens": "occurs",
    "while": "as", "walks": "goes", "near": "beside", "room": "place",
}  # fmt: skip
PATTERNS = (
    "After the {person} {deed} the {colour} {thing} near the {place}, what happens to the {other}?",
    "What does the {person} do with the {colour} {thing} while the {other} stays in the {place}?",
    "When the {person} enters the {place} with the {thing}, which object lies near the {colour} {other}?",
    "Why does the {person} walk from the {place} to the other room before the {other} {deed} the {thing}?",
)
ANSWERS = (
    "The {other} {deed2} the {thing2}.",
    "A {thing2}.",
    "The {person2} {deed2} the {thing2} and walks back to the {place2} without saying a word to the others.",
)


class Question(dict[str, str]):
    """What one question is filled with."""

    @classmethod
    def drawn(cls, chance: random.Random) -> "Question":
        drawn = {"person": PEOPLE, "other": PEOPLE, "thing": THINGS, "place": PLACES, "deed": DEEDS}
        own = {name: chance.choice(words) for name, words in drawn.items()}
        again = {f"{name}2": chance.choice(words) for name, words in drawn.items()}
        return cls(own, **again, colour=chance.choice(COLOURS))


Pair = tuple[str, Format, str, Sequence[str], str]


def pair(question: str, answer: str, options: Sequence[str] = (), task: str = "action_sequence") -> Pair:
    return task, "choice" if options else "open", question, options, answer


def said(pairs: Sequence[Pair]) -> Said:
    return Said.by(*([each[column] for each in pairs] for column in range(5)))  # type: ignore[arg-type]


def near(*videos: Sequence[Pair]) -> Near:
    signatures = Signatures()
    for pairs in videos:
        signatures.add(said(pairs))
    return signatures.near()


def with_synonyms(text: str, count: int, chance: random.Random) -> str | None:
    words = text.split()
    known = [place for place, word in enumerate(words) if word in SYNONYMS]
    if len(known) < count:
        return None
    for place in chance.sample(known, count):
        words[place] = SYNONYMS[words[place]]
    return " ".join(words)


def nearly_the_same(pattern: str, q: Question, answer: str, chance: random.Random) -> Iterator[tuple[str, str, str]]:
    """Kind, question, answer."""
    question = pattern.format_map(q)
    for kind, count in (("one synonym", 1), ("two synonyms", 2)):
        if said := with_synonyms(question, count, chance):
            yield kind, said, answer
    yield "words before it", f"In this video, {question}", answer
    if (said := with_synonyms(answer, 1, chance)) and len(answer.split()) > 9:
        yield "a synonym in a long answer", question, said
    first, comma, then = question.partition(", ")
    if comma:
        yield "clauses swapped", f"{then.removesuffix('?').capitalize()} {first.lower()}?", answer


def look_alikes(pattern: str, q: Question, form: str, chance: random.Random) -> Iterator[tuple[str, str, str]]:
    answer = form.format_map(q)
    other = Question(q, **{key: value for key, value in Question.drawn(chance).items() if key.endswith("2")})
    if form.format_map(other) != answer:
        yield "another answer", pattern.format_map(q), form.format_map(other)
    colour = chance.choice([each for each in COLOURS if each != q["colour"]])
    if "{colour}" in pattern:
        yield "another colour", pattern.format_map({**q, "colour": colour}), answer
    drawn = {key: value for key, value in Question.drawn(chance).items() if not key.endswith("2")}
    yield "another question of the pattern", pattern.format_map({**drawn, "person2": "", "deed2": ""}), answer


def share_found(seed: int, count: int) -> dict[str, tuple[float, int]]:
    """By kind: which share of changed pairs is taken for near duplicates of what they were made from, and how many."""
    chance = random.Random(seed)
    found = defaultdict[str, list[bool]](list)
    for _ in range(count):
        pattern, form, q = chance.choice(PATTERNS), chance.choice(ANSWERS), Question.drawn(chance)
        answer = form.format_map(q)
        options = (
            [answer, *(form.format_map(Question.drawn(chance)) for _ in range(3))] if chance.random() < 0.5 else []
        )
        original = pair(pattern.format_map(q), answer, options)
        for prefix, kinds in (
            ("", nearly_the_same(pattern, q, answer, chance)),
            ("not: ", look_alikes(pattern, q, form, chance)),
        ):
            for kind, question, changed in kinds:
                own = [changed if option == answer else option for option in options]
                found[prefix + kind].append(bool(near([original, pair(question, changed, own)]).within.all()))
    return {kind: (sum(each) / len(each), len(each)) for kind, each in sorted(found.items())}


def test_planted_near_duplicates_are_found_and_look_alikes_are_not() -> None:
    found = share_found(seed=3, count=60)  # docs/gates.md: seed 5, 600
    right = sum(share * count for kind, (share, count) in found.items() if not kind.startswith("not: "))
    planted = sum(count for kind, (_, count) in found.items() if not kind.startswith("not: "))
    wrong = sum(share * count for kind, (share, count) in found.items() if kind.startswith("not: "))
    assert right / planted >= 0.85, found
    assert right / (right + wrong) >= 0.95, found


def test_near_duplicates_are_told_apart_by_where_they_stand() -> None:
    one, same = (
        "What does the woman do with the rope in the garden?",
        "What does the lady do with the rope in the garden?",
    )
    alone = pair("Where does the boy hide the old lamp at last?", "In the stable.")
    found = near([pair(one, "She cuts it."), alone], [pair(same, "She cuts it."), pair(one, "She cuts it.")], [])
    assert found.within.tolist() == [False, False, True, True]
    assert found.across.tolist() == [True, False, True, True]
    assert (found.groups_within, found.groups_across) == (1, 1)


@pytest.mark.parametrize(
    ("question", "answer", "options", "task"),
    [
        ("What does the woman do with the rope in the garden?", "She burns it.", (), "action_sequence"),
        ("What does the woman do first with the rope in the garden?", "She cuts it.", (), "action_sequence"),
        ("What does the woman do with the rope in the garden?", "She cuts it.", ("She cuts it.",), "action_sequence"),
        ("What does the woman do with the rope in the garden?", "She cuts it.", (), "action_reasoning"),
    ],
)
def test_what_differs_in_answer_decisive_word_format_or_task_is_no_duplicate(
    question: str, answer: str, options: Sequence[str], task: str
) -> None:
    known = pair("What does the woman do with the rope in the garden?", "She cuts it.")
    assert not near([known], [pair(question, answer, options, task)]).across.any()


def test_groups_do_not_depend_on_how_the_videos_were_counted() -> None:
    chance = random.Random(8)
    videos = [
        [pair(chance.choice(PATTERNS).format_map(Question.drawn(chance)), "A rope.") for _ in range(40)]
        for _ in range(6)
    ]
    whole, halves = near(*videos), Signatures()
    for part in (videos[:2], videos[2:]):
        other = Signatures()
        for pairs in part:
            other.add(said(pairs))
        halves.extend(other)
    assert [each.tolist() for each in whole[:2]] == [each.tolist() for each in halves.near()[:2]]
    assert not near().within.any()

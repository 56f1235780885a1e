"""Faults of one QA pair: how each is planted, and by what name of a verdict it has to be found.

A new measure of a pair is one entry more in `FAULTS`.
"""

import re
from collections.abc import Callable
from random import Random
from typing import NamedTuple

from marathon_pipeline.records import LETTERS, QAPair, Span
from marathon_pipeline.wording import moments, words

SECONDS = 180  # of every clean video
Plant = Callable[[QAPair, Random], dict[str, object] | None]  # what changes; None where the fault does not fit the pair


class Fault(NamedTuple):
    """`found_as`: a problem, or a number that the shipped gates bound. `certain`: it has to be found, always."""

    found_as: str
    says: str
    plant: Plant
    certain: bool = True

    def planted(self, pair: QAPair, chance: Random) -> QAPair | None:
        changes = self.plant(pair, chance)
        if changes is None:
            return None
        spoilt = pair.model_copy(update=changes)
        content = (spoilt.video_id, spoilt.task, spoilt.format, spoilt.question, spoilt.options, spoilt.answer)
        return spoilt if "qa_id" in changes else spoilt.model_copy(update={"qa_id": QAPair.id_of(*content)})


def of_choice(plant: Plant) -> Plant:
    return lambda pair, chance: plant(pair, chance) if pair.options else None


def of_open(plant: Plant) -> Plant:
    return lambda pair, chance: None if pair.options else plant(pair, chance)


def right_of(pair: QAPair) -> int:
    return LETTERS.index(pair.letter)


def with_options(pair: QAPair, right: str, wrong: list[str]) -> dict[str, object]:
    """Other options; the right one stays in its place."""
    place = right_of(pair)
    return {"options": (*wrong[:place], right, *wrong[place:]), "answer": right}


def wrong_of(pair: QAPair) -> list[str]:
    return [option for option in pair.options if option != pair.answer]


def one_wrong(change: Callable[[str], str]) -> Plant:
    """Changes one wrong option."""

    def plant(pair: QAPair, chance: Random) -> dict[str, object]:
        first, *others = chance.sample(wrong_of(pair), 3)
        return with_options(pair, pair.answer, [change(first), *others])

    return of_choice(plant)


def each_option(change: Callable[[int, str], str]) -> Plant:
    def plant(pair: QAPair, chance: Random) -> dict[str, object]:
        options = tuple(change(place, option) for place, option in enumerate(pair.options))
        return {"options": options, "answer": options[right_of(pair)]}

    return of_choice(plant)


def right_only(change: Callable[[str], str]) -> Plant:
    """Changes the right option alone."""
    return of_choice(lambda pair, chance: with_options(pair, change(pair.answer), wrong_of(pair)))


def drawn_out(pair: QAPair) -> str:
    longest = max(map(len, pair.options))
    return f"{pair.answer.rstrip('.')}{', as can be seen plainly' * (1 + longest // 5)}."


def kinds(right: str, *wrong: str) -> Plant:
    """A right option of another kind than the wrong ones."""
    return of_choice(lambda pair, chance: with_options(pair, right, [*wrong]))


def asked(*patterns: str) -> Plant:
    """One of several ways to spoil the question; `Q` and `q` stand for it as it was."""

    def plant(pair: QAPair, chance: Random) -> dict[str, object]:
        question = chance.choice(patterns).replace("Q", pair.question)
        return {"question": question.replace("~", pair.question[:1].lower() + pair.question[1:])}

    return plant


def elsewhere(pair: QAPair, chance: Random) -> dict[str, object] | None:
    """Evidence and clips of a stretch that is far from every time named."""
    said = [moment for text in (pair.question, pair.answer) for moment in moments(text)]
    starts = [start for start in range(0, SECONDS - 30, 20) if said and max(_off(start, at) for at in said) > 40]
    if not starts:
        return None
    start = chance.choice(starts)
    return {"evidence": (Span(start=start, end=start + 30),), "clip_ids": (f"c{start // 20:04d}",)}


def _off(start: float, at: float) -> float:
    return max(start - at, at - start - 30, 0)


def outside_clips(pair: QAPair, chance: Random) -> dict[str, object] | None:
    """Cites the clip in which the evidence lies least."""
    at = pair.evidence[0].start
    return {"clip_ids": ("c0000" if at > SECONDS / 2 else "c0007",)}


def answer_asked(pair: QAPair, chance: Random) -> dict[str, object] | None:
    """The question says the answer, word for word."""
    asked = " ".join(words(pair.question))
    if " or " in asked or any(" ".join(words(option)) in asked for option in wrong_of(pair)):
        return None  # one that offers others beside it does not give it away
    return {"question": f"{pair.question[:-1]}, given that {pair.answer.rstrip('.').lower()}?"}


def leak(change: Callable[[list[str], Random], list[str]]) -> Plant:
    """The question says the answer's words, changed and in another order."""

    def plant(pair: QAPair, chance: Random) -> dict[str, object] | None:
        said = [word for word in words(pair.answer) if word not in ("it", "the", "a", "an", "about", "is")]
        if len({*said}) < 2 or "or" in words(pair.question):
            return None
        chance.shuffle(said)
        return {"question": f"{pair.question[:-1]}, as one hears of {', '.join(change(said, chance))}?"}

    return plant


def inflected(said: list[str], chance: Random) -> list[str]:
    """`moves`: `moving`; `grows`: `grow`; `circle`: `circles`."""
    nouns = r"(circle|square|triangle|bar|second|minute)$"
    return [re.sub(nouns, r"\1s", re.sub(r"s$", "", re.sub(r"es$", "ing", word))) for word in said]


OTHER_WORDS = {
    "moves": "travels", "move": "travel", "grows": "expands", "shrinks": "contracts", "turns": "becomes",
    "comes": "arrives", "goes": "departs", "circle": "disc", "square": "box", "triangle": "wedge", "bar": "strip",
    "view": "scenery", "changes": "alters", "above": "overhead", "below": "underneath", "left": "port",
    "right": "starboard", "top": "ceiling", "bottom": "floor", "minutes": "min", "seconds": "sec", "up": "skyward",
}  # fmt: skip


def synonyms(said: list[str], chance: Random) -> list[str]:
    return [OTHER_WORDS.get(word, word) for word in said]


FOREIGN = (
    "¿Qué hace la mujer de rojo justo después de cerrar la puerta?",
    "Was tut der Mann, nachdem er das Fenster geöffnet hat?",
    "Que se passe-t-il lorsque le train arrive en gare ?",
    "Cosa succede quando la palla cade nell'acqua?",
    "Wat gebeurt er nadat de hond over het hek is gesprongen?",
    "O que acontece quando o menino abre a caixa?",
    "Vad händer när bollen rullar ut genom dörren?",
    "Co robi kobieta po wyjściu z kuchni?",
    "Mies sulkee ikkunan ja istuutuu pöydän ääreen, mutta miksi?",
    "Apa yang dilakukan anak itu setelah bola jatuh ke sungai?",
)
FOREIGN_ANSWERS = (
    "La mujer cierra la puerta y se sienta en la silla.",
    "Er nimmt den Hut ab und setzt sich an den Tisch.",
    "Le train s'arrête et deux passagers en descendent.",
    "La palla rotola lentamente verso il fiume.",
    "De hond rent terug naar het huis.",
    "O menino corre para o jardim.",
)
FOREIGN_OPTIONS = ("La puerta roja", "Der alte Hut", "Le petit chien", "Il fiume lungo", "Het grote huis")
OTHER_SCRIPTS = (
    "Красный круг.",
    "一个红色的圆圈。",
    "دائرة حمراء.",
    "赤い丸です。",
    "Κόκκινος κύκλος.",
    "빨간 동그라미.",
)

OF_THE_PIPELINE = (
    "In this segment, ~", "According to the caption, ~", "In frame 12, ~", "Going by the provided description, ~",
    "In Event 3, ~", "At [00:12], ~", "In clip c0003: Q", "Between 20-50s, ~", "In the video's transcript, ~",
    "As mentioned, ~", "Based on the summary, ~", "In the sampled images, ~", "As noted, ~", "In shot #2, ~",
    "In this snippet of the video, ~", "In the keyframes, ~", "In the given information, ~", "As the text states, ~",
)  # fmt: skip

FAULTS: tuple[Fault, ...] = (
    Fault("wrong_id", "the id of another text", lambda pair, chance: {"qa_id": f"{chance.getrandbits(96):024x}"}),
    Fault(
        "wrong_task", "another topic", lambda pair, chance: {"topic": "object" if pair.topic != "object" else "scene"}
    ),
    Fault("open_with_options", "an open question with a letter", of_open(lambda pair, chance: {"letter": "B"})),
    Fault(
        "option_count",
        "three options",
        of_choice(lambda pair, chance: {"options": pair.options[:3]} if pair.letter != "D" else None),
    ),
    Fault(
        "option_count",
        "five options",
        of_choice(lambda pair, chance: {"options": (*pair.options, "A white cloud.")}),
    ),
    Fault(
        "wrong_letter",
        "the next letter",
        of_choice(lambda pair, chance: {"letter": LETTERS[(right_of(pair) + 1) % 4]}),
    ),
    Fault("wrong_letter", "no letter", of_choice(lambda pair, chance: {"letter": ""})),
    Fault(
        "equal_options",
        "a wrong option like the right one but for case and stops",
        of_choice(lambda pair, _: with_options(pair, pair.answer, [f"{pair.answer.upper()}!", *wrong_of(pair)[1:]])),
    ),
    Fault("empty_text", "a question without words", lambda pair, chance: {"question": "?"}),
    Fault("empty_text", "an option without words", one_wrong(lambda text: "...")),
    Fault("long_text", "a question of 90 words", lambda pair, chance: {"question": "and then " * 45 + pair.question}),
    Fault(
        "option_lengths",
        "a right option that goes on and on",
        of_choice(lambda pair, _: with_options(pair, drawn_out(pair), wrong_of(pair))),
    ),
    Fault("labelled_options", "options with letters", each_option(lambda place, text: f"{LETTERS[place]}. {text}")),
    Fault("labelled_options", "options with numbers", each_option(lambda place, text: f"({place + 1}) {text}")),
    Fault("catch_all_option", "none of the above", one_wrong(lambda text: "None of the above.")),
    Fault("catch_all_option", "both A and B", one_wrong(lambda text: "Both A and B")),
    Fault("catch_all_option", "it cannot be told", one_wrong(lambda text: "It cannot be determined.")),
    Fault("pipeline_word", "words of the pipeline, in 18 ways", asked(*OF_THE_PIPELINE)),
    Fault(
        "other_script",
        "an answer in one of 6 other scripts",
        of_open(lambda pair, chance: {"answer": chance.choice(OTHER_SCRIPTS)}),
    ),
    Fault("answer_in_question", "the answer, word for word", of_choice(answer_asked)),
    Fault(
        "time_outside_video",
        "a time after the end, in 4 forms",
        asked(
            "At 59:10, ~", "About 50 minutes in, ~", "At the 45-minute mark, ~", "1 hour 5 seconds into the video, ~"
        ),
    ),
    Fault("no_evidence", "no stretch", lambda pair, chance: {"evidence": ()}),
    Fault("no_evidence", "no clip", lambda pair, chance: {"clip_ids": ()}),
    Fault(
        "evidence_outside_video",
        "a stretch behind the end",
        lambda pair, chance: {"evidence": (Span(start=36000, end=36010),)},
    ),
    Fault(
        "evidence_outside_video",
        "a stretch without a length",
        lambda pair, chance: {"evidence": (Span(start=pair.evidence[0].end, end=pair.evidence[0].start),)},
    ),
    Fault("unknown_clip", "a clip of another video", lambda pair, chance: {"clip_ids": (*pair.clip_ids, "c0099")}),
    Fault("evidence_outside_clips", "clips of another stretch", outside_clips),
    Fault("said_off_seconds", "evidence far from the time that is named", elsewhere),
    Fault("ways_apart", "a number among colours", kinds("Three.", "Red.", "Blue.", "Green."), False),
    Fault("ways_apart", "a time among durations", kinds("1:20", "Two minutes", "Half a minute", "Ten seconds"), False),
    Fault("ways_apart", "a colour among things", kinds("Red.", "A circle.", "A bar.", "A square."), False),
    Fault(
        "ways_apart",
        "a sentence among phrases",
        kinds("It was opened by a man.", "A red door.", "The window.", "Two gates by the road."),
        False,
    ),
    Fault(
        "ways_apart",
        "a sentence among phrases, without a word that tells",
        kinds("The man opens a door.", "The red door.", "The window.", "The gates by the road."),
        False,
    ),
    Fault("ways_apart", "the only one without a full stop", right_only(lambda text: text.rstrip(".")), False),
    Fault("ways_apart", "the only one in small letters", right_only(lambda text: text[:1].lower() + text[1:]), False),
    Fault(
        "ways_apart", "the only negated one", right_only(lambda text: f"{text.rstrip('.')}, and not once more."), False
    ),
    Fault("ways_apart", "several among single ones", kinds("Two dogs.", "A cat.", "A bird.", "A fish."), False),
    Fault("ways_apart", "several without a numeral", kinds("The dogs.", "The cat.", "The bird.", "The fish."), False),
    Fault("option_leak", "the right option's words in another order", of_choice(leak(lambda said, _: said)), False),
    Fault("option_leak", "the right option's words in other forms", of_choice(leak(inflected)), False),
    Fault(
        "option_leak",
        "half of the right option's words",
        of_choice(leak(lambda said, _: said[: len(said) // 2])),
        False,
    ),
    Fault("option_leak", "other words for those of the right option", of_choice(leak(synonyms)), False),
    Fault("answer_leak", "the answer's words in another order", of_open(leak(lambda said, _: said)), False),
    Fault("answer_leak", "the answer's words in other forms", of_open(leak(inflected)), False),
    Fault("answer_leak", "other words for those of the answer", of_open(leak(synonyms)), False),
    Fault(
        "foreign", "a question in one of 10 languages", lambda pair, chance: {"question": chance.choice(FOREIGN)}, False
    ),
    Fault(
        "foreign",
        "an answer in one of 6 languages",
        of_open(lambda pair, chance: {"answer": chance.choice(FOREIGN_ANSWERS)}),
        False,
    ),
    Fault(
        "foreign",
        "one option of four in another language",
        of_choice(
            lambda pair, chance: with_options(pair, pair.answer, [chance.choice(FOREIGN_OPTIONS), *wrong_of(pair)[1:]])
        ),
        False,
    ),
)

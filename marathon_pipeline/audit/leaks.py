"""How much of the answer the question says in other forms and another order of its words."""

from collections.abc import Sequence

from marathon_pipeline.wording import stem, words

# What most sentences hold, whatever they are about. Words of order, place and count are not among them.
_EMPTY = frozenset(
    words(
        "about around roughly nearly a an the this that these those it its itself he him his she her hers they "
        "them their who whom whose which what where when why how is are was were be been being am do does did "
        "doing done has have had having will would can could shall should may might must of in on at to for from "
        "by with into onto as and or but so than there here if s t video one ones"
    )
)


def option_leak(question: str, options: Sequence[str], right: int) -> float:
    """What share of the right option's words the question says; 0 where it says as much of a wrong one."""
    if not 0 <= right < len(options):
        return 0.0
    asked = _stems(question)
    shares = [_share(option, asked) for option in options]
    said = shares.pop(right)
    return said if said > max(shares, default=0.0) else 0.0


def answer_leak(question: str, answer: str) -> float:
    """What share of the answer's words the question says; 0 where it offers several (`the rain or the snow?`)."""
    return 0.0 if "or" in words(question) else _share(answer, _stems(question))


def _share(text: str, asked: frozenset[str]) -> float:
    own = _stems(text)
    return len(own & asked) / max(2, len(own))  # one word that both say is no leak


def _stems(text: str) -> frozenset[str]:
    return frozenset(stem(word) for word in words(text) if word not in _EMPTY)

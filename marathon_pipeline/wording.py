"""What the words of a question, its options and its answer may not be: for who writes them, and for the audit."""

import re
import unicodedata
from collections.abc import Iterator, Sequence
from functools import cache, lru_cache
from typing import Any

from marathon_pipeline.taxonomy import Rules, Task

PROBLEMS: dict[str, str] = {
    "equal_options": "Two options are the same but for case, spaces and punctuation.",
    "empty_text": "The question, the answer or an option holds no word.",
    "long_text": "The question, the answer or an option has more words than its bound allows.",
    "option_lengths": "One option is so much longer than another one that its length alone can give the answer away.",
    "labelled_options": "Its options carry letters or numbers of their own.",
    "catch_all_option": "An option speaks of the other options (`all of these`), or of not knowing.",
    "pipeline_word": "It speaks of how it was made: in a word that the rules forbid, or by an id or a number.",
    "other_script": "It holds letters of a script that the templates do not use, and that it does not quote.",
    "answer_in_question": "The question says the answer, and offers no other one beside it.",
}

MAX_QUESTION_WORDS = 80
MAX_OPTION_WORDS = 60
MAX_ANSWER_WORDS = 200
MAX_ACCOUNT_WORDS = 1500  # of an answer that retells the video from its global caption
MAX_LENGTH_RATIO = 4.0  # longest option over shortest, where the difference is large enough to be seen:
MIN_LENGTH_DIFFERENCE = 24  # characters; `two` beside `twelve` gives nothing away

_WORD = re.compile(r"[^\W_]+")
ASCII_WORDS = bytes(byte if chr(byte).isalnum() else ord(" ") for byte in bytes(range(128)).lower())
_DIGIT = re.compile(r"\d")
_CLOCK = re.compile(r"(?<![\d:.])(?:(\d{1,2}):)?(\d{1,2}):([0-5]\d)(?![\d:]|\.\d)")
# What follows on a moment (`2 minutes in, she leaves`, `2 minutes in when`), and not on `10 minutes in the kitchen`.
_MOMENT = (
    r"[\"\u201d\u2019]?(?:\s*(?:$|[.,;:?!\u2026)\]]|[-\u2013\u2014]+\s|\u2014)"
    r"| (?:s?he|they|we|I|who|when|while|as|after|before|until|and|but|or|does|do|did|is|are|was|were)\b)"
)
_SAID = re.compile(
    r"\b(?:(?P<h>\d+) hours?)?,?(?: and)? ?(?:(?P<m>\d+) minutes?)?,?(?: and)? ?(?:(?P<s>\d+) seconds?)? "
    rf"(?:into the video\b|from the start\b|in(?={_MOMENT}))",
    re.IGNORECASE,
)

_MARK = re.compile(r"\b(?:at|by|around|after) minute (\d+)\b|\b(\d+)[- ]minute mark\b", re.IGNORECASE)
_LABEL = re.compile(r"\s*(?:\(?[A-E1-5][.):]|[\[{][A-E1-5][]}])\s", re.IGNORECASE)
_CATCH_ALL = re.compile(
    r"(?:all|none|neither|any|both|some|two)(?: of)?(?: the)?(?: these| those| them| above| others| options| answers)"
    r"|(?:both )?[a-d] (?:and|or|nor) [a-d]|not enough information(?: is)?(?: given)?|unknown|i don t know"
    r"|(?:it |this )?(?:cannot|can not|can t) be (?:determined|told|known|said|inferred|answered)"
)
# What prompts and captions call things by: `c0012`, `Event 3`, `[0:12]`, `20-50s`.
_CODE = re.compile(
    r"\bc\d{4}\b|[\[(<] ?\d{1,2}:\d\d\b|\d ?s? ?[-\u2013] ?\d+(?:\.\d+)? ?s\b|<(?:image|video)>"
    r"|\b(?:clip|frame|caption|segment|event|stretch|scene|shot|chunk)[ _#-]*\d+\b(?! times)",
    re.IGNORECASE,
)
_QUOTED = re.compile(r"\"[^\"]*\"|“[^”]*”|«[^»]*»|「[^」]*」")


def words(text: str) -> list[str]:
    """A text's words in small letters, without punctuation."""
    if text.isascii():  # four times as fast, where a large audit spends most of its time
        return text.translate(ASCII_WORDS).split()
    return _WORD.findall(text.casefold())


def moments(text: str) -> list[float]:
    """The times of a video that a text names, in seconds: `4:05`, `2 minutes 10 seconds in`, `the 5-minute mark`."""
    if _DIGIT.search(text) is None:
        return []
    found = [3600 * int(h or 0) + 60 * int(m) + int(s) for h, m, s in _CLOCK.findall(text)]
    for said in _SAID.finditer(text):
        parts = said.groupdict()
        if any(parts.values()):
            found.append(sum(int(parts[unit] or 0) * size for unit, size in (("h", 3600), ("m", 60), ("s", 1))))
    found += [60 * int(at or mark) for at, mark in _MARK.findall(text)]
    return [float(seconds) for seconds in found]


def problems(question: str, options: Sequence[str], answer: str, task: Task, rules: Rules) -> Iterator[str]:
    """Keys of `PROBLEMS`."""
    texts = [folded for option in options if (folded := tuple(words(option)))]
    if len(set(texts)) != len(texts):
        yield "equal_options"
    said = (question, answer, *options)
    if not all(words(text) for text in said):
        yield "empty_text"
    most = MAX_ACCOUNT_WORDS if task.reads == ("global",) else MAX_ANSWER_WORDS
    bounds = (MAX_QUESTION_WORDS, most, *[MAX_OPTION_WORDS] * len(options))
    if any(len(words(text)) > bound for text, bound in zip(said, bounds, strict=True)):
        yield "long_text"
    sizes = [len(option.strip()) for option in options] or [0]
    if max(sizes) > MAX_LENGTH_RATIO * min(sizes) and max(sizes) - min(sizes) >= MIN_LENGTH_DIFFERENCE:
        yield "option_lengths"
    if sum(_LABEL.match(option) is not None for option in options) > 1:  # one alone may be a person's initial
        yield "labelled_options"
    if any(_CATCH_ALL.fullmatch(" ".join(folded)) for folded in texts):
        yield "catch_all_option"
    if _CODE.search("\n".join(said)) or any(rules.forbidden_in(text) for text in said):
        yield "pipeline_word"
    if not all(map(str.isascii, said)) and _other_script(said, _scripts_of(rules.general)):
        yield "other_script"
    if _answers_itself(question, options, answer):
        yield "answer_in_question"


def _answers_itself(question: str, options: Sequence[str], answer: str) -> bool:
    """`Which lasts longer, the rain or the snow?` names its answer and does not give it away."""
    asked, right = (f" {' '.join(words(text))} " for text in (question, answer))
    if right not in asked or not right.strip() or " or " in asked:
        return False
    beside = asked.replace(right, " | ")  # `a minute` within `a minute and a half` is no other answer
    others = (f" {' '.join(words(option))} " for option in options if option != answer)
    return not any(other in beside for other in others if other.strip())


def _other_script(said: Sequence[str], home: frozenset[str]) -> bool:
    """Two letters at least, as one may be a sign: `π`. What is quoted may be read off the picture."""
    letters = [letter for text in said for letter in _QUOTED.sub("", text) if letter.isalpha()]
    return sum(not letter.isascii() and _script(letter) not in home for letter in letters) > 1


@cache
def _scripts_of(text: str) -> frozenset[str]:
    return frozenset(_script(letter) for letter in set(text) if letter.isalpha())


def _script(letter: str) -> str:
    """The first word of a character's name: `LATIN`, `CYRILLIC`, `CJK`."""
    return unicodedata.name(letter, "unknown").partition(" ")[0]


@lru_cache(200_000)
def stem(word: str) -> str:
    """`circl` of `circles`, `circling` and `circle`; of an English word in small letters."""
    return str(_stemmer().stemWord(word))


@cache
def _stemmer() -> Any:
    from snowballstemmer import stemmer

    return stemmer("english")

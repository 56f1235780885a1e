"""What the words of a question, its options and its answer may not be: for who writes them, and for the audit."""

import re
from collections.abc import Iterator, Sequence

from marathon_pipeline.taxonomy import Rules, Task

PROBLEMS: dict[str, str] = {
    "equal_options": "Two options are the same but for case, spaces and punctuation.",
    "empty_text": "The question, the answer or an option holds no word.",
    "long_text": "The question, the answer or an option has more words than its bound allows.",
    "option_lengths": "One option is so much longer than another one that its length alone can give the answer away.",
    "pipeline_word": "It speaks of how it was made, in a word that the rules of the templates forbid.",
    "answer_in_question": "The question says the answer, and offers no other one beside it.",
}

MAX_QUESTION_WORDS = 80
MAX_OPTION_WORDS = 60
MAX_ANSWER_WORDS = 200
MAX_ACCOUNT_WORDS = 1500  # of an answer that retells the video from its global caption
MAX_LENGTH_RATIO = 4.0  # longest option over shortest, where the difference is large enough to be seen:
MIN_LENGTH_DIFFERENCE = 24  # characters; `two` beside `twelve` gives nothing away

_WORD = re.compile(r"[^\W_]+")
_ASCII_WORDS = bytes(byte if chr(byte).isalnum() else ord(" ") for byte in bytes(range(128)).lower())
_CLOCK = re.compile(r"(?<![\d:.])(?:(\d{1,2}):)?(\d{1,2}):([0-5]\d)(?![\d:]|\.\d)")
_SAID = re.compile(
    r"\b(?:(?P<h>\d+) hours?)?,?(?: and)? ?(?:(?P<m>\d+) minutes?)?,?(?: and)? ?(?:(?P<s>\d+) seconds?)? "
    r"(?:into the video|from the start|in)\b(?! (?:a row|all|length|total))",
    re.IGNORECASE,
)


def words(text: str) -> list[str]:
    """A text's words in small letters, without punctuation."""
    if text.isascii():  # four times as fast, where a large audit spends most of its time
        return text.translate(_ASCII_WORDS).split()
    return _WORD.findall(text.casefold())


def moments(text: str) -> list[float]:
    """The times of a video that a text names, in seconds: `4:05`, `1:02:00`, `2 minutes 10 seconds in`."""
    found = [3600 * int(h or 0) + 60 * int(m) + int(s) for h, m, s in _CLOCK.findall(text)]
    for said in _SAID.finditer(text):
        parts = said.groupdict()
        if any(parts.values()):
            found.append(sum(int(parts[unit] or 0) * size for unit, size in (("h", 3600), ("m", 60), ("s", 1))))
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
    if any(rules.forbidden_in(text) for text in said):
        yield "pipeline_word"
    if _answers_itself(question, options, answer):
        yield "answer_in_question"


def _answers_itself(question: str, options: Sequence[str], answer: str) -> bool:
    """`Which lasts longer, the rain or the snow?` names its answer and does not give it away."""

    def asked(text: str) -> bool:
        return bool(words(text)) and f" {' '.join(words(text))} " in spaced

    spaced = f" {' '.join(words(question))} "
    return asked(answer) and " or " not in spaced and not any(asked(option) for option in options if option != answer)

"""Whether a text is in the language of the templates."""

from functools import cache
from typing import TYPE_CHECKING

from marathon_pipeline.taxonomy import Rules
from marathon_pipeline.wording import words

if TYPE_CHECKING:
    from py3langid.langid import LanguageIdentifier

FEWEST_WORDS = 4  # of fewer, and of names alone, no language can be told
_LONG = 600  # characters: what is longer says no more


def foreign(text: str, rules: Rules) -> float:
    """How sure it is that a text is in another language than the rules, 0 to 1.

    py3langid (97 languages, offline) is asked only where few of its words are among those of the rules.
    """
    said = words(text[:_LONG])
    if len(said) < FEWEST_WORDS or 4 * sum(map(_familiar(rules.general).__contains__, said)) >= len(said):
        return 0.0
    language, sure = _detector().classify(text[:_LONG])
    return 0.0 if language == _language(rules.general) else float(sure)


@cache
def _familiar(prose: str) -> frozenset[str]:
    return frozenset(words(prose))


@cache
def _language(text: str) -> str:
    return str(_detector().classify(text)[0])


@cache
def _detector() -> "LanguageIdentifier":
    from py3langid.langid import MODEL_FILE, LanguageIdentifier

    return LanguageIdentifier.from_model_file(MODEL_FILE, norm_probs=True)

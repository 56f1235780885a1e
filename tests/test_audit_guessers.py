"""Guessers without the video: they find a planted shortcut, and nothing where there is none."""

import random
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from marathon_pipeline.audit.guessers import Usual, longest, most_central
from marathon_pipeline.intervals import wilson

QUESTIONS = 4000


@pytest.mark.parametrize(
    ("options", "guess"),
    [
        (("a", "bb", "a longer one", "ccc"), 2),
        (("a", "bbbb ", "cccc", "d"), None),
        (("same", "size", "all", "over"), None),
    ],
)
def test_the_longest_option_is_the_one_that_is_longer_than_all(options: tuple[str, ...], guess: int | None) -> None:
    assert longest(options) == guess


@pytest.mark.parametrize(
    ("options", "guess"),
    [
        (("a red kite", "a red bird", "a blue kite", "two dogs"), 0),
        (("a Red KITE!", "a red bird", "a blue kite", "two dogs"), 0),
        (("one", "two", "three", "four"), None),
        (("a red kite", "a red bird", "a blue kite", "a blue bird"), None),
    ],
)
def test_the_central_option_shares_most_words_with_the_others(options: tuple[str, ...], guess: int | None) -> None:
    assert most_central(options) == guess


@given(st.lists(st.text(max_size=20), min_size=4, max_size=4), st.randoms())
def test_a_guess_does_not_depend_on_the_order_of_the_options(options: list[str], chance: random.Random) -> None:
    turned = options[:]
    chance.shuffle(turned)
    for guesser in (longest, most_central):
        one, other = guesser(options), guesser(turned)
        assert (one is None) == (other is None)
        if one is not None and other is not None:
            assert options[one].strip() == turned[other].strip() or guesser is most_central


def share(favourite: float, seed: int) -> float:
    """How often the usual answer is right where a tenth of the texts is right with this preference."""
    chance, usual = random.Random(seed), Usual()
    for _ in range(QUESTIONS):
        options = chance.sample(range(40), 4)
        weights = [favourite if option < 4 else 1.0 for option in options]
        usual.add(0, options, chance.choices(range(4), weights)[0])
    asked, right = usual.counts()
    return right[0] / asked[0]


def test_an_answer_that_is_usual_gives_itself_away_and_others_do_not() -> None:
    low, high = wilson(QUESTIONS // 4, QUESTIONS)
    assert low - 0.02 < share(1.0, seed=1) < high + 0.02
    assert share(20.0, seed=1) > 0.35


def test_a_question_is_not_its_own_hint() -> None:
    usual = Usual()
    for number in range(50):  # no text stands twice
        usual.add(7, [4 * number + option for option in range(4)], number % 4)
    assert usual.counts() == (Counter(), Counter())
    assert Usual().counts() == (Counter(), Counter())


@pytest.mark.parametrize(
    ("part", "whole", "low", "high"),
    [(0, 10, 0.0, 0.2775), (5, 10, 0.2366, 0.7634), (8, 10, 0.4902, 0.9433), (0, 0, 0, 1)],
)
def test_the_interval_of_a_share_agrees_with_the_published_one(part: int, whole: int, low: float, high: float) -> None:
    assert wilson(part, whole) == (pytest.approx(low, abs=1e-4), pytest.approx(high, abs=1e-4))

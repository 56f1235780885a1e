"""Questions about synthetic videos are scored against the scripts; `make truth` does so with many more videos."""

import ast
from collections.abc import Callable
from pathlib import Path

import pytest
from measured_truth import Told as Written
from measured_truth import told, told_of
from truth.clips import score_clips
from truth.run import OF_ALL, OF_EACH
from truth.scorer import score, tally
from truth.told import Told

from marathon_pipeline.records import LETTERS, QAPair

__all__ = ["told", "told_of"]  # fixtures

READERS = ("told", "account", "reading", "moments", "things", "scenes", "claims", "scorer", "clips")


def test_no_answer_is_wrong_and_no_wrong_option_is_right(told: Written) -> None:
    tallies = tally(Told(told.script), told.pairs)
    assert [fault for of_task in tallies.values() for fault in of_task.faults] == []


def test_no_clip_caption_says_what_is_not_so(told: Written) -> None:
    tallies = score_clips(Told(told.script), told.captions).values()
    assert [fault for of_field in tallies for fault in of_field.faults] == []
    assert min(of_field.share for of_field in tallies) >= OF_EACH


def test_the_captions_of_another_video_are_found_wrong(told_of: Callable[[int, float], Written]) -> None:
    tallies = score_clips(Told(told_of(17, 5.0).script), told_of(3, 4.0).captions).values()
    assert sum(of_field.wrong for of_field in tallies) >= 0.5 * sum(of_field.decided for of_field in tallies)


def test_nearly_all_questions_are_decided(told: Written) -> None:
    tallies = tally(Told(told.script), told.pairs).values()
    assert sum(of_task.decided for of_task in tallies) >= OF_ALL * sum(of_task.asked for of_task in tallies)
    assert min(of_task.share for of_task in tallies) >= OF_EACH


def test_a_wrong_option_given_as_the_answer_is_found_out(told: Written) -> None:
    script = Told(told.script)
    swapped = [exchanged(pair) for pair in told.pairs if pair.format == "choice"]
    assert not [pair for pair in swapped if score(script, pair).right]


def exchanged(pair: QAPair) -> QAPair:
    letter = next(letter for letter in LETTERS if letter != pair.letter)
    return pair.model_copy(update={"letter": letter, "answer": pair.options[LETTERS.index(letter)]})


def test_most_answers_about_another_video_are_found_wrong(told_of: Callable[[int, float], Written]) -> None:
    other = Told(told_of(17, 5.0).script)
    scores = [score(other, pair) for pair in told_of(3, 4.0).pairs]
    assert sum(found.right is True for found in scores) <= 0.15 * len(scores)


def test_a_letter_that_names_another_option_is_wrong(told: Written) -> None:
    pair = next(pair for pair in told.pairs if pair.format == "choice")
    letter = next(letter for letter in LETTERS if letter != pair.letter)
    assert score(Told(told.script), pair.model_copy(update={"letter": letter})).right is False


@pytest.mark.parametrize("reader", READERS)
def test_the_scorer_knows_nothing_of_the_annotator(reader: str) -> None:
    text = (Path(__file__).parent / "truth" / f"{reader}.py").read_text(encoding="utf-8")
    nodes = list(ast.walk(ast.parse(text)))
    modules = {node.module or "" for node in nodes if isinstance(node, ast.ImportFrom)}
    modules |= {alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names}
    ours = {name for name in modules if name.startswith("marathon_pipeline")}
    assert ours <= {"marathon_pipeline.records", "marathon_pipeline.synthetic.script"}

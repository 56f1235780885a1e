"""Texts as numbers of their words."""

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from marathon_pipeline.audit.texts import Texts, forget_words, word_hashes
from marathon_pipeline.wording import words

TEXTS = st.lists(st.text(st.sampled_from("aZ9 .'\0\n_éßЖ-"), max_size=12), max_size=6)


@given(TEXTS)
def test_texts_have_the_words_and_sizes_that_they_have_one_by_one(texts: list[str]) -> None:
    found = Texts.of(texts)
    assert found.sizes.tolist() == [len(words(text)) for text in texts]
    alone = [word_hashes.of(Texts.of([text]).numbers).tolist()[1:-1] for text in texts]
    together = word_hashes.of(found.numbers).tolist()
    ends = found.places.tolist()
    assert [together[begin + 1 : end] for begin, end in pairwise(ends)] == alone


@given(TEXTS)
def test_hashes_are_equal_where_the_words_are_and_do_not_depend_on_the_texts_beside(texts: list[str]) -> None:
    hashes = Texts.of(texts).hashes().tolist()
    forget_words()
    assert hashes == [Texts.of([text]).hashes().tolist()[0] for text in texts]
    said = [tuple(words(text)) for text in texts]
    assert all((one == other) == (a == b) for one, a in zip(hashes, said, strict=True)
               for other, b in zip(hashes, said, strict=True))  # fmt: skip

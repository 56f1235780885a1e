"""The sample and its judgements in files of other reviewing tools, and their judgements taken in."""

import json
import tempfile
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

from pydantic import ValidationError

from marathon_pipeline.dataset.dataset import Dataset, media_key
from marathon_pipeline.dataset.reviews import REASONS, Judged, Judgement, Reviews, Standing, tidy
from marathon_pipeline.errors import UserError
from marathon_pipeline.records import LETTERS, QAPair
from marathon_pipeline.review import argilla, label_studio
from marathon_pipeline.review.deal import Dealt
from marathon_pipeline.review.forms import Asked, Foreign
from marathon_pipeline.taxonomy import clock

Tool = Literal["argilla", "label-studio"]
_WITHOUT_REASON = "no reason given"


def tool_of(name: str) -> Tool:
    for tool in get_args(Tool):
        if name == tool:
            return tool  # type: ignore[no-any-return]
    raise UserError(f"`{name}` is no tool that samples are exchanged with: give one of {', '.join(get_args(Tool))}")


@dataclass
class Taken:
    """What came of the judgements of a file."""

    new: Counter[str]  # by reviewer
    known: int = 0  # said before, word for word, whatever was said since
    gone: int = 0  # of pairs that are no longer there as they were shown

    def __str__(self) -> str:
        names = ", ".join(f"{name} {count}" for name, count in sorted(self.new.items())) or "none"
        return f"judgements taken in: {names}; {self.known} known before, {self.gone} of pairs that are gone"


def export_sample(dealt: Sequence[Dealt], reviews: Reviews, tool: Tool, path: Path, media: str, judged: bool) -> None:
    """Write the sample for a tool: a folder for Argilla, a file of tasks and one of its labels for Label Studio.

    media: what stands before the key of a proxy to make its address. judged: with what people said so far, for an
    archive; without it reviewers stay blind. Raises UserError where something is there already.
    """
    asked = [_asked(each, reviews, media, judged) for each in dealt]
    whole = tool == "argilla"
    files = (argilla if whole else label_studio).files(asked, path.name)
    for target in [path] if whole else [path.parent / name for name in files]:
        if target.exists():
            raise UserError(f"{target}: is there already; give another name, or move it away")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".review-", dir=path.parent) as made:
            for name, text in files.items():
                file = Path(made) / "all" / name
                file.parent.mkdir(parents=True, exist_ok=True)
                file.write_text(text, encoding="utf-8")
            if whole:
                (Path(made) / "all").rename(path)
            else:
                for name in files:
                    (Path(made) / "all" / name).rename(path.parent / name)
    except OSError as error:
        raise UserError(f"{path}: cannot be written ({error.strerror}); give another place") from None


def take_in(dataset: Dataset, path: Path, tool: Tool, names: Mapping[str, str]) -> Taken:
    """Keep the judgements that a tool's file holds. names: of people, by what the tool calls them.

    All of the file is understood before anything is kept. Raises UserError where it is not.
    """
    reviews = dataset.reviews()
    said = list(reviews.all_said())
    called = {argilla.user_id(each.reviewer): each.reviewer for each in said} | dict(names)
    known = {_words(each) for each in said}
    foreign = list(_read(path, tool))
    taken, kept, pairs = Taken(Counter()), [], {}
    for each in foreign:
        if each.video_id not in pairs:
            pairs[each.video_id] = {pair.qa_id: pair for pair in _pairs(dataset, each.video_id)}
        pair = pairs[each.video_id].get(each.qa_id)
        if pair is None or Judged.of(pair).shown != each.shown:
            taken.gone += 1
            continue
        judgement = _judgement(pair, each, tool, called, path)
        if _words(judgement) in known:  # an older file must not undo what its people changed their minds to
            taken.known += 1
        else:
            kept.append(judgement)
    for judgement in kept:
        reviews.add(judgement)
        taken.new[judgement.reviewer] += 1
    return taken


def _asked(dealt: Dealt, reviews: Reviews, media: str, judged: bool) -> Asked:
    pair = dealt.pair
    standing = reviews.standings.get(pair.video_id, {}).get(dealt.judged, Standing())
    spans = ", ".join(f"{clock(span.start)} to {clock(span.end)}" for span in pair.evidence)
    return Asked(
        qa_id=pair.qa_id,
        video_id=pair.video_id,
        task=pair.task,
        format=pair.format,
        shown=dealt.judged.shown,
        question=pair.question,
        options="\n".join(f"{letter}. {option}" for letter, option in zip(LETTERS, pair.options, strict=False)),
        answer=f"{pair.letter}. {pair.answer}" if pair.letter else pair.answer,
        evidence=f"{spans}; of {clock(dealt.seconds)}",
        video=f"{media}{media_key('proxies', pair.video_id, '.mp4')}",
        judgements=standing.reviews if judged else (),
    )


def _pairs(dataset: Dataset, video_id: str) -> Iterable[QAPair]:
    known = any(
        video_id in outcome.videos for outcome in dataset.ledger.of_stage("download")
    )  # ids of a file become no paths unseen
    return dataset.tables.read(QAPair, video_id) if known else ()


def _read(path: Path, tool: Tool) -> Iterator[Foreign]:
    read = argilla.read if tool == "argilla" else label_studio.read
    file = path / argilla.RECORDS if tool == "argilla" and path.is_dir() else path
    try:
        yield from read(json.loads(file.read_text(encoding="utf-8")))
    except OSError as error:
        raise UserError(f"{file}: cannot be read ({error.strerror})") from None
    except (ValueError, RecursionError) as error:  # no JSON, or of another shape
        why = error.errors()[0] if isinstance(error, ValidationError) else None
        said = f"{'.'.join(map(str, why['loc']))}: {why['msg']}" if why else str(error)[:150]
        raise UserError(f"{file}: is no export of {tool} that was made from this dataset ({said})") from None


def _judgement(pair: QAPair, said: Foreign, tool: Tool, called: Mapping[str, str], path: Path) -> Judgement:
    name = called.get(said.who) or said.name
    if not tidy(name):
        raise UserError(f"{path}: who is `{said.who}`? give --name '{said.who}=THEIR NAME'")
    reason = said.reason if said.verdict == "reject" else ""
    note = said.note[:2000]
    if said.verdict == "reject" and reason not in REASONS:
        reason = "other"
    if reason == "other":
        note = note.strip() or _WITHOUT_REASON
    try:
        return Judgement(
            video_id=pair.video_id,
            **Judged.of(pair)._asdict(),
            reviewer=name,
            verdict=said.verdict,
            reason=reason,
            note=note,
            via=tool,
        )
    except ValidationError as error:
        raise UserError(f"{path}: pair {said.qa_id}: {error.errors()[0]['msg']}") from None


def _words(said: Judgement) -> tuple[object, ...]:
    return said.judged, said.who, said.role, said.verdict, said.reason, said.note

"""A dataset of the paper's size, as a run with served models would have left it: its tables and its ledger.

    python tests/bench/large.py out/large                 # 28,000 videos, 3.3 million QA pairs: 4 GB of disk, minutes
    python tests/bench/large.py out/large --videos 300

Durations, collections and numbers of pairs are the paper's. Every video tells of a world of things of its own, in
sentences of varied length; one film stands for every proxy. Duplicates are planted, and nothing else is one:
`planted.json` says how many an audit has to find.
"""

import argparse
import hashlib
import json
import multiprocessing
import os
import shutil
import subprocess
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cache, partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from marathon_pipeline.dataset.dataset import Dataset, media_key
from marathon_pipeline.dataset.parquet import arrow_schema, bytes_of
from marathon_pipeline.dataset.tables import Tables
from marathon_pipeline.ffmpeg import ffmpeg_binary
from marathon_pipeline.records import (
    CAPTION_FIELDS,
    LETTERS,
    Clip,
    ClipCaption,
    ColourShares,
    Event,
    Outcome,
    QAPair,
    Record,
    Signals,
    Source,
    Summary,
    Usage,
    Verdict,
    Video,
    digest,
)
from marathon_pipeline.taxonomy import Task, load_taxonomy

VIDEOS = 28_000
SHARES = {"panda-70m": 62.3, "ego4d": 21.3, "activitynet": 8.2, "youcook2": 5.5, "moviechat-1k": 2.7}
BINS_OF_5_MINUTES = (3980, 4870, 3380, 3060, 3060, 2760, 2050, 1050, 860, 1285, 1040, 410)
CARRIED = 0.93  # of the tasks that a video can be asked: 118 pairs a video
REJECTED = 0.02  # of the pairs that are not planted
# Shares of the open-ended pairs that stand in other videos too, that repeat a question of their video with another
# answer, and that nearly repeat a pair of their video.
ACROSS, WITHIN, NEAR = 0.01, 0.005, 0.005
COMMON = 40  # pairs of each task to choose those from that stand in several videos
STRIDE, CLIP = 20, 30  # seconds
LINES_A_SEGMENT = 25_000
WRITER, CAPTIONER = "deepseek-v3@main", "qwen2-vl-7b@main"
CONSONANTS, VOWELS = ("bdfgklmnprstv", ("a", "e", "i", "o", "u", "ai", "ou", "ar", "en", "il"))
SYLLABLES = tuple(one + other for one in CONSONANTS for other in VOWELS)
BESIDE = ("with", "under", "beside", "towards", "without")
WHERE = ("in", "near", "behind", "outside")
ASKED = (
    "What does {thing} do after it {deed}?",
    "Which of these happens while {thing} {deed}?",
    "Why does {thing} stay {place} when {other} {deed}?",
    "How long does it take {thing} until it {deed}?",
    "Where is {thing} when {other} {deed} for the first time?",
    "What is {thing} like at the end of the scene {place} where {other} {deed}?",
    "In which order does {thing} meet {other} and the others {place}?",
)


def main() -> None:
    options = argparse.ArgumentParser()
    options.add_argument("folder", type=Path)
    options.add_argument("--videos", type=int, default=VIDEOS)
    chosen = options.parse_args()
    began = time.monotonic()
    generate(chosen.folder, chosen.videos)
    print(f"generated {chosen.folder} in {time.monotonic() - began:.0f} s")


def generate(folder: Path, videos: int, processes: int | None = None) -> None:
    """Write the dataset anew."""
    shutil.rmtree(folder, ignore_errors=True)
    dataset = Dataset(str(folder), create=True)
    (folder / "job.yaml").write_text(f"dataset: {folder.resolve()}\n")
    names = [f"yt_{hashlib.sha256(b'%d' % number).hexdigest()[:11]}" for number in range(videos)]
    dataset.write_sources(
        Source(source_id=name, data_source=collection, url=f"https://v.example/{name}")
        for name, collection in zip(names, collections(videos), strict=True)
    )
    for kind in (QAPair, Verdict, ClipCaption, Event, Summary, Clip, Signals, Video):
        for hexes in range(256):
            (folder / f"tables/{kind.table}/{hexes:02x}").mkdir(parents=True, exist_ok=True)
    _link_proxies(folder, names)
    (folder / "ledger").mkdir(exist_ok=True)
    lines: list[str] = []
    segments, planted = 0, Planted()
    with multiprocessing.get_context("spawn").Pool(processes or os.cpu_count()) as pool:
        for number, (of_video, own) in enumerate(pool.imap(partial(_write_video, folder), names, chunksize=16), 1):
            lines += of_video
            planted.add(own)
            if len(lines) >= LINES_A_SEGMENT or number == videos:
                segments += 1
                (folder / f"ledger/{segments:08d}.jsonl").write_text("".join(f"{line}\n" for line in lines))
                lines = []
    (folder / "planted.json").write_text(json.dumps(planted.expected(), indent=1))


def collections(videos: int) -> list[str]:
    """Which one each video is of."""
    chance = np.random.default_rng(0)
    return list(map(str, chance.choice(list(SHARES), videos, p=np.array(list(SHARES.values())) / 100)))


@dataclass
class Planted:
    """Of one video, or of all. `common`: pairs that stand in several videos, by what they are."""

    within: int = 0
    near: int = 0
    common: Counter[tuple[str, int]] = field(default_factory=Counter)

    def add(self, other: "Planted") -> None:
        self.within += other.within
        self.near += other.near
        self.common += other.common

    def expected(self) -> dict[str, int]:
        """Pairs that an audit has to find; of `near`, and of those beside it, it may miss some, for it estimates."""
        return {
            "within": 2 * self.within,
            "across": sum(videos for videos in self.common.values() if videos > 1),
            "near_within": 2 * self.near,
        }


def _link_proxies(folder: Path, names: Sequence[str]) -> None:
    film = folder / "film.mp4"
    picture = "testsrc2=size=640x360:rate=1:duration=3600,noise=alls=12:allf=t"
    encode = ["-pix_fmt", "yuv420p", "-preset", "ultrafast", "-crf", "30", "-g", "1"]
    subprocess.run([ffmpeg_binary(), "-v", "error", "-f", "lavfi", "-i", picture, *encode, str(film)], check=True)
    for name in names:
        path = folder / media_key("proxies", name, ".mp4")
        path.parent.mkdir(parents=True, exist_ok=True)
        os.link(film, path)


@cache
def tasks() -> tuple[Task, ...]:
    return tuple(load_taxonomy().tasks.values())


@cache
def _vocabulary() -> dict[str, list[str]]:
    """Words by kind; the first ones are common, the last ones rare."""
    chance = np.random.default_rng(0)
    kinds = {"noun": 4000, "adjective": 600, "verb": 900, "place": 300}
    return {
        kind: ["".join(chance.choice(SYLLABLES, chance.choice((2, 2, 3)))) for _ in range(count)]
        for kind, count in kinds.items()
    }


class World:
    """What one video is about, and sentences about it, drawn by the hundred: one by one takes ten times as long."""

    def __init__(self, name: str, like: "World | None" = None) -> None:
        """like: another world with the same things, deeds and places, of which other things are told."""
        self.name = name
        self.chance = np.random.default_rng(int.from_bytes(hashlib.sha256(name.encode()).digest()[:8]))
        if like is not None:
            self.things, self.deeds, self.places = like.things, like.deeds, like.places
            return
        nouns, adjectives, verbs, places = (
            self._words(kind, count) for kind, count in (("noun", 30), ("adjective", 14), ("verb", 20), ("place", 5))
        )
        self.things = [f"the {own} {noun}" for noun in nouns for own in self.some(adjectives, 2)]
        self.deeds = [
            f"{verb}s {one} {self.one(BESIDE)} {other}"
            for verb in verbs
            for one, other in zip(self.some(self.things, 4), self.some(self.things, 4), strict=True)
        ]
        self.places = [f"{self.one(WHERE)} the {place}" for place in places]

    def _words(self, kind: str, count: int) -> list[str]:
        """Drawn by Zipf's law, roughly."""
        words = _vocabulary()[kind]
        return [words[int(rank) - 1] for rank in len(words) ** self.chance.random(count)]

    def some(self, texts: Sequence[str], count: int) -> list[str]:
        return [texts[index] for index in self.chance.integers(0, len(texts), count).tolist()]

    def one(self, texts: Sequence[str]) -> str:
        return self.some(texts, 1)[0]

    def sentences(self, count: int) -> list[str]:
        tails = [
            f", while {thing} {deed}." if with_tail else "."
            for thing, deed, with_tail in zip(
                self.some(self.things, count),
                self.some(self.deeds, count),
                (self.chance.random(count) < 0.5).tolist(),
                strict=True,
            )
        ]
        return [
            f"T{thing[1:]} {deed} {place}{tail}"
            for thing, deed, place, tail in zip(
                self.some(self.things, count), self.some(self.deeds, count), self.some(self.places, count), tails,
                strict=True,
            )
        ]  # fmt: skip

    def questions(self, count: int) -> list[str]:
        """Each another one."""
        found: dict[str, None] = {}
        while len(found) < count:
            drawn = (self.some(texts, count) for texts in (ASKED, self.things, self.things, self.places, self.deeds))
            for asked, thing, other, place, deed in zip(*drawn, strict=True):
                found[asked.format(thing=thing, other=other, place=place, deed=deed)] = None
        return list(found)[:count]

    def texts(self, count: int, least: int, most: int) -> list[str]:
        sizes = self.chance.integers(least, most + 1, count).tolist()
        said = iter(self.sentences(sum(sizes)))
        return [" ".join(next(said) for _ in range(size)) for size in sizes]


@cache
def _common(task: str) -> tuple[tuple[str, str], ...]:
    """Questions of a task, with their answers, that stand in several videos."""
    world = World(f"common {task}")
    return tuple(zip(world.questions(COMMON), world.texts(COMMON, 2, 2), strict=True))


def length_of(chance: np.random.Generator) -> float:
    """In seconds."""
    weights = np.array(BINS_OF_5_MINUTES) / sum(BINS_OF_5_MINUTES)
    return round(max(1.0, chance.choice(12, p=weights) * 5 + chance.uniform(0, 5)) * 60, 2)


def asked_of(chance: np.random.Generator) -> list[Task]:
    """The tasks that a video carries."""
    carried = chance.random(len(tasks())) < CARRIED
    return [task for task, own in zip(tasks(), carried, strict=True) if own]


def _write_video(folder: Path, name: str) -> tuple[list[str], Planted]:
    """Write a video's tables; returns the lines of the ledger, and what was planted."""
    world = World(name)
    chance = world.chance
    seconds = length_of(chance)
    starts = range(0, max(1, int(seconds) - (CLIP - STRIDE)), STRIDE)
    clips = [(f"c{number:04d}", float(start), min(start + CLIP, seconds)) for number, start in enumerate(starts)]
    captions = {kind: world.texts(len(clips), 1, 3) for kind in CAPTION_FIELDS}
    events = events_of(world, clips, captions)
    planted = Planted()
    asked = asked_of(chance)
    pairs = pairs_of(world, asked, clips, planted)
    lines = list(_lines(name, seconds, len(clips), len(events), {task: len(own) for task, own in pairs.items()}))
    stamps = _stamps(lines)
    write = partial(_write, folder, name)
    write(Video, stamps["download"], {
        "source_id": [name], "start": [0.0], "end": [seconds], "file": [media_key("originals", name, ".mp4")],
        "sha256": [digest([name, "file"])], "bytes": [int(seconds * 60_000)], "width": [640], "height": [360],
        "fps": [30.0], "codec": ["h264"],
    })  # fmt: skip
    frames = [f"{number:016x}" for number in chance.integers(0, 2**63, int(seconds) or 1).tolist()]
    of_clips = {"clip_id": [c for c, _, _ in clips], "start": [s for _, s, _ in clips], "end": [e for _, _, e in clips]}
    write(Clip, stamps["segment"], of_clips | {
        "shots": [[{"start": start, "end": end}] for _, start, end in clips],
        "frame_hashes": [frames[int(start) : int(end)] for _, start, end in clips],
    })  # fmt: skip
    signals = _signals()[: len(frames)]
    known = {column: signals[column] for column in signals.column_names}
    write(Signals, stamps["segment"], known | {"video_id": [name] * len(frames), "frame_hash": frames})
    write(ClipCaption, stamps["caption_clips"], of_clips | captions | {"facts": [[] for _ in clips]})
    write(Event, stamps["caption_events"], {key: [event[key] for event in events] for key in events[0]})
    told = " ".join(sentence for event in events for sentence in event["caption"].split(". ")[:2])
    write(Summary, stamps["summarize"], {"text": [told]})
    rows = [pair for of_task in pairs.values() for pair in of_task]
    if rows:
        write(QAPair, stamps["qa"], {key: [row[key] for row in rows] for key in rows[0] if key != "planted"})
        verdicts = list(_verdicts(chance, rows))
        write(Verdict, stamps["verify"], {key: [verdict[key] for verdict in verdicts] for key in verdicts[0]})
    return lines, planted


@cache
def _signals() -> pa.Table:
    """An hour of them, one as the other."""
    colours = dict.fromkeys(ColourShares.model_fields, 0.0) | {"grey": 0.6, "green": 0.4}
    row = {
        "video_id": "", "second": 0, "shot": 0, "frame_hash": "", "brightness": 0.4, "colours": colours,
        "upper": "grey", "lower": "green", "upper_share": 0.5, "lower_share": 0.5, "motion": 0.02,
        "motion_grid": [0.02] * 9, "camera": "still", "things": [],
    }  # fmt: skip
    rows = ({**row, "second": second, "shot": second // 7} for second in range(3600))
    return pa.Table.from_pylist(list(rows), arrow_schema(Signals))


def events_of(world: World, clips: Sequence[Any], captions: dict[str, list[str]]) -> list[dict[str, Any]]:
    """About one event for nine clips, from 1 to 60; each tells what its clips say, in part."""
    count = max(1, min(len(clips), round(len(clips) / world.chance.uniform(3, 9))))
    edges = [len(clips) * number // count for number in range(count + 1)]
    events = []
    for number in range(count):
        own = range(edges[number], edges[number + 1])
        told = [captions[kind][index].partition(". ")[0] for index in own for kind in ("action", "summary")]
        events.append({
            "event_id": f"e{number:03d}",
            "start": clips[own[0]][1],
            "end": clips[own[-1]][2],
            "title": world.one(world.deeds),
            "caption": ". ".join(told),
            "clip_ids": [clips[index][0] for index in own],
        })  # fmt: skip
    return events


def pairs_of(
    world: World, asked: Sequence[Task], clips: Sequence[Any], planted: Planted
) -> dict[str, list[dict[str, Any]]]:
    """By task. What is not planted is asked once in a video."""
    chance = world.chance
    wanted = [(task, form) for task in asked for form, count in task.per_video for _ in range(count)]
    choices = sum(form == "choice" for _, form in wanted)
    questions, letters = world.questions(len(wanted)), world.some(LETTERS, choices)
    sentences = iter(world.sentences(choices * len(LETTERS)))
    accounts = iter(world.texts(sum(t.reads == ("global",) and form == "open" for t, form in wanted), 10, 60))
    answers = world.texts(len(wanted), 1, 2)
    fates, which = chance.random(len(wanted)).tolist(), chance.integers(0, COMMON, len(wanted)).tolist()
    cited = chance.integers(0, len(clips), (len(wanted), 3)).tolist()
    many = chance.choice((1, 1, 2, 3), len(wanted)).tolist()
    made: dict[str, list[dict[str, Any]]] = {task.task: [] for task in asked}
    for number, (task, form) in enumerate(wanted):
        own, question, options, letter, fate = made[task.task], questions[number], [], "", ""
        if form == "choice":
            letter, options = letters.pop(), [next(sentences) for _ in LETTERS]
            answer = options[LETTERS.index(letter)]
        else:
            answer = next(accounts) if task.reads == ("global",) else answers[number]
            question, answer, fate = _plant(own, task.task, question, answer, fates[number], which[number], planted)
        stretches = [clips[index] for index in sorted(set(cited[number][: many[number]]))]
        own.append({
            "qa_id": QAPair.id_of(world.name, task.task, form, question, options, answer),
            "task": task.task,
            "topic": task.topic,
            "format": form,
            "question": question,
            "options": options,
            "answer": answer,
            "letter": letter,
            "evidence": [{"start": start, "end": end} for _, start, end in stretches],
            "clip_ids": [clip_id for clip_id, _, _ in stretches],
            "planted": fate,
        })  # fmt: skip
    return made


def _plant(
    own: Sequence[dict[str, Any]], task: str, question: str, answer: str, drawn: float, which: int, planted: Planted
) -> tuple[str, str, str]:
    """The pair as it is written, and what it is: a duplicate of another one, or nothing of the kind."""
    before = own[-1] if own and not own[-1]["planted"] else None
    if drawn < ACROSS and not planted.common[task, which]:
        planted.common[task, which] = 1
        return *_common(task)[which], "across"
    if before and ACROSS < drawn < ACROSS + WITHIN:
        before["planted"] = "within"
        planted.within += 1
        return before["question"], answer, "within"
    if before and ACROSS + WITHIN < drawn < ACROSS + WITHIN + NEAR:
        before["planted"] = "near"
        planted.near += 1
        return before["question"][:-1] + " there?", before["answer"], "near"
    return question, answer, ""


def _verdicts(chance: np.random.Generator, rows: Sequence[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    drawn = (chance.random(len(rows)) < REJECTED).tolist()
    for row, rejected in zip(rows, drawn, strict=True):
        sizes = [len(option) for option in row["options"]]
        yield {
            "qa_id": row["qa_id"],
            "task": row["task"],
            "problems": ["pipeline_word"] if rejected and not row["planted"] else [],
            "question_words": row["question"].count(" ") + 1,
            "answer_words": row["answer"].count(" ") + 1,
            "option_length_ratio": max(sizes) / min(sizes) if sizes else 0.0,
            "evidence_seconds": sum(span["end"] - span["start"] for span in row["evidence"]),
        }


def _lines(name: str, seconds: float, clips: int, events: int, pairs: dict[str, int]) -> Iterator[str]:
    def ended(stage: str, part: str = "", items: int = 1, model: str = "", **fields: Any) -> str:
        work = hashlib.sha256(f"{name} {stage} {part}".encode()).hexdigest()
        usage = (
            (Usage(model=model, requests=2, prompt_tokens=5711, completion_tokens=812, seconds=9.41),) if model else ()
        )
        fields = {"status": "ok", "fingerprint": work, "content": work[::-1], "seconds": 1.234} | fields
        outcome = Outcome(video_id=name, stage=stage, part=part, items=items, usage=usage, **fields)
        return outcome.model_dump_json(exclude_defaults=True)

    yield ended("download", videos=(name,))
    yield ended("segment", items=clips, video_seconds=seconds)
    yield ended("caption_clips", items=clips, model=CAPTIONER)
    yield ended("caption_events", items=events, model=WRITER)
    yield ended("summarize", model=WRITER)
    for task in tasks():
        if task.task in pairs:
            yield ended("qa", task.task, pairs[task.task], WRITER)
            yield ended("verify", task.task, pairs[task.task])
        else:
            yield ended("qa", task.task, 0, status="filtered", reason="not_carried", content="")


def _stamps(lines: Sequence[str]) -> dict[str, dict[str, Any]]:
    """What each stage's file is stamped with, by part."""
    found: dict[str, dict[str, Any]] = {}
    for outcome in map(json.loads, lines):
        if outcome["status"] == "ok":
            found.setdefault(outcome["stage"], {})[outcome.get("part", "")] = outcome
    return found


def _write(folder: Path, name: str, record: type[Record], stamp: dict[str, Any], columns: dict[str, Any]) -> None:
    """Rows as the stages would have written them, by columns."""
    rows = len(next(iter(columns.values())))
    schema = arrow_schema(record)
    columns = {"video_id": [name] * rows} | columns
    if "binding" in schema.names:
        columns["binding"] = _binding(name, record, rows)
    arrays = [_column(record, each, columns.get(each.name), rows) for each in schema]
    table = pa.Table.from_arrays(arrays, schema=schema)
    (folder / Tables.key(record, name)).write_bytes(bytes_of(table, {"marathon.outcomes": json.dumps(stamp)}))


def _column(record: type[Record], column: pa.Field, values: Any, rows: int) -> pa.Array | pa.ChunkedArray:
    if values is None:
        values = [record.model_fields[column.name].default] * rows
    return values if isinstance(values, pa.Array | pa.ChunkedArray) else pa.array(values, column.type)


def _binding(name: str, record: type[Record], rows: int) -> pa.Array:
    """Three rows to a request."""
    asked = [hashlib.sha256(f"{name} {record.table} {each}".encode()).hexdigest() for each in range(rows // 3 + 1)]
    values = {
        "annotator": pa.repeat(CAPTIONER if record is ClipCaption else WRITER, rows),
        "template_version": pa.repeat(1, rows),
        "request": pa.array([asked[row // 3] for row in range(rows)]),
        "frames": pa.repeat("", rows),
        "prompt_tokens": pa.repeat(5711, rows),
        "completion_tokens": pa.repeat(812, rows),
    }
    return pa.StructArray.from_arrays(list(values.values()), list(values))


if __name__ == "__main__":
    main()

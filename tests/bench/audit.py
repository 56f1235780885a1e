"""`marathon audit` on a dataset of the paper's size: seconds, memory of all its processes together, bytes of the page.

    python tests/bench/audit.py                  # 28,000 videos, 3.3 million QA pairs: 4 GB of disk, 20 minutes
    python tests/bench/audit.py --videos 300     # a first look
    python tests/bench/audit.py --folder out/large --keep     # generate once, audit again and again

The dataset is generated: durations, collections and numbers of pairs are the paper's, every video tells of a world of
things of its own in sentences of varied length, and the ledger holds all that a run with served models would have left.
One film stands for every proxy.
"""

import argparse
import hashlib
import json
import multiprocessing
import os
import random
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from functools import cache, partial
from pathlib import Path
from typing import Any

import psutil
import pyarrow as pa
import pyarrow.parquet as pq
from figures import OUT, save, table

from marathon_pipeline.dataset.dataset import Dataset, media_key
from marathon_pipeline.dataset.parquet import arrow_schema
from marathon_pipeline.dataset.tables import Tables
from marathon_pipeline.ffmpeg import ffmpeg_binary
from marathon_pipeline.records import (
    CAPTION_FIELDS,
    LETTERS,
    ClipCaption,
    Event,
    Outcome,
    QAPair,
    Record,
    Source,
    Summary,
    Usage,
    Verdict,
    digest,
)
from marathon_pipeline.taxonomy import Task, load_taxonomy

VIDEOS = 28_000
SHARES = {"panda-70m": 62.3, "ego4d": 21.3, "activitynet": 8.2, "youcook2": 5.5, "moviechat-1k": 2.7}
BINS_OF_5_MINUTES = (3980, 4870, 3380, 3060, 3060, 2760, 2050, 1050, 860, 1285, 1040, 410)
CARRIED = 0.93  # of the tasks that a video can be asked: 118 pairs a video
STRIDE, CLIP = 20, 30  # seconds
LINES_A_SEGMENT = 25_000
WRITER, CAPTIONER = "deepseek-v3@main", "qwen2-vl-7b@main"
CONSONANTS, VOWELS = ("bdfgklmnprstv", ("a", "e", "i", "o", "u", "ai", "ou", "ar", "en", "il"))
SYLLABLES = tuple(one + other for one in CONSONANTS for other in VOWELS)
BESIDE = ("with", "under", "beside", "towards", "without")


def main() -> None:
    options = argparse.ArgumentParser()
    options.add_argument("--videos", type=int, default=VIDEOS)
    options.add_argument("--folder", type=Path, default=OUT / "audit")
    options.add_argument("--keep", action="store_true", help="use what stands in the folder, and leave it there")
    options.add_argument("--profile", type=Path, help="write where the time goes, by py-spy, into this file")
    chosen = options.parse_args()
    folder = chosen.folder / f"videos-{chosen.videos}"
    if not (chosen.keep and (folder / "dataset.json").exists()):
        shutil.rmtree(folder, ignore_errors=True)
        began = time.monotonic()
        _generate(folder, chosen.videos)
        print(f"generated {folder} in {time.monotonic() - began:.0f} s", flush=True)
    row = {"videos": chosen.videos} | _audit(folder, chosen.profile)
    table("marathon audit: wall seconds, peak of all its processes in MB, the page in MB", [row])
    save("audit", row)
    if not chosen.keep:
        shutil.rmtree(folder)


def _audit(folder: Path, profile: Path | None) -> dict[str, Any]:
    command = [sys.executable, "-m", "marathon_pipeline", "audit", str(folder)]
    if profile is not None:
        command = ["py-spy", "record", "--subprocesses", "--format", "raw", "--output", str(profile), "--", *command]
    load, began = os.getloadavg()[0], time.monotonic()
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    peak, cpu = 0.0, 0.0
    while process.poll() is None:
        shared, seconds = _used(process.pid)
        peak, cpu = max(peak, shared), max(cpu, seconds)
        time.sleep(0.5)
    printed = process.communicate()
    if process.returncode not in (0, 1):
        raise SystemExit(f"exit status {process.returncode}\n{printed[1][-2000:]}")
    print(printed[0])
    statistics = json.loads((folder / "audit/report.json").read_text())["statistics"]
    return {
        "qa": statistics["qa"],
        "seconds": time.monotonic() - began,
        "cpu": cpu,
        "memory": peak / 1e6,
        "page": (folder / "audit/report.html").stat().st_size / 1e6,
        "load before": load,
    }


def _used(pid: int) -> tuple[float, float]:
    """Bytes that a process and its children hold (pages shared by several count once), and their CPU seconds."""
    held, cpu = 0.0, 0.0
    try:
        for process in (found := psutil.Process(pid), *found.children(recursive=True)):
            times = process.cpu_times()
            held += process.memory_full_info().pss
            cpu += times.user + times.system
            if process is found:
                cpu += times.children_user + times.children_system
    except psutil.Error:
        pass
    return held, cpu


def _generate(folder: Path, videos: int) -> None:
    dataset = Dataset(str(folder), create=True)
    (folder / "job.yaml").write_text(f"dataset: {folder.resolve()}\n")
    names = [f"yt_{hashlib.sha256(b'%d' % number).hexdigest()[:11]}" for number in range(videos)]
    dataset.write_sources(
        Source(source_id=name, data_source=_world(name).choices(*_weighted(SHARES))[0], url=f"https://v.example/{name}")
        for name in names
    )
    for kind in (QAPair, Verdict, ClipCaption, Event, Summary):
        for name in names:
            (folder / Tables.key(kind, name)).parent.mkdir(parents=True, exist_ok=True)
    _link_proxies(folder, names)
    (folder / "ledger").mkdir(exist_ok=True)
    lines: list[str] = []
    segments = 0
    with multiprocessing.get_context("spawn").Pool(os.cpu_count()) as pool:
        for number, of_video in enumerate(pool.imap(partial(_write_video, folder), names, chunksize=16), start=1):
            lines += of_video
            if len(lines) >= LINES_A_SEGMENT or number == videos:
                segments += 1
                (folder / f"ledger/{segments:08d}.jsonl").write_text("".join(f"{line}\n" for line in lines))
                lines = []


def _link_proxies(folder: Path, names: Sequence[str]) -> None:
    film = folder / "film.mp4"
    picture = "testsrc2=size=640x360:rate=1:duration=3600,noise=alls=12:allf=t"
    encode = ["-pix_fmt", "yuv420p", "-preset", "ultrafast", "-crf", "30", "-g", "1"]
    subprocess.run([ffmpeg_binary(), "-v", "error", "-f", "lavfi", "-i", picture, *encode, str(film)], check=True)
    for name in names:
        path = folder / media_key("proxies", name, ".mp4")
        path.parent.mkdir(parents=True, exist_ok=True)
        os.link(film, path)


def _weighted(shares: dict[str, float]) -> tuple[list[str], list[float]]:
    return list(shares), list(shares.values())


def _world(name: str) -> random.Random:
    return random.Random(name)


@cache
def _vocabulary() -> dict[str, list[str]]:
    """Words by kind; the first ones are common, the last ones rare."""
    chance = random.Random(0)
    kinds = {"noun": 4000, "adjective": 600, "verb": 900, "place": 300}
    return {
        kind: ["".join(chance.choices(SYLLABLES, k=chance.choice((2, 2, 3)))) for _ in range(count)]
        for kind, count in kinds.items()
    }


class _World:
    """What one video is about, and sentences about it."""

    def __init__(self, name: str) -> None:
        self.chance = _world(name)
        self.name = name
        nouns, adjectives, verbs, places = (
            self._some(kind, count) for kind, count in (("noun", 30), ("adjective", 14), ("verb", 20), ("place", 5))
        )
        choose = self.chance.choice
        self.things = [f"the {choose(adjectives)} {noun}" for noun in nouns for _ in range(2)]
        self.deeds = [
            f"{verb}s {choose(self.things)} {choose(BESIDE)} {choose(self.things)}" for verb in verbs for _ in range(4)
        ]
        self.places = [f"{choose(('in', 'near', 'behind', 'outside'))} the {place}" for place in places]

    def _some(self, kind: str, count: int) -> list[str]:
        """Drawn by Zipf's law, roughly."""
        words = _vocabulary()[kind]
        return [words[int(len(words) ** self.chance.random()) - 1] for _ in range(count)]

    def sentence(self) -> str:
        choose = self.chance.choice
        tail = f", while {choose(self.things)} {choose(self.deeds)}" if self.chance.random() < 0.5 else ""
        return f"{choose(self.things).capitalize()} {choose(self.deeds)} {choose(self.places)}{tail}."

    def text(self, least: int, most: int) -> str:
        return " ".join(self.sentence() for _ in range(self.chance.randint(least, most)))


ASKED = (
    "What does {thing} do after it {deed}?",
    "Which of these happens while {thing} {deed}?",
    "Why does {thing} stay {place} when {other} {deed}?",
    "How long does it take {thing} until it {deed}?",
    "Where is {thing} when {other} {deed} for the first time?",
    "What is {thing} like at the end of the scene {place}?",
    "In which order does {thing} meet {other} and the others {place}?",
)


def _write_video(folder: Path, name: str) -> list[str]:
    """Write a video's tables; returns the lines of the ledger."""
    world, taxonomy = _World(name), load_taxonomy()
    chance = world.chance
    minutes = chance.choices(range(12), BINS_OF_5_MINUTES)[0] * 5 + chance.uniform(0, 5)
    seconds = round(max(1.0, minutes) * 60, 2)
    starts = range(0, max(1, int(seconds) - (CLIP - STRIDE)), STRIDE)
    clips = [(f"c{number:04d}", float(start), min(start + CLIP, seconds)) for number, start in enumerate(starts)]
    captions = [{field: world.text(1, 3) for field in CAPTION_FIELDS} for _ in clips]
    events = _events(world, clips, captions)
    pairs = {task.task: _pairs(world, task, seconds, clips) for task in taxonomy.tasks.values()
             if chance.random() < CARRIED}  # fmt: skip
    outcomes = list(_outcomes(world, seconds, len(clips), len(events), pairs, tuple(taxonomy.tasks)))
    stamps = {
        stage: {o.part: o.model_dump(exclude_defaults=True) for o in outcomes if (o.stage, o.status) == (stage, "ok")}
        for stage in ("caption_clips", "caption_events", "summarize", "qa", "verify")
    }
    write = partial(_write, folder, name)
    write(ClipCaption, stamps["caption_clips"], {
        "clip_id": [clip_id for clip_id, _, _ in clips],
        "start": [start for _, start, _ in clips],
        "end": [end for _, _, end in clips],
        **{field: [caption[field] for caption in captions] for field in CAPTION_FIELDS},
        "facts": [[] for _ in clips],
    })  # fmt: skip
    write(Event, stamps["caption_events"], {key: [event[key] for event in events] for key in events[0]})
    told = " ".join(sentence for event in events for sentence in event["caption"].split(". ")[:2])
    write(Summary, stamps["summarize"], {"text": [told]})
    rows = [pair for of_task in pairs.values() for pair in of_task]
    if rows:
        write(QAPair, stamps["qa"], {key: [row[key] for row in rows] for key in rows[0]})
    verdicts = [_verdict(chance, row) for row in rows]
    if rows:
        write(Verdict, stamps["verify"], {key: [verdict[key] for verdict in verdicts] for key in verdicts[0]})
    return [outcome.model_dump_json(exclude_defaults=True) for outcome in outcomes]


def _events(world: _World, clips: Sequence[Any], captions: Sequence[dict[str, str]]) -> list[dict[str, Any]]:
    """About one event for nine clips, from 1 to 60; each tells what its clips say, in part."""
    count = max(1, min(len(clips), round(len(clips) / world.chance.uniform(3, 9))))
    edges = [len(clips) * number // count for number in range(count + 1)]
    events = []
    for number in range(count):
        own = range(edges[number], edges[number + 1])
        told = [captions[index][field].partition(". ")[0] for index in own for field in ("action", "summary")]
        events.append({
            "event_id": f"e{number:03d}",
            "start": clips[own[0]][1],
            "end": clips[own[-1]][2],
            "title": world.chance.choice(world.deeds),
            "caption": ". ".join(told),
            "clip_ids": [clips[index][0] for index in own],
        })  # fmt: skip
    return events


def _pairs(world: _World, task: Task, seconds: float, clips: Sequence[Any]) -> list[dict[str, Any]]:
    chance, made = world.chance, []
    wanted = [("open", task.per_video.open), ("choice", task.per_video.choice)]
    for form in (form for form, count in wanted for _ in range(count)):
        thing, other = chance.choice(world.things), chance.choice(world.things)
        place, deed = chance.choice(world.places), chance.choice(world.deeds)
        question = chance.choice(ASKED).format(thing=thing, other=other, place=place, deed=deed)
        options = [world.sentence() for _ in LETTERS] if form == "choice" else []
        letter = chance.choice(LETTERS) if options else ""
        answer = options[LETTERS.index(letter)] if options else world.text(1, 2)
        if task.reads == ("global",):
            answer = world.text(10, 60)
        cited = sorted(chance.sample(range(len(clips)), min(len(clips), chance.choice((1, 1, 2, 3)))))
        made.append({
            "qa_id": QAPair.id_of(world.name, task.task, form, question, options, answer),
            "task": task.task,
            "topic": task.topic,
            "format": form,
            "question": question,
            "options": options,
            "answer": answer,
            "letter": letter,
            "evidence": [{"start": clips[index][1], "end": clips[index][2]} for index in cited],
            "clip_ids": [clips[index][0] for index in cited],
        })  # fmt: skip
    return made


def _verdict(chance: random.Random, row: dict[str, Any]) -> dict[str, Any]:
    sizes = [len(option) for option in row["options"]]
    return {
        "qa_id": row["qa_id"],
        "task": row["task"],
        "problems": ["pipeline_word"] if chance.random() < 0.02 else [],
        "question_words": len(row["question"].split()),
        "answer_words": len(row["answer"].split()),
        "option_length_ratio": max(sizes) / min(sizes) if sizes else 0.0,
        "evidence_seconds": sum(span["end"] - span["start"] for span in row["evidence"]),
    }


def _outcomes(
    world: _World, seconds: float, clips: int, events: int, pairs: dict[str, Any], tasks: Sequence[str]
) -> Iterator[Outcome]:
    def ended(stage: str, part: str = "", items: int = 1, model: str = "", **fields: Any) -> Outcome:
        work = f"{world.name} {stage} {part}"
        usage = (
            (Usage(model=model, requests=2, prompt_tokens=5711, completion_tokens=812, seconds=9.41),) if model else ()
        )
        fields = {"status": "ok", "fingerprint": digest(work), "content": digest([work]), "seconds": 1.234} | fields
        return Outcome(video_id=world.name, stage=stage, part=part, items=items, usage=usage, **fields)

    yield ended("download", videos=(world.name,))
    yield ended("segment", items=clips, video_seconds=seconds)
    yield ended("caption_clips", items=clips, model=CAPTIONER)
    yield ended("caption_events", items=events, model=WRITER)
    yield ended("summarize", model=WRITER)
    for task in tasks:
        if task in pairs:
            yield ended("qa", task, len(pairs[task]), WRITER)
            yield ended("verify", task, len(pairs[task]))
        else:
            yield ended("qa", task, 0, status="filtered", reason="not_carried", content="")


def _write(folder: Path, name: str, record: type[Record], stamp: dict[str, Any], columns: dict[str, Any]) -> None:
    """Rows as the stages would have written them, by columns."""
    rows = len(next(iter(columns.values())))
    schema = arrow_schema(record).with_metadata({"marathon.outcomes": json.dumps(stamp)})
    columns = {"video_id": [name] * rows} | columns
    if "binding" in schema.names:
        writer = CAPTIONER if record is ClipCaption else WRITER
        columns["binding"] = [
            {"annotator": writer, "template_version": 1, "request": digest([name, record.table, row // 3]),
             "frames": "", "prompt_tokens": 5711, "completion_tokens": 812}
            for row in range(rows)
        ]  # fmt: skip
    arrays = [
        pa.array(columns.get(field.name, [record.model_fields[field.name].default] * rows), field.type)
        for field in schema
    ]
    with pa.BufferOutputStream() as buffer:
        pq.write_table(pa.Table.from_arrays(arrays, schema=schema), buffer, compression="zstd")
        (folder / Tables.key(record, name)).write_bytes(buffer.getvalue())


if __name__ == "__main__":
    main()

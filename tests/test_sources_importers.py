"""Importers, each on a file of the collection's own form, written here."""

import csv
import json
import subprocess
import sys
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from conftest import Command
from hypothesis import given, settings
from hypothesis import strategies as st

from marathon_pipeline.dataset.dataset import Dataset
from marathon_pipeline.errors import UserError
from marathon_pipeline.records import Source
from marathon_pipeline.sources.importers.convert import IMPORTERS, Imported, ImportOptions, import_manifest
from marathon_pipeline.sources.manifest import read_manifest
from marathon_pipeline.stages.download import parts_of

A, B, C = "aqz-KE-bpKQ", "----meyKR48", "dQw4w9WgXcQ"


def watch(video: str) -> str:
    return f"https://www.youtube.com/watch?v={video}"


def imported(collection: str, file: Path, **options: object) -> tuple[Imported, list[Source]]:
    """Import, and read what was written as `manifest check` does, which has to like it."""
    out = file.parent / "out.jsonl"
    result = import_manifest(collection, file, out, ImportOptions(**options))  # type: ignore[arg-type]
    sources, problems = read_manifest(out)
    assert problems == []
    assert len(sources) == result.sources
    return result, sources


def said(result: Imported, folder: Path) -> list[str]:
    return [str(problem).removeprefix(f"{folder}/") for problem in result.problems]


def panda(folder: Path, *rows: list[str], extended: bool = False) -> Path:
    columns = ["videoID", "url", "timestamp", "caption", "matching_score"]
    columns += ["desirable_filtering", "shot_boundary_detection"] if extended else []
    path = folder / "panda70m_training_2m.csv"
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([columns, *rows])
    return path


CLIPS = "[['0:00:04.004', '0:00:13.113'], ['1:03:45.325', '1:04:33.373']]"


def test_panda_70m_gives_whole_videos_that_know_their_clips(tmp_path):
    words = "a 'quoted', \"long\" caption " * 10_000  # longer than what Python's csv reads unasked
    good = [A, watch(A), CLIPS, f"['{words}']", "[0.5, 0.4]", "['desirable']", "[[['0:00:00.000', '0:00:09.075']]]"]
    path = panda(tmp_path, good, [B, watch(B), "", "[]", "[]", "[]", "[]"], extended=True)
    result, sources = imported("panda-70m", path)
    assert (result.problems, [source.source_id for source in sources]) == ([], [f"yt_{A}", f"yt_{B}"])
    assert sources[0].segments == ()
    assert json.loads(sources[0].metadata) == {"annotated": [[4.004, 13.113], [3825.325, 3873.373]]}
    assert {source.data_source for source in sources} == {"panda-70m"}
    assert sources[0].licence == "" and "uploader" in sources[0].licence_evidence
    assert csv.field_size_limit() == 131_072, "the limit of the process stays what it was"


def test_panda_70m_gives_its_clips_where_they_are_asked_for(tmp_path):
    _, sources = imported("panda-70m", panda(tmp_path, [A, watch(A), CLIPS, "[]", "[]"]), segments=True)
    assert [(s.start, s.end) for s in sources[0].segments] == [(4.004, 13.113), (3825.325, 3873.373)]


def test_wrong_rows_of_panda_70m_are_told_with_their_line_and_the_others_go_on(tmp_path):
    path = panda(
        tmp_path,
        [A, watch(A), "[['0:00:04.004', '0:00:03']]", "[]", "[]"],
        [A, watch(A), "__import__('os').system('x')", "[]", "[]"],
        [A, "", CLIPS, "[]", "[]"],
        [A, "ftp://example.org/x", CLIPS, "[]", "[]"],
        [A, watch(A), CLIPS, "[]"],
        [A, watch(A), "[['0:00:99', '0:01:00']]", "[]", "[]"],
        [A, watch(A), f"[['{'9' * 400}:00:00', '0:01:00']]", "[]", "[]"],
        [B, watch(B), CLIPS, "[]", "[]"],
        [B, f"https://youtu.be/{B}", CLIPS, "[]", "[]"],
    )
    result, sources = imported("panda-70m", path)
    assert [source.source_id for source in sources] == [f"yt_{B}"]
    lines = said(result, tmp_path)
    assert [line.split(":")[0] for line in lines] == [
        f"panda70m_training_2m.csv line {n}" for n in (2, 3, 4, 5, 6, 7, 8, 10)
    ]
    assert "put its start before its end" in lines[0] and "url is empty" in lines[2]
    assert lines[-1].endswith("the same video stands in line 9 (delete one of them)")


def write(path: Path, value: object) -> Path:
    path.write_text(json.dumps(value), encoding="utf-8")
    return path


def activitynet(folder: Path, **entries: object) -> Path:
    content = {"version": "VERSION 1.3", "taxonomy": [], "database": entries}
    return write(folder / "activity_net.v1-3.min.json", content)


def test_activitynet_gives_its_videos_and_holds_out_what_it_evaluates_on(tmp_path):
    def entry(subset: str, *annotations: object) -> dict[str, object]:
        return {
            "url": watch(A),
            "subset": subset,
            "duration": 82.73,
            "resolution": "320x240",
            "annotations": [*annotations],
        }

    polo = {"segment": [1.5, 20.25], "label": "Water polo"}
    path = activitynet(
        tmp_path,
        **{
            A: entry("training", polo, polo, {"segment": [0, 1.5], "label": "Diving"}),
            B: entry("validation") | {"url": watch(B)},
            C: entry("testing") | {"url": ""},
        },
    )
    result, sources = imported("activitynet", path)
    assert [(source.source_id, source.split) for source in sources] == [
        (f"yt_{A}", None),
        (f"yt_{B}", "test"),
        (f"yt_{C}", "test"),
    ]
    assert result.held_out == 2
    assert json.loads(sources[0].metadata) == {
        "annotated": [[0.0, 1.5], [1.5, 20.25]],
        "labels": ["Diving", "Water polo"],
        "seconds": 82.73,
        "subset": "training",
    }
    _, sources = imported("activitynet", path, segments=True)
    assert [[(s.start, s.end) for s in source.segments] for source in sources] == [[(0.0, 1.5), (1.5, 20.25)], [], []]


def test_wrong_entries_of_activitynet_are_told_by_name(tmp_path):
    fine = {"url": watch(A), "subset": "training", "annotations": []}
    path = activitynet(
        tmp_path,
        a=fine,
        b=["no object"],
        c={"url": watch(B), "annotations": [{"segment": [9, 2]}]},
        d={"url": watch(B), "annotations": [{"label": "no segment"}]},
        e={"url": watch(B), "duration": "long"},
        f={"url": 7},
        g={"url": watch(B), "annotations": [{"segment": [1, 2], "label": "\ud800"}]},
        h={"url": watch(B), "duration": 10**400},
    )
    result, sources = imported("activitynet", path)
    assert [source.source_id for source in sources] == [f"yt_{A}"]
    assert [line.split(":")[0].rpartition(" ")[2] for line in said(result, tmp_path)] == [*"bcdefgh"]


def test_a_part_of_a_long_youcook2_video_is_cut_to_parts_of_an_hour(tmp_path):
    steps = [{"id": 0, "segment": [90, 7290], "sentence": "let it rise"}]
    entry = {
        "video_url": watch(A),
        "subset": "training",
        "duration": 9000.5,
        "recipe_type": "113",
        "annotations": steps,
    }
    path = write(tmp_path / "youcookii_annotations_trainval.json", {"database": {A: entry}})
    _, sources = imported("youcook2", path)
    assert json.loads(sources[0].metadata)["recipe_type"] == "113"
    assert "rise" not in sources[0].model_dump_json()
    assert len(list(parts_of(sources[0], 9000.5, 3600))) == 3
    _, sources = imported("youcook2", path, segments=True)
    parts = [(part.start, part.end) for _, part in parts_of(sources[0], 9000.5, 3600)]
    assert parts == [(90, 3690), (3690, 7290)]


def ego4d(folder: Path, *videos: object) -> Path:
    content = {"date": "220216", "version": "v2.1", "videos": [*videos], "concurrent_video_sets": []}
    return write(folder / "ego4d.json", content)


def test_ego4d_gives_the_files_that_its_own_command_fetched(tmp_path):
    (tmp_path / "full_scale").mkdir()
    (tmp_path / "full_scale/0a-1.mp4").write_bytes(b"one")
    (tmp_path / "full_scale/0a-2.mp4").write_bytes(b"two")
    common = {
        "duration_sec": 600.0,
        "s3_path": "s3://x/y.mp4",
        "is_stereo": False,
        "scenarios": ["Cooking"],
        "split_em": None,
    }
    path = ego4d(
        tmp_path,
        {"video_uid": "0a-1", "video_source": "cmu", "split_av": "train", "has_redacted_regions": True} | common,
        {"video_uid": "0a-2", "split_fho": "val"} | common,
        {"video_uid": "0a-3"} | common,
        {"video_uid": "../ego4d"} | common,
        {"duration_sec": 3},
        "nothing",
    )
    result, sources = imported("ego4d", path, videos=tmp_path / "full_scale")
    assert [(source.source_id, source.split) for source in sources] == [("ego4d_0a-1", None), ("ego4d_0a-2", "test")]
    assert sources[0].licence == "Ego4D License Agreement" and sources[0].licence_evidence.startswith("https://")
    assert json.loads(sources[0].metadata)["redacted"] is True
    assert json.loads((tmp_path / "out.jsonl").read_text().splitlines()[0])["path"] == "full_scale/0a-1.mp4"
    assert [line.split(":")[0] for line in said(result, tmp_path)] == [f"ego4d.json videos[{n}]" for n in (2, 3, 4, 5)]
    with pytest.raises(UserError, match="--videos"):
        imported("ego4d", path)


def test_a_name_that_is_too_long_for_a_file_is_a_wrong_entry_and_stops_nothing(tmp_path):
    (tmp_path / "a.mp4").write_bytes(b"one")
    path = ego4d(tmp_path, {"video_uid": "a" * 300}, {"video_uid": "a"})
    result, (source,) = imported("ego4d", path, videos=tmp_path)
    assert source.source_id == "ego4d_a" and "File name too long" in str(result.problems[0])


def test_an_ego4d_video_with_clips_of_several_splits_is_held_out(tmp_path):
    (tmp_path / "a.mp4").write_bytes(b"one")
    path = ego4d(tmp_path, {"video_uid": "a", "split_em": "train", "split_fho": "multi"})
    result, (source,) = imported("ego4d", path, videos=tmp_path)
    assert (source.split, result.held_out) == ("test", 1)


@pytest.mark.parametrize(("inside", "given"), [("gt", "."), ("gt", "1.json"), ("gt/deep", ".."), ("", "gt")])
def test_moviechats_test_folder_is_held_out_from_wherever_it_is_named(inside, given, tmp_path, monkeypatch):
    (tmp_path / "gt/deep").mkdir(parents=True)
    (tmp_path / "a.mp4").write_bytes(b"one")
    write(tmp_path / "gt/1.json", {"info": {"video_path": "a.mp4"}})
    monkeypatch.chdir(tmp_path / inside)
    result = import_manifest("moviechat-1k", Path(given), tmp_path / "out.jsonl", ImportOptions(videos=tmp_path))
    assert (result.sources, result.held_out) == (1, 1)


def test_moviechat_gives_a_source_for_each_of_its_files(tmp_path):
    jsons = tmp_path / "jsons"
    jsons.mkdir()
    (tmp_path / "raw").mkdir()
    for number in (1, 2, 10):
        (tmp_path / f"raw/{number}.mp4").write_bytes(b"%d" % number)
        info = {
            "num_frame": 9624,
            "fps": 24,
            "url": "",
            "h": 480,
            "w": 852,
            "video_path": f"{number}.mp4",
            "class": "movie",
        }
        write(
            jsons / f"{number}.json",
            {"info": info, "caption": "a man", "global": [], "breakpoint": [{"time": 240, "question": "?"}]},
        )
    write(jsons / "3.json", {"info": {"video_path": "../secret.mp4"}})
    write(jsons / "4.json", {"caption": "no info"})
    (jsons / "5.json").write_text("{")
    result, sources = imported("moviechat-1k", jsons, videos=tmp_path / "raw")
    assert [source.source_id for source in sources] == [f"moviechat-1k_{n}" for n in (1, 2, 10)]
    assert json.loads(sources[0].metadata) == {"class": "movie", "seconds": 401.0}
    assert [problem.file.rpartition(" ")[2] for problem in result.problems] == ["3.json", "4.json", "5.json"]
    assert "leads out of the folder" in str(result.problems[0])


def videomarathon(path: Path, rows: list[tuple[str | None, str | None, str]]) -> Path:
    columns = {
        "id": [f"q{n}" for n in range(len(rows))],
        "video": [video for video, _, _ in rows],
        "URL": [url for _, url, _ in rows],
        "data_source": [source for _, _, source in rows],
        "question_type": ["temporality/oe"] * len(rows),
        "question": ["What?"] * len(rows),
        "answer": ["That."] * len(rows),
    }
    pq.write_table(pa.table({name: pa.array(values, pa.string()) for name, values in columns.items()}), path)
    return path


def test_videomarathon_gives_each_of_its_videos_once(tmp_path):
    rows: list[tuple[str | None, str | None, str]] = []
    for _ in range(3):
        rows += [("panda/x_0.mp4", watch(A), "Panda-70M"), ("panda/x_1.mp4", watch(A), "Panda-70M")]
        rows += [
            ("e/0a.mp4", "https://example.org/0a.mp4", "Ego4D"),
            (None, None, "Ego4D"),
            ("f/g.mp4", "ftp://x", "e"),
        ]
    result, sources = imported("videomarathon", videomarathon(tmp_path / "vm.parquet", rows))
    assert [source.source_id for source in sources] == [f"yt_{A}", "ego4d_0a"]
    assert [source.data_source for source in sources] == ["panda-70m", "ego4d"]
    assert json.loads(sources[0].metadata) == {
        "videomarathon": ["panda/x_0.mp4", "panda/x_1.mp4"],
        "videomarathon_qa": 6,
    }
    assert sorted(said(result, tmp_path)) == sorted(
        [
            "vm.parquet row 4: URL and video are both empty (complete one, or delete the row)",
            "vm.parquet row 5: url 'ftp://x' is neither http nor https, nor in an object store "
            "(start it with https:// or s3://, or use `path`)",
        ]
    )


def test_a_file_among_urls_is_a_wrong_entry_where_no_folder_of_videos_is_given(tmp_path):
    rows = [("e/0a.mp4", None, "Ego4D"), ("p/1.mp4", watch(A), "Panda-70M")]
    path = videomarathon(tmp_path / "vm.parquet", rows)
    result, sources = imported("videomarathon", path)
    assert [source.source_id for source in sources] == [f"yt_{A}"]
    line = "vm.parquet row 1: names a file, not a URL (give the folder of its videos by --videos)"
    assert said(result, tmp_path) == [line]
    told: list[object] = []
    videomarathon(path, rows[:1])
    with pytest.raises(UserError, match="names files, not URLs"):
        import_manifest("videomarathon", path, tmp_path / "o.jsonl", ImportOptions(), told.append)
    assert told == [], "one line says it for all"


def test_a_parquet_list_whose_text_is_none_is_told_in_one_line(tmp_path):
    path = videomarathon(tmp_path / "vm.parquet", [("p/\u00e9.mp4", watch(A), "Panda-70M")])
    path.write_bytes(path.read_bytes().replace("\u00e9".encode(), b"\xff\xff"))
    with pytest.raises(UserError, match=r"vm\.parquet is not a readable Parquet file"):
        imported("videomarathon", path)


@pytest.mark.slow
def test_the_memory_of_an_import_does_not_grow_with_the_number_of_questions(tmp_path):
    def peak(questions: int) -> int:
        rows = [(f"p/{n % 500}.mp4", f"https://example.org/{n % 500}.mp4", "panda-70m") for n in range(questions)]
        path = videomarathon(tmp_path / f"{questions}.parquet", rows)
        code = (
            "import resource, sys; from pathlib import Path\n"
            "from marathon_pipeline.sources.importers.convert import *\n"
            "path = Path(sys.argv[1])\n"
            "import_manifest('videomarathon', path, path.with_suffix('.jsonl'), ImportOptions())\n"
            "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)"
        )
        shown = subprocess.run([sys.executable, "-c", code, path], capture_output=True, text=True, check=True)
        return int(shown.stdout)

    assert peak(1_000_000) < 1.25 * peak(100_000)


@pytest.mark.parametrize("collection", IMPORTERS)
@pytest.mark.parametrize("content", [b"", b"[]", b"\xff\xfe", b"{}", b"PAR1", b'{"database": 3, "videos": 3}'])
def test_a_list_that_is_none_is_told_in_one_line_and_nothing_is_written(collection, content, tmp_path):
    kinds = {"panda-70m": "list.csv", "videomarathon": "list.parquet"}
    path = tmp_path / kinds.get(collection, "list.json")
    path.write_bytes(content)
    for file in (path, tmp_path / f"absent{path.suffix}"):
        with pytest.raises(UserError) as caught:
            import_manifest(collection, file, tmp_path / "out.jsonl", ImportOptions(videos=tmp_path))
        assert ("\n" not in str(caught.value) and "(" in str(caught.value)) or "nothing was written" in str(
            caught.value
        )
    assert [each.name for each in tmp_path.iterdir()] == [path.name]


huge = st.sampled_from([10**400, "a" * 300])
json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-5, 10_000) | st.floats(allow_nan=False) | st.text(max_size=8) | huge,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)
FIELDS = {
    "activitynet": ("url", "subset", "duration", "annotations"),
    "youcook2": ("video_url", "subset", "duration", "recipe_type", "annotations"),
    "ego4d": ("video_uid", "duration_sec", "scenarios", "split_em", "video_source"),
}


@settings(deadline=None, max_examples=60)
@given(data=st.data(), collection=st.sampled_from(sorted(FIELDS)))
def test_whatever_an_entry_holds_it_becomes_a_row_or_a_line(data, collection, tmp_path_factory):
    folder = tmp_path_factory.mktemp("fuzz")
    entry = st.fixed_dictionaries({}, optional=dict.fromkeys(FIELDS[collection], json_values)) | json_values
    entries = data.draw(st.lists(entry, min_size=1, max_size=4))
    good = {"video_uid": "good", "url": watch(C), "video_url": watch(C)}
    (folder / "good.mp4").write_bytes(b"good")
    if collection == "ego4d":
        path = ego4d(folder, *entries, good)
    else:
        named = {f"{number:011d}": entry for number, entry in enumerate(entries)}
        path = write(folder / "list.json", {"database": {**named, C: good}})
    result, sources = imported(collection, path, videos=folder)
    assert result.sources + len(result.problems) == len(entries) + 1
    assert any(source.source_id in (f"yt_{C}", "ego4d_good") for source in sources)


times = st.lists(st.tuples(st.integers(0, 4 * 3_600_000), st.integers(1, 3_600_000)), max_size=5)


@settings(deadline=None, max_examples=40)
@given(clips=times)
def test_times_of_panda_70m_are_read_as_they_are_written(clips, tmp_path_factory):
    def clock(milliseconds: int) -> str:
        seconds, rest = divmod(milliseconds, 1000)
        return f"{seconds // 3600}:{seconds // 60 % 60:02d}:{seconds % 60:02d}.{rest:03d}"

    cell = str([[clock(start), clock(start + length)] for start, length in clips])
    path = panda(tmp_path_factory.mktemp("panda"), [A, watch(A), cell, "[]", "[]"])
    _, sources = imported("panda-70m", path, segments=True)
    wanted = sorted({(start / 1000, (start + length) / 1000) for start, length in clips})
    assert [(s.start, s.end) for s in sources[0].segments] == wanted


def test_what_was_purged_is_named_and_left_out_of_an_import(marathon: Command) -> None:
    removals = Dataset(str(marathon.folder / "out"), create=True).removals()
    removals.add("elsewhere", url=watch(A))
    removals.add("ego4d_gone")
    path = panda(marathon.folder, [A, watch(A), CLIPS, "[]", "[]"], [B, watch(B), CLIPS, "[]", "[]"])
    result, sources = imported("panda-70m", path, purged=removals.takes)
    assert [source.source_id for source in sources] == [f"yt_{B}"]
    assert [problem.endswith("was purged (delete the entry)") for problem in said(result, marathon.folder)] == [True]
    for name in ("gone", "kept"):
        (marathon.folder / f"{name}.mp4").write_bytes(name.encode())
    listed = ego4d(marathon.folder, *({"video_uid": name, "duration_sec": 9.0} for name in ("gone", "kept")))
    command = ("manifest", "import", "ego4d", listed.name, "-o", "m.jsonl", "--videos", ".", "--removals", "out")
    assert marathon(*command, code=1) == "m.jsonl: 1 sources, 1 rows, 1 wrong entries\n"


def test_the_command_writes_what_the_manifest_check_takes(marathon: Command) -> None:
    path = panda(marathon.folder, [A, watch(A), CLIPS, "[]", "[]"], [B, "", "", "[]", "[]"])
    said = marathon("manifest", "import", "panda-70m", path.name, "-o", "m.jsonl", code=1)
    assert said == "m.jsonl: 1 sources, 1 rows, 1 wrong entries\n"
    assert marathon("manifest", "check", "m.jsonl") == "m.jsonl: 1 sources, 0 wrong rows\n"
    assert "no collection with an importer" in marathon("manifest", "import", "x", path.name, "-o", "m.jsonl", code=2)

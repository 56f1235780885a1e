import json

import pytest

from marathon_pipeline.errors import UserError
from marathon_pipeline.sources.inputs import sources_of_inputs


def test_manifests_urls_files_and_folders_go_together(tmp_path):
    (tmp_path / "videos.jsonl").write_text(
        json.dumps({"url": "https://example.org/a.mp4", "licence": "CC0-1.0"}) + "\n"
    )
    (tmp_path / "one.mkv").write_bytes(b"1")
    nested = tmp_path / "folder" / "deep"
    nested.mkdir(parents=True)
    for name in ("b.MP4", "a.webm", "notes.txt", "._a.webm"):
        (nested / name).write_bytes(name.encode())
    inputs = [
        str(tmp_path / "videos.jsonl"),
        "https://youtu.be/aqz-KE-bpKQ",
        str(tmp_path / "one.mkv"),
        str(nested.parent),
    ]
    sources, problems = sources_of_inputs(inputs)
    named = [source.url or source.path.rpartition("/")[2] for source in sources]
    assert named[0::2] == ["https://example.org/a.mp4", "one.mkv", "b.MP4"]
    assert named[1::2] == ["https://www.youtube.com/watch?v=aqz-KE-bpKQ", "a.webm"]
    assert not problems and all(source.path.startswith(("", "/")) for source in sources)


def test_an_empty_or_broken_video_is_a_source_like_any_other(tmp_path):
    (tmp_path / "empty.webm").touch()
    (tmp_path / "broken.mp4").write_bytes(b"no film")
    sources, problems = sources_of_inputs([str(tmp_path)])
    assert [source.bytes for source in sources] == [7, 0] and not problems


def test_a_second_copy_of_a_video_is_a_problem_and_stops_nothing(tmp_path):
    for name in ("a.mp4", "b.mp4", "c.mp4"):
        (tmp_path / name).write_bytes(b"same" if name < "c" else b"other")
    sources, (problem,) = sources_of_inputs([str(tmp_path), str(tmp_path / "a.mp4")])
    assert len(sources) == 2 and problem.file.endswith("b.mp4") and "path differs" in str(problem)


def test_a_file_whose_name_is_no_text_is_a_problem_and_stops_nothing(tmp_path):
    (tmp_path / "a.mp4").write_bytes(b"film")
    (tmp_path / b"\xff.mp4".decode("utf-8", "surrogateescape")).write_bytes(b"other")
    sources, problems = sources_of_inputs([str(tmp_path)])
    assert len(sources) == len(problems) == 1


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("absent.mp4", "does not exist"),
        ("absent.jsonl", "does not exist"),
        (".", "holds no video"),
        ("notes.txt", "no known kind"),
        ("file:///etc/passwd", "`path`"),
        ("n" * 5000, "cannot be read"),
    ],
)
def test_an_input_that_is_wrong_is_refused_in_one_line(text, says, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "notes.txt").touch()
    with pytest.raises(UserError) as caught:
        sources_of_inputs([text])
    assert says in str(caught.value) and "\n" not in str(caught.value)

import os
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from marathon_pipeline.records import Source
from marathon_pipeline.sources.identity import (
    SourceError,
    canonical_url,
    content_of,
    source_id_of_name,
    source_id_of_url,
)

WEBDATASET_KEY = re.compile(r"(?!-|__)[A-Za-z0-9_-]{1,100}")
hosts = st.from_regex(r"[A-Za-z][A-Za-z0-9-]{0,10}\.(org|COM|рф)", fullmatch=True)
urls = st.builds(
    lambda scheme, host, rest: f"{scheme}://{host}{rest}",
    st.sampled_from(["http", "HTTPS", "https"]),
    st.one_of(hosts, st.sampled_from(["youtu.be", "m.youtube.com", "[::1]:443", "a.org:80", "EXAMPLE.org.:8080"])),
    st.one_of(st.just(""), st.text(alphabet="/?&=#%.~+aZ09- éü", max_size=40).map(lambda text: "/" + text)),
)


@given(urls | st.text(max_size=60))
def test_a_canonical_url_is_its_own_canonical_url(url):
    try:
        once = canonical_url(url)
    except SourceError:
        return
    assert canonical_url(once) == once
    assert once.isascii() and "#" not in once
    assert source_id_of_url(once) == source_id_of_url(url)


@given(urls)
def test_the_id_of_a_url_is_a_webdataset_key(url):
    try:
        source_id = source_id_of_url(url)
    except SourceError:
        return
    assert WEBDATASET_KEY.fullmatch(source_id)


@given(st.text(max_size=120), st.sampled_from(["", "ego4d", "panda-70m"]))
def test_an_id_in_a_row_becomes_a_webdataset_key_or_is_refused(name, data_source):
    try:
        source_id = source_id_of_name(name, data_source)
    except SourceError as error:
        assert error.mend
        return
    assert WEBDATASET_KEY.fullmatch(source_id)
    assert source_id_of_name(source_id, data_source) == source_id


@pytest.mark.parametrize(
    "spelling",
    [
        "https://youtu.be/-_aqz0KEbpK?si=abc",
        "http://www.youtube.com/watch?v=-_aqz0KEbpK&t=12s&list=PL123",
        "https://m.youtube.com/watch?feature=share&v=-_aqz0KEbpK#t=3",
        "https://music.youtube.com/watch?v=-_aqz0KEbpK",
        "https://youtube.com/shorts/-_aqz0KEbpK?utm_source=x",
        "https://www.youtube-nocookie.com/embed/-_aqz0KEbpK/",
        "HTTPS://WWW.YOUTUBE.COM:443/live/-_aqz0KEbpK",
    ],
)
def test_every_spelling_of_a_youtube_video_is_one_source(spelling):
    assert canonical_url(spelling) == "https://www.youtube.com/watch?v=-_aqz0KEbpK"
    assert source_id_of_url(spelling) == "yt_-_aqz0KEbpK"


@pytest.mark.parametrize(
    ("url", "canonical"),
    [
        ("HTTPS://Example.ORG:443/A/b.mp4#t=3", "https://example.org/A/b.mp4"),
        ("http://example.org:8080", "http://example.org:8080/"),
        ("https://example.org/v?b=2&utm_source=x&a=1&fbclid=y", "https://example.org/v?a=1&b=2"),
        ("https://example.org/v?a=2&b&a=1", "https://example.org/v?a=2&a=1&b"),
        ("https://example.org/a b/%7efilm%c3%a9.mp4", "https://example.org/a%20b/~film%C3%A9.mp4"),
        ("https://bücher.example/100%", "https://xn--bcher-kva.example/100%25"),
        ("https://www.youtube.com/@channel/videos", "https://www.youtube.com/@channel/videos"),
    ],
)
def test_urls_that_say_the_same_are_spelled_the_same(url, canonical):
    assert canonical_url(url) == canonical


@pytest.mark.parametrize(
    ("url", "mend"),
    [
        ("file:///etc/passwd", "`path`"),
        ("ftp://example.org/a.mp4", "https://"),
        ("www.example.org/a.mp4", "https://"),
        ("https://user:secret@example.org/a.mp4", "@"),
        ("https:///a.mp4", "correct it"),
        ("https://example.org:99999/", "correct it"),
        ("https://exa mple.org/", "correct it"),
        ("https://example.org\\@evil.org/", "without it"),
        ("https://example.org/a\nb", "without it"),
    ],
)
def test_a_url_that_is_none_or_not_of_the_web_is_refused_with_its_mend(url, mend):
    with pytest.raises(SourceError) as caught:
        canonical_url(url)
    assert mend in caught.value.mend and "secret" not in str(caught.value)


@pytest.mark.parametrize(
    ("name", "data_source", "source_id"),
    [("P01_01", "ego4d", "ego4d_P01_01"), ("ego4d_P01", "ego4d", "ego4d_P01"), ("-x", "v", "v_-x"), ("a-b", "", "a-b")],
)
def test_an_id_is_prefixed_by_its_collection_once(name, data_source, source_id):
    assert source_id_of_name(name, data_source) == source_id


def test_an_id_that_climbs_out_of_its_folder_is_refused_with_a_proposal():
    with pytest.raises(SourceError, match="such as etc_passwd"):
        source_id_of_name("../etc/passwd")


def test_an_unchanged_file_is_not_hashed_again(tmp_path):
    file = tmp_path / "a.mp4"
    file.write_bytes(b"one")
    first = content_of(file)
    known = Source(source_id="x", path=str(file), sha256="0" * 64, bytes=first.bytes, mtime_ns=first.mtime_ns)
    assert content_of(file, known).sha256 == "0" * 64
    file.write_bytes(b"two")
    os.utime(file, ns=(0, first.mtime_ns + 1))
    assert content_of(file, known).sha256 not in {"0" * 64, first.sha256}


def test_what_is_no_regular_file_is_refused(tmp_path):
    os.mkfifo(tmp_path / "pipe.mp4")
    for path in (tmp_path, tmp_path / "pipe.mp4", tmp_path / "absent.mp4", tmp_path / ("n" * 300)):
        with pytest.raises(SourceError):
            content_of(path)

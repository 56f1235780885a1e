import fcntl
import json
import os
import pickle
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import quote, unquote, urlsplit

import pytest
from yt_dlp import YoutubeDL
from yt_dlp.extractor.generic import GenericIE
from yt_dlp.networking.common import Request, Response
from yt_dlp.utils import DownloadError, ExtractorError, GeoRestrictedError

from marathon_pipeline.errors import Failed
from marathon_pipeline.ffmpeg import ffmpeg_binary
from marathon_pipeline.records import Source
from marathon_pipeline.sources.download import fetch
from marathon_pipeline.sources.identity import source_id_of_url
from marathon_pipeline.sources.manifest import read_manifest
from marathon_pipeline.sources.settings import DownloadSettings, LimitSettings, SiteLimits
from marathon_pipeline.sources.ytdlp import failure_of

SETTINGS = DownloadSettings(retries=1, timeout_seconds=5, max_wait_seconds=1)


def ffmpeg(folder: Path, *arguments: str) -> None:
    subprocess.run([ffmpeg_binary(), "-loglevel", "error", "-nostdin", "-y", *arguments], cwd=folder, check=True)


class Handler(SimpleHTTPRequestHandler):
    """Files; `/status/<code>/`; `/moved/` to a local file; `/breaks/<file>`: half of it until `healed`.

    `/later/<seconds>/<file>`: refused once, with Retry-After; `/plain/<file>`: half of it until `healed`, then all
    of it whatever Range says; `/drip/<type>`: a byte now and then.
    """

    requests: list[tuple[str, str]]
    cookies: list[str]
    said_to_be_from: list[str]  # X-Forwarded-For
    healed = False
    version = '"1"'

    def do_GET(self) -> None:
        self.requests.append((self.path, self.headers.get("Range", "")))
        self.cookies.append(self.headers.get("Cookie", ""))
        self.said_to_be_from.append(self.headers.get("X-Forwarded-For", ""))
        kind, _, rest = self.path[1:].partition("/")
        if kind == "status":
            self.send_error(int(rest.partition("/")[0]))
        elif kind == "moved":
            self.send_response(302)
            self.send_header("Location", "file:///etc/passwd")
            self.end_headers()
        elif kind == "elsewhere":
            self.send_response(302)
            self.send_header("Location", f"http://{rest}")
            self.end_headers()
        elif kind == "breaks":
            self._part(Path(self.directory, rest).read_bytes(), ranges=True)
        elif kind == "plain":
            self._part(Path(self.directory, rest).read_bytes(), ranges=False)
        elif kind == "later" and asked(self.path) == 1:
            self.send_response(503)
            self.send_header("Retry-After", rest.partition("/")[0])
            self.end_headers()
        elif kind == "many":
            self.send_response(429)
            self.send_header("Retry-After", unquote(rest.partition("/")[0]))
            self.end_headers()
        elif kind == "optout":
            self.send_response(200)
            self.send_header("Content-Type", "video/mp4")
            self.send_header("X-Robots-Tag", unquote(rest.partition("/")[0]))
            self.send_header("Content-Length", "4")
            self.end_headers()
            self.wfile.write(b"film")
        elif kind == "later":
            self.path = "/" + rest.partition("/")[2]
            super().do_GET()
        elif kind == "drip":
            self._drip("text/html" if rest.startswith("page") else "video/mp4")
        else:
            super().do_GET()

    def _part(self, body: bytes, ranges: bool) -> None:
        partial = ranges and "Range" in self.headers and self.headers.get("If-Range", self.version) == self.version
        start = int(self.headers["Range"].removeprefix("bytes=").partition("-")[0]) if partial else 0
        end = len(body) if self.healed else max(start, len(body) // 2)
        self.send_response(206 if partial else 200)
        self.send_header("Content-Type", "video/mp4")
        self.send_header("ETag", self.version)
        if partial:
            self.send_header("Content-Range", f"bytes {start}-{len(body) - 1}/{len(body)}")
        self.send_header("Content-Length", str(len(body) - start))
        self.end_headers()
        self.wfile.write(body[start:end])

    def _drip(self, kind: str) -> None:
        self.send_response(200)
        self.send_header("Content-Type", kind)
        self.end_headers()
        try:
            for _ in range(400):
                self.wfile.write(b"<p>" if kind == "text/html" else b"drop")
                time.sleep(0.05)
        except OSError:
            self.close_connection = True  # nobody listens any more

    def log_message(self, *arguments: object) -> None: ...


def asked(path: str) -> int:
    """How often a path was asked for."""
    return [requested for requested, _ in Handler.requests].count(path)


@pytest.fixture(scope="module")
def site(tmp_path_factory) -> Path:
    """A folder that is served: two different videos of one name, pages, HLS playlists."""
    folder = tmp_path_factory.mktemp("site")
    for name, size in (("a", "320x240"), ("b", "160x120")):
        (folder / name).mkdir()
        ffmpeg(
            folder / name, "-f", "lavfi", "-i", f"mandelbrot=s={size}:r=5", "-t", "2", "-c:v", "libx264", "video.mp4"
        )
    (folder / "page.html").write_text("<html><body>nothing to see</body></html>")
    (folder / "embed.html").write_text("<html><body><video src='/a/video.mp4'></video></body></html>")
    (folder / "embeds.html").write_text(
        "<video src='/a/video.mp4'></video><p>and</p><video src='/b/video.mp4'></video>"
    )
    (folder / "hls").mkdir()
    sound = ("-f", "lavfi", "-i", "sine=d=2")
    ffmpeg(folder / "hls", "-i", "../a/video.mp4", "-c", "copy", "-hls_playlist_type", "vod", "v.m3u8")
    ffmpeg(folder / "hls", *sound, "-c:a", "aac", "-hls_playlist_type", "vod", "s.m3u8")
    head = "#EXTM3U\n#EXT-X-VERSION:3\n"
    (folder / "hls" / "film.m3u8").write_text(
        head + '#EXT-X-MEDIA:TYPE=AUDIO,GROUP-ID="s",NAME="s",DEFAULT=YES,URI="s.m3u8"\n'
        '#EXT-X-STREAM-INF:BANDWIDTH=90000,RESOLUTION=320x240,CODECS="avc1.42c00a,mp4a.40.2",AUDIO="s"\nv.m3u8\n'
    )
    segment = "#EXT-X-TARGETDURATION:9\n{}#EXTINF:9,\n{}\n#EXT-X-ENDLIST\n"
    secret = folder.parent / "secret.ts"
    secret.write_bytes((folder / "hls" / "v0.ts").read_bytes())
    (folder / "hls" / "local.m3u8").write_text(head + segment.format("", f"file://{secret}"))
    key = '#EXT-X-KEY:METHOD=SAMPLE-AES,URI="key"\n'
    (folder / "hls" / "locked.m3u8").write_text(head + segment.format(key, f"file://{secret}"))
    (folder / "hls" / "ftp.m3u8").write_text(head + segment.format("", "ftp://127.0.0.1/v0.ts"))
    key = f'#EXT-X-KEY:METHOD=AES-128,URI="file://{secret}"\n'
    (folder / "hls" / "key.m3u8").write_text(head + segment.format(key, "v0.ts"))
    (folder / "hls" / "sixteen").write_bytes(bytes(range(16)))
    (folder / "hls" / "sixteen.txt").write_text(f"sixteen\n{folder}/hls/sixteen\n")
    cut = ("-hls_playlist_type", "vod", "-hls_key_info_file", "sixteen.txt")
    ffmpeg(folder / "hls", "-i", "../a/video.mp4", "-c", "copy", *cut, "coded.m3u8")
    return folder


@pytest.fixture(scope="module")
def server(site) -> Iterator[str]:
    Handler.requests, Handler.cookies, Handler.said_to_be_from = [], [], []
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Handler, directory=str(site))) as listening:
        threading.Thread(target=listening.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{listening.server_port}"
        listening.shutdown()


@pytest.fixture(autouse=True)
def no_proxy(monkeypatch):
    monkeypatch.setenv("no_proxy", "127.0.0.1,localhost")


def source(url: str) -> Source:
    return Source(source_id=source_id_of_url(url), url=url)


def failure(url: str, folder: Path, settings: DownloadSettings = SETTINGS) -> Failed:
    with pytest.raises(Failed) as caught:
        fetch(source(url), folder, settings)
    assert [path for path in folder.iterdir() if path.is_file()] == []
    return caught.value


def test_a_video_comes_back_whole_under_its_sources_id(server, site, tmp_path):
    seen = []
    wanted = source(f"{server}/a/video.mp4")
    path = fetch(wanted, tmp_path, SETTINGS, lambda done, total: seen.append((done, total)))
    assert path == tmp_path / f"{wanted.source_id}.mp4"
    assert path.read_bytes() == (site / "a/video.mp4").read_bytes()
    assert seen[-1] == (path.stat().st_size, path.stat().st_size)
    assert list(tmp_path.iterdir()) == [path]


def test_videos_of_one_name_at_two_addresses_and_on_two_hosts_are_kept_apart(server, site, tmp_path):
    hosts = (server, server.replace("127.0.0.1", "localhost"))
    got = [fetch(source(f"{host}/{name}/video.mp4"), tmp_path, SETTINGS) for host in hosts for name in "ab"]
    assert [path.read_bytes() for path in got] == 2 * [(site / name / "video.mp4").read_bytes() for name in "ab"]
    assert len(set(got)) == 4


@pytest.mark.parametrize(
    ("path", "reason", "transient"),
    [
        ("status/404/a.mp4", "http_404", False),
        ("status/410/a.mp4", "http_410", False),
        ("status/403/a.mp4", "http_403", False),
        ("status/429/a.mp4", "http_429", True),
        ("status/503/a.mp4", "http_503", True),
        ("page.html", "no_video_found", False),
        ("embeds.html", "playlist", False),
        ("moved/a.mp4", "unsupported_url", False),
    ],
)
def test_what_a_server_refuses_or_lacks_fails_by_name(server, tmp_path, path, reason, transient):
    failed = failure(f"{server}/{path}", tmp_path)
    assert (failed.reason, failed.transient) == (reason, transient)
    assert failed.message and "\n" not in failed.message and "report this issue" not in failed.message


def test_a_server_that_says_when_to_come_back_is_asked_again_then(server, site, tmp_path):
    began = time.monotonic()
    path = fetch(source(f"{server}/later/1/a/video.mp4"), tmp_path, SETTINGS)
    assert path.read_bytes() == (site / "a/video.mp4").read_bytes()
    assert time.monotonic() - began >= 1


@pytest.mark.parametrize(
    ("path", "times"),
    [("later/2/a/video.mp4", 1), ("later/Fri, 01 Jan 2100 00:00:00 GMT/x.mp4", 1), ("status/503/b.mp4", 3)],
)
def test_a_server_is_asked_no_more_often_than_the_job_says_and_not_waited_for_long(server, tmp_path, path, times):
    settings = SETTINGS.model_copy(update={"retries": 2 if "503" in path else 5, "max_wait_seconds": 0.5})
    settings = settings.model_copy(update={"max_wait_seconds": 2}) if "503" in path else settings
    url = f"{server}/{path}"
    failed = failure(url, tmp_path, settings)
    assert failed.transient and failed.reason == "http_503"
    assert asked(quote(f"/{path}", safe="/:,")) == times


def test_a_server_that_is_asked_too_much_is_asked_once_and_its_wait_is_told(server, tmp_path):
    failed = failure(f"{server}/many/900/a.mp4", tmp_path, SETTINGS)
    assert (failed.reason, failed.transient, failed.retry_after) == ("http_429", True, 900)
    assert asked("/many/900/a.mp4") == 1
    assert pickle.loads(pickle.dumps(failed)).retry_after == 900


@pytest.mark.parametrize("zone", ["America/New_York", "Asia/Tokyo"])
@pytest.mark.parametrize("form", ["%a, %d %b %Y %H:%M:%S GMT", "%a %b %d %H:%M:%S %Y"])
def test_a_date_to_come_back_at_is_in_utc_wherever_the_machine_stands(server, tmp_path, monkeypatch, zone, form):
    monkeypatch.setenv("TZ", zone)
    time.tzset()
    try:
        date = time.strftime(form, time.gmtime(time.time() + 900))
        failed = failure(f"{server}/many/{quote(date)}/a.mp4", tmp_path)
    finally:
        monkeypatch.undo()
        time.tzset()
    assert 600 < failed.retry_after <= 900


def test_a_date_to_come_back_at_that_no_calendar_has_is_as_none(server, tmp_path):
    date = "Fri, 01 Jan 99999999999999999999 00:00:00 GMT"
    failed = failure(f"{server}/many/{quote(date)}/a.mp4", tmp_path)
    assert (failed.reason, failed.transient, failed.retry_after) == ("http_429", True, 0)


class YouTube(SimpleHTTPRequestHandler):
    """YouTube as a proxy shows it: what `refused` says is answered by `status`, and all else gives nothing to play."""

    refused, status = "", 429
    asked: list[str]

    def do_GET(self) -> None:
        self.asked.append(urlsplit(self.path).path)
        refused = self.refused in self.path
        self.send_response(self.status if refused else 200)
        self.send_header("Retry-After", "1800")
        self.send_header("Content-Length", "2")
        self.end_headers()
        self.wfile.write(b"{}")

    def do_POST(self) -> None:
        self.do_GET()

    def log_message(self, *arguments: object) -> None: ...


@pytest.fixture
def youtube(monkeypatch) -> Iterator[type[YouTube]]:
    ask = YoutubeDL.urlopen

    def insecurely(downloader: YoutubeDL, request: Request) -> Response:  # so that a proxy sees it
        request.url = request.url.replace("https://", "http://", 1)
        return ask(downloader, request)

    with ThreadingHTTPServer(("127.0.0.1", 0), YouTube) as listening:
        threading.Thread(target=listening.serve_forever, daemon=True).start()
        monkeypatch.setattr(YoutubeDL, "urlopen", insecurely)
        monkeypatch.setenv("http_proxy", f"http://127.0.0.1:{listening.server_port}")
        monkeypatch.setattr(YouTube, "asked", [], raising=False)
        yield YouTube
        listening.shutdown()


@pytest.mark.parametrize("refused", ["/watch", "/youtubei/"])
def test_a_429_of_youtube_is_told_and_not_taken_for_a_video_that_is_not_there(youtube, tmp_path, monkeypatch, refused):
    monkeypatch.setattr(youtube, "refused", refused)
    failed = failure("https://www.youtube.com/watch?v=dQw4w9WgXcQ", tmp_path)
    assert (failed.reason, failed.transient, failed.retry_after) == ("http_429", True, 1800)
    assert sum(path.startswith(refused) for path in youtube.asked) == 1


def test_a_site_that_fails_for_now_within_yt_dlp_condemns_no_video(youtube, tmp_path, monkeypatch):
    monkeypatch.setattr(youtube, "refused", "/youtubei/")
    monkeypatch.setattr(youtube, "status", 503)
    failed = failure("https://www.youtube.com/watch?v=dQw4w9WgXcQ", tmp_path)
    assert (failed.reason, failed.transient, failed.retry_after) == ("http_503", True, 1800)


@pytest.mark.parametrize("how", ["www.youtube.com/embed/", "www.youtube-nocookie.com/embed/", "redirect"])
def test_a_page_that_leads_to_youtube_asks_it_for_nothing(server, site, youtube, tmp_path, how):
    video = "www.youtube.com/watch?v=dQw4w9WgXcQ"
    (site / "blog.html").write_text(f'<p>See: <iframe src="https://{how}dQw4w9WgXcQ"></iframe>')
    failed = failure(f"{server}/elsewhere/{video}" if how == "redirect" else f"{server}/blog.html", tmp_path)
    assert (failed.reason, failed.transient) == ("elsewhere", False)
    assert f"https://{video}:" in failed.message
    assert youtube.asked == (["/watch"] if how == "redirect" else []), "a proxy follows what it is told"


@pytest.mark.parametrize("how", ["redirect", "page", "playlist"])
def test_no_other_site_of_the_job_is_asked_but_the_one_that_gave_leave(server, site, tmp_path, how):
    other = server.removeprefix("http://").replace("127.0.0.1", "localhost")
    (site / "to_other.html").write_text(f"<video src='http://{other}/b/video.mp4'></video>")
    (site / "hls/to_other.m3u8").write_text(
        f"#EXTM3U\n#EXT-X-TARGETDURATION:9\n#EXTINF:9,\nhttp://{other}/b/video.mp4\n#EXT-X-ENDLIST\n"
    )
    path = {"redirect": f"elsewhere/{other}/b/video.mp4", "page": "to_other.html"}.get(how, "hls/to_other.m3u8")
    named = LimitSettings(sites={"other": SiteLimits(hosts=("localhost",))})
    before = asked("/b/video.mp4")
    failed = failure(f"{server}/{path}", tmp_path, SETTINGS.model_copy(update={"limits": named}))
    assert (failed.reason, failed.transient) == ("elsewhere", False)
    assert asked("/b/video.mp4") == before
    one = LimitSettings(sites={"one": SiteLimits(hosts=("localhost", "127.0.0.1"))})
    assert fetch(source(f"{server}/{path}"), tmp_path, SETTINGS.model_copy(update={"limits": one})).stat().st_size


def test_a_429_for_a_piece_of_a_stream_is_not_asked_for_again(server, site, tmp_path):
    (site / "hls/many.m3u8").write_text(
        "#EXTM3U\n#EXT-X-TARGETDURATION:9\n#EXTINF:9,\n/many/60/v0.ts\n#EXT-X-ENDLIST\n"
    )
    failed = failure(f"{server}/hls/many.m3u8", tmp_path)
    assert (failed.reason, failed.retry_after, asked("/many/60/v0.ts")) == ("http_429", 60, 1)


@pytest.mark.parametrize("said", ["noai", "googlebot: nofollow, noai", "NOAI, noimageai"])
def test_a_video_whose_server_says_that_it_is_not_for_training_is_not_taken(server, tmp_path, said):
    failed = failure(f"{server}/optout/{quote(said)}/a.mp4", tmp_path, SETTINGS)
    assert (failed.reason, failed.transient) == ("opted_out", False)


@pytest.mark.parametrize("kind", ["page.html", "video.mp4"])
def test_a_server_that_drips_for_ever_is_left_after_a_while(server, tmp_path, kind):
    began = time.monotonic()
    failed = failure(f"{server}/drip/{kind}", tmp_path, SETTINGS.model_copy(update={"max_seconds": 1.5}))
    assert (failed.reason, failed.transient) == ("too_slow", True)
    assert time.monotonic() - began < 10


@pytest.mark.parametrize("how", ["plain", "breaks"])
def test_a_part_is_not_joined_to_what_does_not_fit_it(server, site, tmp_path, monkeypatch, how):
    """`plain`: the server ignores Range; `breaks`: it holds another video by then."""
    monkeypatch.setattr(Handler, "requests", [])
    url = f"{server}/{how}/b/video.mp4"
    assert failure(url, tmp_path).reason == "connection"
    monkeypatch.setattr(Handler, "healed", True)
    before, after = (site / "b/video.mp4").read_bytes(), (site / "a/video.mp4").read_bytes()
    if how == "breaks":
        monkeypatch.setattr(Handler, "version", '"2"')
        (site / "b/video.mp4").write_bytes(after)
    try:
        got = fetch(source(url), tmp_path, SETTINGS).read_bytes()
    finally:
        (site / "b/video.mp4").write_bytes(before)
    assert Handler.requests[-1][1].startswith("bytes=")
    assert got == (before if how == "plain" else after)


def test_a_killed_download_is_resumed(server, site, tmp_path, monkeypatch):
    wanted = source(f"{server}/breaks/a/video.mp4")
    code = (
        "import os, sys; from pathlib import Path; from marathon_pipeline.records import Source\n"
        "from marathon_pipeline.sources.download import fetch\n"
        "from marathon_pipeline.sources.settings import DownloadSettings\n"
        "kill = lambda done, total: os.kill(os.getpid(), 9) if done > 5000 else None\n"
        "fetch(Source(source_id=sys.argv[1], url=sys.argv[2]), Path(sys.argv[3]), DownloadSettings(), kill)"
    )
    killed = subprocess.run([sys.executable, "-c", code, wanted.source_id, wanted.url, tmp_path])
    assert killed.returncode == -9
    monkeypatch.setattr(Handler, "healed", True)
    assert fetch(wanted, tmp_path, SETTINGS).read_bytes() == (site / "a/video.mp4").read_bytes()


def test_two_processes_do_not_write_one_part(server, tmp_path):
    wanted = source(f"{server}/breaks/a/video.mp4")
    failure(wanted.url, tmp_path)
    (part,) = tmp_path.glob("*/*.part")
    with (part.parent / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        failed = failure(wanted.url, tmp_path, SETTINGS.model_copy(update={"timeout_seconds": 0.3}))
    assert (failed.reason, failed.transient) == ("busy", True)


def test_what_a_site_calls_the_channel_is_told(server, site, tmp_path):
    film = {
        "@context": "https://schema.org",
        "@type": "VideoObject",
        "name": "A film",
        "author": {"name": "Ann's Films"},
    }
    film["contentUrl"] = f"{server}/a/video.mp4"
    (site / "film.html").write_text(f'<script type="application/ld+json">{json.dumps(film)}</script>')
    told = []
    fetch(source(f"{server}/film.html"), tmp_path, SETTINGS, told=told.extend)
    assert told == ["Ann's Films"]


def test_what_a_user_told_yt_dlp_for_himself_is_not_read(server, site, tmp_path, monkeypatch):
    (tmp_path / ".config/yt-dlp").mkdir(parents=True)
    for name in (".config/yt-dlp/config", ".config/yt-dlp.conf", ".yt-dlp.conf", "yt-dlp.conf"):
        (tmp_path / name).write_text("--proxy http://127.0.0.1:9\n--max-filesize 1\n")
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / ".config"))
    monkeypatch.chdir(tmp_path)
    path = fetch(source(f"{server}/a/video.mp4"), tmp_path / "out", SETTINGS)
    assert path.read_bytes() == (site / "a/video.mp4").read_bytes()


def test_a_body_that_breaks_off_fails_for_now_and_is_resumed(server, site, tmp_path, monkeypatch):
    broken = source(f"{server}/breaks/a/video.mp4")
    failed = failure(broken.url, tmp_path)
    assert failed.transient
    (part,) = tmp_path.glob("*/*.part")
    size = part.stat().st_size
    assert 0 < size < (site / "a/video.mp4").stat().st_size
    monkeypatch.setattr(Handler, "healed", True)
    assert fetch(broken, tmp_path, SETTINGS).read_bytes() == (site / "a/video.mp4").read_bytes()
    assert Handler.requests[-1][1] == f"bytes={size}-"


def test_a_video_that_is_larger_than_allowed_is_refused(server, tmp_path):
    failed = failure(f"{server}/a/video.mp4", tmp_path, DownloadSettings(max_bytes=100))
    assert (failed.reason, failed.transient) == ("too_large", False)
    assert list(tmp_path.iterdir()) == []


def test_nobody_listening_is_a_connection_failure_for_now(tmp_path):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        failed = failure(f"http://127.0.0.1:{taken.getsockname()[1]}/a.mp4", tmp_path)
    assert (failed.reason, failed.transient) == ("connection", True)


def test_a_silent_server_is_a_timeout(tmp_path):
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        url = f"http://127.0.0.1:{silent.getsockname()[1]}/a.mp4"
        failed = failure(url, tmp_path, DownloadSettings(retries=0, timeout_seconds=0.3))
    assert (failed.reason, failed.transient) == ("timeout", True)


@pytest.mark.parametrize("path", ["embed.html", "hls/v.m3u8"])
def test_a_page_with_a_video_and_a_stream_of_pieces_give_it(server, tmp_path, path):
    import av

    with av.open(str(fetch(source(f"{server}/{path}"), tmp_path, SETTINGS))) as container:
        assert (container.streams.video[0].width, container.streams.video[0].height) == (320, 240)


def test_separate_picture_and_sound_are_merged_where_sound_is_wanted(server, tmp_path):
    import av

    for audio, kinds in ((True, ["audio", "video"]), (False, ["video"])):
        path = fetch(source(f"{server}/hls/film.m3u8"), tmp_path, SETTINGS.model_copy(update={"audio": audio}))
        with av.open(str(path)) as container:
            assert sorted(stream.type for stream in container.streams) == kinds


def test_a_stream_whose_key_its_site_gives_is_decrypted(server, site, tmp_path):
    path = fetch(source(f"{server}/hls/coded.m3u8"), tmp_path, SETTINGS)
    assert pictures(path) == pictures(site / "a/video.mp4") and asked("/hls/sixteen") == 1


def pictures(video: Path) -> list[bytes]:
    """The hash of each."""
    command = [ffmpeg_binary(), "-v", "error", "-i", str(video), "-f", "framemd5", "-"]
    lines = subprocess.check_output(command).splitlines()
    return [line.rpartition(b",")[2] for line in lines if not line.startswith(b"#")]


@pytest.mark.parametrize(
    ("playlist", "reason"),
    [
        ("local.m3u8", "unsupported_url"),
        ("ftp.m3u8", "unsupported_url"),
        ("key.m3u8", "unsupported_url"),
        ("locked.m3u8", "unsupported_stream"),
    ],
)
def test_a_playlist_that_names_a_local_file_or_another_scheme_is_refused(server, tmp_path, playlist, reason):
    failed = failure(f"{server}/hls/{playlist}", tmp_path)
    assert (failed.reason, failed.transient) == (reason, False)


@pytest.mark.parametrize("how", ["redirect", "page", "playlist", "by name", "as IPv6"])
def test_what_a_server_names_of_this_network_is_never_asked(server, site, tmp_path, how):
    with socket.create_server(("127.0.0.1", 0)) as canary:
        canary.settimeout(0.1)
        port = canary.getsockname()[1]
        host = {"by name": "localhost", "as IPv6": "[::ffff:127.0.0.1]"}.get(how, "127.0.0.1")
        (site / "to_canary.html").write_text(f"<video src='http://{host}:{port}/a.mp4'></video>")
        (site / "hls/to_canary.m3u8").write_text(
            f"#EXTM3U\n#EXT-X-TARGETDURATION:9\n#EXTINF:9,\nhttp://{host}:{port}/a.ts\n#EXT-X-ENDLIST\n"
        )
        path = {"redirect": f"elsewhere/{host}:{port}/a.mp4", "page": "to_canary.html"}.get(how, "hls/to_canary.m3u8")
        failed = failure(f"{server}/{path}", tmp_path)
        assert (failed.reason, failed.transient) == ("private_address", False)
        with pytest.raises(TimeoutError):
            canary.accept()


def test_a_stream_that_a_program_would_fetch_is_refused_before_that_is_called(server, site, tmp_path, monkeypatch):
    (program := tmp_path / "bin/rtmpdump").parent.mkdir()
    program.write_text(f"#!/bin/sh\ntouch {tmp_path}/called\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{program.parent}:{os.environ['PATH']}")
    player = 'jwplayer("p").setup({"sources": [{"file": "rtmp://127.0.0.1:1935/app/flv:film"}]});'
    (site / "player.html").write_text(f"<script>{player}</script>")
    failed = failure(f"{server}/player.html", tmp_path / "out")
    assert (failed.reason, failed.transient) == ("unsupported_stream", False)
    assert "rtmp://127.0.0.1" in failed.message and not (tmp_path / "called").exists()


def test_cookies_are_sent_and_their_file_is_left_as_it_is(server, tmp_path):
    cookies = tmp_path / "cookies.txt"
    cookies.write_text("# Netscape HTTP Cookie File\n127.0.0.1\tFALSE\t/\tFALSE\t0\tvisitor\tme\n")
    before = cookies.read_text()
    with_cookies = SETTINGS.model_copy(update={"cookies": cookies})
    fetch(source(f"{server}/a/video.mp4"), tmp_path / "out", with_cookies)
    assert cookies.read_text() == before and Handler.cookies[-1] == "visitor=me"


@pytest.mark.parametrize("spoilt", ["gone", "a line", "the head"])
def test_cookies_that_are_spoilt_while_a_run_lasts_fail_for_now_and_are_not_printed(server, tmp_path, capfd, spoilt):
    cookies, line = tmp_path / "cookies.txt", "127.0.0.1\tFALSE\t/\tFALSE\t0\tvisitor s3cret"
    if spoilt != "gone":
        cookies.write_text(f"# Netscape HTTP Cookie File\n{line}\n" if spoilt == "a line" else line)
    failed = failure(f"{server}/a/video.mp4", tmp_path / "out", SETTINGS.model_copy(update={"cookies": cookies}))
    assert (failed.reason, failed.transient) == ("cookies", True)
    assert "s3cret" not in failed.message + "".join(capfd.readouterr())


def test_no_request_says_that_it_comes_from_a_country_that_a_site_allows(server, tmp_path, monkeypatch):
    monkeypatch.setattr(GenericIE, "_GEO_COUNTRIES", ["DE"])  # as extractors of sites for one country say it
    fetch(source(f"{server}/embed.html"), tmp_path, SETTINGS)
    assert set(Handler.said_to_be_from[-2:]) == {""}


def test_a_local_file_is_used_where_it_lies_as_long_as_it_is_the_same(tmp_path):
    file = tmp_path / "a.mp4"
    file.write_bytes(b"film")
    (tmp_path / "videos.jsonl").write_text('{"path": "a.mp4"}')
    (local,), _ = read_manifest(tmp_path / "videos.jsonl")
    assert fetch(local, tmp_path / "out", SETTINGS) == file
    os.utime(file, ns=(5, 5))
    assert fetch(local, tmp_path / "out", SETTINGS) == file
    file.write_bytes(b"another film")
    with pytest.raises(Failed) as changed:
        fetch(local, tmp_path, SETTINGS)
    file.unlink()
    with pytest.raises(Failed) as missing:
        fetch(local, tmp_path, SETTINGS)
    assert (changed.value.reason, missing.value.reason) == ("file_changed", "file_missing")


@pytest.mark.parametrize(
    ("said", "reason", "transient"),
    [
        ("Private video. Sign in if you've been granted access to this video", "private", False),
        ("Video unavailable. This video has been removed by the uploader", "removed", False),
        ("Video unavailable. The YouTube account associated with this video has been terminated", "removed", False),
        ("This video is not available in your country", "geo_blocked", False),
        ("Sign in to confirm your age. This video may be inappropriate for some users.", "age_restricted", False),
        ("Sign in to confirm you're not a bot. Use --cookies", "bot_check", True),
        ("All player responses are invalid. Your IP is likely being blocked by Youtube", "bot_check", True),
        ("Your IP address is blocked from accessing this post", "bot_check", True),
        ("This content isn't available, try again later. The session has been rate-limited", "rate_limited", True),
        ("Join this channel to get access to members-only content", "private", False),
        ("This live event will begin in 3 hours.", "live", False),
        ("This video is DRM protected", "drm", False),
        ("Requested format is not available", "no_video_found", False),
        ("something new", "extractor", False),
    ],
)
def test_what_a_site_says_in_words_gets_a_typed_reason(said, reason, transient):
    inner = ExtractorError(said, expected=True, video_id="private-live", ie="youtube")
    failed = failure_of(DownloadError(f"ERROR: {inner}", (ExtractorError, inner, None)))
    assert (failed.reason, failed.transient) == (reason, transient)


def test_a_full_disk_and_a_blocked_country_are_told_from_their_exceptions():
    full = OSError(28, "No space left on device")
    assert failure_of(DownloadError("ERROR: unable to write data", (OSError, full, None))).reason == "disk_full"
    blocked = GeoRestrictedError("not for you")
    assert failure_of(DownloadError("ERROR: x", (GeoRestrictedError, blocked, None))).reason == "geo_blocked"

"""Cookie files: what is let through is all that yt-dlp takes without a word, and nothing of a line is ever said."""

import io
import warnings
from pathlib import Path

import pytest
from conftest import Command
from hypothesis import given
from hypothesis import strategies as st

from marathon_pipeline.errors import UserError
from marathon_pipeline.sources.cookies import cookies_of

HEAD = "# Netscape HTTP Cookie File\n"
SECRET = "s3cret"
FINE = f".a.org\tTRUE\t/\tFALSE\t0\tsession\t{SECRET}\n"


def test_a_file_as_browsers_export_it_is_taken_whole(tmp_path: Path) -> None:
    others = f"#HttpOnly_a.org\tFALSE\t/\tTRUE\t2147483647.5\t\t{SECRET}\na.org\tFALSE\t/\tTRUE\t\tn\t\n"
    text = f"{HEAD}# of Monday\n\n{FINE}{others}"
    (tmp_path / "c.txt").write_text(text, newline="\r\n")
    assert cookies_of(tmp_path / "c.txt") == text


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (None, "cannot be read"),
        (b"\xff", "cannot be read"),
        (b"", "line 1: is not `# Netscape HTTP Cookie File`"),
        (FINE.encode(), "line 1: is not"),
        (f'[{{"value": "{SECRET}"}}]'.encode(), "line 1: is not"),
        (f"{HEAD}{FINE}a.org {SECRET}\n".encode(), "line 3: is no cookie of seven fields"),
        ((HEAD + FINE.replace("TRUE", "FALSE", 1)).encode(), "line 2: is no cookie"),
        ((HEAD + FINE.replace("0", "tomorrow", 1)).encode(), "line 2: is no cookie"),
        ((HEAD + "#HttpOnly_#HttpOnly_" + FINE.replace("TRUE", "FALSE", 1)).encode(), "line 2: is no cookie"),
    ],
)
def test_a_wrong_line_is_named_and_not_told(tmp_path: Path, text: bytes | None, said: str) -> None:
    if text is not None:
        (tmp_path / "c.txt").write_bytes(text)
    with pytest.raises(UserError) as caught:
        cookies_of(tmp_path / "c.txt")
    assert said in str(caught.value) and str(tmp_path / "c.txt") in str(caught.value)
    assert SECRET not in str(caught.value)


prefixes = st.sampled_from(["", "", "#HttpOnly_", "#", "#HttpOnly_#HttpOnly_", " "])
domains = st.sampled_from([("a.org", "FALSE"), (".a.org", "TRUE"), (".a.org", "FALSE"), ("$a", "FALSE"), ("", "")])
others = st.tuples(
    *map(st.sampled_from, (["/", ""], ["TRUE", "?"], ["0", "", "1.5", "9" * 15, "x"], ["n", ""], ["v", ""]))
)
lines = st.builds(lambda prefix, domain, other: prefix + "\t".join(domain + other), prefixes, domains, others)


@given(body=st.lists(lines | st.text("#\t x"), max_size=3).map("\n".join), end=st.sampled_from(["", "\n"]))
def test_what_is_let_through_yt_dlp_takes_without_a_word(tmp_path_factory, body, end):
    from yt_dlp.cookies import YoutubeDLCookieJar

    file = tmp_path_factory.mktemp("cookies") / "c.txt"
    file.write_text(HEAD + body + end)
    try:
        text = cookies_of(file)
    except UserError:
        return
    said = io.StringIO()
    with pytest.MonkeyPatch.context() as patch, warnings.catch_warnings():
        warnings.simplefilter("error")
        patch.setattr("yt_dlp.cookies.write_string", said.write)
        YoutubeDLCookieJar(io.StringIO(text)).load()
    assert said.getvalue() == ""


def test_a_run_with_a_wrong_cookie_file_ends_before_it_begins(marathon: Command) -> None:
    (marathon.folder / "c.txt").write_text(f"{HEAD}{FINE}a.org {SECRET}\n")
    (marathon.folder / "job.yaml").write_text("dataset: out\ndownload: {cookies: c.txt}\n")
    said = marathon.here("run", "job.yaml", code=2)
    assert "download.cookies: c.txt line 3: is no cookie" in said and SECRET not in said
    assert not (marathon.folder / "out").exists()
    marathon("plan", "job.yaml")

"""The code of docs/loading.md, run as it is written."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("torch")

from conftest import CHECKOUT
from small_releases import films, released

from marathon_pipeline.release.settings import ReleaseSettings

PLAIN, OWN = re.findall(r"```python\n(.*?)```", (CHECKOUT / "docs" / "loading.md").read_text(), re.DOTALL)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("docs")
    released(folder / "out" / "demo", films(5, pairs=4), ReleaseSettings(media_shards=2), "demo-1")
    return folder


def run(code: str, folder: Path) -> list[str]:
    (folder / "load.py").write_text(code)
    done = subprocess.run([sys.executable, "load.py"], cwd=folder, capture_output=True, text=True, timeout=200)
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


def test_the_plain_loader_has_twenty_lines_and_reads_every_video_with_its_pairs(folder: Path) -> None:
    lines = [line for line in PLAIN.splitlines() if line.strip()]
    assert len(lines) <= 20 and "marathon" not in PLAIN
    assert run(PLAIN, folder) == ["(3, 64, 96, 3) 8 pairs"] * 5


def test_marathons_loader_reads_every_conversation(folder: Path) -> None:
    *batches, unreadable = run(OWN, folder)
    assert sum(line.count("demo-1/yt_film-") for line in batches) == 10
    assert unreadable == "Counter() []"

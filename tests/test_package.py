"""What is built is whole: an installed package works without the checkout."""

import json
import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from conftest import CHECKOUT


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that holds the package as its wheel installs it."""
    folder = tmp_path_factory.mktemp("wheel")
    build = ["-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation", "--wheel-dir", str(folder)]
    subprocess.run([sys.executable, *build, str(CHECKOUT)], check=True, capture_output=True)
    (wheel,) = folder.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(folder / "site")
    return folder / "site"


def run(installed: Path, folder: Path, *arguments: str) -> str:
    command = [sys.executable, "-m", "marathon_pipeline", *arguments]
    environment = {**os.environ, "PYTHONPATH": str(installed), "PYTHONSAFEPATH": "1"}
    return subprocess.run(
        command, cwd=folder, env=environment, check=True, capture_output=True, text=True, timeout=120
    ).stdout


def test_an_installed_package_brings_its_templates(installed: Path, tmp_path: Path) -> None:
    assert "the templates are sound" in run(installed, tmp_path, "tasks", "--check")


def test_an_installed_package_brings_its_jobs(installed: Path, tmp_path: Path) -> None:
    (row,) = json.loads(run(installed, tmp_path, "plan", "jobs/demo.yaml", "--json"))
    assert row["stage"] == "render"


def test_an_installed_package_brings_its_manifests_and_pages(installed: Path) -> None:
    package = installed / "marathon_pipeline"
    assert (package / "shipped/manifests/sample.jsonl").exists()
    assert list((package / "audit/page").glob("*.j2")) or list((package / "audit/page").glob("*.html*"))
    assert (package / "release/card.md.j2").exists()
    assert {path.name for path in installed.iterdir()} == {
        "marathon_pipeline",
        next(installed.glob("*.dist-info")).name,
    }

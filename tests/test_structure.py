"""The shape of the code: imports run downwards only, and the command starts fast."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import marathon_pipeline

PACKAGE = Path(marathon_pipeline.__file__).parent
# From the top down. A room may import those below it; rooms of one row do not know each other.
ROWS = (
    ("__main__",),
    ("cli",),
    ("job",),
    ("publish",),
    ("config",),
    ("pipeline",),
    ("stages", "review"),
    ("audit",),
    ("hour_llava",),
    ("release",),
    ("annotators",),
    ("gates", "licences"),
    ("media", "sources", "synthetic"),
    ("dataset",),
    ("wording",),
    ("taxonomy",),
    ("template_files", "records", "ffmpeg", "processes"),
    ("rules_file", "job_file"),
    ("errors", "plain_yaml", "shipped", "intervals"),
)
LEVEL = {room: level for level, row in enumerate(ROWS) for room in row}
HEAVY = (
    "ray",
    "torch",
    "transformers",
    "cv2",
    "pyarrow",
    "yt_dlp",
    "av",
    "numpy",
    "obstore",
    "webdataset",
    "scenedetect",
)


def room_of(path: Path) -> str:
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def imported_modules(path: Path) -> list[str]:
    modules: list[str] = []
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            modules += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative imports hide the direction"
            modules.append(node.module or "")
    return modules


def imported_rooms(path: Path) -> set[str]:
    return {name.split(".")[1] for name in imported_modules(path) if name.startswith("marathon_pipeline.")}


def sources() -> list[Path]:
    return [path for path in sorted(PACKAGE.rglob("*.py")) if path != PACKAGE / "__init__.py"]


@pytest.mark.parametrize("path", sources(), ids=lambda path: path.relative_to(PACKAGE).as_posix())
def test_imports_run_downwards_only(path: Path) -> None:
    room = room_of(path)
    upwards = {other for other in imported_rooms(path) - {room} if LEVEL[other] <= LEVEL[room]}
    assert not upwards, f"{room} imports {upwards}, which do not stand below it"


@pytest.mark.parametrize("path", sources(), ids=lambda path: path.relative_to(PACKAGE).as_posix())
def test_torch_is_imported_in_its_room_only(path: Path) -> None:
    modules = imported_modules(path)
    if room_of(path) != "hour_llava":
        assert not {name.split(".")[0] for name in modules} & {"torch", "transformers", "tokenizers", "safetensors"}


def test_the_help_loads_nothing_heavy() -> None:
    code = (
        "import sys; from marathon_pipeline import cli\n"
        "try: cli.app(['--help'])\n"
        "except SystemExit: pass\n"
        f"print(sorted(set({HEAVY!r}) & set(sys.modules)))"
    )
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert shown.splitlines()[-1] == "[]"


def test_what_runs_no_stage_loads_no_decoder_and_no_ray() -> None:
    code = (
        "import sys, marathon_pipeline.job\n"
        "print(sorted({'ray', 'cv2', 'scenedetect', 'av', 'openai', 'torch', 'webdataset'} & set(sys.modules)))"
    )
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert shown.splitlines()[-1] == "[]"

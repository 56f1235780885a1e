"""Where the files that ship beside the code are: in a checkout at its top, in an installed package inside it."""

from pathlib import Path

_here = Path(__file__).parent


def shipped(name: str) -> Path:
    """The path of a shipped file or folder, such as `task_templates` or `jobs/demo.yaml`."""
    installed = _here / "shipped" / name
    return installed if installed.exists() else _here.parent / name

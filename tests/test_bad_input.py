"""The page on bad input names every reason that the code gives, and every one that the table of media may end by."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

from conftest import CHECKOUT
from hostile_media import MEDIA

import marathon_pipeline
from marathon_pipeline.sources import ytdlp

PAGE = (CHECKOUT / "docs/bad-input.md").read_text()


def reasons(tree: ast.AST) -> Iterator[str]:
    """The texts that stand first in a call of Failed (or, in `header.py`, its like), or under the key `reason`."""
    for node in ast.walk(tree):
        given: list[ast.expr] = []
        if isinstance(node, ast.Call) and getattr(node.func, "id", "") in ("Failed", "_Refused"):
            first = node.args[0]
            given = [first.body, first.orelse] if isinstance(first, ast.IfExp) else [first]
        elif isinstance(node, ast.Dict):
            keyed = [v for k, v in zip(node.keys, node.values, strict=True) if getattr(k, "value", "") == "reason"]
            given = [part for v in keyed for part in ([v.body, v.orelse] if isinstance(v, ast.IfExp) else [v])]
        for value in given:
            if isinstance(value, ast.Constant):
                yield value.value
            elif isinstance(value, ast.JoinedStr):
                assert ast.unparse(value) == "f'http_{cause.status}'"


def test_the_page_has_every_reason_of_a_failure() -> None:
    package = Path(marathon_pipeline.__file__).parent
    raised = {reason for path in package.rglob("*.py") for reason in reasons(ast.parse(path.read_text()))}
    raised |= {reason for reason, _, _ in ytdlp._SAID}
    assert {"truncated", "picture_size", "memory", "storage", "drm"} <= raised
    assert [reason for reason in sorted(raised) if f"`{reason}`" not in PAGE] == []


def test_the_page_has_every_end_of_the_table_of_media() -> None:
    ends = {end.removeprefix("failed ") for medium in MEDIA.values() for end in medium.ends} - {"ok", "row"}
    assert ends <= set(re.findall(r"`([a-z_]+)`", PAGE))

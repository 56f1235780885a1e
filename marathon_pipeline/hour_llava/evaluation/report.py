"""What an evaluation found, as JSON, as Markdown and as a picture."""

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict

from marathon_pipeline.hour_llava.evaluation.tally import Accuracy, Share

_SHADE = 0.5  # of a cell: darker ones are written on in white


class Report(BaseModel):
    """Of one set of questions: the releases' together, or the needles'."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str
    questions: int
    videos: int
    chance: float
    unread: dict[str, int]  # questions whose videos could not be read, by why: they are in no share
    lengths: list[str]  # the classes, of which the columns of `by_depth_and_length` are
    accuracies: list[Accuracy]


def write_reports(out: Path, model: str, reports: Sequence[Report]) -> None:
    """`report.json`, `report.md`, and `needles.png` where needles were asked for."""
    told = {"model": model, "reports": [report.model_dump(mode="json") for report in reports]}
    put(out / "report.json", (json.dumps(told, indent=1) + "\n").encode())
    put(out / "report.md", "\n".join(_markdown(model, reports)).encode())
    for report in reports:
        if report.name == "needles":
            draw(out / "needles.png", report)


def put(path: Path, data: bytes) -> None:
    partial = path.with_name(f".{path.name}.part")
    partial.write_bytes(data)
    partial.replace(path)


def percent(share: Share) -> str:
    """`78.3 (70.1 to 84.7)`."""
    if not share.asked:
        return ""
    return f"{100 * share.accuracy:.1f} ({100 * share.low:.1f} to {100 * share.high:.1f})"


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> Iterator[str]:
    for cells in (head, ["---"] * len(head), *rows):
        yield f"| {' | '.join(cells)} |"


def _markdown(model: str, reports: Sequence[Report]) -> Iterator[str]:
    yield f"# {model}: multiple choice"
    yield "\nAccuracy in percent, with Wilson's interval of 95 %."
    for report in reports:
        yield f"\n## {report.name}\n"
        yield (
            f"{report.questions:,} questions about {report.videos:,} videos; guessing gets {100 * report.chance:.1f} %."
        )
        if report.unread:
            yield f"\nNot asked: {', '.join(f'{n:,} ({why})' for why, n in report.unread.items())}."
        names = [f"{each.how}{', blind' if each.blind else ''}" for each in report.accuracies]
        yield ""
        head = ["", "asked", *names]
        rows = [_row("all", [each.overall for each in report.accuracies])]
        for kind in ("by_topic", "by_task", "by_length"):
            parts: list[Mapping[str, Share]] = [getattr(each, kind) for each in report.accuracies]
            keys = dict.fromkeys(key for part in parts for key in part)
            rows += [_row(key, [part.get(key) for part in parts]) for key in keys]
        yield from table(head, rows)
        unclear = {name: each.unclear for name, each in zip(names, report.accuracies, strict=True) if each.unclear}
        if unclear:
            told = ", ".join(f"{count:,} of {name}" for name, count in unclear.items())
            yield f"\nAnswers that name no option, and count as wrong: {told}."
        if report.name == "needles":
            yield "\n![accuracy by depth and length](needles.png)"
    yield ""


def _row(name: str, shares: Sequence[Share | None]) -> list[str]:
    asked = next((str(share.asked) for share in shares if share), "0")
    return [name, asked, *(percent(share) if share else "" for share in shares)]


def draw(path: Path, report: Report) -> None:
    """Accuracy of the first way of asking by depth (rows) and length of the video (columns)."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    seen = next(each for each in report.accuracies if not each.blind)
    used = [
        column for column in range(len(report.lengths)) if any(row[column].asked for row in seen.by_depth_and_length)
    ]
    cells = [[row[column] for column in used] for row in seen.by_depth_and_length]
    values: list[list[Any]] = [[cell.accuracy if cell.asked else float("nan") for cell in row] for row in cells]
    figure, axes = pyplot.subplots(figsize=(1.6 + 1.3 * len(used), 1.2 + 0.42 * len(cells)))
    image = axes.imshow(values, vmin=0, vmax=1, cmap="viridis", aspect="auto")
    for y, row in enumerate(cells):
        for x, cell in enumerate(row):
            if cell.asked:
                colour = "black" if cell.accuracy > _SHADE else "white"
                axes.text(x, y, f"{cell.right}/{cell.asked}", ha="center", va="center", color=colour, fontsize=8)
    axes.set_xticks(range(len(used)), [report.lengths[column] for column in used])
    depths = len(cells)
    axes.set_yticks(range(depths), [f"{100 * row // depths} to {100 * (row + 1) // depths} %" for row in range(depths)])
    axes.set_xlabel("length of the video")
    axes.set_ylabel("depth of the fact")
    axes.set_title(f"{seen.how}; guessing gets {report.chance:.2f}", fontsize=10)
    figure.colorbar(image, label="accuracy")
    figure.tight_layout()
    partial = path.with_name(f".{path.name}.part")
    figure.savefig(partial, dpi=150, format="png")
    pyplot.close(figure)
    partial.replace(path)

"""The card of a release: README.md as the Hugging Face Hub reads it."""

import re
from collections import Counter
from collections.abc import Mapping

from jinja2 import Environment, PackageLoader, StrictUndefined

from marathon_pipeline.records import Split
from marathon_pipeline.release.plan import SPLITS
from marathon_pipeline.release.release_file import Release

_SIZES = ((10**3, "n<1K"), (10**4, "1K<n<10K"), (10**5, "10K<n<100K"), (10**6, "100K<n<1M"), (10**7, "1M<n<10M"))


def render_card(release: Release, media: Mapping[Split, int]) -> bytes:
    """media: the number of media shards by split, empty where the release has none."""
    tasks = {id: task for id, task in release.tasks.items() if task.qa}
    topics: Counter[str] = Counter()
    for task in tasks.values():
        topics[task.topic] += task.qa
    splits = [split for split in SPLITS if any(split in task.splits for task in tasks.values())]
    example, task = next((id, task) for id, task in tasks.items() if splits[0] in task.splits)
    text = _environment().get_template("card.md.j2")
    return text.render(
        release=release,
        tasks=tasks,
        topics=topics,
        splits=splits,
        size=next((name for limit, name in _SIZES if release.qa < limit), "n>10M"),
        example=example,
        example_split=splits[0],
        qa_shards=f"qa/{example}/{_shards(splits[0], task.shards[splits[0]])}",
        media_shards=next((_shards(split, count) for split, count in media.items() if count), ""),
    ).encode()


def _shards(split: Split, count: int) -> str:
    return f"{split}-000000.tar" if count == 1 else f"{split}-{{000000..{count - 1:06d}}}.tar"


def _environment() -> Environment:
    environment = Environment(  # Markdown: what strangers wrote goes through `cell` and `code`
        loader=PackageLoader("marathon_pipeline.release", ""),
        undefined=StrictUndefined,
        trim_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters |= {
        "cell": lambda text: re.sub(r"([\\`*_\[\]<>|#!])", r"\\\1", " ".join(text.split())),
        "code": lambda text: " ".join(text.split()).replace("`", "'").replace("|", "/"),
        "count": lambda number: f"{number:,}",
        "hours": lambda seconds: f"{seconds / 3600:,.2f}",
    }
    return environment

"""`marathon audit` on a dataset of the paper's size: seconds, memory of all its processes together, bytes of the page.

    python tests/bench/audit.py                  # 28,000 videos, 3.3 million QA pairs, generated first: 6 GB of disk
    python tests/bench/audit.py --videos 400     # a first look
    python tests/bench/audit.py --dataset out/large     # of `large.py`, as it lies there
    python tests/bench/audit.py --dataset out/large --command review    # or diff, which compares it with itself

Ends with exit status 1 where the duplicates that were planted are not what the audit counts.
"""

import argparse
import json
import shutil
import sys
import time
from pathlib import Path
from typing import Any

from figures import OUT, measured, save, table
from large import VIDEOS, generate

ALIKE = 0.98  # of near duplicates, which are estimated, as many are found


def main() -> None:
    options = argparse.ArgumentParser()
    options.add_argument("--videos", type=int, default=VIDEOS)
    options.add_argument("--dataset", type=Path, help="one that is there; else one is generated, and removed again")
    options.add_argument("--command", choices=COMMANDS, default="audit")
    options.add_argument("--profile", type=Path, help="write where the time goes, by py-spy, into this file")
    chosen = options.parse_args()
    folder = chosen.dataset or OUT / f"audit/videos-{chosen.videos}"
    if chosen.dataset is None:
        began = time.monotonic()
        generate(folder, chosen.videos)
        print(f"generated {folder} in {time.monotonic() - began:.0f} s", flush=True)
    row = {"command": chosen.command, "videos": len(list(folder.glob("tables/qa/*/*.parquet")))}
    row |= _measured([each.format(folder) for each in COMMANDS[chosen.command]], chosen.profile)
    wrong = False
    if chosen.command == "audit":
        row["page"] = (folder / "audit/report.html").stat().st_size / 1e6
        wrong = not _found(folder)
    table("wall and CPU seconds, peak memory of all processes in MB, the page in MB", [row])
    save(f"audit-{chosen.command}", row)
    if chosen.dataset is None:
        shutil.rmtree(folder)
    raise SystemExit(int(wrong))


COMMANDS = {
    "audit": ["audit", "{}"],
    "review": ["review", "{}", "--export", "label-studio", "{}.json"],
    "diff": ["diff", "{}", "{}"],
}


def _found(folder: Path) -> bool:
    """Whether the duplicates that the audit found are those that were planted."""
    statistics = json.loads((folder / "audit/report.json").read_text())["statistics"]
    planted = json.loads((folder / "planted.json").read_text())
    rows = [
        {"duplicates": name, "planted": count, "found": statistics["duplicates"][name]["pairs"]}
        for name, count in planted.items()
    ]
    table(f"{statistics['qa']:,} QA pairs", rows)
    return all(
        row["found"] == row["planted"]
        or (row["duplicates"].startswith("near") and row["found"] >= ALIKE * row["planted"])
        for row in rows
    )


def _measured(arguments: list[str], profile: Path | None) -> dict[str, Any]:
    command = [sys.executable, "-m", "marathon_pipeline", *arguments]
    if profile is not None:
        command = ["py-spy", "record", "--subprocesses", "--format", "raw", "--output", str(profile), "--", *command]
    return measured(command, ends=(0, 1))


if __name__ == "__main__":
    main()

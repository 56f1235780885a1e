"""Scores what the offline annotator writes about synthetic videos of fresh seeds; `make truth FIRST_SEED=11001`.

    python -m truth.run [FIRST_SEED [FOLDER]]

Exits 1 where an answer is wrong, a wrong option is right, or too little is decided. FOLDER keeps what was measured in
the videos, so that a second run does not render them again.
"""

import sys
from collections import defaultdict
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from tempfile import TemporaryDirectory

from truth.clips import score_clips
from truth.scorer import Tally, tally
from truth.told import Told
from truth.videos import written

MINUTES = (2, 2, 3, 3, 3, 4, 4, 4, 5, 5, 5, 6, 6, 7, 8, 10, 12, 20, 30, 60)
FIRST = 11001  # the rules were written with other seeds
OF_ALL, OF_EACH = 0.9, 0.6  # the shares of questions that are decided, at least


def of_script(seed: int, minutes: float, folder: Path) -> dict[str, Tally]:
    found: dict[str, Tally] = defaultdict(Tally)
    for name, script, captions, pairs in written(seed, minutes, folder):
        told = Told(script)
        tally(told, pairs, found, name)
        for field, of_field in score_clips(told, captions, name).items():
            found[field] = add(found[field], of_field)
    return dict(found)


def add(one: Tally, other: Tally) -> Tally:
    return Tally(*(getattr(one, name) + getattr(other, name) for name in Tally.__dataclass_fields__))


def table(tallies: dict[str, Tally]) -> str:
    rows = ["| task | asked | decided | wrong answers | wrong options that are right |", "|---|---|---|---|---|"]
    for task, of_task in [*tallies.items(), ("all", total(tallies))]:
        share = f"{100 * of_task.share:.1f} %"
        rows.append(f"| {task} | {of_task.asked} | {share} | {of_task.wrong} | {of_task.also_right} |")
    return "\n".join(rows)


def total(tallies: dict[str, Tally]) -> Tally:
    whole = Tally()
    for of_task in tallies.values():
        whole = add(whole, of_task)
    return whole


def main(first: int, folder: Path) -> int:
    tallies: dict[str, Tally] = {}
    folder.mkdir(parents=True, exist_ok=True)
    with ProcessPoolExecutor(max_workers=2) as pool:
        videos = sorted(enumerate(MINUTES, first), key=lambda video: -video[1])  # the long ones take longest
        for found in pool.map(of_script, *zip(*videos, strict=True), [folder] * len(videos)):
            for task, of_task in found.items():
                tallies[task] = add(tallies.get(task, Tally()), of_task)
    whole = total(tallies)
    print(table(tallies))
    print(*whole.faults, *whole.open_ends, sep="\n")
    few = whole.share < OF_ALL or any(of_task.share < OF_EACH for of_task in tallies.values())
    return int(bool(whole.faults) or few)


if __name__ == "__main__":
    seed = int(sys.argv[1]) if sys.argv[1:] else FIRST
    if sys.argv[2:]:
        sys.exit(main(seed, Path(sys.argv[2])))
    with TemporaryDirectory() as scratch:
        sys.exit(main(seed, Path(scratch)))

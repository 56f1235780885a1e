"""What a judge said of the pairs of a dataset, beside how often it errs."""

from collections import Counter
from typing import get_args

from marathon_pipeline.audit.calibration import calibrated, judge_of, out_of_force, rate
from marathon_pipeline.audit.checks import Cells, grouped, judged, summed
from marathon_pipeline.audit.statistics import Calibrated, JudgedTask, JudgeReport
from marathon_pipeline.dataset.ledger import Ledger
from marathon_pipeline.gates import Gates
from marathon_pipeline.records import Judged, JudgedMeasure
from marathon_pipeline.taxonomy import Taxonomy


def counts_of(blind: float | None, grounded: float | None, said: Judged | None, unjudged: str) -> Counter[str]:
    """What a verdict adds to the counts of its cell."""
    counts = Counter(unjudged=bool(unjudged))
    if blind is not None:
        counts.update(blind_asked=1, blind_thousandths=round(1000 * blind))
    if grounded is not None:
        counts.update(grounded_asked=1, grounded=int(grounded))
    if said is not None:
        counts.update({"judged": 1, f"judged_{said}": 1})
    return counts


def heard(gates: Gates, cells: Cells, taxonomy: Taxonomy, ledger: Ledger) -> JudgeReport | None:
    """None where nothing was judged. `gates`: those asked for, whether they count or not."""
    total = summed(cells.values())
    if not any(total[name] for name in ("blind_asked", "grounded_asked", "judged", "unjudged")):
        return None
    by_task = grouped(cells, "task", taxonomy)
    found = calibrated(ledger)
    reasons, idle = out_of_force(gates, ledger)
    checks = judged(Gates(dataset=idle), cells, Counter(), taxonomy)
    of_tasks = (_of_task(task.task, task.name, by_task.get(task.task, Counter())) for task in taxonomy.tasks.values())
    return JudgeReport(
        model=judge_of(ledger).rpartition(" ")[0],  # without the hash of its settings
        total=_of_task("", "All tasks", total),
        tasks=tuple(task for task in of_tasks if task.blind or task.grounded or any(task.judged.values())),
        calibrated=found,
        corrected=_corrected(found, total),
        unjudged=total["unjudged"],
        idle=(*(f"{reason} of a pair" for reason in reasons), *map(str, checks)),
    )


def _of_task(task: str, name: str, counts: Counter[str]) -> JudgedTask:
    blind, grounded = counts["blind_asked"], counts["grounded_asked"]
    kinds: tuple[Judged, ...] = get_args(Judged)
    return JudgedTask(
        task=task,
        name=name,
        blind=rate(round(counts["blind_thousandths"] / 1000), blind) if blind else None,
        grounded=rate(counts["grounded"], grounded) if grounded else None,
        judged={kind: counts[f"judged_{kind}"] for kind in kinds},
    )


def _corrected(found: tuple[Calibrated, ...], counts: Counter[str]) -> dict[JudgedMeasure, float]:
    """Rogan and Gladen (1978): (share accepted - wrong ones accepted) / (right ones accepted - wrong ones accepted).

    By the kind of wrong answer that is accepted oftener, and only where the judge tells both kinds from right ones.
    """
    shares: dict[JudgedMeasure, tuple[int, int]] = {
        "grounded": (counts["grounded"], counts["grounded_asked"]),
        "judged": (counts["judged_right"], counts["judged"]),
    }
    corrected: dict[JudgedMeasure, float] = {}
    for each in found:
        accepted, asked = shares.get(each.measure, (0, 0))
        if asked and all(against.beats_chance for against in each.wrong):
            wrong = max(against.accepted.share for against in each.wrong)
            value = (accepted / asked - wrong) / (each.right.share - wrong)
            corrected[each.measure] = round(min(1.0, max(0.0, value)), 6)
    return corrected

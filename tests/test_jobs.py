"""The job files that ship are jobs."""

from pathlib import Path

import pytest
from conftest import CHECKOUT

from marathon_pipeline.config import load_job, parse_job
from marathon_pipeline.taxonomy import TASK_IDS

JOBS = sorted(
    path
    for path in (CHECKOUT / "jobs").glob("*.yaml")
    if path.name not in ("gates.yaml", "licences.yaml") and not path.name.startswith(("train-", "evaluate-"))
)


@pytest.mark.parametrize("job", JOBS, ids=lambda path: path.name)
def test_a_shipped_job_is_read(job: Path) -> None:
    config = load_job(str(job), [])
    assert config.dataset.startswith("out/")
    assert parse_job(config.resolved(), "resolved", []) == config


def test_the_full_build_has_the_papers_settings() -> None:
    config = load_job(str(CHECKOUT / "jobs/videomarathon.yaml"), [])
    assert (config.segment.min_seconds, config.parts.max_seconds) == (180, 3600)
    assert (config.segment.clip_seconds, config.segment.stride_seconds) == (30, 20)
    assert config.events.min_events == 3
    assert config.tasks == TASK_IDS


@pytest.mark.parametrize("name", ["local-vllm", "videomarathon"])
def test_every_served_stage_names_a_model_of_the_job(name: str) -> None:
    config = load_job(str(CHECKOUT / f"jobs/{name}.yaml"), []).model_dump()
    served = {stage: model for stage, model in config["annotators"].items() if model not in (None, "measured")}
    assert set(served) == {"caption_clips", "caption_events", "summarize", "qa"}
    assert set(served.values()) <= set(config["models"])


def test_the_budget_in_the_full_builds_comment_can_be_switched_on(tmp_path: Path) -> None:
    lines = (CHECKOUT / "jobs/videomarathon.yaml").read_text().splitlines()
    first = lines.index("# budget:")
    block = [line.removeprefix("# ") for line in lines[first : first + 6]]
    job = tmp_path / "job.yaml"
    job.write_text("\n".join([*lines[:first], *block, *lines[first + 6 :]]))
    assert None not in load_job(str(job), []).model_dump()["budget"].values()

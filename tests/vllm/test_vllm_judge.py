"""A real vLLM as the judge: random weights judge at random, and that is found out."""

import json

import pytest
from conftest import Command
from serve import Server
from test_vllm_pipeline import JOB, journaled

from marathon_pipeline.dataset.dataset import Dataset
from marathon_pipeline.records import Calibration, Verdict

pytestmark = [pytest.mark.vllm, pytest.mark.slow, pytest.mark.timeout(900)]


def test_a_model_of_random_weights_judges_in_form_and_is_found_to_be_no_better_than_chance(
    marathon: Command, vllm_servers: dict[str, Server]
) -> None:
    urls = {name: server.url for name, server in vllm_servers.items()}
    job = JOB.format(
        dataset="out", inputs="", tasks="[temporal_order, object_attribute]", annotators="{judge: writer}", **urls
    )
    (marathon.folder / "job.yaml").write_text(f"{job}\njudge: {{calibrate: 1}}\n")
    for command in (("run", "job.yaml"), ("audit", "out")):  # random answers may come to nothing, and break gates
        process = marathon.start(*command)
        out, err = process.communicate(timeout=800)
        assert process.returncode in (0, 1) and "Traceback" not in out + err, out + err
        print(out)

    dataset = Dataset(str(marathon.folder / "out"))
    videos = [o.video_id for o in dataset.ledger.of_stage("segment")]
    verdicts = [row for video in videos for row in dataset.tables.read(Verdict, video)]
    calibrations = [row for video in videos for row in dataset.tables.read(Calibration, video)]
    assert len(verdicts) >= 10 and sum(not v.unjudged for v in verdicts) >= 0.9 * len(verdicts)
    answers = {answer.request: answer for answer in journaled(dataset)}
    for row in calibrations:
        assert answers[row.binding.request].unit == f"{row.qa_id} {row.measure} {row.planted}"

    judge = json.loads((marathon.folder / "out/audit/report.json").read_text())["statistics"]["judge"]
    print(json.dumps(judge["calibrated"], indent=1))
    assert all(wrong["low"] <= 0 for each in judge["calibrated"] for wrong in each["wrong"])
    assert {gate.partition(":")[0] for gate in judge["idle"]} >= {"judged_right", "grounded", "blind"}

"""A run on a Ray cluster: stages placed by their resources, a node lost, one joined, what many share killed."""

import os
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import served
import yaml
from chaos import published
from conftest import Command, Running, done_twice, those_that_ask
from ray_nodes import Nodes, cluster

from marathon_pipeline.errors import UserError
from marathon_pipeline.ffmpeg import ffmpeg_binary
from marathon_pipeline.pipeline.cluster import ray_started
from marathon_pipeline.pipeline.settings import RunSettings

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

JOB = """
dataset: out
synthetic: {folder: VIDEOS, videos: 10, minutes: 1, seed: 4}
segment: {min_seconds: 0}
events: {min_events: 0}
release: {name: test, despite: ten videos of one minute}
run: {workers: 4}
"""


@pytest.fixture
def decoded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[], Counter[str]]:
    """How often each video's decode was begun, by an ffmpeg that tells."""
    decoder, log = tmp_path / "bin/ffmpeg", tmp_path / "decodes"
    decoder.parent.mkdir()
    name = r"""printf '%s\n' "$*" | sed -n 's/.*file:[^ ]*\/\(synthetic_[0-9_]*\)\.mp4.*/\1/p'"""
    decoder.write_text(f'#!/bin/sh\n{name} >> {log}\nexec {ffmpeg_binary()} "$@"\n')
    decoder.chmod(0o755)
    monkeypatch.setenv("PATH", f"{decoder.parent}:{os.environ['PATH']}")
    return lambda: Counter(log.read_text().split() if log.exists() else [])


@pytest.fixture
def nodes() -> Iterator[Nodes]:
    with cluster() as made:
        yield made


def until(holds: Callable[[], object], process: Running) -> None:
    while not holds():
        assert process.poll() is None, f"the run ended before it could be disturbed: {process.communicate()}"
        time.sleep(0.02)


def test_a_node_that_is_lost_costs_what_it_was_doing_and_one_that_joins_takes_work(
    done: Path, begun: Command, decoded: Callable[[], Counter[str]], nodes: Nodes
) -> None:
    kept, lost = nodes.add(num_cpus=2), nodes.add(num_cpus=2)
    process = begun.start("run", "job.yaml", f"--set=run.ray_address={nodes.address}")
    until(lambda: "segment" in nodes.at_work(lost), process)
    nodes.kill(lost)
    joined = nodes.add(num_cpus=2)
    until(lambda: nodes.at_work(joined) & {"download", "segment"}, process)
    assert nodes.at_work(kept)
    out, err = process.communicate()
    assert process.returncode == 0, out + err
    assert "failed" not in out
    assert published(begun.folder) == published(done)
    assert done_twice(begun.folder) == []
    counts = decoded()
    assert len(counts) == 10 and counts.total() - 10 <= 2  # two CPUs


def tower(folder: Path) -> str:
    """The setting that has features made, by a tiny tower."""
    torch = pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")
    torch.manual_seed(1)
    sizes = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
    config = transformers.SiglipVisionConfig(**sizes, image_size=64, patch_size=4)
    transformers.SiglipVisionModel(config).save_pretrained(folder / "tower")
    return f"--set=features.tower={folder}/tower"


def test_features_are_made_without_a_gpu_once_the_node_of_the_only_one_is_lost(marathon: Command, nodes: Nodes) -> None:
    job = JOB.replace("VIDEOS", "videos").replace("videos: 10", "videos: 3")
    (marathon.folder / "job.yaml").write_text(job)
    plain, gpu = nodes.add(num_cpus=2), nodes.add(num_cpus=1, num_gpus=1)
    sets = (f"--set=run.ray_address={nodes.address}", tower(marathon.folder))
    process = marathon.start("run", "job.yaml", "--until", "extract_features", *sets)
    until(lambda: "extract_features" in nodes.at_work(gpu), process)
    nodes.kill(gpu)
    until(lambda: "extract_features" in nodes.at_work(plain), process)
    out, err = process.communicate()
    assert process.returncode == 0, out + err
    assert "extract_features 3 ok" in " ".join(out.split())


def test_stages_are_placed_by_their_resources(done: Path, begun: Command, nodes: Nodes) -> None:
    plain, gpu = nodes.add(num_cpus=2), nodes.add(num_cpus=1, num_gpus=1)  # Ray counts GPUs, and looks for none
    sets = (f"--set=run.ray_address={nodes.address}", tower(begun.folder))
    with served.running(model="test", latency=0.2) as server:
        job = yaml.safe_load((begun.folder / "job.yaml").read_text())
        job["models"] = {"writer": {"model": "test", "endpoints": [server.url]}}
        job["annotators"] = {"summarize": "writer"}
        (begun.folder / "job.yaml").write_text(yaml.safe_dump(job))
        process = begun.start("run", "job.yaml", *sets)
        seen: dict[str, set[str]] = {"plain": set(), "gpu": set()}
        most = 0
        while process.poll() is None:
            seen["plain"] |= nodes.at_work(plain)
            seen["gpu"] |= nodes.at_work(gpu)
            most = max(most, len(nodes.at_work(plain) & {"download", "segment"}))
            time.sleep(0.05)
        out, err = process.communicate()
    assert process.returncode == 0, out + err
    assert "extract_features 10 ok" in " ".join(out.split())
    assert "extract_features" in seen["gpu"] and "extract_features" not in seen["plain"]
    assert "segment" in seen["plain"] and most <= 2


def test_a_head_that_is_replaced_ends_the_run_with_one_line() -> None:
    import ray

    with pytest.raises(UserError, match=r"Ray broke off .*run the same command again"), ray_started(RunSettings()):
        raise ray.exceptions.RpcError("WrongClusterID: Perhaps the client is accessing GCS after it has restarted")


def test_a_process_that_asks_for_many_videos_may_die_again_and_again_and_fails_none(done: Path, begun: Command) -> None:
    with served.running(model="test", latency=0.3, slots=8) as server:
        job = yaml.safe_load((begun.folder / "job.yaml").read_text())
        job["models"] = {"writer": {"model": "test", "endpoints": [server.url], "max_in_flight": 8}}
        job["annotators"] = {"qa": "writer"}
        (begun.folder / "job.yaml").write_text(yaml.safe_dump(job))
        process = begun.start("run", "job.yaml", "--set=run.served_at_once=2")  # so that there is always a next one
        for count in (5, 60, 120, 200):
            until(lambda count=count: server.stats()["requests"] > count and those_that_ask(process), process)
            for each in those_that_ask(process):
                each.kill()
        out, err = process.communicate()
        assert process.returncode == 0, out + err
        assert "failed" not in out
        assert server.stats()["answered_well_more_than_once"] <= 4 * 8  # what was under way at each death

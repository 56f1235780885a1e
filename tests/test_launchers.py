"""What starts Marathon and its models elsewhere: scripts, Slurm, KubeRay, a Ray cluster."""

import copy
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema
import kubernetes_validate
import pytest
import yaml
from conftest import CHECKOUT, Command
from kuberay_schema import SCHEMAS, SERVE_CONFIG

from marathon_pipeline.dataset.dataset import Dataset, NoDataset
from marathon_pipeline.pipeline.standing import run_status

JOBS = CHECKOUT / "jobs"
SCRIPTS = sorted(path for path in JOBS.rglob("*") if path.suffix in (".sh", ".sbatch"))
KUBERNETES = "1.37"


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.name)
def test_a_script_is_bash(script: Path) -> None:
    subprocess.run(["bash", "-n", script], check=True)
    assert script.name == "endpoints.sh" or "\nset -euo pipefail\n" in script.read_text()


# Serving


def flags(script: str, **environment: str) -> dict[str, str]:
    """What `vllm serve` is called with: by option, its value or nothing."""
    command = ["bash", str(JOBS / "vllm" / script)]
    tell = "#!/usr/bin/env bash\nprintf '%s\\0' \"$@\"\n"
    with tempfile.TemporaryDirectory() as folder:
        stand_in = Path(folder) / "vllm"
        stand_in.write_text(tell)
        stand_in.chmod(0o755)
        out = subprocess.run(
            command,
            env={"PATH": os.environ["PATH"], "VLLM": str(stand_in), **environment},
            check=True,
            capture_output=True,
        )
    verb, model, *rest = out.stdout.decode().rstrip("\0").split("\0")
    assert verb == "serve"
    found = {"model": model}
    for word, following in zip(rest, [*rest[1:], "--"], strict=True):
        if word.startswith("--"):
            found[word] = "" if following.startswith("--") else following
    return found


def test_a_server_takes_its_settings_from_the_environment() -> None:
    found = flags(
        "writer.sh", MODEL="some/model", PORT="9000", TENSOR_PARALLEL="2", MAX_MODEL_LEN="65536", REVISION="abc"
    )
    assert found["model"] == found["--served-model-name"] == "some/model"
    assert (found["--port"], found["--tensor-parallel-size"], found["--max-model-len"]) == ("9000", "2", "65536")
    assert found["--revision"] == "abc"
    assert "--enable-prefix-caching" in found
    assert "--revision" not in flags("writer.sh")


def test_no_key_is_on_a_servers_command_line() -> None:
    assert "secret" not in json.dumps(flags("captioner.sh", VLLM_API_KEY="secret"))


def test_captioner_and_writer_listen_on_the_ports_that_the_local_job_asks() -> None:
    job = yaml.safe_load((JOBS / "local-vllm.yaml").read_text())
    for name in ("captioner", "writer"):
        (endpoint,) = job["models"][name]["endpoints"]
        assert endpoint == f"http://127.0.0.1:{flags(f'{name}.sh')['--port']}/v1"


def test_a_captioner_takes_as_many_pictures_as_the_jobs_send() -> None:
    found = flags("captioner.sh")
    limits = json.loads(found["--limit-mm-per-prompt"])
    for name in ("local-vllm", "videomarathon"):
        sent = yaml.safe_load((JOBS / f"{name}.yaml").read_text())["models"]["captioner"]["frames"]["count"]
        assert sent <= limits["video"]["num_frames"] and sent <= limits["image"]["count"]
    assert json.loads(found["--media-io-kwargs"])["video"]["num_frames"] == -1, "all of them, however many"
    json.loads(found["--mm-processor-kwargs"])
    json.loads(found["--structured-outputs-config"])


# KubeRay


def manifest(name: str) -> dict[str, Any]:
    document: dict[str, Any] = yaml.safe_load((JOBS / "kuberay" / name).read_text())
    return document


def cluster_of(document: dict[str, Any]) -> dict[str, Any]:
    spec: dict[str, Any] = document["spec"]
    return spec.get("rayClusterSpec") or spec["rayClusterConfig"]


def check(document: dict[str, Any]) -> None:
    """Raises what a schema has against it: KubeRay's, Kubernetes' for the pods, Ray Serve's."""
    jsonschema.validate(document, SCHEMAS[document["kind"]])
    cluster = cluster_of(document)
    for group in (cluster["headGroupSpec"], *cluster["workerGroupSpecs"]):
        pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "pod"}, "spec": group["template"]["spec"]}
        kubernetes_validate.validate(pod, KUBERNETES, strict=True)
    if config := document["spec"].get("serveConfigV2"):
        jsonschema.validate(yaml.safe_load(config), SERVE_CONFIG)


MANIFESTS = ["rayjob.yaml", "rayservice-vllm.yaml"]


@pytest.mark.parametrize("name", MANIFESTS)
def test_a_manifest_is_valid(name: str) -> None:
    check(manifest(name))


def renamed(record: dict[str, Any], key: str) -> None:
    record[key + "s"] = record.pop(key)


@pytest.mark.parametrize("name", MANIFESTS)
def test_a_misspelt_key_of_a_manifest_is_caught(name: str) -> None:
    sound = manifest(name)
    places = [
        lambda document: renamed(document, "spec"),
        lambda document: renamed(cluster_of(document), "headGroupSpec"),
        lambda document: renamed(cluster_of(document), "enableInTreeAutoscaling"),
        lambda document: renamed(cluster_of(document)["workerGroupSpecs"][0], "maxReplicas"),
        lambda document: renamed(cluster_of(document)["headGroupSpec"]["template"]["spec"]["containers"][0], "image"),
        lambda document: renamed(cluster_of(document)["workerGroupSpecs"][0]["template"]["spec"], "containers"),
    ]
    for misspell in places:
        document = copy.deepcopy(sound)
        misspell(document)
        with pytest.raises(jsonschema.ValidationError):
            check(document)


def test_a_misspelt_key_of_the_served_models_is_caught() -> None:
    document = manifest("rayservice-vllm.yaml")
    document["spec"]["serveConfigV2"] = document["spec"]["serveConfigV2"].replace("max_ongoing", "max_on_going")
    with pytest.raises(jsonschema.ValidationError):
        check(document)


def test_models_on_kubernetes_are_served_as_the_scripts_serve_them() -> None:
    (application,) = yaml.safe_load(manifest("rayservice-vllm.yaml")["spec"]["serveConfigV2"])["applications"]
    for script, config in zip(("captioner.sh", "writer.sh"), application["args"]["llm_configs"], strict=True):
        by_script = flags(script)
        assert config["model_loading_config"]["model_id"] == by_script["model"]
        for key, value in config["engine_kwargs"].items():
            said = by_script[f"--{key.replace('_', '-')}"]
            assert value is True if said == "" else str(value) == said or value == json.loads(said)


# Slurm


def bash(script: str, folder: Path) -> None:
    subprocess.run(["bash", "-euo", "pipefail", "-c", script], cwd=folder, check=True, timeout=60)


def test_replicas_keep_one_file_of_endpoints_and_lose_no_line(tmp_path: Path) -> None:
    source = f"source {JOBS}/slurm/endpoints.sh"
    adding = "for i in 1 2 3 4 5 6 7 8; do add_endpoint urls http://node$i:8000/v1 & done; wait"
    bash(f"{source}; {adding}; add_endpoint urls http://node1:8000/v1", tmp_path)
    urls = (tmp_path / "urls").read_text().splitlines()
    assert sorted(urls) == [f"http://node{number}:8000/v1" for number in range(1, 9)]

    removing = "for i in 2 3 4 5 6 7 8; do remove_endpoint urls http://node$i:8000/v1 & done; wait"
    bash(f"{source}; {removing}", tmp_path)
    assert (tmp_path / "urls").read_text() == "http://node1:8000/v1\n"
    bash(f"{source}; remove_endpoint urls http://node1:8000/v1", tmp_path)
    assert (tmp_path / "urls").read_text() == ""
    assert {path.name for path in tmp_path.iterdir()} == {"urls", "urls.lock"}


SERVER = f"""#!{sys.executable}
import http.server, sys
port = int(sys.argv[sys.argv.index("--port") + 1])
class Health(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.end_headers()
    def log_message(self, *words): ...
http.server.HTTPServer(("127.0.0.1", port), Health).serve_forever()
"""


def until(holds: Any, what: str) -> None:
    ends = time.monotonic() + 60
    while not holds():
        assert time.monotonic() < ends, what
        time.sleep(0.05)


def test_a_replica_is_listed_while_it_serves(tmp_path: Path) -> None:
    """The script of an array task itself, with a server in vLLM's place."""
    stand_in = tmp_path / "vllm"
    stand_in.write_text(SERVER)
    stand_in.chmod(0o755)
    urls = tmp_path / "urls"
    environment = {**os.environ, "SLURM_SUBMIT_DIR": str(CHECKOUT), "VLLM": str(stand_in)}
    replicas = [
        subprocess.Popen(["bash", str(JOBS / "slurm/vllm.sbatch"), "captioner", str(urls)], env=environment)
        for _ in range(2)
    ]
    try:
        until(lambda: urls.exists() and len(urls.read_text().splitlines()) == 2, "both are listed")
        replicas[0].send_signal(signal.SIGTERM)  # as Slurm does ahead of the limit
        replicas[0].wait(timeout=60)
        assert len(urls.read_text().splitlines()) == 1
        replicas[1].send_signal(signal.SIGTERM)
        replicas[1].wait(timeout=60)
        assert urls.read_text() == ""
    finally:
        for replica in replicas:
            replica.kill()


def test_a_server_that_ends_before_it_answers_is_never_listed(tmp_path: Path) -> None:
    environment = {**os.environ, "SLURM_SUBMIT_DIR": str(CHECKOUT), "VLLM": shutil.which("false") or "false"}
    ended = subprocess.run(
        ["bash", str(JOBS / "slurm/vllm.sbatch"), "writer", str(tmp_path / "urls")],
        env=environment,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert ended.returncode == 1 and "ended before it answered" in ended.stderr
    assert (tmp_path / "urls").read_text() == ""


SLURM = {  # stand-ins: what Slurm and the cluster would do, and a log of what was asked of them
    "scontrol": 'if [ "$1" = show ]; then echo localhost; else echo "$@" >> "$LOG"; fi',
    "srun": "exec sleep 600",
    "ray": "exit 0",
}


def heeds_sigterm(pid: int) -> bool:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    (caught,) = (int(line.split()[1], 16) for line in lines if line.startswith("SigCgt:"))
    return bool(caught >> (signal.SIGTERM - 1) & 1)


@pytest.mark.parametrize(
    ("code", "signalled", "requeued"), [(3, True, True), (3, False, False), (0, True, False), (1, False, False)]
)
def test_a_run_that_the_time_limit_stopped_is_put_in_line_again(
    tmp_path: Path, code: int, signalled: bool, requeued: bool
) -> None:
    """Exit 3 after the signal: again. Exit 3 by a budget, or any other end: not."""
    marathon = f'trap "exit {code}" TERM; touch started; ' + (
        "while :; do sleep 0.05; done" if signalled else f"exit {code}"
    )
    for name, body in {**SLURM, "marathon": marathon}.items():
        (tmp_path / name).write_text(f"#!/usr/bin/env bash\n{body}\n")
        (tmp_path / name).chmod(0o755)
    environment = {
        **os.environ,
        "PATH": f"{tmp_path}:{os.environ['PATH']}",
        "LOG": str(tmp_path / "asked"),
        "SLURM_SUBMIT_DIR": str(tmp_path),
        "SLURM_JOB_NODELIST": "localhost",
        "SLURM_JOB_NUM_NODES": "1",
        "SLURM_JOB_ID": "4711",
    }
    batch = subprocess.Popen(
        ["bash", str(JOBS / "slurm/marathon.sbatch"), "job.yaml"], env=environment, start_new_session=True
    )
    try:
        until((tmp_path / "started").exists, "the run has begun")
        if signalled:
            until(lambda: heeds_sigterm(batch.pid), "the script has set its trap")
            batch.send_signal(signal.SIGTERM)
        assert batch.wait(timeout=60) == code
    finally:
        os.killpg(batch.pid, signal.SIGKILL)  # Slurm would end the steps
    asked = tmp_path / "asked"
    assert (asked.read_text() if asked.exists() else "") == ("requeue 4711\n" if requeued else "")


# Ray


def free_ports(count: int) -> list[int]:
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [each.getsockname()[1] for each in sockets]
    for each in sockets:
        each.close()
    return ports


@pytest.fixture
def ray_cluster() -> Iterator[dict[str, str]]:
    """A cluster of its own with a dashboard; yields the environment that reaches it."""
    gcs, dashboard, client, metrics = free_ports(4)
    folder = tempfile.mkdtemp(prefix="mr")  # Ray's sockets lie in it, and their paths must be short
    environment = {
        **os.environ,
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN": "0123456789abcdef" * 4,
        "RAY_API_SERVER_ADDRESS": f"http://127.0.0.1:{dashboard}",
        "METRICS": f"http://127.0.0.1:{metrics}/metrics",
    }
    environment.pop("RAY_ADDRESS", None)
    ports = ["--port", gcs, "--dashboard-port", dashboard, "--ray-client-server-port", client]
    ports += ["--metrics-export-port", metrics]
    here = ["--node-ip-address", "127.0.0.1", "--num-cpus", 2, "--temp-dir", folder]
    start = ["ray", "start", "--head", "--disable-usage-stats", "--block", *map(str, [*ports, *here])]
    head = subprocess.Popen(start, env=environment, start_new_session=True)

    def listens() -> bool:
        assert head.poll() is None, "Ray did not start"
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", dashboard)) == 0

    try:
        until(listens, "the dashboard answers")
        yield environment
    finally:
        head.terminate()
        head.wait(timeout=60)
        shutil.rmtree(folder, ignore_errors=True)


def submitted_job(cluster: dict[str, str], folder: Path, videos: int) -> str:
    """What is said as a small job is submitted, whose dataset is to be at `out`."""
    job = folder / "job.yaml"
    job.write_text(f"""
dataset: {folder}/out
synthetic: {{folder: {folder}/videos, videos: {videos}, minutes: 3, seed: 5}}
segment: {{min_seconds: 0}}
events: {{min_events: 0}}
release: {{name: test}}
""")
    submit = ["bash", str(JOBS / "ray/submit.sh"), str(job), "--set", "run.workers=2"]
    for _ in range(20):
        submitted = subprocess.run(submit, env=cluster, cwd=folder, capture_output=True, text=True, timeout=200)
        if "No available agent" not in submitted.stderr:  # the dashboard answers before there is one
            break
        time.sleep(1)
    assert submitted.returncode == 0, submitted.stdout + submitted.stderr
    return submitted.stdout


@pytest.mark.slow
def test_a_submitted_job_runs_on_the_cluster(ray_cluster: dict[str, str], tmp_path: Path) -> None:
    submitted_job(ray_cluster, tmp_path, videos=2)
    assert list((tmp_path / "out/releases").iterdir())


@pytest.mark.slow
def test_a_detached_job_is_found_by_status_and_seen_to_its_end(
    ray_cluster: dict[str, str], tmp_path: Path, marathon: Command
) -> None:
    said = submitted_job(ray_cluster | {"DETACH": "1", "SUBMISSION_ID": "marathon-7"}, tmp_path, videos=4)
    assert "marathon-7" in said and "succeeded" not in said

    def run() -> dict[str, Any]:
        try:
            storage = Dataset(str(tmp_path / "out")).storage
        except NoDataset:  # the job waits for its driver
            return {}
        found = run_status(storage)
        return found.model_dump() if found else {}

    until(lambda: run().get("state") == "alive", "a run is under way")
    until(lambda: run()["standing"]["expected"] == 4, "it tells how much it has to do")
    assert run()["standing"]["submission"] == "marathon-7" and run()["host"] == socket.gethostname()
    assert "Ray job marathon-7" in marathon("status", "out")

    looks = [json.loads(line) for line in marathon("status", "out", "--watch", "--every", 0.5, "--json").splitlines()]
    assert {look["state"] for look in looks[:-1]} == {"alive"} and looks[-1]["state"] == "released"
    ended = looks[-1]["standing"]
    assert (ended["doing"], ended["finished"], ended["expected"]) == ("done", 4, 4)
    assert list((tmp_path / "out/releases").iterdir())
    with urllib.request.urlopen(ray_cluster["METRICS"], timeout=10) as page:  # the agent keeps them for a while
        verified = [line for line in page.read().decode().splitlines() if 'stage="verify",status="ok"' in line]
    assert [line.rpartition(" ")[2] for line in verified] == ["88.0"]  # 22 tasks of each


@pytest.mark.slow
def test_a_submission_without_the_token_is_refused(ray_cluster: dict[str, str], tmp_path: Path) -> None:
    submit = ["bash", str(JOBS / "ray/submit.sh"), "jobs/demo.yaml"]
    wrong = {**ray_cluster, "RAY_AUTH_TOKEN": "fedcba9876543210" * 4}
    submitted = subprocess.run(submit, env=wrong, cwd=tmp_path, capture_output=True, text=True, timeout=200)
    assert submitted.returncode != 0


def test_submitting_nothing_says_what_is_missing() -> None:
    submit = ["bash", str(JOBS / "ray/submit.sh")]
    environment = {"PATH": os.environ["PATH"]}
    nothing = subprocess.run(submit, env=environment, capture_output=True, text=True)
    nowhere = subprocess.run([*submit, "jobs/demo.yaml"], env=environment, capture_output=True, text=True)
    assert (nothing.returncode, nowhere.returncode) == (2, 2)
    assert "no job given" in nothing.stderr and "RAY_API_SERVER_ADDRESS is not set" in nowhere.stderr

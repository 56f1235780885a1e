"""A Ray cluster of several nodes on this machine, by Ray's own utility: a node is a raylet and its workers.

with cluster() as nodes: nodes.add(num_cpus=2); ...; nodes.kill(node)
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import psutil
from ray.cluster_utils import Cluster

_OBJECT_STORE = 100 * 2**20
# A node that is cut off is dead after 3 misses; by default that takes a minute.
_SYSTEM = {"health_check_initial_delay_ms": 2000, "health_check_period_ms": 1000, "health_check_failure_threshold": 3}


class Nodes:
    """`address`: what a job calls `run.ray_address`. The head, on which the driver is, does no work."""

    def __init__(self) -> None:
        head = {"num_cpus": 0, "object_store_memory": _OBJECT_STORE, "_system_config": _SYSTEM}
        self._cluster = Cluster(initialize_head=True, head_node_args=head)
        self.address: str = self._cluster.address

    def add(self, **resources: float) -> Any:
        return self._cluster.add_node(object_store_memory=_OBJECT_STORE, **resources)

    def kill(self, node: Any) -> None:
        """As a power cut would: the raylet and all that it has started."""
        raylet = self.raylet(node)
        below = raylet.children(recursive=True)
        for process in (raylet, *below):
            process.kill()
        self._cluster.remove_node(node, allow_graceful=False)

    @staticmethod
    def raylet(node: Any) -> psutil.Process:
        return psutil.Process(node.all_processes["raylet"][0].process.pid)

    def at_work(self, node: Any) -> set[str]:
        """The names of the tasks that a node is doing."""
        names = set()
        for process in self.raylet(node).children():
            try:
                names.add(process.cmdline()[0].removeprefix("ray::"))
            except (psutil.Error, IndexError):
                continue
        return names

    def close(self) -> None:
        self._cluster.shutdown()


@contextmanager
def cluster() -> Iterator[Nodes]:
    nodes = Nodes()
    try:
        yield nodes
    finally:
        nodes.close()

"""The parts of KubeRay's custom resources (ray.io/v1, KubeRay 1.5.1 and newer) that our manifests use, as JSON schema.

Written by hand after the Go types that KubeRay's own schema is generated from. Narrower than that: a key that our
manifests do not use is refused here, though KubeRay may know it. Pod specs are left to Kubernetes' own schema.
"""

from typing import Any

Schema = dict[str, Any]

TEXT: Schema = {"type": "string", "minLength": 1}
COUNT: Schema = {"type": "integer", "minimum": 0}
FLAG: Schema = {"type": "boolean"}
TEXTS: Schema = {"type": "object", "additionalProperties": {"type": "string"}}  # so `num-cpus: 0` is refused


def record(required: dict[str, Schema], optional: dict[str, Schema] | None = None) -> Schema:
    properties = required | (optional or {})
    return {"type": "object", "properties": properties, "required": list(required), "additionalProperties": False}


def resource(kind: str, spec: Schema) -> Schema:
    fixed = {"apiVersion": {"const": "ray.io/v1"}, "kind": {"const": kind}}
    return record({**fixed, "metadata": record({"name": TEXT}), "spec": spec})


POD_TEMPLATE = record({"spec": {"type": "object"}})
HEAD = record({"rayStartParams": TEXTS, "template": POD_TEMPLATE})
WORKERS = record(
    {
        "groupName": TEXT,
        "minReplicas": COUNT,
        "maxReplicas": COUNT,
        "rayStartParams": TEXTS,
        "template": POD_TEMPLATE,
    },
    {"replicas": COUNT},
)
CLUSTER = record(
    {"headGroupSpec": HEAD, "rayVersion": TEXT},
    {
        "authOptions": record({"mode": {"enum": ["disabled", "token"]}}),
        "enableInTreeAutoscaling": FLAG,
        "workerGroupSpecs": {"type": "array", "items": WORKERS},
    },
)
SCHEMAS = {
    "RayJob": resource(
        "RayJob",
        record(
            {"entrypoint": TEXT, "rayClusterSpec": CLUSTER},
            {"backoffLimit": COUNT, "shutdownAfterJobFinishes": FLAG, "ttlSecondsAfterFinished": COUNT},
        ),
    ),
    "RayService": resource("RayService", record({"serveConfigV2": TEXT, "rayClusterConfig": CLUSTER})),
}

# What stands in a RayService's `serveConfigV2`, of Ray Serve and of ray.serve.llm (Ray 2.60).
MODEL = record(
    {"model_loading_config": record({"model_id": TEXT}, {"model_source": TEXT})},
    {
        "engine_kwargs": {"type": "object"},  # vLLM's
        "deployment_config": record(
            {},
            {
                "max_ongoing_requests": COUNT,
                "autoscaling_config": record(
                    {"min_replicas": COUNT, "max_replicas": COUNT}, {"target_ongoing_requests": COUNT}
                ),
                "request_router_config": record(
                    {"request_router_class": TEXT}, {"request_router_kwargs": {"type": "object"}}
                ),
            },
        ),
    },
)
SERVE_CONFIG = record(
    {
        "applications": {
            "type": "array",
            "items": record(
                {
                    "name": TEXT,
                    "import_path": {"const": "ray.serve.llm:build_openai_app"},
                    "route_prefix": TEXT,
                    "args": record({"llm_configs": {"type": "array", "items": MODEL, "minItems": 1}}),
                }
            ),
        }
    }
)

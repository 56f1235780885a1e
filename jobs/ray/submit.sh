#!/usr/bin/env bash
# Run a job on a Ray cluster that is up, from this checkout: its code travels, what it depends on has to be on the nodes.
#   RAY_API_SERVER_ADDRESS=http://HEAD:8265 RAY_AUTH_MODE=token RAY_AUTH_TOKEN=... jobs/ray/submit.sh jobs/mine.yaml
# Options of `marathon run` may follow the job. With DETACH=1 it returns once the job is in line. docs/clusters.md says what the cluster needs.
set -euo pipefail

if [[ $# -eq 0 ]]; then
  echo "submit.sh: no job given; call it as submit.sh JOB [options of marathon run]" >&2
  exit 2
fi
if [[ -z "${RAY_API_SERVER_ADDRESS:-}" ]]; then
  echo "submit.sh: RAY_API_SERVER_ADDRESS is not set; give the dashboard's address, such as http://HEAD:8265" >&2
  exit 2
fi
checkout="$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)"

# What .gitignore names stays here; so does the history. Keys for model servers belong into the environment of the nodes:
# what stands in a runtime environment is shown to everybody who may see the dashboard.
exec "${RAY:-ray}" job submit \
  --submission-id "${SUBMISSION_ID:-marathon-$(date +%Y%m%d-%H%M%S)}" \
  ${DETACH:+--no-wait} \
  --working-dir "$checkout" \
  --runtime-env-json '{"excludes": ["/.git"]}' \
  -- python -m marathon_pipeline run "$@" --set run.ray_address=auto

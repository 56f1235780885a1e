#!/usr/bin/env bash
# What captioner.sh and writer.sh have in common: `vllm serve` (0.12 or newer) with the flags that matter here.
# Settings come from the environment; further arguments go to vLLM as they are. docs/serving.md says how to choose.
set -euo pipefail

: "${MODEL:?is not set: start captioner.sh or writer.sh, or name a model}"

flags=(
  # Where it listens. 0.0.0.0 lets other machines in: set VLLM_API_KEY then, and keep the port inside your network.
  --host "${HOST:-127.0.0.1}"
  --port "${PORT:-8000}"
  # The name that requests use: `models.*.model` in the job.
  --served-model-name "${SERVED_NAME:-$MODEL}"
  # GPUs that one replica of the model is spread over: as few as hold its weights and leave room for the cache.
  --tensor-parallel-size "${TENSOR_PARALLEL:-1}"
  # Replicas behind this one port, spread by load and not by prefix: better one server a replica, each with a port of its own.
  --data-parallel-size "${DATA_PARALLEL:-1}"
  # Prompt and answer together: `context_tokens` in the job. More costs nothing until a request uses it.
  --max-model-len "${MAX_MODEL_LEN:-32768}"
  # Requests computed at once: `max_in_flight` in the job is best a little above it. The rest wait in the server.
  --max-num-seqs "${MAX_NUM_SEQS:-256}"
  # Share of each GPU's memory. What the weights leave of it is the cache; lower it where two servers share a GPU.
  --gpu-memory-utilization "${GPU_MEMORY:-0.9}"
  # Compute a shared beginning of prompts once. On by default in vLLM; said here because the cost rests on it.
  --enable-prefix-caching
  # Type of the cache: fp8 holds twice the tokens, at some cost in quality.
  --kv-cache-dtype "${KV_CACHE_DTYPE:-auto}"
  # Schemas: guidance writes strings that parse, and no whitespace means no answer that is spaces up to its limit.
  --structured-outputs-config '{"backend": "guidance", "disable_any_whitespace": true}'
  # The request alone decides how to sample. A model's own file may add a penalty for repetition, which spoils JSON.
  --generation-config vllm
  # `usage` says how many tokens of a prompt came from the cache.
  --enable-prompt-tokens-details
  # No line in the log for each request. Prompts are never logged unless --enable-log-requests is given.
  --disable-uvicorn-access-log
)
# The commit of the weights: `models.*.revision` in the job. Without it a changed repository changes the captions unseen.
if [[ -n "${REVISION:-}" ]]; then
  flags+=(--revision "$REVISION")
fi

# vLLM takes the key from VLLM_API_KEY by itself: on the command line every user of the machine could read it.
exec "${VLLM:-vllm}" serve "$MODEL" "${flags[@]}" "$@"

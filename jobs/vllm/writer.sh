#!/usr/bin/env bash
# Serve the writer, a chat model: four GPUs of 80 GB, or fewer for a smaller model.
#   jobs/vllm/writer.sh                                                                  one replica, on port 8001
#   MODEL=Qwen/Qwen2.5-7B-Instruct TENSOR_PARALLEL=1 GPU_MEMORY=0.45 jobs/vllm/writer.sh   half a GPU
#   MODEL=deepseek-ai/DeepSeek-V3 TENSOR_PARALLEL=8 MAX_MODEL_LEN=65536 jobs/vllm/writer.sh  the paper's: eight GPUs of 141 GB
set -euo pipefail

export MODEL="${MODEL:-Qwen/Qwen2.5-72B-Instruct}"
export PORT="${PORT:-8001}"
export TENSOR_PARALLEL="${TENSOR_PARALLEL:-4}"
exec bash "$(dirname "${BASH_SOURCE[0]}")/serve.sh" "$@"

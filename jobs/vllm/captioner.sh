#!/usr/bin/env bash
# Serve the captioner, a vision-language model: one GPU of 40 GB or more.
#   jobs/vllm/captioner.sh                                       one replica, on port 8000
#   CUDA_VISIBLE_DEVICES=1 PORT=8010 jobs/vllm/captioner.sh      a second one on the same machine
#   MODEL=Qwen/Qwen2-VL-7B-Instruct jobs/vllm/captioner.sh       the paper's model
set -euo pipefail

export MODEL="${MODEL:-Qwen/Qwen2.5-VL-7B-Instruct}"
pictures="${MAX_PICTURES:-32}" # of one request: `frames.count` in the job, or more

flags=(
  # What a request may hold at most. vLLM sets memory aside for pictures of the given size, not of the largest possible.
  --limit-mm-per-prompt "{\"video\": {\"count\": 1, \"num_frames\": $pictures, \"width\": 704, \"height\": 384},
    \"image\": {\"count\": $pictures, \"width\": 704, \"height\": 384}}"
  # Take all pictures of a `video_url`: newer versions would drop those after the 32nd without a word.
  # fps: pictures a second of the clip (16 in 30 s), from which Qwen-VL places them in time.
  --media-io-kwargs "{\"video\": {\"num_frames\": -1, \"fps\": ${PICTURES_PER_SECOND:-0.533}}}"
  # Pixels of a picture: larger ones are shrunk, so that nobody can make one request cost a hundred. 401408: 512 tokens.
  --mm-processor-kwargs "{\"max_pixels\": ${MAX_PIXELS:-401408}}"
)
exec bash "$(dirname "${BASH_SOURCE[0]}")/serve.sh" "${flags[@]}" "$@"

"""An annotator behind OpenAI-compatible servers, first of all vLLM."""

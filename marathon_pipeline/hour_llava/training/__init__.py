"""Training: `marathon train`. Settings, the loop and its checkpoints, Ray Train around them, what is shown of it."""

"""How well a trained model answers: multiple choice, the blind baseline, needles, and an adapter for lmms-eval."""

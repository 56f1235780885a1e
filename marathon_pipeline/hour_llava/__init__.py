"""Hour-LLaVA: the model, its data loading, training, evaluation. Needs the extra `train`; only this room imports torch."""

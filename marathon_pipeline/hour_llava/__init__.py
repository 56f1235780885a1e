"""Hour-LLaVA: the model, its data loading, training, evaluation. The extra `train`; only this room imports torch."""

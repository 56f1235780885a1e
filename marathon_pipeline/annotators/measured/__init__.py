"""The offline annotator: captions and questions from measured facts, and nothing that they do not entail."""

from marathon_pipeline.annotators.measured.annotator import Measured

__all__ = ["Measured"]

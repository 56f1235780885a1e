"""A cure for vLLM on a CPU; run by every Python that has this folder on its PYTHONPATH."""

import sys
from importlib.abc import MetaPathFinder


class _DeclareOperators(MetaPathFinder):
    """torchvision on PyPI is a CUDA build: its operators do not load beside a CPU torch, and its import, which asks for
    them, takes transformers' model classes down with it. Declared, and never called, they let its Python transforms
    work."""

    def find_spec(self, name: str, path: object, target: object = None) -> None:
        if name == "torchvision":
            sys.meta_path.remove(self)
            import torch

            library = torch.library.Library("torchvision", "DEF")
            for operator in ("nms", "qnms"):
                library.define(f"{operator}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
            _kept.append(library)


_kept: list[object] = []  # what a library has declared lives as long as it does
sys.meta_path.insert(0, _DeclareOperators())

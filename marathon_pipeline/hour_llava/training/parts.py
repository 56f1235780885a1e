"""The four parts of the model that a stage trains or leaves as they are, each with a learning rate of its own."""

from collections.abc import Mapping
from typing import Any

from torch import nn

PARTS = ("vision", "projector", "memaug", "llm")
_OF = {
    "vision_tower": "vision",
    "projector": "projector",
    "newline": "projector",
    "memaug": "memaug",
    "language_model": "llm",
    "lm_head": "llm",
}


def part_of(name: str) -> str:
    """Of a parameter, by its name in the model. Raises KeyError where no part has it."""
    return _OF[name.partition(".")[0]]


def freeze_all_but(model: nn.Module, trained: Mapping[str, float]) -> None:
    """Only parameters of `trained` get gradients: frozen ones cost neither their arithmetic nor their memory."""
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(part_of(name) in trained)


def parameter_groups(model: nn.Module, rates: Mapping[str, float], weight_decay: float) -> list[dict[str, Any]]:
    """A group of the optimizer for each trained part that has parameters; biases and norms do not decay."""
    groups: dict[tuple[str, bool], dict[str, Any]] = {}
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            decays = weight_decay > 0 and parameter.ndim > 1
            group = groups.setdefault(
                (part_of(name), decays),
                {
                    "params": [],
                    "part": part_of(name),
                    "lr": rates[part_of(name)],
                    "weight_decay": weight_decay * decays,
                },
            )
            group["params"].append(parameter)
    return list(groups.values())

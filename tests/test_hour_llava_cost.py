"""Sizes as published, operations as counted, memory as measured."""

import weakref
from pathlib import Path
from typing import Any

import pytest
import tiny_models
import torch
from tiny_models import example
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import FlopCounterMode
from transformers import SiglipVisionModel

from marathon_pipeline.hour_llava import cost, sizes
from marathon_pipeline.hour_llava.configuration import HourLlavaConfig
from marathon_pipeline.hour_llava.modeling import HourLlavaForConditionalGeneration


def on_meta(config: HourLlavaConfig) -> HourLlavaForConditionalGeneration:
    with torch.device("meta"):
        return HourLlavaForConditionalGeneration(config)


@pytest.mark.parametrize(
    ("name", "dim", "shared", "language", "memaug", "projector"),
    [
        ("3B", 2048, 256, 3_085_938_688, 209_842_176, 6_557_696),
        ("7B", 3584, 512, 7_615_616_512, 646_146_048, 16_980_992),
    ],
)
def test_parts_have_the_published_sizes(
    name: str, dim: int, shared: int, language: int, memaug: int, projector: int
) -> None:
    config = sizes.size(name)
    model = on_meta(config)
    tied = [] if config.tie_word_embeddings else [model.lm_head.weight]
    counted = {
        "vision tower": sum(p.numel() for p in model.vision_tower.parameters()),
        "projector": sum(p.numel() for p in model.projector.parameters()),
        "newline": model.newline.numel(),
        "MemAug": sum(p.numel() for p in model.memaug.parameters()),
        "language model": sum(p.numel() for p in [*model.language_model.parameters(), *tied]),
    }
    assert counted == cost.parameters(config)
    assert (counted["language model"], counted["MemAug"], counted["projector"]) == (language, memaug, projector)
    with torch.device("meta"):
        published = SiglipVisionModel(config.vision_config)
    assert sum(p.numel() for p in published.parameters()) == 428_225_600
    dropped = [published.encoder.layers[-1], published.post_layernorm, published.head]
    assert counted["vision tower"] == 428_225_600 - sum(p.numel() for part in dropped for p in part.parameters())

    block = {name: tuple(parameter.shape) for name, parameter in model.memaug.blocks[0].named_parameters()}
    attention = {
        "q_proj.weight": (dim, dim),
        "q_proj.bias": (dim,),
        "k_proj.weight": (shared, dim),
        "k_proj.bias": (shared,),
        "v_proj.weight": (shared, dim),
        "v_proj.bias": (shared,),
        "o_proj.weight": (dim, dim),
        "o_proj.bias": (dim,),
    }
    expected = {f"{which}_attention.{n}": s for which in ("self", "cross") for n, s in attention.items()}
    for norm in ("self_norm", "cross_norm", "mlp_norm"):
        expected |= {f"{norm}.weight": (dim,), f"{norm}.bias": (dim,)}
    expected |= {"mlp.0.weight": (4 * dim, dim), "mlp.0.bias": (4 * dim,)}
    expected |= {"mlp.2.weight": (dim, 4 * dim), "mlp.2.bias": (dim,)}
    assert block == expected and len(model.memaug.blocks) == 4 and model.memaug.rotary_dim == 64
    assert [tuple(p.shape) for p in model.projector.parameters()] == [(dim, 1152), (dim,), (dim, dim), (dim,)]
    assert len(model.vision_tower.siglip.encoder.layers) == 26
    assert model.vision_tower.siglip.embeddings.position_embedding.weight.shape == (729, 1152)


@pytest.mark.parametrize(
    "settings", [{}, {"memaug_depth": 0}, {"memory": "decayed", "pooling": "bilinear"}, {"memory": 0.3}], ids=str
)
def test_operations_are_those_that_torch_counts(settings: dict[str, object]) -> None:
    model = tiny_models.model(memaug_depth=settings.pop("memaug_depth", 2), **settings)
    batch = tiny_models.processor()([example(0, 50, features=False)])
    load = cost.Load.of(
        model.config, 50, text=batch["input_ids"].shape[1] - 1, question=int(batch["question_mask"].sum())
    )
    with torch.no_grad(), sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        model(**batch)
    assert sum(cost.forward_flops(model.config, load).values()) == counter.get_total_flops()


def test_what_a_step_keeps_is_what_autograd_keeps() -> None:
    model = tiny_models.model(dim=256, vision_dim=64, layers=4).train()
    model.vision_tower.requires_grad_(False)
    batch = tiny_models.processor()([example(0, 600, features=False)])
    batch["pixel_values"], batch["features"] = None, torch.randn(600, 16, 64)
    load = cost.Load.of(
        model.config, 600, text=batch["input_ids"].shape[1] - 1, question=int(batch["question_mask"].sum())
    )
    own = {parameter.untyped_storage().data_ptr() for parameter in model.parameters()}
    kept: dict[int, int] = {}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        if (place := tensor.untyped_storage().data_ptr()) not in own:
            kept[place] = tensor.untyped_storage().nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        loss = model(**batch).loss
    assert loss.requires_grad
    estimate = cost.activation_bytes(model.config, load, checkpointing=False, width=4)
    assert 0.75 < estimate / sum(kept.values()) < 1.25


class Live(TorchDispatchMode):
    """The most bytes that tensors made within it held at once."""

    def __init__(self, *inputs: torch.Tensor) -> None:
        super().__init__()
        self.now = self.peak = 0
        self.known: weakref.WeakSet[Any] = weakref.WeakSet(tensor.untyped_storage() for tensor in inputs)

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        for tensor in tree_leaves(out):
            if isinstance(tensor, torch.Tensor) and (storage := tensor.untyped_storage()) not in self.known:
                self.known.add(storage)
                self.now += (size := storage.nbytes())
                weakref.finalize(storage, self.freed, size)
                self.peak = max(self.peak, self.now)
        return out

    def freed(self, size: int) -> None:
        self.now -= size


def peak_of_encoding(frames: int, *, trained: bool) -> int:
    model = tiny_models.model(frames_per_chunk=16).train()
    model.vision_tower.requires_grad_(trained)
    model.activation_checkpointing_enable()
    pixels = torch.randint(0, 256, (frames, 3, 32, 32), dtype=torch.uint8)
    with Live(pixels) as live:
        features = model.encode_frames(pixels)
        if trained:
            features.sum().backward()
    return live.peak


@pytest.mark.parametrize("trained", [False, True], ids=["frozen", "trained"])
def test_an_hours_frames_pass_the_tower_in_the_memory_of_their_tokens(trained: bool) -> None:
    few, many = (peak_of_encoding(frames, trained=trained) for frames in (32, 320))
    of_a_frame = 16 * 32 * 4  # its pooled features, float32
    inside = 64 * 32 * 4 * 10  # what the tower would keep of a frame, at the least
    allowed = 1 if not trained else 4  # the chunks' features, joined, and their gradients
    assert (many - few) / (320 - 32) <= allowed * of_a_frame * 1.05 < inside / 2
    assert few > 16 * inside / 10  # the measure sees what one chunk takes


def test_a_whole_forward_pass_grows_by_the_tokens_of_its_frames() -> None:
    model = tiny_models.model(frames_per_chunk=16, max_frames=8, memaug_depth=1)
    peaks = []
    for frames in (200, 800):
        batch = tiny_models.processor()([example(0, frames, features=False)])
        with torch.no_grad(), Live(*batch.values()) as live:
            model(**batch)
        peaks.append(live.peak)
    of_a_frame = 17 * 64 * 4  # its tokens in the memory, float32
    assert (peaks[1] - peaks[0]) / 600 < 4 * of_a_frame  # features, hidden layer of the projector, tokens; keys, values


def test_the_table_and_the_picture_are_written(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    cost.main(["--size", "3B", "--minutes", "60", "--plot", str(tmp_path / "cost.svg")])
    shown = capsys.readouterr().out
    assert "234,000" in shown and "8,704" in shown and "full 1 FPS" in shown
    assert "</svg>" in (tmp_path / "cost.svg").read_text()

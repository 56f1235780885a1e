"""The feature cache: a video's pooled features, one safetensors file for each, beside the proxies of its dataset.

`features` (frames, tokens, dim) bf16; row i is second i. Half of what the published fp32 files take: 0.53 GB an hour at
64 tokens of 1,152. Its metadata say which tower and pooling they are of, and of which proxy.
"""

import hashlib
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Literal, NamedTuple

from pydantic import BaseModel, ConfigDict, Field

from marathon_pipeline.dataset.dataset import media_key
from marathon_pipeline.dataset.storage import Storage
from marathon_pipeline.errors import Failed
from marathon_pipeline.records import digest

if TYPE_CHECKING:
    import torch

VERSION = 1  # of how they are made
FOLDER = "features"


class FeatureSettings(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)

    tower: str = Field(min_length=1)  # a SigLIP checkpoint, by name or path: features of another one are noise
    revision: str = "main"  # of the checkpoint; a name alone may stand for other weights tomorrow
    pooling: Literal["average", "bilinear"] = "average"  # the paper averages, its code interpolates
    side: int = Field(8, ge=1)  # of the pooled map: `pooled_side` of the model that reads them
    chunk: int = Field(32, ge=1)  # frames in the tower at once: the memory that an hour takes is that of these

    @property
    def fingerprint(self) -> str:
        """What the features depend on besides the proxy."""
        return digest([VERSION, self.model_dump(exclude={"chunk"})])[:16]


class Cached(NamedTuple):
    features: "torch.Tensor"  # (frames, tokens, dim) bf16
    fingerprint: str  # of the settings that they were made by
    proxy: str  # sha256 of the proxy that they are of


def feature_key(video_id: str) -> str:
    return media_key(FOLDER, video_id, ".safetensors")


def write_features(storage: Storage, video_id: str, cached: Cached) -> tuple[str, int]:
    """Put a video's features, whole; returns the sha256 and the size of the file, the same for the same features."""
    from safetensors.torch import save_file

    metadata = {"fingerprint": cached.fingerprint, "proxy": cached.proxy}
    with tempfile.TemporaryDirectory(dir=storage.scratch()) as folder:
        path = Path(folder) / "features.safetensors"
        save_file({"features": cached.features.contiguous()}, path, metadata)
        storage.write_file(feature_key(video_id), path)
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest(), path.stat().st_size


def read_features(storage: Storage, video_id: str) -> Cached:
    """Raises Failed `no_features`, `features_damaged`."""
    from safetensors import SafetensorError, safe_open

    key = feature_key(video_id)
    try:
        with storage.local_file(key) as path, safe_open(str(path), framework="pt") as file:
            metadata = file.metadata() or {}
            return Cached(file.get_tensor("features"), metadata["fingerprint"], metadata["proxy"])
    except FileNotFoundError:
        raise Failed("no_features", f"{key} is missing: run its job with `features`") from None
    except (SafetensorError, KeyError, OSError) as error:
        raise Failed("features_damaged", f"{key} is damaged ({error}): run its job again with --force") from None

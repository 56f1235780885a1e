"""Put a video's proxy through the vision tower once, so that training need not do it in every epoch."""

import hashlib
from importlib.util import find_spec

from marathon_pipeline.dataset.dataset import media_key
from marathon_pipeline.dataset.storage import Storage
from marathon_pipeline.errors import Failed, UserError
from marathon_pipeline.hour_llava.features import Cached, FeatureSettings, write_features
from marathon_pipeline.records import Clip, Features
from marathon_pipeline.stages.stage import Given


class ExtractFeatures:
    name, version = "extract_features", 1
    reads, writes, parts = (Clip,), (Features,), ("",)
    annotator = None
    uses_gpu = True

    def __init__(self, settings: FeatureSettings, storage: Storage) -> None:
        if find_spec("torch") is None or find_spec("transformers") is None:
            raise UserError(
                "features: need torch and transformers; pip install 'marathon-pipeline[train]', or drop them"
            )
        self._settings, self._storage = settings, storage

    def settings(self, part: str) -> object:
        return self._settings.fingerprint

    async def run(self, given: Given, part: str) -> list[Features]:
        video_id = given.all(Clip)[0].video_id
        key = media_key("proxies", video_id, ".mp4")
        try:
            proxy = self._storage.read(key)
        except FileNotFoundError:
            raise Failed(
                "proxy_missing", f"{key} is missing: run the job again with --force --video {video_id}"
            ) from None
        from marathon_pipeline.hour_llava.extraction import extracted  # loads torch

        made = Cached(extracted(proxy, video_id, self._settings), self._settings.fingerprint, _sha256(proxy))
        sha256, size = write_features(self._storage, video_id, made)
        frames, tokens, dim = made.features.shape
        return [
            Features(
                video_id=video_id,
                fingerprint=made.fingerprint,
                proxy=made.proxy,
                frames=frames,
                tokens=tokens,
                dim=dim,
                sha256=sha256,
                bytes=size,
            )
        ]


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()

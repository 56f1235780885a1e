"""What was withdrawn: the folder of a release, or of a version of the media, of which this file alone is left."""

import re

from pydantic import BaseModel, ConfigDict

from marathon_pipeline.dataset.storage import Storage

FILE_NAME = "withdrawn.json"


class Withdrawn(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)

    why: str
    certificate: str  # of the purge, within the dataset
    replaced_by: str = ""  # a release, or a version of the media; none where nothing was left


def withdrawn(storage: Storage, root: str) -> dict[str, Withdrawn]:
    """All that was withdrawn under `releases` or `media`, by name."""
    found = (re.fullmatch(rf"{root}/([^/]+)/{FILE_NAME}", key) for key in storage.keys(root))
    return {each[1]: Withdrawn.model_validate_json(storage.read(each[0])) for each in found if each}

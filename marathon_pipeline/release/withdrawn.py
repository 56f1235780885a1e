"""What was withdrawn: the folder of a release, or of a version of the media, of which this file alone is left."""

import re

from pydantic import BaseModel, ConfigDict, ValidationError

from marathon_pipeline.dataset.storage import Storage
from marathon_pipeline.errors import UserError

FILE_NAME = "withdrawn.json"


class Withdrawn(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)

    why: str
    certificate: str  # of the purge, within the dataset
    replaced_by: str = ""  # a release, or a version of the media; none where nothing was left


def withdrawn(storage: Storage, root: str) -> dict[str, Withdrawn]:
    """All that was withdrawn under `releases` or `media`, by name. Raises UserError for a damaged note."""
    found = (re.fullmatch(rf"{root}/([^/]+)/{FILE_NAME}", key) for key in storage.keys(root))
    return {each[1]: _parsed(storage, each[0]) for each in found if each}


def refuse_withdrawn(folder: Storage) -> None:
    """Raises UserError, which names what took its place, where of a release only the note is left."""
    if folder.exists(FILE_NAME):
        note = _parsed(folder, FILE_NAME)
        now = f"replaced by {note.replaced_by}; give that one" if note.replaced_by else "nothing took its place"
        raise UserError(f"{folder.url}: withdrawn ({note.why}), {now}")


def _parsed(storage: Storage, key: str) -> Withdrawn:
    try:
        return Withdrawn.model_validate_json(storage.read(key))
    except ValidationError:
        raise UserError(
            f"{storage.url}/{key} is damaged; put it back from a copy of the dataset, or remove it, "
            "which lets its name be given again"
        ) from None

"""Files of rules: one YAML file, read strictly."""

from pathlib import Path
from typing import TypeVar

import yaml
from pydantic import BaseModel, ValidationError

from marathon_pipeline.errors import UserError
from marathon_pipeline.plain_yaml import Loader

M = TypeVar("M", bound=BaseModel)


def load_rules(path: Path, model: type[M], help: str) -> M:
    """Raises UserError, which ends in `help`, where the file is not there, is no YAML, or says what no rule is."""
    try:
        text = path.read_text(encoding="utf-8")
        return model.model_validate(yaml.load(text, Loader=Loader) or {})  # noqa: S506 - a SafeLoader
    except (OSError, UnicodeDecodeError, yaml.YAMLError, RecursionError, ValueError) as error:
        if isinstance(error, ValidationError):
            first = error.errors(include_url=False)[0]
            where = " ".join(f"#{part + 1}" if isinstance(part, int) else str(part) for part in first["loc"])
            said = f"{where}: {first['msg'].removeprefix('Value error, ')}"
        else:
            said = " ".join(str(error).split())[:200]
        raise UserError(f"{path}: {said}; {help}") from None

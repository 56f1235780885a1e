"""How a job file is read: YAML, `key=value` settings over it, strict settings out of it."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import BaseModel, ValidationError

from marathon_pipeline.errors import UserError
from marathon_pipeline.plain_yaml import Loader
from marathon_pipeline.shipped import shipped

M = TypeVar("M", bound=BaseModel)


def job_text(job: str, known: Sequence[str]) -> str:
    """Of a path, or of a shipped file; `known`: the shipped ones that would do. Raises UserError for others."""
    path = Path(job) if Path(job).exists() else shipped(job)
    try:
        return path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise UserError(f"{job}: no such job file (shipped ones: {', '.join(known)})") from None
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{job}: cannot be read ({type(error).__name__}); give a YAML file in UTF-8") from None


def parse(model: type[M], text: str, job: str, settings: Sequence[str], *, begin: str, documented: str) -> M:
    """`job` names the file in errors. begin: what such a file begins with; documented: the page of its settings.

    Raises UserError.
    """
    try:
        fields = yaml.load(text, Loader=Loader)  # noqa: S506 - a SafeLoader
    except RecursionError:
        raise UserError(f"{job}: nested too deeply; begin with `{begin}`") from None
    except ValueError as error:  # such as a date that no calendar has
        raise UserError(f"{job}: {' '.join(str(error).split())[:200]}; put quotes around it") from None
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f" line {mark.line + 1}" if mark else ""
        what = getattr(error, "problem", None) or "unreadable"
        raise UserError(f"{job}{where}: not YAML ({what}); mend it") from None
    if not isinstance(fields, dict):
        raise UserError(f"{job}: holds no settings; begin with `{begin}`")
    for setting in settings:
        _set(fields, setting)
    try:
        return model.model_validate(fields)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        key = ".".join(str(part) for part in first["loc"])
        more = f"; {error.error_count() - 1} more" if error.error_count() > 1 else ""
        raise UserError(f"{job}: {key}: {_said(first, documented)}{more}") from None


def _said(error: Any, documented: str) -> str:
    if error["type"] == "extra_forbidden":
        return f"no such setting ({documented} lists them); delete it or mend its name"
    if error["type"] == "missing":
        return "is missing; give it, in the file or by --set"
    return f"{error['msg'].removeprefix('Value error, ')} (found {str(error['input'])[:60]!r})"


def _set(fields: dict[str, Any], setting: str) -> None:
    key, equals, value = setting.partition("=")
    if not equals or not key:
        raise UserError(f"--set {setting}: not of the form key=value, such as segment.min_seconds=60")
    *folders, last = key.split(".")
    holder: Any = fields
    for folder in folders:
        holder = holder[_place(holder, folder, setting)] if isinstance(holder, list) else holder.setdefault(folder, {})
        if not isinstance(holder, dict | list):
            raise UserError(f"--set {setting}: `{folder}` holds no settings of its own")
    try:
        read = yaml.load(value, Loader=Loader)  # noqa: S506 - a SafeLoader
    except (yaml.YAMLError, ValueError, RecursionError):
        read = value
    holder[_place(holder, last, setting) if isinstance(holder, list) else last] = read


def _place(items: list[Any], number: str, setting: str) -> int:
    if not number.isdecimal() or int(number) >= len(items):
        raise UserError(f"--set {setting}: `{number}` is no item of a list of {len(items)}; count from 0")
    return int(number)

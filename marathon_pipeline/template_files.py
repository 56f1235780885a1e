"""Reading the YAML of a template file, and saying what is wrong with it in words that its editor can act on.

YAML is read in its failsafe schema: every value is the text that stands there, so an option `no` or `1:30` stays what
was written.
"""

import difflib
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

import yaml
from pydantic_core import ErrorDetails, PydanticCustomError


class Problem(NamedTuple):
    """What is wrong in a template file. `key` names the place: a key, an item of a list as `#2`, or a line."""

    file: str  # within the templates' folder
    key: str
    problem: str
    mend: str

    def __str__(self) -> str:
        return f"{self.file}: {self.key}: {self.problem} ({self.mend})"


class _Strict(yaml.constructor.BaseConstructor):
    """No half characters, and no key given twice."""

    def construct_scalar(self, node: yaml.ScalarNode) -> str:
        value = str(super().construct_scalar(node))
        if not value.isascii() and any("\ud800" <= letter <= "\udfff" for letter in value):
            raise yaml.MarkedYAMLError(problem="half a character (\\ud800 to \\udfff)", problem_mark=node.start_mark)
        return value

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[object, object]:
        mapping: dict[object, object] = super().construct_mapping(node, deep=deep)
        seen: set[object] = set()
        for key, _ in node.value:
            if key.value in seen:
                raise yaml.MarkedYAMLError(problem=f"`{key.value}` is given twice", problem_mark=key.start_mark)
            seen.add(key.value)
        return mapping


class _Loader(_Strict, yaml.BaseLoader):
    """The failsafe schema, without aliases: they can grow without bound."""

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        if self.check_event(yaml.AliasEvent):
            mark = self.get_mark()
            raise yaml.MarkedYAMLError(problem="aliases (*name) are not read", problem_mark=mark)
        return super().compose_node(parent, index)


def _parsed(text: str) -> object:
    """By libyaml, where PyYAML has it: every command reads the templates, and without it that takes 0.1 s.

    What it refuses, and aliases, are left to the loader that says what is wrong.
    """
    if yaml.__with_libyaml__:

        class Quick(_Strict, yaml.CBaseLoader): ...

        with suppress(yaml.YAMLError, UnicodeError):
            if not any(isinstance(event, yaml.AliasEvent) for event in yaml.parse(text, Loader=yaml.CBaseLoader)):
                return yaml.load(text, Loader=Quick)  # noqa: S506 - as below
    return yaml.load(text, Loader=_Loader)  # noqa: S506 - BaseLoader makes text, lists and mappings only


def load_yaml(path: Path) -> object:
    """The parsed file; whatever keeps it from being read is raised as `broken` says it."""
    try:
        text = path.read_bytes().decode("utf-8-sig")
        return _parsed(text)
    except FileNotFoundError:
        raise broken("the file", "is missing", "restore it, or write it as docs/templates.md says") from None
    except OSError as error:
        raise broken("the file", f"cannot be read: {error.strerror}", "make it a readable file") from error
    except UnicodeDecodeError as error:
        raise broken(f"byte {error.start}", "is not UTF-8", "save the file as UTF-8") from error
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else 1
        mend = "mend the YAML: mind indents, and quote text that holds `: ` or starts with a sign"
        raise broken(f"line {line}", error.problem or "is no YAML", mend) from error
    except yaml.reader.ReaderError as error:
        line = text.count("\n", 0, error.position) + 1
        raise broken(f"line {line}", f"holds a control character: {error.reason}", "delete it") from error
    except RecursionError:
        raise broken("the file", "is nested too deeply", "write it as docs/templates.md says") from None


_EXPLANATIONS = {
    "missing": ("is missing", "add it"),
    "model_type": ("is not a set of keys", "write `key: value` lines"),
    "dict_type": ("is not a set of keys", "write `key: value` lines under it, indented"),
    "tuple_type": ("is not a list", "write one item a line, each after a `- `"),
    "string_type": ("is not text", "write text; quote it where it looks like something else"),
    "string_too_short": ("is empty", "write it, or delete the key where it may be absent"),
    "too_short": ("is empty", "give at least one"),
    "int_parsing": ("is not a whole number", "write a whole number, such as 3"),
    "int_type": ("is not a whole number", "write a whole number, such as 3"),
    "greater_than_equal": ("is too small", "write a larger number"),
}


def explained(error: ErrorDetails) -> tuple[str, str, str]:
    """Key, problem and mend of one of Pydantic's errors."""
    kind, context = error["type"], error.get("ctx", {})
    path = [f"#{part + 1}" if isinstance(part, int) else part or "(empty)" for part in error["loc"]]
    if kind == "rule":
        return " ".join([*path, context["key"]]), context["problem"], context["mend"]
    key = " ".join(path) or "the file"
    if kind == "extra_forbidden":
        return key, "is no key of this file", "correct its spelling, or delete it; docs/templates.md lists the keys"
    if kind == "literal_error":
        return key, f"`{error['input']}` is not known", f"write {context['expected']}"
    return key, *_EXPLANATIONS.get(kind, (str(error["msg"]), "see docs/templates.md"))


def broken(key: str, problem: str, mend: str) -> PydanticCustomError:
    """What a check raises, inside a model's validator or outside."""
    one_line = " ".join(problem.split())
    return PydanticCustomError("rule", "{problem}", {"key": key, "problem": one_line, "mend": mend})


def of_rule(error: PydanticCustomError) -> tuple[str, str, str]:
    """Key, problem and mend of an error made by `broken`."""
    context = error.context or {}
    return context["key"], context["problem"], context["mend"]


def did_you_mean(word: str, known: Iterable[str]) -> str:
    close = difflib.get_close_matches(word, list(known), n=1)
    return f"did you mean `{close[0]}`?" if close else "see docs/templates.md for the names"

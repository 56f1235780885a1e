"""A judge by rule: right is what stands in the notes word for word. It errs as often as it is told to.

`miss`: share of the right answers that it does not accept; `specific`, `vague`: shares of the wrong ones of either kind
that it does. It errs by the hash of what is asked, so that a run meets the same errors whatever its timing.
"""

import re
from collections.abc import Mapping
from pathlib import Path
from random import Random

import yaml

from served.answers import Asked

NAMES = ("blind_answer", "grounded_answer", "judgement")
_TEMPLATES = Path(__file__).parents[2] / "task_templates" / "verify"
VAGUE = set(yaml.safe_load((_TEMPLATES / "plants.yaml").read_text())["vague"])
_OPTION = re.compile(r"^([A-D])\. (.*)$", re.MULTILINE)


def answer(to: Asked, errors: Mapping[str, float]) -> dict[str, str]:
    notes, _, asked = to.user.rpartition("\nQuestion: ")
    dice = Random(to.conversation)
    errs = {kind: dice.random() < errors.get(kind, 0.0) for kind in ("miss", "specific", "vague")}
    said = {"reference": to.code, "because": "So it is written."}
    if to.name == "judgement":
        return said | {"verdict": _worth(asked.split("\nAnswer: ")[1].splitlines()[0], notes, errs)}
    options = options_in(asked)
    if to.name == "blind_answer":
        del said["because"]
        return said | {"letter": _guess(asked.splitlines()[0], options, errs, dice)}
    return said | {"letter": _borne_out(options, notes, errs, dice)}


def options_in(asked: str) -> dict[str, str]:
    """By letter."""
    return dict(_OPTION.findall(asked))


def _worth(answered: str, notes: str, errs: Mapping[str, bool]) -> str:
    if _stands_in(answered, notes):
        return "wrong" if errs["miss"] else "right"
    kind = "vague" if answered in VAGUE else "specific"
    return "right" if errs[kind] else {"vague": "vague", "specific": "wrong"}[kind]


def _guess(question: str, options: Mapping[str, str], errs: Mapping[str, bool], dice: Random) -> str:
    """What the question gives away; else one option, the same in every order."""
    given = [letter for letter, option in options.items() if _stands_in(option, question)]
    if not given:
        return min(options, key=lambda letter: Random(question + options[letter]).random())
    return dice.choice([letter for letter in options if letter not in given]) if errs["miss"] else given[0]


def _borne_out(options: Mapping[str, str], notes: str, errs: Mapping[str, bool], dice: Random) -> str:
    found = [letter for letter, option in options.items() if _stands_in(option, notes)]
    if len(found) == 1:
        others = ["none", *(letter for letter in options if letter not in found)]
        return dice.choice(others) if errs["miss"] else found[0]
    vague = [letter for letter, option in options.items() if option in VAGUE]
    if vague:
        return vague[0] if errs["vague"] else "none"
    return dice.choice(sorted(options)) if errs["specific"] else "none"


def _stands_in(text: str, notes: str) -> bool:
    return text.strip(" .").casefold() in notes.casefold()

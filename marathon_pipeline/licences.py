"""Licences: of what a dataset holds, what may be passed on, and why.

A source's rule decides on its video and on all that was written about it; a model's rule on what that model wrote.
What no rule allows is not released.
"""

from collections.abc import Iterable
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Self

from pydantic import BaseModel, ConfigDict, Field

from marathon_pipeline.rules_file import load_rules


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class _Rule(_Strict):
    """What is not said to be allowed is not. `evidence`: where that is stated, an address or a sentence."""

    captions: bool = False
    qa: bool = False
    evidence: str = Field(min_length=1)

    def allows_qa(self, retold: bool) -> bool:
        """retold: the answers retell the video, as its captions do: as captions they have to be allowed too."""
        return self.qa and (self.captions or not retold)


class SourceRule(_Rule):
    """Patterns with `*` and `?`, in any case. `local`: only of files (true), or only of what has a URL (false)."""

    data_source: str = "*"
    licence: str = "*"
    local: bool | None = None
    media: bool = False

    @property
    def something(self) -> bool:
        """Whether anything of such a source is released."""
        return self.media or self.captions or self.qa

    def takes(self, data_source: str, licence: str, url: str) -> bool:
        fits = _fits(data_source, self.data_source) and _fits(licence, self.licence)
        return fits and self.local in (None, not url)


class ModelRule(_Rule):
    """`model`: a pattern of the annotator's name, with its revision where that is known."""

    model: str


NO_RULE = "no rule names it"


class Licences(_Strict):
    """The first rule that fits decides."""

    sources: tuple[SourceRule, ...] = ()
    models: tuple[ModelRule, ...] = ()

    def of_source(self, data_source: str, licence: str, url: str) -> SourceRule:
        """url: empty for a local file."""
        return next((r for r in self.sources if r.takes(data_source, licence, url)), SourceRule(evidence=NO_RULE))

    def of_model(self, annotator: str) -> ModelRule:
        found = (rule for rule in self.models if _fits(annotator, rule.model))
        return next(found, ModelRule(model=annotator, evidence=NO_RULE))

    @classmethod
    def permitting_all(cls, evidence: str) -> Self:
        """For those who have seen to it by themselves."""
        everything = {"captions": True, "qa": True, "evidence": evidence}
        return cls(sources=(SourceRule(media=True, **everything),), models=(ModelRule(model="*", **everything),))


UNRESTRICTED = Licences.permitting_all("nobody asked for licences to be looked at")


class Allowed(_Strict):
    """A rule of sources as a release applied it."""

    rule: SourceRule
    videos: int


def applied(licences: Licences, sources: Iterable[tuple[str, str, str]]) -> tuple[Allowed, ...]:
    """What the rules came to. sources: collection, licence and URL of each video."""
    counts: dict[SourceRule, int] = {}
    for source in sources:
        rule = licences.of_source(*source)
        counts[rule] = counts.get(rule, 0) + 1
    return tuple(
        Allowed(rule=rule, videos=counts[rule])
        for rule in (*licences.sources, SourceRule(evidence=NO_RULE))
        if rule in counts
    )


def load_licences(path: Path) -> Licences:
    """Raises UserError where the file is not there, is no YAML, or says what no rule is."""
    return load_rules(path, Licences, "docs/licences.md shows how rules are written")


def _fits(name: str, pattern: str) -> bool:
    return fnmatchcase(name.lower(), pattern.lower())

"""One row of a manifest: its columns, and the source that it names."""

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Self

from pydantic import (
    AliasChoices,
    BaseModel,
    ConfigDict,
    Field,
    JsonValue,
    ValidationError,
    field_validator,
    model_validator,
)

from marathon_pipeline.records import Source, Span, Split
from marathon_pipeline.sources.identity import (
    SourceError,
    canonical_url,
    content_of,
    source_id_of_name,
    source_id_of_url,
)


class ManifestRow(BaseModel):
    """The columns of a manifest. A column that is not listed here is kept in the source's metadata."""

    model_config = ConfigDict(
        title="A row of a Marathon manifest",
        frozen=True,
        extra="allow",
        populate_by_name=True,
        str_strip_whitespace=True,
        allow_inf_nan=False,
        json_schema_extra={
            "oneOf": [{"required": ["url"]}, {"required": ["path"]}],
            "dependentRequired": {"start": ["end"], "end": ["start"]},
        },
    )
    __pydantic_extra__: dict[str, JsonValue]

    url: str = Field(
        "", description="An http or https URL of one video, or of a page that shows one; or an object, s3://BUCKET/KEY."
    )
    path: str = Field("", description="A local file, relative to the manifest's folder.")
    id: str = Field(
        "", description="The source's own id; without one it comes from the URL or from the file's content."
    )
    data_source: str = Field(
        "",
        description="The collection the source comes from, such as panda-70m; it prefixes the id.",
        pattern="^[A-Za-z0-9_-]*$",
    )
    licence: str = Field("", validation_alias=AliasChoices("licence", "license"), description="Such as CC-BY-4.0.")
    licence_evidence: str = Field("", description="Where the licence is stated: a URL or a sentence.")
    opt_out: str = Field("", description="Who asked that it is not used, where and when: it is never fetched.")
    split: Split | None = Field(None, description="Overrides the split that the source would be given.")
    start: float | None = Field(None, ge=0, description="Start of a known segment, in seconds of the source.")
    end: float | None = Field(None, gt=0, description="End of a known segment, in seconds of the source.")
    metadata: dict[str, JsonValue] = Field({}, description="Anything else worth keeping.")

    @field_validator("metadata", mode="before")
    @classmethod
    def _metadata_of_text(cls, value: Any) -> Any:
        """CSV has no objects: there the cell holds one as JSON text."""
        try:
            return json.loads(value) if isinstance(value, str) else value
        except RecursionError:
            raise SourceError("metadata is nested too deeply", "correct it, or delete the row") from None

    @model_validator(mode="after")
    def _names_one_source(self) -> Self:
        if not self.url and not self.path:
            raise SourceError("url and path are both empty", "give a URL or a path, or delete the row")
        if self.url and self.path:
            raise SourceError("url and path are both given", "keep one of them")
        if (self.start is None) != (self.end is None):
            raise SourceError(
                "of start and end only one is given", "give both in seconds, or neither for the whole source"
            )
        if self.start is not None and self.end is not None and self.start >= self.end:
            raise SourceError(
                f"the segment ends at {self.end:g} s but starts at {self.start:g} s", "put start before end"
            )
        return self

    def source(self, folder: Path, previous: Mapping[str, Source]) -> Source:
        """The source that this row of a manifest in `folder` names; `previous` by absolute path. Raises SourceError."""
        given = {
            "data_source": self.data_source,
            "licence": self.licence,
            "licence_evidence": self.licence_evidence,
            "opt_out": self.opt_out,
            "split": self.split,
            "segments": () if self.start is None or self.end is None else (Span(start=self.start, end=self.end),),
            "metadata": self._metadata(),
        }
        if self.url:
            source_id = source_id_of_url(self.url)
            if self.id and not source_id.startswith("yt_"):  # one YouTube video is one source, whoever lists it
                source_id = source_id_of_name(self.id, self.data_source)
            return Source.model_validate({**given, "source_id": source_id, "url": canonical_url(self.url)})
        named = source_id_of_name(self.id, self.data_source) if self.id else ""
        if re.search("[\0\ud800-\udfff]", self.path):
            raise SourceError("path holds a NUL or half a character", "correct the path")
        path = (folder / self.path).absolute()
        content = content_of(path, previous.get(str(path)))
        found = {"source_id": named or content.source_id, "path": str(path), **content._asdict()}
        return Source.model_validate({**given, **found})

    def _metadata(self) -> str:
        free = {**(self.__pydantic_extra__ or {}), **self.metadata}
        try:
            return json.dumps(free, sort_keys=True, ensure_ascii=False, allow_nan=False)
        except ValueError:
            raise SourceError("metadata holds a number that is not finite", "write null, or leave it out") from None


def row_of(cells: Mapping[str, object]) -> ManifestRow:
    """Validate a row's cells; empty ones count as not given, so that the formats agree. Raises SourceError."""
    try:
        return ManifestRow.model_validate({k: v for k, v in cells.items() if v is not None and v != ""})
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        cause = first.get("ctx", {}).get("error")
        if isinstance(cause, SourceError):
            raise cause from None
        column = ".".join(str(part) for part in first["loc"])
        raise SourceError(f"{column}: {first['msg']}", "correct it, or delete the row") from None


def manifest_schema() -> str:
    """The JSON schema of a row, as it lies in `manifests/manifest.schema.json`."""
    return json.dumps(ManifestRow.model_json_schema(), indent=2) + "\n"

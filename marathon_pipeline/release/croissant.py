"""The Croissant 1.0 description of a release: every file with its sha256, every column with its type.

https://docs.mlcommons.org/croissant/docs/croissant-spec.html
"""

import pyarrow as pa

from marathon_pipeline.dataset.parquet import arrow_schema
from marathon_pipeline.release.release_file import Release, pretty
from marathon_pipeline.release.rows import CaptionRow, VideoRow, measured_row

_FORMATS = {".tar": "application/x-tar", ".parquet": "application/x-parquet"}
_TYPES = {pa.string(): "sc:Text", pa.int64(): "sc:Integer", pa.float64(): "sc:Float", pa.bool_(): "sc:Boolean"}
_CONTEXT = {
    "@language": "en",
    "@vocab": "https://schema.org/",
    "citeAs": "cr:citeAs",
    "column": "cr:column",
    "conformsTo": "dct:conformsTo",
    "cr": "http://mlcommons.org/croissant/",
    "data": {"@id": "cr:data", "@type": "@json"},
    "dataType": {"@id": "cr:dataType", "@type": "@vocab"},
    "dct": "http://purl.org/dc/terms/",
    "examples": {"@id": "cr:examples", "@type": "@json"},
    "extract": "cr:extract",
    "field": "cr:field",
    "fileObject": "cr:fileObject",
    "fileProperty": "cr:fileProperty",
    "fileSet": "cr:fileSet",
    "format": "cr:format",
    "includes": "cr:includes",
    "isLiveDataset": "cr:isLiveDataset",
    "jsonPath": "cr:jsonPath",
    "key": "cr:key",
    "md5": "cr:md5",
    "parentField": "cr:parentField",
    "path": "cr:path",
    "rai": "http://mlcommons.org/croissant/RAI/",
    "recordSet": "cr:recordSet",
    "references": "cr:references",
    "regex": "cr:regex",
    "repeated": "cr:repeated",
    "replace": "cr:replace",
    "sc": "https://schema.org/",
    "separator": "cr:separator",
    "source": "cr:source",
    "subField": "cr:subField",
    "transform": "cr:transform",
}


def describe(release: Release) -> bytes:
    files = {path: info for path, info in release.files.items() if path.endswith(tuple(_FORMATS))}
    distribution: list[dict[str, object]] = [
        {
            "@type": "cr:FileObject",
            "@id": path,
            "name": path,
            "contentUrl": path,
            "contentSize": f"{info.bytes} B",
            "encodingFormat": _FORMATS[path[path.rindex(".") :]],
            "sha256": info.sha256,
        }
        for path, info in sorted(files.items())
    ]
    distribution.append(
        {
            "@type": "cr:FileSet",
            "@id": "qa-tables",
            "name": "qa-tables",
            "encodingFormat": _FORMATS[".parquet"],
            "includes": "qa/*/*.parquet",
        }
    )
    sets = [_record_set("qa", {"fileSet": {"@id": "qa-tables"}}, measured_row())]
    sets += [
        _record_set(name, {"fileObject": {"@id": f"{name}.parquet"}}, record)
        for name, record in (("videos", VideoRow), ("captions", CaptionRow))
        if f"{name}.parquet" in files
    ]
    annotators = ", ".join(release.annotators)
    return pretty(
        {
            "@context": _CONTEXT,
            "@type": "sc:Dataset",
            "conformsTo": "http://mlcommons.org/croissant/1.0",
            "name": release.name,
            "description": f"{release.title}: {release.qa} question-answer pairs over {release.videos.videos} videos, "
            f"written by {annotators}.",
            "license": release.licence,
            "url": "README.md",
            "version": "1.0.0",
            "distribution": distribution,
            "recordSet": sets,
        }
    )


def _record_set(name: str, source: dict[str, object], record: type) -> dict[str, object]:
    return {
        "@type": "cr:RecordSet",
        "@id": name,
        "name": name,
        "field": [_field(f"{name}/{column.name}", column, source) for column in arrow_schema(record)],
    }


def _field(id: str, column: pa.Field, source: dict[str, object]) -> dict[str, object]:
    """A list becomes a repeated field; a list of structs, one with a sub-field for each of their fields."""
    many = pa.types.is_list(column.type)
    kind = column.type.value_type if many else column.type
    read = {**source, "extract": {"column": column.name}}
    repeated: dict[str, object] = {"repeated": True} if many else {}
    if not pa.types.is_struct(kind):
        return _leaf(id, kind, read) | repeated
    parts = [_leaf(f"{id}/{part.name}", part.type, {**read, "transform": {"jsonPath": part.name}}) for part in kind]
    return {"@type": "cr:Field", "@id": id, "name": id, "subField": parts, **repeated}


def _leaf(id: str, kind: pa.DataType, source: dict[str, object]) -> dict[str, object]:
    return {"@type": "cr:Field", "@id": id, "name": id, "dataType": _TYPES[kind], "source": source}

"""Write an export as Parquet for Hugging Face `datasets`: a row per annotation, with its regions as a list.

`image` is an Image feature, with bytes if the export has images, else with the address only. Masks are COCO RLE
(`pycocotools.mask.decode` after `.encode()` of `counts`). Field values are a list of {field, values}, because projects
have different fields. Only this module imports pyarrow, and only when it is needed.
"""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from learning.export.counts import Content
from learning.export.splits import Side
from learning.export.staging import ExportRefused
from learning.submitted.regions import SubmittedRegion

if TYPE_CHECKING:
    import pyarrow as pa

_STRING, _INT, _FLOAT, _BOOL = ({"dtype": name, "_type": "Value"} for name in ("string", "int64", "float64", "bool"))
_TEXTS = {"feature": _STRING, "_type": "List"}
_BY_FIELD = {"feature": {"field": _STRING, "values": _TEXTS}, "_type": "List"}
_FOUR = {"feature": _INT, "_type": "List"}
_FEATURES: dict[str, Any] = {
    "image": {"_type": "Image"},
    "file_name": _STRING,
    "width": _INT,
    "height": _INT,
    "task": _INT,
    "annotation": _INT,
    "annotator": _INT,
    "lead_time_s": _FLOAT,
    "updated_at": _STRING,
    "regions": {
        "feature": {
            "region": _STRING,
            "label": _STRING,
            "parent": _STRING,
            "is_part": _BOOL,
            "mask": {"size": _FOUR, "counts": _STRING},
            "bbox": _FOUR,
            "area": _INT,
            "texts": _BY_FIELD,
            "suggestion": _BY_FIELD,
            "changed": _TEXTS,
            "origin": _STRING,
            "model_version": _STRING,
        },
        "_type": "List",
    },
}
_ROWS_PER_GROUP = 100  # with images; a reader loads one group into memory


def parquet_bytes(content: Content, side: Side, image_folder: Path | None) -> bytes:
    """Return one side as a Parquet file; `image_folder` None: the export has only addresses.

    Raises:
        ExportRefused: pyarrow is not installed.
    """
    try:
        import pyarrow as pa
        import pyarrow.parquet as pq
    except ImportError as error:
        raise ExportRefused(f"the layout parquet needs pyarrow, which is not installed here ({error})") from error

    schema = _schema()
    buffer = io.BytesIO()
    annotations = content.annotations_on(side)
    with pq.ParquetWriter(buffer, schema, compression="zstd") as writer:
        for start in range(0, max(len(annotations), 1), _ROWS_PER_GROUP):
            group = annotations[start : start + _ROWS_PER_GROUP]
            rows = [_utf8(_row(content, regions, image_folder)) for regions in group]
            writer.write_table(pa.Table.from_pylist(rows, schema))
    return buffer.getvalue()


def _row(content: Content, regions: list[SubmittedRegion], image_folder: Path | None) -> dict[str, Any]:
    first = regions[0]
    data = None if image_folder is None else (image_folder / first.image).read_bytes()
    address = first.image if data is not None else content.images[first.image][1]
    return {
        "image": {"bytes": data, "path": address},
        "file_name": first.image,
        "width": first.image_wh[0],
        "height": first.image_wh[1],
        "task": first.task,
        "annotation": first.annotation,
        "annotator": first.annotator,
        "lead_time_s": first.lead_time_s,
        "updated_at": first.updated_at,
        "regions": [
            {
                "region": region.region,
                "label": region.label,
                "parent": region.parent,
                "is_part": region.is_part,
                "mask": dict(region.mask),
                "bbox": list(region.bbox),
                "area": region.area,
                "texts": _by_field(region.texts),
                "suggestion": _by_field(region.suggestion or {}),
                "changed": list(region.changed),
                "origin": region.origin,
                "model_version": region.model_version,
            }
            for region in regions
        ],
    }


def _by_field(texts: dict[str, list[str]]) -> list[dict[str, Any]]:
    return [{"field": name, "values": values} for name, values in sorted(texts.items())]


def _utf8(value: Any) -> Any:
    """Replace lone surrogates, which a browser can send and Arrow refuses, by escapes."""
    if isinstance(value, str):
        return value.encode("utf-8", "backslashreplace").decode("utf-8")
    if isinstance(value, dict):
        return {key: _utf8(inner) for key, inner in value.items()}
    return [_utf8(inner) for inner in value] if isinstance(value, list) else value


def _schema() -> pa.Schema:
    import pyarrow as pa

    fields = [pa.field(name, _arrow_type(feature)) for name, feature in _FEATURES.items()]
    described = json.dumps({"info": {"features": _FEATURES}})
    return pa.schema(fields, metadata={"huggingface": described})


def _arrow_type(feature: dict[str, Any]) -> pa.DataType:
    """Return the Arrow type that `datasets` uses for a feature."""
    import pyarrow as pa

    kind = feature.get("_type")
    if kind == "Image":
        return pa.struct({"bytes": pa.binary(), "path": pa.string()})
    if kind == "Value":
        return {"string": pa.string(), "int64": pa.int64(), "float64": pa.float64(), "bool": pa.bool_()}[
            feature["dtype"]
        ]
    if kind == "List":
        return pa.list_(_arrow_type(feature["feature"]))
    return pa.struct({name: _arrow_type(inner) for name, inner in feature.items()})

"""The description of the service's addresses in OpenAPI's form."""

from __future__ import annotations

from typing import Any, get_args

from boxwright.serving.options import ServingOptions
from boxwright.serving.question import AnswerForm
from boxwright.serving.served_model import ServedModel
from boxwright.version import __version__

_REASONS = {
    "400": "the image is damaged, or a parameter is wrong",
    "401": "the key is missing or wrong",
    "408": "the body did not arrive in time",
    "413": "too many bytes, pixels or images",
    "429": "too many images are waiting; Retry-After says when to try again",
    "500": "the model failed",
    "504": "no answer in time",
}


def describe_api(model: ServedModel, options: ServingOptions) -> dict[str, Any]:
    """Describe all addresses, with the classes and bounds of this service."""
    tells = {
        "/health": ("The process is alive", "application/json"),
        "/ready": ("The model has predicted an image; 503 before that", "application/json"),
        "/metrics": ("Counts in Prometheus' text form", "text/plain"),
        "/model": ("Classes, input format, thresholds and origin of the model", "application/json"),
        "/openapi.json": ("This description", "application/json"),
        "/": ("A page to try the model", "text/html"),
    }
    paths: dict[str, Any] = {
        path: {"get": {"summary": summary, "responses": {"200": {"description": summary, "content": {kind: {}}}}}}
        for path, (summary, kind) in tells.items()
    }
    paths["/predict"] = {"post": _describe_predict(model, options)}
    security: dict[str, Any] = {} if options.key is None else {"security": [{"key": []}]}
    return {
        "openapi": "3.1.0",
        "info": {"title": "Boxwright", "version": __version__, "description": f"A model for {model.task}."},
        **security,
        "paths": paths,
        "components": {
            "schemas": _SCHEMAS,
            "securitySchemes": {"key": {"type": "http", "scheme": "bearer"}},
        },
    }


def _describe_predict(model: ServedModel, options: ServingOptions) -> dict[str, Any]:
    names = [one.name for one in model.categories]
    refusals = {status: {"description": reason, "content": _json("Refusal")} for status, reason in _REASONS.items()}
    file = {"type": "string", "format": "binary"}
    return {
        "summary": "Detect objects in images",
        "parameters": [
            _query("threshold", "least score, or tuned", {"type": "string", "default": str(options.threshold)}),
            _query(
                "classes", "names; all where left out", {"type": "array", "items": {"type": "string", "enum": names}}
            ),
            _query(
                "format", "of the answer", {"type": "string", "enum": list(get_args(AnswerForm)), "default": "json"}
            ),
        ],
        "requestBody": {
            "description": f"One image as it is, or a form of files; {options.max_bytes:,} bytes at most",
            "required": True,
            "content": {
                "image/*": {"schema": file},
                "multipart/form-data": {"schema": {"type": "object", "additionalProperties": file}},
            },
        },
        "responses": {
            "200": {
                "description": "Detections, best first; boxes as [x, y, width, height] in pixels",
                "content": {
                    "application/json": {"schema": {"anyOf": [_reference("Images"), _reference("CocoResults")]}},
                    "image/jpeg": {"schema": file},
                },
            },
            **refusals,
        },
    }


def _query(name: str, meaning: str, schema: dict[str, Any]) -> dict[str, Any]:
    return {"name": name, "in": "query", "description": meaning, "schema": schema}


def _reference(name: str) -> dict[str, str]:
    return {"$ref": f"#/components/schemas/{name}"}


def _json(name: str) -> dict[str, Any]:
    return {"application/json": {"schema": _reference(name)}}


def _object(optional: dict[str, Any] | None = None, **properties: Any) -> dict[str, Any]:
    return {"type": "object", "required": list(properties), "properties": {**properties, **(optional or {})}}


_WHOLE, _TEXT, _NUMBER = {"type": "integer"}, {"type": "string"}, {"type": "number"}
_MASK = _object(size={"type": "array", "items": _WHOLE}, counts=_TEXT)
_BOX = {"type": "array", "items": _NUMBER, "minItems": 4, "maxItems": 4}

_SCHEMAS: dict[str, Any] = {
    "Images": _object(images={"type": "array", "items": _reference("Image")}),
    "Image": _object(
        file_name=_TEXT, width=_WHOLE, height=_WHOLE, detections={"type": "array", "items": _reference("Detection")}
    ),
    "Detection": _object({"segmentation": _MASK}, category_id=_WHOLE, category_name=_TEXT, bbox=_BOX, score=_NUMBER),
    "CocoResults": {
        "type": "array",
        "items": _object(
            {"segmentation": _MASK}, image_id=_WHOLE, category_id=_WHOLE, bbox=_BOX, score=_NUMBER, file_name=_TEXT
        ),
    },
    "Refusal": _object(error=_TEXT),
}

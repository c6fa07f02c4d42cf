"""How the JSON schema of an answer goes over the wire: as a response format, as the parameters of a tool, or not at all."""

from collections.abc import Mapping
from typing import Any, Literal

How = Literal["json_schema", "tool", "none"]
_NAME = "answer"
# What OpenAI's strict mode takes (platform.openai.com/docs/guides/structured-outputs, "Supported schemas")
_STRICT_KEYWORDS = {
    "type", "properties", "required", "additionalProperties", "items", "enum", "const", "anyOf", "$ref", "$defs", "description", "title",
    "pattern", "format", "multipleOf", "minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "minItems", "maxItems",
}  # fmt: skip


def is_strict(schema: object) -> bool:
    """Whether strict mode takes a schema: every object closed, all its properties required, no keyword that it does not know."""
    if not isinstance(schema, Mapping) or set(schema) - _STRICT_KEYWORDS:
        return False
    properties = schema.get("properties", {})
    if schema.get("type") == "object" or properties:
        closed = schema.get("additionalProperties") is False and set(schema.get("required", ())) == set(properties)
        if not closed:
            return False
    inner = [*properties.values(), *schema.get("$defs", {}).values(), *schema.get("anyOf", ())]
    if "items" in schema:
        inner.append(schema["items"])
    return all(is_strict(part) for part in inner)


def parameters(schema: Mapping[str, Any] | None, how: How, *, objects_only: bool = True) -> dict[str, Any]:
    """What a chat completion is sent beside its messages, so that the answer keeps to `schema`.

    objects_only  the provider takes no schema whose root is not an object: then nothing is sent, and the prompt must do
    """
    if schema is None or how == "none" or ((objects_only or how == "tool") and schema.get("type") != "object"):
        return {}
    if how == "tool":
        function = {"name": _NAME, "description": "Give the answer.", "parameters": dict(schema)}
        return {
            "tools": [{"type": "function", "function": function}],
            "tool_choice": {"type": "function", "function": {"name": _NAME}},
        }
    strict = {"strict": True} if is_strict(schema) else {}
    return {"response_format": {"type": "json_schema", "json_schema": {"name": _NAME, "schema": dict(schema), **strict}}}

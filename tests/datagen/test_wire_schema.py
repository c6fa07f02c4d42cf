"""How a schema is sent."""

from typing import Any

import pytest

from datagen.wire_schema import is_strict, parameters

CLOSED = {"type": "object", "properties": {"a": {"type": "string"}}, "required": ["a"], "additionalProperties": False}
LIST = {"type": "array", "items": {"type": "string"}}


@pytest.mark.parametrize(
    ("schema", "strict"),
    [
        (CLOSED, True),
        ({**CLOSED, "properties": {"a": {"enum": ["x"]}}}, True),
        ({**CLOSED, "properties": {"a": {"type": "array", "items": CLOSED}}}, True),
        ({**CLOSED, "additionalProperties": True}, False),
        ({**CLOSED, "required": []}, False),
        ({**CLOSED, "oneOf": []}, False),
        ({**CLOSED, "properties": {"a": {"type": "object", "additionalProperties": {"type": "string"}}}}, False),
        ({**CLOSED, "properties": {"a": {"anyOf": [{"type": "null"}, {"minLength": 3}]}}}, False),
    ],
    ids=["closed", "enum", "nested", "open", "optional", "unknown keyword", "open inside", "inside anyOf"],
)
def test_strict_mode_is_asked_for_where_the_schema_qualifies(schema: dict[str, Any], strict: bool) -> None:
    assert is_strict(schema) is strict
    sent = parameters(schema, "json_schema")["response_format"]
    assert sent["json_schema"]["schema"] == schema
    assert sent["json_schema"].get("strict", False) is strict


def test_a_tool_carries_the_schema_where_only_tools_exist() -> None:
    sent = parameters(CLOSED, "tool")
    assert sent["tools"][0]["function"]["parameters"] == CLOSED
    assert sent["tool_choice"]["function"]["name"] == sent["tools"][0]["function"]["name"]


def test_a_list_is_sent_only_to_who_takes_one() -> None:
    assert parameters(LIST, "json_schema") == parameters(LIST, "tool", objects_only=False) == {}
    assert parameters(LIST, "json_schema", objects_only=False)["response_format"]["json_schema"]["schema"] == LIST


def test_nothing_is_sent_where_there_is_no_schema_or_no_way() -> None:
    assert parameters(None, "json_schema") == parameters(CLOSED, "none") == {}

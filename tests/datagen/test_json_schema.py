from pathlib import Path
from typing import Any

import pytest

from datagen.errors import ConfigError
from datagen.json_schema import check, violation
from datagen.taxonomy import load_taxonomy

SCHEMA: dict[str, Any] = {
    "type": "object",
    "required": ["intent"],
    "properties": {"intent": {"enum": ["late", "lost"]}, "items": {"type": "array", "items": {"type": "integer"}}},
}


def test_a_value_of_the_schema_breaks_nothing() -> None:
    assert violation({"intent": "late", "items": [1, 2]}, SCHEMA) is None


@pytest.mark.parametrize(
    ("value", "told"),
    [
        ({"intent": "gone"}, "intent: "),
        ({}, '(top): "intent" is a required property'),
        ({"intent": "late", "items": [1, "two"]}, "items.1: "),
        ({"items": ["two"]}, '(top): "intent" is a required property'),
        ([], "(top): "),
        ({"intent": "\ud800"}, "(top): half of a surrogate pair"),
    ],
)
def test_what_breaks_it_is_told_with_its_place_the_nearest_to_the_top_first(value: object, told: str) -> None:
    assert (violation(value, SCHEMA) or "").startswith(told)


def test_a_schema_that_is_none_is_refused_with_its_place() -> None:
    with pytest.raises(ValueError, match=r"properties\.a\.type: "):
        check({"properties": {"a": {"type": "strin"}}})


def test_a_taxonomy_with_such_a_schema_is_refused_before_anything_is_asked(shop_path: Path) -> None:
    text = shop_path.read_text()
    assert "type: object" in text
    shop_path.write_text(text.replace("type: object", "type: objekt"))
    with pytest.raises(ConfigError, match=r"shop\.yaml: task\.output_schema is no JSON schema .*type"):
        load_taxonomy(shop_path)

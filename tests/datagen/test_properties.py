"""Whatever comes in, what comes out is a record, a verdict or an error of ours: never a traceback."""

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import TypeAdapter

from datagen.design import Coverings
from datagen.errors import RetortError
from datagen.filters import EXAMPLE_FILTERS, FilterContext
from datagen.filters.checks import read_number
from datagen.filters.sql import Database, SqlError, differ
from datagen.filters.verify import verify
from datagen.lines import read_json_lines, read_table
from datagen.records import Example, Message, Task, Verifier
from datagen.second import agreement
from datagen.sources import read_passages
from datagen.taxonomy import Taxonomy, load_taxonomy

pytestmark = pytest.mark.filterwarnings("ignore::hypothesis.errors.NonInteractiveExampleWarning")
quick = settings(max_examples=80, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture])

TEXT = st.text(max_size=30)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | TEXT,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3),
    max_leaves=8,
)
NUMBERED = st.one_of(TEXT, st.from_regex(r"[-+]?[0-9,]{0,6}\.?[0-9]{0,4} ?(kg|%|\$)?", fullmatch=True))
VERIFIERS = st.one_of(
    st.builds(lambda truth: {"check": "numeric", "truth": {"known": {"q": truth}}}, JSON),
    st.builds(lambda unit, low: {"check": "numeric", "unit": unit, "min": low}, st.text(min_size=1, max_size=3), st.floats(allow_nan=False)),
    st.builds(lambda kind, truth: {"check": kind, "truth": {"known": {"q": truth}}}, st.sampled_from(["set", "list"]), JSON),
    st.builds(lambda sign: {"check": "set", "separator": sign, "allowed": ["a"]}, st.text(min_size=1, max_size=2)),
    st.builds(lambda how, truth: {"check": "equal", "match": how, "truth": {"known": {"q": truth}}}, st.sampled_from(["exact", "normalised"]), JSON),
)  # fmt: skip


@quick
@given(answer=JSON, field=st.none() | TEXT, verifier=VERIFIERS, text=st.booleans())
def test_a_verifier_gives_every_answer_one_verdict(answer: Any, field: str | None, verifier: dict[str, Any], text: bool) -> None:
    parsed = TypeAdapter(Verifier).validate_python({**verifier, "field": field})
    schema = None if text else {"type": "object"}
    task = Task(type="generation", system="s", input="i", instructions="x", output_schema=schema, verify=(parsed,))
    completion = answer if text and isinstance(answer, str) else json.dumps(answer if text else {"a": answer})
    fields = {"prompt": (Message(role="user", content="q"),), "completion": completion, "rejected": json.dumps(answer)}
    (verdict,) = verify([Example(item_id="a:topic:0", topic="a", generator="topic", **fields)], FilterContext(task=task))
    assert verdict.keep or (verdict.reason and ":" in verdict.reason)


@quick
@given(text=NUMBERED, unit=st.none() | st.text(min_size=1, max_size=2))
def test_reading_a_number_gives_a_finite_one_or_none(text: str, unit: str | None) -> None:
    number = read_number(text, unit)
    assert number is None or abs(number) < float("inf")


DATABASE = Database("CREATE TABLE t(a INTEGER, b VARCHAR); INSERT INTO t VALUES (1, 'x'), (2, NULL)")
WORDS = st.lists(
    st.sampled_from(
        [
            "SELECT",
            "FROM",
            "t",
            "a",
            "b",
            ",",
            "*",
            "(",
            ")",
            "WHERE",
            "=",
            "1",
            "'x'",
            "NULL",
            ";",
            "--",
            "DROP",
            "TABLE",
            "UNION",
            "ALL",
            "'",
        ]
    ),
    max_size=8,
)


@quick
@given(query=TEXT | WORDS.map(" ".join))
def test_any_text_as_sql_gives_rows_or_our_error(query: str) -> None:
    try:
        rows = DATABASE.rows(query)
    except SqlError as error:
        assert str(error)
    else:
        assert differ(rows, rows, ordered=True) is None
    assert list(DATABASE.rows("SELECT count(*) FROM t")) == [(2,)]


@quick
@given(one=JSON, other=JSON, label=st.none() | TEXT)
def test_agreement_is_a_share_and_does_not_depend_on_the_order(one: Any, other: Any, label: str | None) -> None:
    assert 0 <= agreement(one, other, label) <= 1
    assert agreement(one, other, label) == pytest.approx(agreement(other, one, label))
    assert agreement(one, one, label) == 1


@quick
@given(
    data=st.binary(max_size=200)
    | st.lists(JSON.map(json.dumps) | TEXT, max_size=4).map(lambda rows: "\n".join(rows).encode("utf-8", "replace"))
)
def test_any_bytes_as_a_file_of_rows_are_read_or_refused(tmp_path: Path, data: bytes) -> None:
    for name in ("rows.jsonl", "rows.csv"):
        path = tmp_path / name
        path.write_bytes(data)
        try:
            assert isinstance(read_table(path, "input", "answer"), dict)
            assert all(number for number, _ in read_json_lines(path))
        except RetortError as error:
            assert str(path) in str(error)


NODE = st.recursive(
    st.fixed_dictionaries({}, optional={"description": TEXT, "label": TEXT, "weight": st.floats() | TEXT, "seeds": st.lists(TEXT, max_size=2), "x": JSON}),
    lambda inner: st.fixed_dictionaries({"description": TEXT, "topics": st.dictionaries(TEXT, inner, max_size=3)}),
    max_leaves=6,
)  # fmt: skip
TASK = st.fixed_dictionaries(
    {"type": st.sampled_from(["generation", "classification", "?"]), "system": TEXT, "input": TEXT, "instructions": TEXT},
    optional={"label_field": TEXT, "abstain_label": TEXT, "output_schema": JSON, "forbidden": st.lists(TEXT, max_size=2), "verify": st.lists(VERIFIERS | JSON, max_size=2)},
)  # fmt: skip
TAXONOMY = st.fixed_dictionaries(
    {"name": st.sampled_from(["shop", "Shop!"]), "description": TEXT, "task": TASK, "topics": st.dictionaries(TEXT, NODE, max_size=3)},
    optional={
        "dimensions": st.dictionaries(TEXT, st.dictionaries(TEXT, st.fixed_dictionaries({}, optional={"weight": st.floats()}), max_size=2), max_size=2),
        "policy": JSON, "facts": JSON, "adversarial": JSON, "reasoning": JSON,
    },
)  # fmt: skip


def loaded(path: Path) -> None:
    try:
        taxonomy, _ = load_taxonomy(path)
    except RetortError as error:
        assert str(path) in str(error)
        assert "\n" not in str(error).strip()[:20]
    else:
        assert isinstance(taxonomy, Taxonomy)
        assert taxonomy.leaves()


@quick
@given(data=TAXONOMY)
def test_anything_shaped_like_a_taxonomy_is_loaded_or_refused(tmp_path: Path, data: dict[str, Any]) -> None:
    path = tmp_path / "t.yaml"
    path.write_bytes(yaml.safe_dump(data, allow_unicode=True).encode("utf-8", "replace"))
    loaded(path)


@quick
@given(data=st.binary(max_size=100) | st.text(alphabet="abc: -[]{}&*!?|>'\"#%@\n\t", max_size=60).map(str.encode))
def test_any_bytes_as_a_taxonomy_are_refused_with_the_file(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "t.yaml"
    path.write_bytes(data)
    with pytest.raises(RetortError, match=r"t\.yaml"):
        load_taxonomy(path)


@pytest.mark.parametrize(
    "text",
    [
        "a: &x [*x]",
        "topics: &x {a: *x}",
        "name: shop\ntopics: &t {a: {description: x, topics: *t}}",
        "[" * 5000,
        "a: !!python/object:os.system x",
        "\ud800",
    ],
)
def test_cycles_depth_and_tags_in_yaml_are_refused(tmp_path: Path, text: str) -> None:
    path = tmp_path / "t.yaml"
    path.write_bytes(text.encode("utf-8", "surrogatepass"))
    with pytest.raises(RetortError, match=r"t\.yaml"):
        load_taxonomy(path)


@quick
@given(text=st.text(max_size=200), answer=st.text(max_size=200), reasoning=st.none() | TEXT, language=st.sampled_from(["en", "de", "zh"]))
def test_any_text_gets_one_reason_with_its_kind_or_none(text: str, answer: str, reasoning: str | None, language: str) -> None:
    task = Task(type="generation", system="s", input="i", instructions="x", language=language)
    own = Example(
        item_id="a:topic:0", topic="a", generator="topic", prompt=(Message(role="user", content=text),), completion=answer, reasoning=reasoning
    )  # fmt: skip
    context = FilterContext(task=task)
    for name, decide in EXAMPLE_FILTERS.items():
        reason = decide(own, context)
        assert reason is None or reason.partition(":")[2], name


@quick
@given(data=st.binary(max_size=80) | st.text(max_size=80).map(str.encode), kind=st.sampled_from(["md", "txt", "html", "pdf"]))
def test_any_bytes_as_a_document_are_passages_or_one_error(tmp_path: Path, data: bytes, kind: str) -> None:
    for old in tmp_path.iterdir():
        old.unlink()
    (tmp_path / f"a.{kind}").write_bytes(data)
    try:
        found = read_passages(tmp_path, max_chars=200, overlap_chars=20)
    except RetortError as error:
        assert f"a.{kind}" in str(error)
    else:
        assert found
        assert all(0 < len(passage.text) <= 200 for passage in found)


@quick
@given(sizes=st.lists(st.integers(1, 4), max_size=3), seed=st.integers(0, 9))
def test_any_design_shows_every_value_and_is_the_same_again(sizes: list[int], seed: int) -> None:
    weights = {f"d{n}": {f"v{value}": 1.0 for value in range(size)} for n, size in enumerate(sizes)}
    count = 4 * max([1, *sizes]) ** 2
    drawn = [Coverings(weights, str(seed)).of("cell").values(index) for index in range(3)]
    sequence = Coverings(weights, str(seed)).of("cell")
    values = [sequence.values(index) for index in range(count)]
    assert values[:3] == drawn
    assert all({row[name] for row in values} == set(own) for name, own in weights.items())

"""Taxonomies: what loads, and what is refused with file, field and value."""

from pathlib import Path

import pytest

from datagen.errors import ConfigError
from datagen.records import Python
from datagen.taxonomy import Taxonomy, load_taxonomy, roll_up

TAXONOMIES = Path(__file__).parents[2] / "taxonomies"


@pytest.mark.parametrize("path", sorted(TAXONOMIES.glob("*.yaml")), ids=lambda p: p.stem)
def test_every_taxonomy_that_is_shipped_loads(path: Path) -> None:
    taxonomy, digest = load_taxonomy(path)
    assert taxonomy.name == path.stem
    assert len(taxonomy.leaves()) >= 3
    assert len(digest) == 64


def test_leaves_are_paths_in_order(shop: Taxonomy) -> None:
    assert [topic.path for topic in shop.leaves()] == ["parcels/broken", "parcels/late", "rest"]


def test_labels_join_the_descriptions_of_their_topics(shop: Taxonomy) -> None:
    assert shop.labels()["late"] == "a parcel is late"


def test_policy_lines_read_as_conditions_and_consequences(shop: Taxonomy) -> None:
    assert shop.policy_lines() == ["R1: intent = late, days >= 5 -> decision: act", "R2: intent = late, days missing -> decision: wait"]


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("weight: 2", "weight: -1", "topics.parcels.topics.late.weight is -1"),
        ("broken, seeds: [It", "broken, seds: [It", "topics.parcels.topics.broken.seds is not a known key. Did you mean 'seeds'?"),
        ("label: broken, ", "", "topics.parcels.topics.broken.label is missing"),
        ("abstain_label: other", "abstain_label: rest", "task.abstain_label is 'rest'"),
        ("days: missing", "weeks: missing", "policy.1.when.weeks is neither the label field nor a fact"),
        ("label: late, facts", "label: later, facts", "reasoning.0.label is 'later'"),
        ("calm: {weight: 3, note: plain words}, cross: {weight: 1}", "calm: {weight: 0}", "dimensions.tone: every value has weight 0"),
        ("name: shop", "name: shop\nname: shop", "'name' is written twice"),
        ("name: shop", "name: [shop", "not valid YAML"),
        ("description: a shop's help desk", "", "description is missing"),
        ("      late: {", "      la:te: {", "must not contain ':'"),
        ("{description: a parcel is late,", "{description: '  ',", "topics.parcels.topics.late.description is empty"),
        ("  rest: {description: anything else, label: other}", "  rest: {}", "topics.rest.description is missing"),
        ("  rest: {", "  parcels/late: {description: again, label: other}\n  rest: {", "two leaves have the path 'parcels/late'"),
        ("  rest: {", "  '': {description: nameless, label: other}\n  rest: {", "has an empty name on its way"),
        ("topics:\n  parcels:", "axes: {mood: ''}\ntopics:\n  parcels:", "axes.mood is empty"),
        ("    topics:\n      late", "    topics: &all\n      again: {description: x, topics: *all}\n      late", "leads back into itself"),
        ("description: parcels", "description: parcels\n    label: x", "move `label` and `seeds` to its leaves"),
    ],
)
def test_a_wrong_taxonomy_is_refused_with_file_and_field(shop_path: Path, old: str, new: str, message: str) -> None:
    text = shop_path.read_text()
    assert old in text
    shop_path.write_text(text.replace(old, new, 1))
    with pytest.raises(ConfigError) as error:
        load_taxonomy(shop_path)
    assert message in str(error.value)
    assert str(shop_path) in str(error.value)


def test_a_file_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot be read"):
        load_taxonomy(tmp_path / "none.yaml")


def test_a_file_that_is_a_list_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "x.yaml"
    path.write_text("- a\n")
    with pytest.raises(ConfigError, match="holds a list"):
        load_taxonomy(path)


def verifying(shop_path: Path, verify: str) -> Path:
    text = shop_path.read_text()
    assert "  label_field: intent" in text
    shop_path.write_text(text.replace("  label_field: intent", f"  verify: [{verify}]\n  label_field: intent", 1))
    return shop_path


def test_verifiers_find_their_files_beside_the_taxonomy(shop_path: Path) -> None:
    (shop_path.parent / "known.csv").write_text("question,answer\nhow many,5\n")
    (shop_path.parent / "known.jsonl").write_text('{"input": "how many", "answer": [1, 2]}\n')
    (shop_path.parent / "checks.py").write_text("raise SystemExit\ndef sound(example): ...\n")
    verify = (
        "{check: numeric, truth: {path: known.csv, input: question}}, {check: set, truth: {path: known.jsonl, known: {and: [3]}}}, "
        "{check: python, python: 'checks.py:sound'}, {check: sql, setup: 'CREATE TABLE t(a INT)'}, {check: regex, pattern: x}"
    )
    numeric, members, python, *_ = load_taxonomy(verifying(shop_path, verify))[0].task.verify
    assert numeric.truth is not None
    assert numeric.truth.known == {"how many": "5"}
    assert members.truth is not None
    assert members.truth.known == {"how many": [1, 2], "and": [3]}
    assert isinstance(python, Python)
    assert python.python == f"{shop_path.parent / 'checks.py'}:sound"


@pytest.mark.parametrize(
    ("verify", "message"),
    [
        ("{check: nothing}", "task.verify.0: Input tag 'nothing' found"),
        ("{check: numeric, tolerance: -1}", "tolerance is -1"),
        ("{check: numeric, truth: {}}", "a truth table needs `path`"),
        ("{check: equal}", "truth is missing"),
        ("{check: numeric, truth: {path: no.jsonl}}", "task.verify.0.truth.path is 'no.jsonl', which is not there"),
        ("{check: numeric, truth: {path: two.jsonl}}", "two.jsonl:2: 'a' has two answers"),
        ("{check: numeric, truth: {path: two.jsonl, answer: x}}", "two.jsonl:1: needs a text 'input' and 'x' (it has: input, answer)"),
        ("{check: numeric, truth: {path: bad.csv}}", "bad.csv:2: has another number of cells than the header"),
        ("{check: numeric, truth: {path: empty.csv}}", "empty.csv: has no rows"),
        ("{check: numeric, truth: {path: latin.csv}}", "latin.csv: is not UTF-8"),
        ("{check: numeric, truth: {path: quote.csv}}", "quote.csv: is not CSV"),
        ("{check: regex, pattern: '('}", "task.verify.0 (regex) cannot work: missing ), unterminated subpattern"),
        ("{check: json_schema, json_schema: {type: 5}}", "task.verify.0 (json_schema) cannot work: type: 5 is not valid"),
        ("{check: sql, setup: 'CREATE TABEL t(a)'}", "task.verify.0 (sql) cannot work: Parser Error"),
        ("{check: sql, setup: {a: ''}}", "`setup` is one script, or a script for each value of `dimension`"),
        ("{check: sql, dimension: zoo, setup: {a: ''}}", "task.verify.0.dimension is 'zoo'; the dimensions are: "),
        ("{check: python, python: checks}", "python is 'checks'"),
        ("{check: python, python: 'no.py:f'}", "task.verify.0.python is 'no.py', which is not there"),
        ("{check: python, python: 'checks.py:f'}", "checks.py defines no function 'f'; it defines: sound"),
        ("{check: python, python: 'wrong.py:f'}", "wrong.py cannot be read as Python"),
    ],
)
def test_a_verifier_that_cannot_work_is_refused_before_anybody_is_asked(shop_path: Path, verify: str, message: str) -> None:
    files = {
        "two.jsonl": b'{"input": "a", "answer": 1}\n{"input": "a", "answer": 2}\n', "bad.csv": b"input,answer\na,b,c\n",
        "empty.csv": b"input,answer\n", "latin.csv": b"input,answer\ncaf\xe9,1\n", "quote.csv": b'input,answer\n"a"b,1\n',
        "checks.py": b"def sound(example): ...\n", "wrong.py": b"def (\n",
    }  # fmt: skip
    for name, content in files.items():
        (shop_path.parent / name).write_bytes(content)
    with pytest.raises(ConfigError) as error:
        load_taxonomy(verifying(shop_path, verify))
    assert message in str(error.value)
    assert str(shop_path.parent) in str(error.value)


def test_anchors_that_make_billions_of_leaves_are_refused_at_once(tmp_path: Path) -> None:
    levels = ["l0: &a0 {x: {description: d}, y: {description: d}}"]
    levels += [f"l{n}: &a{n} {{x: {{description: d, topics: *a{n - 1}}}, y: {{description: d, topics: *a{n - 1}}}}}" for n in range(1, 40)]
    path = tmp_path / "x.yaml"
    path.write_text("\n".join(levels) + "\ntopics: *a39\n")
    with pytest.raises(ConfigError, match=r"topics has 1,099,511,627,776 leaves; at most 200,000"):
        load_taxonomy(path)


def test_axes_mean_what_the_taxonomy_says_or_what_they_mean_by_themselves(shop_path: Path) -> None:
    shop_path.write_text(shop_path.read_text().replace("topics:\n", "axes: {style: '', mood: how cross they are}\ntopics:\n", 1))
    notes = load_taxonomy(shop_path)[0].axis_notes()
    assert notes["mood"] == "how cross they are"
    assert "tone" in notes["style"]


def test_topics_are_summed_up_to_the_deepest_level_that_can_be_read() -> None:
    few = [f"a/b{n}" for n in range(5)]
    assert roll_up(few) == {path: path for path in few}
    many = [f"t{a}/m{b}/l{c}" for a in range(3) for b in range(20) for c in range(50)]
    assert roll_up(many)["t1/m7/l49"] == "t1/m7"
    assert set(roll_up(f"{path}/x{n}" for path in many for n in range(2)).values()) == set(roll_up(many).values())
    assert len(set(roll_up(str(n) for n in range(500)).values())) == 500

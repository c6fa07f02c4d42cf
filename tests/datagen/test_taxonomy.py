"""Taxonomies: what loads, and what is refused with file, field and value."""

from pathlib import Path

import pytest

from datagen.errors import ConfigError
from datagen.taxonomy import Taxonomy, load_taxonomy

TAXONOMIES = Path(__file__).parents[2] / "taxonomies"


@pytest.mark.parametrize("path", sorted(TAXONOMIES.glob("*.yaml")), ids=lambda p: p.stem)
def test_every_taxonomy_that_is_shipped_loads(path: Path) -> None:
    taxonomy, digest = load_taxonomy(path)
    assert taxonomy.name == path.stem
    assert len(taxonomy.leaves()) >= 10
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

"""The report: what the summary counts, what the terminal shows, and a page that loads nothing, runs nothing and holds what it is given."""

import json
import random
import re
from dataclasses import replace
from html.parser import HTMLParser
from io import StringIO
from pathlib import Path

import pytest
from rich.console import Console

from datagen import svg
from datagen.curate import curate
from datagen.records import Message, PlanItem, Request, Response, Verdict
from datagen.report import render, summarize
from datagen.report_page import page, write_page
from datagen.review import Decision, apply
from tests.datagen.conftest import NAMES

CHROMIUM = Path("/usr/bin/chromium")
PLACES = NAMES[:20]
EVIL = (
    "</dd><script>document.title='owned'</script><img src=x onerror=\"document.title='owned'\"> <a href=\"javascript:alert(1)\">x</a>"
    " {{ 7 * 7 }} \u202egnp.exe\u202c \x00\x1b[31m " + "W" * 5000
)


def words(number: int) -> str:
    return " ".join(random.Random(number).sample(PLACES, 6))


@pytest.fixture
def bank(bank_store, bank_example, bank_context, exam, tmp_path):
    """A curated store of paid calls: 60 sound examples, twins, wrong labels, a row of an exam, and whatever a test adds."""

    def build(*more, count=60, dollars=0.01):
        examples = []
        store = bank_store([])
        with store.writing():
            store.start_run(
                "run1", "generate", {}, {}, forecast={"calls": {"low": 50, "mean": 60, "high": 70}, "usd": None, "minutes": None}
            )
            for number in range(count):
                text = f"Where is the card for {words(number)}"
                item = PlanItem(topic="cards/arrival", generator=("topic", "seed")[number % 2], index=number, count=1)
                asked = Request(
                    item_id=item.id, prompt="answer@1234", role="teacher", model="offline/banking", params={}, sample=f"{item.id}/0/0",
                    messages=(Message(role="user", content=text),),
                )  # fmt: skip
                store.reserve(asked.id, 0.05)
                store.add_call(asked, Response(request_id=asked.id, text="{}", prompt_tokens=90, completion_tokens=10, cost_usd=dollars))
                made = bank_example(text, item_id=item.id, generator=item.generator, calls=(asked.id,))
                store.add_item(item, "done", [made])
                examples.append(made)
            extra = [
                bank_example("Where is the card for " + words(1) + " today", item_id="cards/arrival:topic:900"),
                bank_example("What is the capital of France?", item_id="cards/arrival:topic:901"),
                bank_example("I lost it at " + words(9), {"intent": "refund", "urgency": "low", "entities": {}}, item_id="cards/lost:topic:902",
                             topic="cards/lost", label="lost_card"),
                *more,
            ]  # fmt: skip
            for made in extra:
                topic, generator, index = made.item_id.split(":")
                store.add_item(PlanItem(topic=topic, generator=generator, index=int(index), count=2), "done", [made])
            store.add_item(PlanItem(topic="cards/lost", generator="seed", index=1, count=3), "failed", error="[/b] nobody answered")
            store.end_run("done")
        curate(store, replace(bank_context, evaluation_sets=(exam("What is the capital of France?", name="geo"),)))
        return store

    return build


class Seen(HTMLParser):
    """The tags and attributes of a page, its text, and whether it is closed as it was opened."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.words: list[str] = []
        self.open: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag not in ("meta", "br", "img"):
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.words.append(data)


def test_the_summary_counts_what_was_made_dropped_and_paid(bank) -> None:
    found = summarize(bank())
    assert (found["examples"], found["accepted"] + found["rejected"]) == (63, 63)
    assert {(row["by"], row["reason"]): row["count"] for row in found["reasons"]} == {
        ("filter:near_duplicate", "near_duplicate"): 1, ("filter:decontaminate", "decontaminate"): 1, ("filter:truth", "label"): 1,
    }  # fmt: skip
    assert found["evaluation_sets"] == [{"name": "geo", "sha256": f"{1:064x}"[:12], "hits": 1}]
    (near,) = found["similarity"]["near"]
    assert 0.8 <= near["similarity"] < 1
    topic = next(row for row in found["topics"] if row["topic"] == "cards/arrival")
    assert topic["made_low"] < topic["accepted"] / topic["examples"] < topic["made_high"]
    assert json.loads(json.dumps(found, default=str))["diversity"]["supply"]["texts"] == 63


def test_the_same_store_gives_the_same_summary(bank) -> None:
    store = bank()
    assert summarize(store) == summarize(store)


def test_an_accepted_row_costs_all_that_was_paid_for_its_generator(bank, bank_example) -> None:
    found = {row["generator"]: row for row in summarize(bank())["cost_per_accepted"]}
    topic = found["topic"]
    assert topic["usd"] == pytest.approx(0.30)
    assert topic["usd_each"] == pytest.approx(0.30 / topic["accepted"])
    assert topic["low"] <= topic["usd_each"] <= topic["high"]
    assert topic["roles"]["teacher"]["tokens"] == pytest.approx(3000 / topic["accepted"])


def test_a_persons_edit_counts_as_accepted_where_its_original_was_made(bank, bank_task) -> None:
    store = bank()
    (first,) = store.query("SELECT id FROM accepted WHERE generator = 'seed' ORDER BY id LIMIT 1")
    before = {row["generator"]: row["accepted"] for row in summarize(store)["cost_per_accepted"]}
    apply(store, "ana", [Decision(example_id=first["id"], action="edit", new_input="Where on earth is my card?")], bank_task)
    found = summarize(store)
    assert {row["generator"]: row["accepted"] for row in found["cost_per_accepted"]} == before
    assert found["review"][0]["defects"] == 1


def test_a_forecast_stands_beside_what_a_run_took(bank) -> None:
    (run,) = summarize(bank())["runs"]
    assert (run["forecast"]["calls"]["mean"], run["calls"], run["usd"]) == (60, 60, pytest.approx(0.6))
    assert "60 (50 to 70)" in page(summarize(bank()), "bank")


def test_a_reason_with_the_signs_of_markup_is_shown_as_it_is(bank) -> None:
    store = bank()
    (one,) = store.query("SELECT id FROM accepted ORDER BY id LIMIT 1")
    store.add_verdicts([Verdict(example_id=one["id"], by="human:ana", keep=False, reason="[/b] [red]no")])
    console = Console(width=200, record=True, file=StringIO())
    console.print(render(summarize(store), "bank [/i]"))
    text = console.export_text()
    assert "[/b] [red]no" in text
    assert "[/b] nobody answered" in text
    assert "distinct-2" in text


def test_an_empty_store_has_a_report(store) -> None:
    with store.writing():
        pass
    found = summarize(store)
    assert found["examples"] == 0
    Console(file=StringIO()).print(render(found, "none"))
    assert "holds no examples yet" in page(found, "none")


def test_the_page_is_well_formed_and_loads_and_runs_nothing(bank) -> None:
    seen = Seen(page(summarize(bank()), "bank"))
    assert seen.open == []
    assert not {"script", "link", "img", "iframe", "object", "embed", "base", "form"} & {tag for tag, _ in seen.tags}
    for tag, attributes in seen.tags:
        assert not any(name.startswith("on") or name in ("src", "srcset", "xlink:href", "style") for name in attributes), (tag, attributes)
        assert attributes.get("href", "#").startswith("#")
    policy = next(attributes["content"] for tag, attributes in seen.tags if attributes.get("http-equiv") == "Content-Security-Policy")
    assert policy == "default-src 'none'; style-src 'unsafe-inline'"


def test_every_plot_says_what_it_is_and_every_table_has_a_caption(bank) -> None:
    text = page(summarize(bank()), "bank")
    seen = Seen(text)
    plots = [attributes for tag, attributes in seen.tags if tag == "svg"]
    assert len(plots) >= 7
    assert all(plot["role"] == "img" and len(plot["aria-label"]) > 15 for plot in plots)
    assert text.count("<caption>") == text.count("<table>") >= 10
    anchors = {attributes["id"] for _, attributes in seen.tags if "id" in attributes}
    assert {attributes["href"][1:] for tag, attributes in seen.tags if tag == "a"} == anchors


def test_dropped_examples_are_shown_with_their_reasons(bank) -> None:
    text = " ".join(Seen(page(summarize(bank()), "bank")).words)
    assert "label: asked lost_card, answered refund" in text
    assert "What is the capital of France?" in text


def test_hostile_text_is_shown_and_not_obeyed(bank, bank_example) -> None:
    more = [
        bank_example(EVIL, {"intent": "refund", "urgency": "low", "entities": {"x": EVIL}}, item_id="cards/lost:topic:903", topic="cards/lost",
                     label="lost_card"),
        bank_example("half a pair \ud83d here", item_id="cards/lost:topic:904", completion="</code></script>", topic="cards/<b>lost"),
    ]  # fmt: skip
    text = page(summarize(bank(more[0])), EVIL)
    seen = Seen(text)
    assert seen.open == []
    assert not {"script", "img"} & {tag for tag, _ in seen.tags}
    assert not re.search("[\u202a-\u202e\x00\x1b]", text)
    assert "{{ 7 * 7 }}" in text
    assert "characters more)" in text
    summary = summarize(bank(more[0]))
    summary["dropped"][0] |= {"input": more[1].input, "completion": more[1].completion, "topic": more[1].topic}
    assert Seen(page(summary, "half")).open == []
    page(summary, "half").encode()


def test_a_heat_map_of_many_topics_sums_them_up_to_their_ancestors(bank, bank_example) -> None:
    more = [bank_example(f"Topic {n} about {words(n)}", item_id=f"deep/{n % 3}/{n}:topic:1", topic=f"deep/{n % 3}/{n}") for n in range(120)]
    text = page(summarize(bank(*more)), "bank")
    assert "topics are summed up to their ancestors" in text
    assert "deep/0, topic" in text


def test_histograms_count_everything_and_label_their_edges() -> None:
    drawn = str(svg.histogram("Lengths", [0, 10, 20], [3, 0], "characters"))
    assert "0 to 10: 3" in drawn
    assert "10 to 20: 0" in drawn


def test_a_long_label_keeps_its_end_and_its_whole_in_the_title() -> None:
    name = "a/very/long/path/of/a/taxonomy/that/ends/in/something & more"
    drawn = str(svg.bars("Bars", [(name, [1.0], "1")]))
    assert "<title>a/very/long/path/of/a/taxonomy/that/ends/in/something &amp; more</title>" in drawn
    assert "…" in drawn


@pytest.mark.parametrize("share", [-1, 0, 0.3, 0.5, 0.77, 1, 2])
def test_words_on_a_coloured_cell_can_be_read(share) -> None:
    def luminance(colour: str) -> float:
        parts = [int(colour[k : k + 2], 16) / 255 for k in (1, 3, 5)]
        linear = [p / 12.92 if p <= 0.04045 else ((p + 0.055) / 1.055) ** 2.4 for p in parts]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    paper, ink = (luminance(colour) for colour in svg._coloured(share))
    assert (max(paper, ink) + 0.05) / (min(paper, ink) + 0.05) >= 4.5  # WCAG 2.2, 1.4.3


@pytest.mark.parametrize("width", [390, 1200])
def test_a_real_browser_shows_the_page_without_a_word_of_complaint(bank, bank_example, tmp_path, width) -> None:
    playwright = pytest.importorskip("playwright.sync_api", reason="needs playwright")
    if not CHROMIUM.exists():
        pytest.skip(f"needs {CHROMIUM}")
    evil = bank_example(EVIL, {"intent": "refund", "urgency": "low", "entities": {}}, item_id="cards/lost:topic:903", topic="cards/lost",
                        label="lost_card")  # fmt: skip
    path = tmp_path / "report.html"
    write_page(summarize(bank(evil)), "bank " + "W" * 300, path)
    said, asked = [], []
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=str(CHROMIUM), args=["--no-sandbox"])
        tab = browser.new_page(viewport={"width": width, "height": 800})
        tab.on("console", lambda message: said.append(message.text))
        tab.on("pageerror", lambda error: said.append(str(error)))
        tab.on("request", lambda request: asked.append(request.url))
        tab.goto(path.as_uri())
        tab.evaluate("document.querySelectorAll('details').forEach(part => part.open = true)")
        shown = tab.evaluate("[document.documentElement.scrollWidth, document.title, document.querySelectorAll('svg').length]")
        browser.close()
    assert said == []
    assert asked == [path.as_uri()]
    assert shown[0] <= width
    assert shown[1].startswith("Data report: bank W")
    assert shown[2] >= 7

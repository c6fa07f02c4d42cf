"""The filter on personal data and secrets: one test per kind, and what passes."""

import json
import os
from collections import Counter
from pathlib import Path

import pytest

from datagen.filters.privacy import pii


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("My card is 4111 1111 1111 1111, help", "card number"),
        ("card 5500-0000-0000-0004 was stolen", "card number"),
        ("it's 378282246310005", "card number"),
        ("send it to GB82 WEST 1234 5698 7654 32 please", "IBAN"),
        ("my iban is DE89370400440532013000.", "IBAN"),
        ("write to jo.blogs+x@mail.example.org", "e-mail address"),
        ("call me on +44 (0)20 7946 0958", "telephone number"),
        ("ring 07700 900123 today", "telephone number"),
        ("ring 555-010-9999", "telephone number"),
    ],
)
def test_pii_names_the_kind_and_never_the_value(text, kind, bank_example, bank_context):
    assert pii(bank_example(text), bank_context) == f"pii: {kind} in the input"


@pytest.mark.parametrize(
    "text",
    [
        "I paid £1,200,500.00 on 2026-11-24 10:30 and 3000000 on 24/11/2026",
        "order 12345678 has not come",
        "4111 1111 1111 1112 is no card: its check digit is wrong",
        "it was £40 at Tesco, 3 days ago @ noon",
    ],
)
def test_pii_passes_sums_dates_and_numbers_that_are_nobodys(text, bank_example, bank_context):
    assert pii(bank_example(text), bank_context) is None


def test_pii_looks_at_every_text_that_a_student_could_learn(bank_example, bank_context):
    for name in ("completion", "rejected", "reasoning"):
        assert pii(bank_example(**{name: "ask a@b.org"}), bank_context) == f"pii: e-mail address in the {name}"


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("His SSN is 832-13-6314", "social security number"),
        ("Phone: 451 5986", "telephone number"),
        ("call me, 6185551460", "telephone number"),
        ("desk: +1-604-696-5272x565", "telephone number"),
    ],
)
def test_pii_sees_social_security_numbers_and_short_telephone_numbers(text, kind, bank_example, bank_context):
    assert pii(bank_example(text), bank_context) == f"pii: {kind} in the input"


@pytest.mark.parametrize(
    "text",
    [
        "He has 500-200-150=150 dollars left, and 11480-10440 is 1040",
        "the sensitivities were 0.967/0.947/0.925 in that order",
        "my order number is 1234567890",
        "they got 700000000000003 grains of rice",
        "666-12-1234 and 900-12-1234 are nobody's",
    ],
)
def test_pii_passes_sums_measures_and_order_numbers(text, bank_example, bank_context):
    assert pii(bank_example(text), bank_context) is None


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("AKIAIOSFODNN7EXAMPLE", "AWS Access Key"),
        ("ghp_" + "abcdefghijklmnopqrstuvwxyz0123456789", "GitHub Token"),
        ("-----BEGIN RSA PRIVATE KEY-----", "Private Key"),
        ("postgres://ana:hunter2pass@db.example.org/x", "Basic Auth Credentials"),
        ("sk_live_" + "abcdefghijklmnopqrstuvwx", "Stripe Access Key"),
        ("sk-ant-" + "api03-abcdefghijklmnopqrstuvwxyz", "key of a model provider"),
        ("hf_" + "abcdefghijklmnopqrstuvwxyzABCDEF", "key of a model provider"),
    ],
)
def test_pii_names_the_kind_of_a_secret_and_never_the_secret(text, kind, bank_example, bank_context):
    assert pii(bank_example(f"it says {text} here"), bank_context) == f"secret: {kind} in the input"


@pytest.mark.parametrize(
    "text",
    [
        "see https://bank.example.org/help/cards?id=1234567 for more",
        "my password is hunter2hunter2hunter2",
        "the hash is 9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08",
        "terminate_account_when_the_customer_asks",
    ],
)
def test_pii_passes_links_hashes_and_long_words(text, bank_example, bank_context):
    assert pii(bank_example(text), bank_context) is None


@pytest.mark.real_data
@pytest.mark.skipif("REAL_DATA" not in os.environ, reason="needs REAL_DATA")
def test_pii_finds_every_card_iban_and_address_of_a_public_set(bank_example, bank_context):
    path = Path(os.environ["REAL_DATA"]) / "presidio_pii_150.jsonl"
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    wanted = {"CREDIT_CARD", "IBAN_CODE", "EMAIL_ADDRESS"}
    rows = [row for row in rows if wanted & {span["entity_type"] for span in row["spans"]}]
    assert len(rows) > 15
    assert all(pii(bank_example(row["full_text"]), bank_context) for row in rows)


@pytest.mark.real_data
@pytest.mark.skipif("REAL_DATA" not in os.environ, reason="needs REAL_DATA")
def test_pii_finds_what_has_a_form_in_a_public_set_and_nothing_else_there(bank_example, bank_context):
    path = Path(os.environ["REAL_DATA"]) / "presidio_pii_150.jsonl"
    formed = {"CREDIT_CARD", "IBAN_CODE", "EMAIL_ADDRESS", "PHONE_NUMBER", "US_SSN"}
    counts: Counter[tuple[bool, bool]] = Counter()
    for row in map(json.loads, path.read_text().splitlines()):
        has = bool(formed & {span["entity_type"] for span in row["spans"]})
        counts[has, pii(bank_example(row["full_text"]), bank_context) is not None] += 1
    assert counts[True, False] <= 1  # a number of eight digits beside no word for a telephone
    assert counts[False, True] == 0

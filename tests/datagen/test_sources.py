"""Documents to passages: what is read of each kind of file, where it is cut, and one line for everything that is wrong."""

import itertools
import random
from collections.abc import Callable
from pathlib import Path

import pytest

from datagen.errors import ConfigError
from datagen.sources import Block, chunks, read_document, read_passages

PROSE = "The library opens at nine. Books are lent for three weeks. A lost book costs its price and five pounds. "


def pdf(*pages: str, text: bool = True) -> bytes:
    """A small PDF: one line of text a page, or an empty page where `text` is False."""
    objects = ["<< /Type /Catalog /Pages 2 0 R >>", ""]
    kids = []
    for page in pages:
        drawn = f"BT /F1 12 Tf 14 TL 40 700 Td {' '.join(f'({line}) Tj T*' for line in page.splitlines())} ET" if text else ""
        kids.append(f"{len(objects) + 1} 0 R")
        objects.append(
            f"<< /Type /Page /Parent 2 0 R /MediaBox [0 0 600 800] /Contents {len(objects) + 2} 0 R "
            "/Resources << /Font << /F1 << /Type /Font /Subtype /Type1 /BaseFont /Helvetica >> >> >> >>"
        )
        objects.append(f"<< /Length {len(drawn)} >>\nstream\n{drawn}\nendstream")
    objects[1] = f"<< /Type /Pages /Kids [{' '.join(kids)}] /Count {len(kids)} >>"
    out, offsets = b"%PDF-1.4\n", []
    for number, content in enumerate(objects, 1):
        offsets.append(len(out))
        out += f"{number} 0 obj\n{content}\nendobj\n".encode("latin-1")
    table = "".join(f"{offset:010d} 00000 n \n" for offset in offsets)
    tail = f"xref\n0 {len(objects) + 1}\n0000000000 65535 f \n{table}trailer << /Size {len(objects) + 1} /Root 1 0 R >>\nstartxref\n"
    return out + tail.encode() + str(len(out)).encode() + b"\n%%EOF\n"


@pytest.fixture
def folder(tmp_path: Path) -> Callable[..., Path]:
    def make(**files: bytes | str) -> Path:
        for name, content in files.items():
            path = tmp_path / "docs" / name.replace("__", "/").replace("_", ".")
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content.encode() if isinstance(content, str) else content)
        return tmp_path / "docs"

    return make


def passages(folder: Path, max_chars: int = 400, overlap_chars: int = 0) -> list[tuple[str, str, str]]:
    found = read_passages(folder, max_chars=max_chars, overlap_chars=overlap_chars)
    return [(passage.source, passage.section, passage.text) for passage in found]


def test_markdown_is_cut_at_its_headings_which_stay_with_the_text(folder: Callable[..., Path]) -> None:
    text = f"# Rules\n\n## Lending\n\n{PROSE * 2}\n\nFees\n----\n\n{PROSE * 2}\n\n```\n# no heading\n```\n"
    found = passages(folder(rules_md=text))
    assert [section for _, section, _ in found] == ["Rules > Lending", "Rules > Fees"]
    assert found[0][2].startswith("Rules > Lending\n\nThe library")
    assert found[1][2].endswith("# no heading\n```")


def test_html_gives_its_text_without_menus_scripts_and_tags(folder: Callable[..., Path]) -> None:
    html = (
        "<html><head><title>Library</title><style>p {color: red}</style></head><body><nav>Home</nav><script>alert(1)</script><!-- no -->"
        "<h1>Open</h1><div>At <b>nine</b>, daily.<br>Not on <i>Sunday</i></div><ul><li>Monday</li><li>Friday</li></ul>"
        "<table><tr><td>Late</td><td>5 p</td></tr></table><pre>a\n  b</pre></body></html>"
    )
    assert read_document(folder(a_html=html) / "a.html") == [
        Block("Open", text) for text in ("At nine, daily. Not on Sunday", "- Monday", "- Friday", "Late | 5 p", "a\n  b")
    ]


def test_html_in_the_encoding_that_it_declares_is_read(folder: Callable[..., Path]) -> None:
    html = '<html><head><meta charset="iso-8859-1"></head><body><p>Gebühren für Bücher</p></body></html>'.encode("latin-1")
    assert [block.text for block in read_document(folder(a_html=html) / "a.html")] == ["Gebühren für Bücher"]


def test_a_pdf_gives_its_pages_with_words_joined_that_a_line_cut(folder: Callable[..., Path]) -> None:
    more = "It lends them to members alone, who have to bring them back on the next morning before ten."
    found = passages(folder(a_pdf=pdf(f"The library lends news-\npapers for a day.\n{more}", "Books are lent for three weeks.")))
    assert [(section, text) for _, section, text in found] == [
        ("page 1", f"The library lends newspapers for a day. {more}"), ("page 2", "Books are lent for three weeks."),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a_txt", b"caf\xe9", r"a\.txt: is not utf-8 text \(byte 0xe9 at 3\)\. Save it as UTF-8"),
        ("a_txt", b" \n \n", r"a\.txt: holds no text"),
        ("a_md", b"", r"a\.md: holds no text"),
        ("a_html", b'<meta charset="klingon"><p>x</p>', r"a\.html: declares the encoding klingon, which is not known"),
        ("a_pdf", pdf("x", text=False), r"a\.pdf: holds no text\. Its pages are images: run text recognition \(OCR\)"),
        ("a_pdf", b"%PDF-1.4 and nothing else", r"a\.pdf: cannot be read as PDF"),
        ("a_pdf", b"", r"a\.pdf: cannot be read as PDF"),
        ("a_docx", b"x", r"docs: holds no md, txt, html or pdf file \(found \.docx\)"),
        ("_hidden_md", b"x", r"docs: holds no md, txt, html or pdf file \(it is empty\)"),
    ],
)
def test_a_document_that_cannot_be_used_is_one_line(folder: Callable[..., Path], name: str, content: bytes, message: str) -> None:
    with pytest.raises(ConfigError, match=message) as error:
        passages(folder(**{name: content}))
    assert "\n" not in str(error.value)


def test_a_huge_document_is_refused_before_it_is_read(folder: Callable[..., Path]) -> None:
    path = folder(a_txt="x") / "a.txt"
    with path.open("r+b") as file:
        file.truncate(60_000_000)
    with pytest.raises(ConfigError, match=r"a\.txt: has 60 MB; a document may have 50"):
        passages(path.parent)


def test_a_locked_pdf_is_one_line(folder: Callable[..., Path], tmp_path: Path) -> None:
    from pypdf import PdfReader, PdfWriter

    plain = folder(plain_pdf=pdf("secret")) / "plain.pdf"
    writer = PdfWriter(clone_from=PdfReader(plain))
    writer.encrypt("key", algorithm="RC4-128")
    plain.unlink()
    with (plain.parent / "locked.pdf").open("wb") as file:
        writer.write(file)
    with pytest.raises(ConfigError, match=r"locked\.pdf: is encrypted\. Save it anew without a password"):
        passages(plain.parent)


def test_a_folder_that_is_not_there_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="is no folder"):
        passages(tmp_path / "nowhere")


def test_a_text_that_stands_in_two_files_is_one_passage(folder: Callable[..., Path]) -> None:
    assert [source for source, _, _ in passages(folder(a_txt=PROSE, b_txt=PROSE))] == ["a.txt"]


def test_a_renamed_file_keeps_its_passages_and_an_edit_changes_its_section_alone(folder: Callable[..., Path]) -> None:
    def ids(text: str, name: str) -> list[str]:
        path = folder(**{name: text})
        found = [passage.id for passage in read_passages(path, max_chars=500, overlap_chars=60)]
        (path / name.replace("_", ".")).unlink()
        return found

    text = "".join(f"# Part {n}\n\n{f'Part {n}. ' + PROSE * 9}\n\n" for n in range(3))
    before, renamed = ids(text, "a_md"), ids(text, "b_md")
    after = ids(text.replace("Part 1. The library", "Part 1. Indeed the library"), "a_md")
    assert before == renamed
    changed = [position for position, (one, other) in enumerate(zip(before, after, strict=True)) if one != other]
    third = len(before) // 3
    assert changed
    assert all(third <= position < 2 * third for position in changed)


def test_a_cut_section_repeats_its_last_sentences_and_others_repeat_nothing() -> None:
    long = " ".join(f"Sentence number {n} says a thing." for n in range(30))
    found = [block.text for block in chunks([Block("", long)], max_chars=300, overlap_chars=80)]
    assert len(found) > 3
    for one, other in itertools.pairwise(found):
        repeated = other[: other.index("thing.") + 6]  # its first sentence
        assert one.endswith(repeated) or f"{repeated} " in one
    whole = chunks([Block("A", PROSE * 3), Block("B", PROSE * 3)], max_chars=400, overlap_chars=80)
    assert [text.count("The library") for _, text, _ in whole] == [3, 3]


def test_a_very_small_section_joins_the_next_with_its_heading() -> None:
    found = chunks([Block("A", "Short."), Block("B", PROSE * 3)], max_chars=800, overlap_chars=0)
    assert [(section, text[:14]) for section, text, _ in found] == [("A", "A\n\nShort.\n\nB\n\n")]


@pytest.mark.parametrize("seed", range(60))
def test_every_passage_is_bounded_and_holds_every_character_in_order(seed: int) -> None:
    rng = random.Random(seed)
    signs = "ab cde fgh. ij? kl! 。é漢\n\t\"')"
    blocks = [
        Block(rng.choice(["", "A", "B > C"]), "".join(rng.choices(signs, k=rng.randint(1, 1200))).strip() or "x")
        for _ in range(rng.randint(1, 8))
    ]
    max_chars = rng.randint(200, 600)
    for overlap in (0, rng.randint(1, 300)):
        assert all(0 < len(text) <= max_chars for _, text, _ in chunks(blocks, max_chars=max_chars, overlap_chars=overlap))
    left = iter("".join("".join(text.split()) for _, text, _ in chunks(blocks, max_chars=max_chars, overlap_chars=0)))
    assert all(sign in left for _, text, _ in blocks for sign in "".join(text.split()))

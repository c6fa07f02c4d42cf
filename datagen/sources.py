"""Documents to passages: a folder of md, txt, html and pdf files, read, cut at headings and paragraphs, bounded in size.

Passages are what the `grounded` generator asks about. Everything that can be wrong with a document (unreadable, no text, not UTF-8,
too large) is found here, as one line, before anybody is asked.
"""

import logging
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from datagen.config import LoadedRecipe
from datagen.errors import ConfigError
from datagen.records import Passage, content_hash

READERS = {".md": "markdown", ".markdown": "markdown", ".txt": "text", ".html": "html", ".htm": "html", ".pdf": "pdf"}
LARGEST_MB = 50
_SMALL = 200  # characters: a section below it joins the next one, for a question needs something to ask about
_NEEDS = "pip install 'retort[documents]' (make setup-documents)"


class Block(NamedTuple):
    """A paragraph, with the headings above it; or with its page, which says where it stands and is no part of the text."""

    section: str
    text: str
    titled: bool = True


def read_passages(folder: Path, *, max_chars: int, overlap_chars: int) -> tuple[Passage, ...]:
    """The passages of all documents under `folder`, by file and place; a text that stands in several places counts once.

    Raises ConfigError for a folder without documents and for a document that cannot be read.
    """
    if not folder.is_dir():
        raise ConfigError(f"{folder}: is no folder. Let sources.folder name the folder of your documents.")
    files = sorted(path for path in folder.rglob("*") if path.is_file() and not _hidden(path.relative_to(folder)))
    documents = [path for path in files if path.suffix.lower() in READERS]
    if not documents:
        others = ", ".join(sorted({path.suffix or path.name for path in files})[:5])
        found_instead = f"found {others}" if others else "it is empty"
        raise ConfigError(f"{folder}: holds no md, txt, html or pdf file ({found_instead}). Put your documents there.")
    found: dict[str, Passage] = {}
    for path in documents:
        source = path.relative_to(folder).as_posix()
        for section, text, _ in chunks(read_document(path), max_chars=max_chars, overlap_chars=overlap_chars):
            passage_id = content_hash(text)
            found.setdefault(passage_id, Passage(id=passage_id, source=source, section=section, text=text))
    return tuple(found.values())


def passages_of(loaded: LoadedRecipe) -> tuple[tuple[Passage, ...], bool]:
    """The passages that a recipe's mix needs, and whether the student is shown them. Raises ConfigError as `read_passages` does."""
    sources = loaded.recipe.sources
    if sources is None or not loaded.recipe.mix.get("grounded"):
        return (), True
    folder = loaded.resolve(sources.folder)
    return read_passages(folder, max_chars=sources.max_chars, overlap_chars=sources.overlap_chars), sources.in_prompt


def _hidden(path: Path) -> bool:
    return any(part.startswith(".") for part in path.parts)


def read_document(path: Path) -> list[Block]:
    """The paragraphs of one document. Raises ConfigError with what is wrong with it."""
    size_mb = path.stat().st_size / 1e6
    if size_mb > LARGEST_MB:
        raise ConfigError(f"{path}: has {size_mb:,.0f} MB; a document may have {LARGEST_MB}. Split it, or take it out of the folder.")
    kind = READERS[path.suffix.lower()]
    try:
        data = path.read_bytes()
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read ({error.strerror}). Mend its permissions, or take it out of the folder.") from error
    if kind == "pdf":
        blocks = list(_pdf(path))
    elif kind == "html":
        blocks = list(_html(path, data))
    else:
        blocks = list(_plain(_decoded(path, data), markdown=kind == "markdown"))
    if not blocks:
        scanned = " Its pages are images: run text recognition (OCR) over it first." if kind == "pdf" else ""
        raise ConfigError(f"{path}: holds no text.{scanned or ' Fill it, or take it out of the folder.'}")
    return blocks


def _decoded(path: Path, data: bytes, encoding: str = "utf-8-sig") -> str:
    try:
        return data.decode(encoding).replace("\0", "").replace("\r\n", "\n").replace("\r", "\n")
    except LookupError as error:
        raise ConfigError(f"{path}: declares the encoding {encoding}, which is not known. Save it as UTF-8.") from error
    except UnicodeDecodeError as error:
        where = f"byte 0x{data[error.start]:02x} at {error.start}"
        raise ConfigError(f"{path}: is not {encoding.removesuffix('-sig')} text ({where}). Save it as UTF-8.") from error


_HEADING = re.compile(r"^(#{1,6})\s+(.*?)\s*#*$")
_UNDERLINE = re.compile(r"^(=+|-{2,})\s*$")
_FENCE = re.compile(r"^\s{0,3}(```|~~~)")


def _plain(text: str, markdown: bool) -> Iterator[Block]:
    """Paragraphs between blank lines; in Markdown under their headings, and fenced code whole."""
    headings: list[tuple[int, str]] = []
    lines: list[str] = []
    fenced = False

    def paragraph() -> Iterator[Block]:
        joined = "\n".join(lines).strip()
        lines.clear()
        if joined:
            yield Block(_path(headings), joined)

    for line in text.split("\n"):
        if markdown and _FENCE.match(line):
            fenced = not fenced
        heading = _HEADING.match(line) if markdown and not fenced else None
        underline = _UNDERLINE.match(line) if markdown and not fenced and len(lines) == 1 else None
        if heading is not None:
            yield from paragraph()
            _enter(headings, len(heading[1]), heading[2])
        elif underline is not None:
            _enter(headings, 1 if line.startswith("=") else 2, lines.pop().strip())
        elif line.strip() or fenced:
            lines.append(line.rstrip())
        else:
            yield from paragraph()
    yield from paragraph()


def _enter(headings: list[tuple[int, str]], level: int, title: str) -> None:
    while headings and headings[-1][0] >= level:
        headings.pop()
    headings.append((level, title))


def _path(headings: Sequence[tuple[int, str]]) -> str:
    return " > ".join(title for _, title in headings)


_CHARSET = re.compile(rb"<meta[^>]{0,200}charset\s*=\s*[\"']?([\w-]+)", re.IGNORECASE)
_NO_TEXT = ("script", "style", "noscript", "template", "nav", "header", "footer", "aside", "form", "button", "svg")
_TITLES = ("h1", "h2", "h3", "h4", "h5", "h6")
_PARAGRAPHS = (
    *_TITLES, "address", "article", "blockquote", "body", "dd", "div", "dt", "figcaption", "figure", "html", "li", "main", "p", "pre",
    "section", "table", "title", "tr", "[document]",
)  # fmt: skip


def _html(path: Path, data: bytes) -> Iterator[Block]:
    """The text of each paragraph, list entry and table row under its headings; menus, scripts and forms are left out."""
    try:
        from bs4 import BeautifulSoup
        from bs4.element import NavigableString, PreformattedString, Tag
    except ImportError as error:
        raise ConfigError(f"{path}: reading HTML needs beautifulsoup4: {_NEEDS}.") from error
    declared = _CHARSET.search(data[:4096])
    encoding = declared[1].decode().lower() if declared else "utf-8"
    soup = BeautifulSoup(_decoded(path, data, "utf-8-sig" if encoding == "utf-8" else encoding), "html.parser")
    for tag in soup(_NO_TEXT):
        tag.decompose()
    headings: list[tuple[int, str]] = []
    texts: list[tuple[Tag, list[str]]] = []
    for node in soup.descendants:
        if isinstance(node, NavigableString) and not isinstance(node, PreformattedString):  # which are comments and the like
            around = next(parent for parent in node.parents if parent.name in _PARAGRAPHS)
            if not texts or texts[-1][0] is not around:
                texts.append((around, []))
            texts[-1][1].append(str(node))
        elif texts and isinstance(node, Tag) and node.name == "br":
            texts[-1][1].append(" ")
        elif texts and isinstance(node, Tag) and node.name in ("td", "th") and node.parent is texts[-1][0]:
            texts[-1][1].append(" | ")
    for around, parts in texts:
        joined = "".join(parts)
        text = joined.strip("\n") if around.name == "pre" else " ".join(joined.split()).strip("| ")
        if around.name in _TITLES:
            _enter(headings, int(around.name[1]), text)
        elif text.strip() and around.name != "title":
            yield Block(_path(headings), f"- {text}" if around.name == "li" else text)


_LIGATURES = str.maketrans({"ﬀ": "ff", "ﬁ": "fi", "ﬂ": "fl", "ﬃ": "ffi", "ﬄ": "ffl", "ﬅ": "st", "ﬆ": "st", "\xad": "", "\0": ""})
_HYPHENATED = re.compile(r"(?<=[a-zà-ÿ])-\n(?=[a-zà-ÿ])")


def _pdf(path: Path) -> Iterator[Block]:
    """The text of each page, as paragraphs where blank lines part it; words that a line's end cut are joined."""
    try:
        from pypdf import PdfReader
        from pypdf.errors import PyPdfError
    except ImportError as error:
        raise ConfigError(f"{path}: reading PDF needs pypdf: {_NEEDS}.") from error
    logging.getLogger("pypdf").setLevel(logging.ERROR)  # it repairs what it can, and says so at length
    try:
        reader = PdfReader(path)
        pages = [page.extract_text() for page in reader.pages]
    except PyPdfError as error:
        what = "is encrypted" if "crypt" in str(error).lower() else f"cannot be read as PDF ({' '.join(str(error).split())})"
        raise ConfigError(f"{path}: {what}. Save it anew without a password, or take it out of the folder.") from error
    except Exception as error:  # a damaged file can break a parser anywhere; it is the file's fault, and one line says which
        what = " ".join(f"{type(error).__name__}: {error}".split())
        raise ConfigError(f"{path}: cannot be read as PDF ({what}). Save it anew, or take it out of the folder.") from error
    for number, text in enumerate(pages, 1):
        text = _HYPHENATED.sub("", text.translate(_LIGATURES).encode(errors="replace").decode())
        for block in _plain(text, markdown=False):
            yield Block(f"page {number}", " ".join(block.text.split()), titled=False)


_SENTENCE = re.compile(r"(?<=[.!?])\s+|(?<=[.!?][\"')\]])\s+|(?<=[。！？])|\n+")


def chunks(blocks: Sequence[Block], *, max_chars: int, overlap_chars: int) -> list[Block]:
    """Pieces of at most `max_chars` characters: whole paragraphs of one section where they fit, else whole sentences, else words.

    A section is cut by itself, so that an edit changes its pieces alone; one that is very small joins the next. Where a section
    is cut, a piece begins with the last sentences of the one before it, up to `overlap_chars`. Each begins with its headings.
    """
    pieces: list[Block] = []
    for section, paragraphs, titled in _sections(blocks, max_chars):
        title = f"{section}\n\n" if titled and 0 < len(section) <= max_chars // 4 else ""
        room = max_chars - len(title)
        pieces += [Block(section, title + body) for body in _pack(paragraphs, room, min(overlap_chars, room // 3))]
    return pieces


class _Section(NamedTuple):
    name: str
    paragraphs: list[str]
    titled: bool


def _sections(blocks: Sequence[Block], max_chars: int) -> Iterator[_Section]:
    """Consecutive paragraphs of one section; a very small section keeps its heading and takes the next one in."""
    open_: _Section | None = None
    last = ""
    for name, text, titled in blocks:
        if open_ is not None and name != last:
            if sum(map(len, open_.paragraphs)) >= min(_SMALL, max_chars // 4):
                yield open_
                open_ = None
            elif titled and name:
                open_.paragraphs.append(name)
        open_ = open_ or _Section(name, [], titled)
        open_.paragraphs.append(text)
        last = name
    if open_ is not None:
        yield open_


def _pack(paragraphs: Sequence[str], room: int, overlap: int) -> Iterator[str]:
    """Paragraphs into bodies of at most `room` characters."""
    body = ""
    for paragraph in paragraphs:
        parts = [paragraph] if len(paragraph) <= room else _cut(paragraph, room - overlap)
        for number, part in enumerate(parts):
            joint = "\n\n" if number == 0 else " "
            if body and len(body) + len(joint) + len(part) > room:
                yield body
                last = _tail(body, overlap)
                body = last + joint + part if last and len(last) + len(joint) + len(part) <= room else part
            else:
                body = body + joint + part if body else part
    if body:
        yield body


def _cut(paragraph: str, room: int) -> list[str]:
    """A long paragraph as sentences, and a long sentence as words or characters, each of at most `room` characters."""
    parts: list[str] = []
    for sentence in (s.strip() for s in _SENTENCE.split(paragraph)):
        while len(sentence) > room:
            at = sentence.rfind(" ", 1, room + 1)
            at = at if at > 0 else room
            parts.append(sentence[:at])
            sentence = sentence[at:].strip()
        if sentence:
            parts.append(sentence)
    return parts


def _tail(body: str, overlap: int) -> str:
    """The last whole sentences of a body, at most `overlap` characters."""
    kept = ""
    for sentence in reversed([s.strip() for s in _SENTENCE.split(body)]):
        if len(sentence) + 1 + len(kept) > overlap:
            break
        kept = f"{sentence} {kept}".strip()
    return kept

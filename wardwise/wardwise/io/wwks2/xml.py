r"""XML without the dangerous parts: no document types, no entities, bounded depth and size.

Control characters that XML forbids travel as ``\x1D`` (WWKS 2 rev. 6.22, chapter 5). So that every
text comes back as it was, a backslash that would read as such a mark is written ``\x5C``.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Any
from xml.parsers import expat

from wardwise.io.wwks2.errors import MessageError, Reason

MAX_BYTES = 16 * 1024 * 1024  # the packs of a large machine take about 10 MB
MAX_DEPTH = 16

_MARK = re.compile(r"\\x([01][0-9A-Fa-f]|5[Cc])")
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f]|\\(?=x(?:[01][0-9A-Fa-f]|5[Cc]))")
_NO_XML = re.compile("[\ud800-\udfff\ufffe\uffff]")
_SPECIAL = {"&": "&amp;", "<": "&lt;", ">": "&gt;"}
_IN_ATTRIBUTE = {**_SPECIAL, '"': "&quot;", "'": "&apos;", "\t": "&#9;", "\n": "&#10;"}
_TO_TEXT, _TO_ATTRIBUTE = str.maketrans(_SPECIAL), str.maketrans(_IN_ATTRIBUTE)


@dataclass(slots=True)
class Node:
    """An element: what stands in it."""

    tag: str
    attributes: dict[str, str] = field(default_factory=dict)
    children: list[Node] = field(default_factory=list)
    text: str = ""


def parse_xml(data: bytes) -> Node:
    """Read one element from UTF-8 bytes.

    Raises
    ------
    MessageError
        If this is no XML, or has a document type, too many bytes, or too deep a nesting.
    """
    if len(data) > MAX_BYTES:
        problem = f"message: expected at most {MAX_BYTES} bytes, got {len(data)}"
        raise MessageError(Reason.SYNTAX_ERROR, problem)
    builder = _Builder()
    parser = expat.ParserCreate("utf-8")
    parser.buffer_text = True
    parser.StartElementHandler = builder.start
    parser.EndElementHandler = builder.end
    parser.CharacterDataHandler = builder.data
    parser.StartDoctypeDeclHandler = builder.refuse_type
    try:
        parser.Parse(data, True)
    except expat.ExpatError as error:
        problem = f"message: expected XML, got: {error}"
        raise MessageError(Reason.SYNTAX_ERROR, problem) from error
    return builder.root.children[0]


class _Builder:
    """Grows the tree of elements."""

    def __init__(self) -> None:
        self.root = Node("")
        self._open = [self.root]

    def start(self, tag: str, attributes: dict[str, str]) -> None:
        if len(self._open) > MAX_DEPTH:
            problem = f"message: expected elements at most {MAX_DEPTH} deep, got more"
            raise MessageError(Reason.SYNTAX_ERROR, problem)
        node = Node(tag, attributes)
        self._open[-1].children.append(node)
        self._open.append(node)

    def end(self, _tag: str) -> None:
        self._open.pop()

    def data(self, text: str) -> None:
        self._open[-1].text += text

    def refuse_type(self, *_declaration: Any) -> None:
        # Entities can only be declared in a document type.
        raise MessageError(Reason.SYNTAX_ERROR, "message: expected no document type, got one")


def format_xml(node: Node) -> str:
    """Text of an element.

    Raises
    ------
    ValueError
        If a text holds what no XML can: half of a surrogate pair, or U+FFFE, U+FFFF.
    """
    attributes = "".join(
        f' {name}="{_escaped(value).translate(_TO_ATTRIBUTE)}"'
        for name, value in node.attributes.items()
    )
    inner = _escaped(node.text).translate(_TO_TEXT) + "".join(map(format_xml, node.children))
    return (
        f"<{node.tag}{attributes}>{inner}</{node.tag}>" if inner else f"<{node.tag}{attributes}/>"
    )


def unescaped(text: str) -> str:
    """Text with its control characters back in place."""
    return _MARK.sub(lambda match: chr(int(match[1], 16)), text)


def _escaped(text: str) -> str:
    if _NO_XML.search(text):
        raise ValueError(f"text: expected characters of XML, got {text[:40]!r}")
    return _CONTROL.sub(lambda match: f"\\x{ord(match[0]):02X}", text)

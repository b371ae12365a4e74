"""Dataclasses as XML elements and back.

A field ``batch_number`` is the attribute ``BatchNumber``; one that holds a dataclass, or a tuple of
them, is a child element, named after the class or its ``tag``; `content` marks the text between the
tags. A field without a default must be there. What the dataclass does not know is passed over,
as the specification asks for (rev. 6.22, chapter 6); what it knows must have its type and range.
"""

from __future__ import annotations

import dataclasses
import re
import types
import typing
from datetime import date
from enum import StrEnum
from typing import Any, TypeVar

from wardwise.errors import quote
from wardwise.io.wwks2.errors import MessageError, Reason
from wardwise.io.wwks2.xml import Node, unescaped

T = TypeVar("T")

_INTEGER = re.compile(r"-?[0-9]{1,19}")
_DATE = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}")
_BITS = "bits"
_ALIAS = "alias"
_CONTENT = "content"
_KNOWN: dict[type[Any], tuple[_Slot, ...]] = {}


def wide(default: int = 0) -> Any:
    """Field of a whole number of 64 bits."""
    return dataclasses.field(default=default, metadata={_BITS: 64})


def alias(name: str) -> Any:
    """Field of a text for which peers use another name, too."""
    return dataclasses.field(default="", metadata={_ALIAS: name})


def content() -> Any:
    """Field of the text between the tags."""
    return dataclasses.field(default="", metadata={_CONTENT: True})


@dataclasses.dataclass(frozen=True, slots=True)
class _Slot:
    """Where one field stands in the element."""

    name: str
    xml: str
    type: Any
    default: Any
    is_optional: bool
    is_many: bool
    is_child: bool
    is_content: bool
    maximum: int
    alias: str

    @property
    def is_required(self) -> bool:
        return self.default is dataclasses.MISSING


def tag_of(cls: type[Any]) -> str:
    """Name of a dataclass's element."""
    return str(vars(cls).get("tag", cls.__name__))


def _slots(cls: type[Any]) -> tuple[_Slot, ...]:
    """Slots of a dataclass, worked out once."""
    if cls in _KNOWN:
        return _KNOWN[cls]
    hints = typing.get_type_hints(cls)
    found = []
    for field in dataclasses.fields(cls):
        hint, is_many = hints[field.name], False
        is_optional = isinstance(hint, types.UnionType)
        if is_optional:
            hint = next(a for a in typing.get_args(hint) if a is not types.NoneType)
        if typing.get_origin(hint) is tuple:
            hint, is_many = typing.get_args(hint)[0], True
        is_child = dataclasses.is_dataclass(hint)
        camel = "".join(part.capitalize() for part in field.name.split("_"))
        found.append(
            _Slot(
                name=field.name, xml=tag_of(hint) if is_child else camel, type=hint,
                default=field.default, is_optional=is_optional, is_many=is_many,
                is_child=is_child, is_content=_CONTENT in field.metadata,
                maximum=2 ** (field.metadata.get(_BITS, 32) - 1) - 1,
                alias=field.metadata.get(_ALIAS, ""),
            )
        )  # fmt: skip
    return _KNOWN.setdefault(cls, tuple(found))


def decode(cls: type[T], node: Node, where: str = "") -> T:
    """Build a dataclass from an element.

    Raises
    ------
    MessageError
        Naming element and attribute, and what was expected.
    """
    where = f"{where}{node.tag}"
    children: dict[str, list[Node]] = {}
    for child in node.children:
        children.setdefault(child.tag, []).append(child)
    values: dict[str, Any] = {}
    for slot in _slots(cls):
        if slot.is_child:
            values[slot.name] = _children(slot, children.get(slot.xml, []), where)
            continue
        text = node.text if slot.is_content else node.attributes.get(slot.xml)
        if text is None and slot.alias:
            text = node.attributes.get(slot.alias)
        if not text:  # an empty text says as little as none
            if slot.is_required:
                raise _error(where, slot.xml, "a value", text)
            values[slot.name] = slot.default
            continue
        values[slot.name] = _value(slot, unescaped(text), where)
    return cls(**values)


def _children(slot: _Slot, nodes: list[Node], where: str) -> Any:
    if slot.is_many:
        return tuple(decode(slot.type, node, f"{where}.") for node in nodes)
    if len(nodes) > 1 or (not nodes and slot.is_required):
        raise _error(where, slot.xml, "one element", f"{len(nodes)} elements")
    return decode(slot.type, nodes[0], f"{where}.") if nodes else slot.default


def _value(slot: _Slot, text: str, where: str) -> Any:
    if slot.type is str:
        return text
    if slot.type is bool:
        if text.lower() not in ("true", "false"):
            raise _error(where, slot.xml, "True or False", text)
        return text.lower() == "true"
    if slot.type is int:
        value = int(text) if _INTEGER.fullmatch(text) else -1
        if not 0 <= value <= slot.maximum:
            raise _error(where, slot.xml, f"a whole number from 0 to {slot.maximum}", text)
        return value
    if slot.type is date:
        try:
            if _DATE.fullmatch(text):
                return date.fromisoformat(text)
        except ValueError:
            pass  # the 31st of June
        raise _error(where, slot.xml, "YYYY-MM-DD", text)
    if text not in list(slot.type):
        raise _error(where, slot.xml, " or ".join(slot.type), text)
    return slot.type(text)


def _error(where: str, name: str, expected: str, found: str | None) -> MessageError:
    got = "none" if found is None else quote(found)
    return MessageError(Reason.DATA_ERROR, f"{where}.{name}: expected {expected}, got {got}")


def encode(item: Any) -> Node:
    """Build an element from a dataclass; fields at their default are left out.

    Raises
    ------
    ValueError
        Naming the field whose value has the wrong type or is out of range.
    """
    node = Node(tag_of(type(item)))
    for slot in _slots(type(item)):
        value = getattr(item, slot.name)
        if slot.is_child:
            items = value if slot.is_many else () if value is None else (value,)
            node.children += map(encode, items)
            continue
        _require(slot, value, node.tag)
        if slot.is_content:
            node.text = value
        elif slot.is_required or value != slot.default:
            node.attributes[slot.xml] = _text(value)
    return node


def _require(slot: _Slot, value: Any, tag: str) -> None:
    if value is None and slot.is_optional:
        return
    is_fitting = type(value) is slot.type
    if is_fitting and slot.type is int:
        is_fitting = 0 <= value <= slot.maximum
    if is_fitting and slot.is_required and value == "":
        is_fitting = False
    if not is_fitting:
        expected = f"0 to {slot.maximum}" if slot.type is int else slot.type.__name__
        raise ValueError(f"{tag}.{slot.name}: expected {expected}, got {quote(value)}")


def _text(value: Any) -> str:
    if isinstance(value, StrEnum):
        return value.value
    return value.isoformat() if isinstance(value, date) else str(value)

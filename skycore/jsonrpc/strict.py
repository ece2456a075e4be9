"""Strict JSON: RFC 8259 and nothing else, and never an exception but `DecodeError`.

Why two decoders look at each message: msgspec is strict about text, surrogates and numbers, but
keeps the last of two equal keys; the standard library's can be told about every pair of an object,
and is lenient in the rest. What both accept is what we accept: a message that two parsers could
read differently is an attack on whichever of them checks it (cases J1 to J10). Cost: 2 µs for a
small call.
"""

from __future__ import annotations

import json
import math
import re
from typing import Any, NoReturn

import msgspec

from skycore.errors import DecodeError
from skycore.model.limits import JSON_DEPTH_MAX

__all__ = ["check_json", "decode_strict"]

# Possessive: a string of 4 MiB must not make the matcher remember 4 million ways back.
_STRING = re.compile(rb'"[^"\\]*+(?:\\.[^"\\]*+)*+"', re.DOTALL)
_BRACKETS = bytes.maketrans(b"{}", b"[]")
_NOT_BRACKETS = bytes(set(range(256)) - set(b"[]{}"))


def _pairs(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise DecodeError("a key stands twice in one object", reason="duplicate key")
    return found


def _constant(name: str) -> NoReturn:
    raise DecodeError(f"{name} is no JSON number", reason="bad number")


def _finite(text: str) -> float:
    value = float(text)
    if math.isinf(value):
        raise DecodeError("a number is too large for a float", reason="bad number")
    return value


_parser = json.JSONDecoder(
    object_pairs_hook=_pairs, parse_constant=_constant, parse_float=_finite, strict=True
)


def _check_depth(body: bytes) -> None:
    """Refuse what nests deeper than JSON_DEPTH_MAX, before any parser recurses into it.

    Each round takes away every innermost pair of brackets, at the speed of bytes.replace.
    """
    if body.count(b"[") + body.count(b"{") <= JSON_DEPTH_MAX:
        return
    left = _STRING.sub(b"", body).translate(_BRACKETS, _NOT_BRACKETS)
    for _ in range(JSON_DEPTH_MAX):
        left = left.replace(b"[]", b"")
    if left:
        raise DecodeError(
            f"nested deeper than {JSON_DEPTH_MAX}, or never closed", reason="too deep"
        )


def check_json(body: bytes) -> Any:
    """Return the standard library's reading of one strict document. Raises `DecodeError`.

    Text with lone surrogates passes here and is refused by msgspec, which must read it too.
    """
    try:
        text = body.decode()
    except UnicodeDecodeError as bad:
        raise DecodeError(f"not UTF-8 at byte {bad.start}", reason="bad text") from None
    _check_depth(body)
    try:
        return _parser.decode(text)
    except json.JSONDecodeError as bad:
        reason = "trailing data" if bad.msg == "Extra data" else "malformed"
        raise DecodeError(f"not JSON: {bad.msg} at {bad.pos}", reason=reason) from None
    except ValueError:  # CPython's limit on the digits of an integer
        raise DecodeError("a number has too many digits", reason="bad number") from None


def decode_strict(body: bytes) -> Any:
    """Return the value of one strict JSON document. Raises `DecodeError` and nothing else."""
    check_json(body)
    try:
        return msgspec.json.decode(body)
    except msgspec.ValidationError as bad:
        raise DecodeError(f"not JSON: {bad}", reason="bad number") from None
    except msgspec.DecodeError as bad:
        raise DecodeError(f"not JSON: {bad}", reason="bad text") from None

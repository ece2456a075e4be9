"""ETags, and what headers say about them and about packing (RFC 9110, sections 8.8.3, 12.5.3, 13).

Why weak tags: one tag holds for an answer whether it is sent packed or not.
"""

from __future__ import annotations

import hashlib
import re

__all__ = ["is_known", "tag_of", "takes_gzip", "weak"]

TAG = re.compile(rb'(?:W/)?"[\x21\x23-\x7e\x80-\xff]*"')
CODING = re.compile(rb"\s*([A-Za-z0-9*-]+)\s*(?:;\s*[qQ]=([0-9.]+))?\s*\Z")


def tag_of(body: bytes) -> bytes:
    """Return the tag of a body: 96 bits of its hash."""
    return b'W/"' + hashlib.sha256(body).hexdigest()[:24].encode() + b'"'


def weak(tag: bytes) -> bytes:
    """Return a tag that does not promise the same bytes."""
    return tag if tag.startswith(b"W/") else b"W/" + tag


def is_known(if_none_match: bytes, tag: bytes) -> bool:
    """Tell whether the client holds what a tag stands for; compared weakly."""
    if if_none_match.strip() == b"*":
        return True
    bare = tag.removeprefix(b"W/")
    return any(held.removeprefix(b"W/") == bare for held in TAG.findall(if_none_match))


def takes_gzip(accept_encoding: bytes) -> bool:
    """Tell whether a client takes gzip; what is named counts before `*`."""
    weights: dict[bytes, bool] = {}
    for part in accept_encoding.split(b",")[:32]:
        found = CODING.match(part)
        if found:
            quality = found[2] or b"1"
            weights[found[1].lower()] = quality.strip(b"0.") != b""
    return weights.get(b"gzip", weights.get(b"*", False))

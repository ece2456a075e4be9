"""Signed dials and their answers: who wishes what, and who said what to it.

Why both are signed: a relay is a stranger. It may read, hold back, repeat or make up whatever
passes through it, so a dial counts only with its sender's signature over destination, purpose, time
and an id of its own (R7), and "accepted" only with the destination's over that very dial. Pure.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from typing import Final, NamedTuple

from relay_dmsg.core.messages import (
    Answer,
    Code,
    Dial,
    Request,
    decode_request,
    encode_request,
)
from skycore.contracts.runtime import Identity
from skycore.errors import RemoteProtocolError
from skycore.model.limits import DMSG_AGE_MAX_S, DMSG_REASON_MAX
from skycore.model.network import NetworkConstants, tagged

__all__ = [
    "Judged",
    "SeenDials",
    "is_signed",
    "judge",
    "make_answer",
    "make_dial",
]

SEEN_S: Final = 2 * DMSG_AGE_MAX_S
"""How long a dial's id is remembered: a dial that is older is stale."""
_DIAL, _ANSWER = "skycore/dmsg-dial/1", "skycore/dmsg-answer/1"
NS: Final = 10**9


class Judged(NamedTuple):
    """A dial that was read, and what is wrong with it."""

    request: Request
    code: Code
    """`ACCEPTED`: nothing."""
    reason: str


def make_dial(identity: Identity, request: Request) -> Dial:
    """Sign a request."""
    body = encode_request(request)
    return Dial(body, identity.sign(tagged(_DIAL, identity.network) + body))


def judge(
    network: NetworkConstants, dial: Dial, now_ns: int, *, src: bytes | None = None
) -> Judged:
    """Read a dial and check whose it is, and when; `src`: who must have sent it.

    Raises `DecodeError` where it cannot even be read.
    """
    request = decode_request(dial.request)
    suite = network.suite
    if src is not None and request.src != src:
        return Judged(request, Code.BAD_REQUEST, "the dial names another sender than its own")
    if len(request.dst) != suite.public_bytes or request.dst == request.src:
        return Judged(request, Code.BAD_REQUEST, "the dial names no other key of this network")
    if abs(now_ns - request.time_ns) > DMSG_AGE_MAX_S * NS:
        off_s = (now_ns - request.time_ns) / NS
        return Judged(request, Code.STALE, f"the dial was signed {off_s:.0f} s ago by this clock")
    if not suite.verify(request.src, tagged(_DIAL, network) + dial.request, dial.signature):
        return Judged(request, Code.BAD_REQUEST, "the dial's signature is not its sender's")
    return Judged(request, Code.ACCEPTED, "")


def make_answer(identity: Identity, dial: Dial, code: Code, reason: str = "") -> Answer:
    """Answer a dial as its destination."""
    return Answer(
        code, reason[:DMSG_REASON_MAX], identity.sign(_answered(identity.network, dial, code))
    )


def is_signed(network: NetworkConstants, dst: bytes, dial: Dial, answer: Answer) -> bool:
    """Tell whether the destination itself gave this answer to this dial.

    Raises `RemoteProtocolError` for a signature that is not its own.
    """
    if not answer.signature:
        return False
    said = _answered(network, dial, answer.code)
    if not network.suite.verify(dst, said, answer.signature):
        raise RemoteProtocolError("the answer's signature is not the destination's")
    return True


def _answered(network: NetworkConstants, dial: Dial, code: int) -> bytes:
    digest = hashlib.sha256(dial.request + dial.signature).digest()
    return tagged(_ANSWER, network) + digest + code.to_bytes(2, "big")


class SeenDials:
    """The ids of recent dials, bounded: full, it refuses rather than forgets.

    Bounded for each server, too: keys cost nothing, so one that makes dials up fills its own share.
    """

    def __init__(self, dials_max: int = 16_384, per_server_max: int = 4_096) -> None:
        self._dials_max, self._per_server_max = dials_max, per_server_max
        self._at: dict[bytes, tuple[float, bytes]] = {}
        """By sender and id, oldest first: when they were seen, and through which server."""
        self._of_server: Counter[bytes] = Counter()

    def __len__(self) -> int:
        return len(self._at)

    def take(self, request: Request, now: float, server: bytes = b"") -> Code:
        """Note a dial; `REPLAYED` where it was seen before, `BUSY` where there is no room."""
        at = self._at
        while at and now - next(iter(at.values()))[0] > SEEN_S:
            self._forget(next(iter(at)))
        key = request.src + request.id
        if key in at:
            return Code.REPLAYED
        if len(at) >= self._dials_max or self._of_server[server] >= self._per_server_max:
            return Code.BUSY
        at[key] = now, server
        self._of_server[server] += 1
        return Code.ACCEPTED

    def _forget(self, key: bytes) -> None:
        _, server = self._at.pop(key)
        self._of_server[server] -= 1
        if not self._of_server[server]:
            del self._of_server[server]

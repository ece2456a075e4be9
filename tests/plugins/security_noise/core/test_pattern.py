"""The pattern table says what the specification says."""

from __future__ import annotations

import pytest

from security_noise.core.pattern import IK, KK, XK, XX, Pattern, protocol_name


def test_names() -> None:
    assert protocol_name(XK, "ed25519") == b"Noise_XK_25519_ChaChaPoly_SHA256"
    assert protocol_name(IK, "secp256k1") == b"Noise_IK_secp256k1_ChaChaPoly_SHA256"


@pytest.mark.parametrize("pattern", [IK, KK, XK, XX], ids=lambda p: p.name)
def test_a_pattern_is_well_formed(pattern: Pattern) -> None:
    """Each ephemeral is sent once, and no key is mixed before both ends know it."""
    sent = set()
    for turn, tokens in enumerate(pattern.messages):
        side = "i" if turn % 2 == 0 else "r"
        for token in tokens:
            if token in ("e", "s"):
                assert (side, token) not in sent
                sent.add((side, token))
                continue
            for owner, kind in zip("ir", token, strict=True):
                pre = pattern.initiator_known if owner == "i" else pattern.responder_known
                assert (owner, kind) in sent or (kind == "s" and pre), (pattern.name, token)
    assert {("i", "e"), ("r", "e")} <= sent

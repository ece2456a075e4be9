"""`skynode mirror import`: a recorded network, published into Redis."""

from __future__ import annotations

from skycore.console import Console
from skycore.importing import (
    At,
    Delegations,
    File,
    Replace,
    Salt,
    publish_recorded,
    recorded,
)

__all__ = ["import_recording"]


def import_recording(
    console: Console,
    file: File,
    salt: Salt = None,
    at: At = None,
    replace: Replace = False,
    delegation: Delegations = None,
) -> None:
    """Publish a recorded network as a mirror, into the Redis of [mirror_redis] url.

    Full nodes with store_redis on that Redis serve it at once. The node needs a delegation for
    each salt: publisher.delegations in its settings, or --delegation here. What has not changed is
    neither signed nor written again. An empty list in a recording means "not recorded".

    With --replace Redis then holds of our mirroring what the recording lists and nothing else.
    """
    publish_recorded(
        console, recorded(file, at, salt), replace=replace, delegations=delegation or ()
    )

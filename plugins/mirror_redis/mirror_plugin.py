"""mirror_redis: what this node publishes is written into a Redis that full nodes serve."""

from __future__ import annotations

from typing import Any

from skycore import hookimpl

__all__: list[str] = []


@hookimpl
def skycore_settings() -> Any:
    from mirror_redis.mirror_settings import RedisMirrorSettings

    return RedisMirrorSettings


@hookimpl
def skycore_services() -> Any:
    from mirror_redis.mirror_service import Mirroring, MirrorLink, open_mirror_link, open_mirroring
    from skycore import Provider

    return [Provider(MirrorLink, open_mirror_link), Provider(Mirroring, open_mirroring)]


@hookimpl
def skycore_mirrors() -> Any:
    from mirror_redis.mirror_service import open_redis_mirror

    return [open_redis_mirror]


@hookimpl
def skycore_discovery() -> Any:
    from mirror_redis.source import open_redis_source

    return [open_redis_source]


@hookimpl
def skycore_status() -> Any:
    from mirror_redis.mirror_service import open_mirror_status

    return [open_mirror_status]


@hookimpl
def skycore_commands() -> Any:
    from skycore.contracts.command import Command

    return [
        Command(
            "mirror import",
            "Publish a recorded network into Redis.",
            "mirror_redis.mirror_commands:import_recording",
        ),
    ]

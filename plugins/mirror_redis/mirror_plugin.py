"""mirror_redis: what this node publishes is written into a Redis that full nodes serve."""

from __future__ import annotations

from typing import TYPE_CHECKING

from skycore import hookimpl

if TYPE_CHECKING:
    from skycore import hooktypes

__all__: list[str] = []


@hookimpl
def skycore_settings() -> hooktypes.Settings:
    from mirror_redis.mirror_settings import RedisMirrorSettings

    return RedisMirrorSettings


@hookimpl
def skycore_services() -> hooktypes.Services:
    from mirror_redis.mirror_service import Mirroring, MirrorLink, open_mirror_link, open_mirroring
    from skycore import Provider

    return [Provider(MirrorLink, open_mirror_link), Provider(Mirroring, open_mirroring)]


@hookimpl
def skycore_mirrors() -> hooktypes.Mirrors:
    from mirror_redis.mirror_service import open_redis_mirror

    return [open_redis_mirror]


@hookimpl
def skycore_discovery() -> hooktypes.Discovery:
    from mirror_redis.source import open_redis_source

    return [open_redis_source]


@hookimpl
def skycore_status() -> hooktypes.Status:
    from mirror_redis.mirror_service import open_mirror_status

    return [open_mirror_status]


@hookimpl
def skycore_commands() -> hooktypes.Commands:
    from skycore.contracts.command import Command

    return [
        Command(
            "mirror import",
            "Publish a recorded network into Redis.",
            "mirror_redis.mirror_commands:import_recording",
        ),
    ]

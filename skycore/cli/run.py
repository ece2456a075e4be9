"""`skynode` without a command: prepare the data folder, then run until told to stop."""

from __future__ import annotations

import os

from skycore.console import Context
from skycore.errors import ConfigError
from skycore.logs import set_up_logs
from skycore.node import run

__all__ = ["prepare_folder", "run_node"]

NODE_TOML = """\
# Settings of this node. `skynode config show --explain` lists every one of them.
# Order of precedence: profile < this file < environment (SKYNODE_SECTION__KEY) < --set.

[node]
profile = "{profile}"
# enable = ["a_plugin"]          # installed plugins to add to the profile's
# disable = ["visor_rpc"]        # and to take away

# [dht_kademlia]
# bootstrap = ["PUBLIC_KEY@host:port"]   # nodes that are already in the network

# [transport_stcpr]
# listen = "0.0.0.0:7777"
"""


def prepare_folder(context: Context) -> None:
    """Make the data folder, and its node.toml at the first run."""
    try:
        context.data.mkdir(parents=True, exist_ok=True, mode=0o700)
        if context.config is None and not (context.data / "node.toml").exists():
            text = NODE_TOML.format(profile=(context.profile or "visor").replace("\\", "\\\\"))
            (context.data / "node.toml").write_text(text)
    except OSError as bad:
        raise ConfigError(
            f"cannot use {context.data}: {bad.strerror}", hint="choose another folder with --data"
        ) from bad


def run_node(context: Context, log_format: str, log_level: str) -> int:
    """Run; return the exit code."""
    if log_format not in ("text", "json"):
        raise ConfigError(f"there is no log format {log_format!r}", hint="text or json")
    if log_level.upper() not in ("DEBUG", "INFO", "WARNING", "ERROR"):
        raise ConfigError(
            f"there is no log level {log_level!r}", hint="debug, info, warning or error"
        )
    set_up_logs("json" if log_format == "json" else "text", log_level)
    prepare_folder(context)
    return run(
        context.profile,
        context.assigned,
        config=context.config_file,
        data=context.data,
        environment=os.environ,
    )

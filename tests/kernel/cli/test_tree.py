"""The command tree: lazy, complete, and clear about clashes."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from skycore.cli.main import BUILT_IN
from skycore.cli.tree import build_tree
from skycore.contracts.command import Command
from skycore.errors import PluginConflictError


def skynode(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "skycore", *words], capture_output=True, text=True, timeout=60
    )


def test_two_plugins_with_one_command_are_refused() -> None:
    one = Command("visor info", "a", "a:b")
    with pytest.raises(PluginConflictError, match="visor info"):
        build_tree([one, Command("visor info", "c", "c:d")])


def test_groups_are_made_of_paths() -> None:
    tree = build_tree([*BUILT_IN, Command("visor dht get", "", "")])
    assert set(tree["keys"]) == {"new", "show"}
    assert isinstance(tree["visor"]["dht"]["get"], Command)


HEAVY = ("pydantic", "sqlalchemy", "msgspec", "nacl", "dht_kademlia.service", "anyio")


def test_help_imports_nothing_heavy() -> None:
    script = (
        "import sys\nfrom skycore.cli.main import main\nsys.argv = ['skynode', '--help']\n"
        "try:\n    main()\nexcept SystemExit:\n    pass\n"
        f"heavy = [m for m in {HEAVY!r} if m in sys.modules]\nassert not heavy, heavy\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stderr
    assert "visor" in done.stdout


COMMANDS = [
    "keys new", "keys show", "network new", "network show", "network delegate", "plugins", "plan",
    "config show", "config check", "visor info", "visor tp-rpc", "visor whitelist add",
    "visor whitelist rm", "visor dht status", "visor dht put", "visor dht get", "visor dht delete",
    "visor dht list", "visor dht sync", "visor dht peers", "visor dht import", "visor dht history",
    "visor dht reconcile", "visor dht watch", "visor dht verify", "visor dht full-node",
    "visor dht full-nodes", "tp ls", "tp add", "tp rm", "tp all",
]  # fmt: skip


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_teaches_and_speaks_json(command: str) -> None:
    done = skynode(*command.split(), "--help")
    assert done.returncode == 0, done.stderr
    assert "--json" in done.stdout
    assert "--data" in done.stdout


def test_a_network_is_not_founded_over_a_broken_file(tmp_path: Path) -> None:
    (tmp_path / "node.toml").write_text("[network\n")
    done = skynode("--data", str(tmp_path), "network", "new", "ours")
    assert done.returncode == 2
    assert "is not TOML" in done.stderr
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "authority.key").exists()


def test_an_unknown_command_is_an_error_not_a_traceback() -> None:
    done = skynode("visor", "dth")
    assert done.returncode == 2
    assert "Traceback" not in done.stderr


def test_completion_knows_commands_and_words_of_plugins() -> None:
    import os

    env = os.environ | {
        "_SKYNODE_COMPLETE": "complete_bash",
        "COMP_WORDS": "skynode visor dht ",
        "COMP_CWORD": "3",
    }
    script = "from skycore.cli.main import main\nimport sys\nsys.argv = ['skynode']\nmain()"
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, timeout=60, env=env
    )
    assert "sync" in done.stdout, done.stderr

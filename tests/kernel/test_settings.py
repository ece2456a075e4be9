"""Settings: which source wins, and that a typo is refused with a suggestion."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from skycore.contracts.settings import PluginSettings
from skycore.errors import ConfigError
from skycore.settings import (
    NodeSettings,
    merge,
    parse_assignment,
    profile_names,
    read_layers,
    validate,
)


class KadSettings(PluginSettings):
    full_node: bool = False
    """Whether."""
    bootstrap: tuple[str, ...] = ()
    """Whom."""
    refresh_s: float = 1.0
    """When."""


MODELS = {"node": NodeSettings, "dht_kademlia": KadSettings}
IGNORED = ("transport_stcpr", "store_sqlite")


def build(**sources: Any) -> KadSettings:
    _, layers = read_layers(**sources)
    section = validate(MODELS, layers, IGNORED)["dht_kademlia"]
    assert isinstance(section, KadSettings)
    return section


def test_each_source_wins_over_those_before_it(tmp_path: Path) -> None:
    file = tmp_path / "node.toml"
    file.write_text("[dht_kademlia]\nrefresh_s = 2\n")
    environment = {"SKYNODE_DHT_KADEMLIA__REFRESH_S": "3"}
    assigned = parse_assignment("dht_kademlia.refresh_s=4")
    assert build().refresh_s == 1
    assert build(file=file).refresh_s == 2
    assert build(file=file, environment=environment).refresh_s == 3
    assert build(file=file, environment=environment, assigned=assigned).refresh_s == 4
    assert build(profile="fullnode").full_node is True


def test_names_in_the_environment_have_no_case() -> None:
    node, _ = read_layers(environment={"skynode_node__profile": "fullnode"})
    assert node.profile == "fullnode"
    with pytest.raises(ConfigError, match="dht_kademla"):
        build(environment={"skynode_dht_kademla__full_node": "true"})


def test_lists_come_from_the_environment_as_json() -> None:
    environment = {"SKYNODE_DHT_KADEMLIA__BOOTSTRAP": '["a", "b"]'}
    assert build(environment=environment).bootstrap == ("a", "b")
    with pytest.raises(ConfigError) as bad:
        build(environment={"SKYNODE_DHT_KADEMLIA__BOOTSTRAP": "[["})
    assert "JSON" in bad.value.hint


def test_profiles_in_the_box_and_by_path(tmp_path: Path) -> None:
    assert list(profile_names()) == ["fullnode", "mirror", "visor"]
    mine = tmp_path / "mine.toml"
    mine.write_text('summary = "mine"\n[node]\nplugins = ["store_memory"]\n')
    node, layers = read_layers(profile=str(mine))
    assert list(node.active()) == ["store_memory"]
    assert layers.summary == "mine"


def test_enable_and_disable_change_a_profile() -> None:
    assigned = parse_assignment('node.enable=["extra"]') | {}
    node, _ = read_layers(
        profile="visor", assigned=merge(assigned, {"node": {"disable": ["visor_rpc"]}})
    )
    assert "extra" in node.active()
    assert "visor_rpc" not in node.active()


@pytest.mark.parametrize(
    ("sources", "says", "hint"),
    [
        ({"profile": "visr"}, "no profile 'visr'", "visor"),
        ({"profile": "./nowhere.toml"}, "cannot read", ""),
        ({"assigned": {"dht_kademli": {}}}, "no section [dht_kademli]", "dht_kademlia"),
        ({"assigned": {"dht_kademlia": {"fullnode": 1}}}, "dht_kademlia.fullnode", "full_node"),
        ({"assigned": {"dht_kademlia": {"refresh_s": "x"}}}, "dht_kademlia.refresh_s", ""),
        ({"environment": {"SKYNODE_DHT_KADEMLA__X": "1"}}, "no section [dht_kademla]", "kademlia"),
        ({"environment": {"SKYNODE_DHT_KADEMLIA__BOOTSTRP": "1"}}, "bootstrp", "bootstrap"),
    ],
)
def test_a_mistake_is_refused_by_name_with_a_suggestion(
    sources: dict[str, Any], says: str, hint: str
) -> None:
    with pytest.raises(ConfigError) as bad:
        build(**sources)
    assert says in str(bad.value)
    assert hint in bad.value.hint


def test_sections_of_inactive_plugins_are_left_alone() -> None:
    build(assigned={"store_sqlite": {"anything": "goes"}})


@pytest.mark.parametrize("content", [b"[node\n", b"\xff\xfe", b"a" * (1024 * 1024 + 1)])
def test_a_broken_file_is_refused_by_name(tmp_path: Path, content: bytes) -> None:
    file = tmp_path / "node.toml"
    file.write_bytes(content)
    with pytest.raises(ConfigError) as bad:
        read_layers(file=file)
    assert str(file) in str(bad.value)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("a.b=1", {"a": {"b": 1}}),
        ("a.b=true", {"a": {"b": True}}),
        ('a.b=["x"]', {"a": {"b": ["x"]}}),
        ("a.b=127.0.0.1:0", {"a": {"b": "127.0.0.1:0"}}),
        ("a.b=", {"a": {"b": ""}}),
        ("a.b.c=x=y", {"a": {"b": {"c": "x=y"}}}),
    ],
)
def test_set_takes_toml_and_else_text(text: str, value: dict[str, Any]) -> None:
    assert parse_assignment(text) == value


@pytest.mark.parametrize("text", ["", "a=1", "a.b", ".b=1", "a.=1"])
def test_set_refuses_what_names_no_setting(text: str) -> None:
    with pytest.raises(ConfigError):
        parse_assignment(text)


tables = st.recursive(
    st.integers(), lambda inner: st.dictionaries(st.sampled_from("abc"), inner, max_size=3)
).filter(lambda t: isinstance(t, dict))


@given(tables, tables)
def test_merging_keeps_every_high_leaf_and_the_low_ones_without_a_rival(
    low: Any, high: Any
) -> None:
    merged = merge(low, high)
    assert merge(merged, high) == merged
    assert set(merged) == set(low) | set(high)
    for key in set(low) - set(high):
        assert merged[key] == low[key]

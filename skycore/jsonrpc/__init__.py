"""JSON-RPC 2.0 in frames: the strict decoder, the server of a registry, and the client.

Wire format: docs/protocols/rpc.md. Used by plugins/rpc_local (Unix socket), plugins/visor_rpc
(streams of packet type 14) and the command line.
"""

from __future__ import annotations

from skycore.jsonrpc.client import Client, connect_control
from skycore.jsonrpc.messages import ErrorCode, RpcStream, not_listed
from skycore.jsonrpc.server import RpcServer, ServerLimits
from skycore.jsonrpc.strict import decode_strict

__all__ = [
    "Client",
    "ErrorCode",
    "RpcServer",
    "RpcStream",
    "ServerLimits",
    "connect_control",
    "decode_strict",
    "not_listed",
]

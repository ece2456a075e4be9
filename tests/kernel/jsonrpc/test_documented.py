"""What docs/protocols/rpc.md says is what the code does."""

from __future__ import annotations

import re
from pathlib import Path

from skycore.errors import RpcError
from skycore.frames import frame
from skycore.jsonrpc import ErrorCode, ServerLimits
from skycore.jsonrpc.messages import (
    METHOD_MAX,
    decode_incoming,
    decode_request,
    error_frame,
    progress_frame,
    request_frame,
    result_frame,
)
from skycore.model.limits import JSON_DEPTH_MAX, RPC_FRAME_MAX

PAGE = (Path(__file__).parents[3] / "docs/protocols/rpc.md").read_text()


def _vectors():
    block = re.search(r"```vectors\n(.*?)```", PAGE, re.DOTALL).group(1)
    for line in block.splitlines():
        length, _, body = line.partition(" ")
        yield bytes.fromhex(length) + body.encode()


def test_the_vectors_are_what_is_sent():
    call, result, progress, error = _vectors()
    assert call == request_frame(1, "Health", {})
    assert result == result_frame(1, b'{"health":"ok","reasons":[],"parts":[]}')
    assert progress == progress_frame(1, 3, 10, "copying")
    refused = RpcError("there is no method 'x'", code=ErrorCode.METHOD_UNKNOWN, hint="h")
    assert error == error_frame(1, refused)


def test_the_vectors_are_read():
    call, *answers = _vectors()
    assert decode_request(call[4:]).method == "Health"
    assert [decode_incoming(a[4:]).error is not None for a in answers] == [False, False, True]
    assert all(frame(v[4:]) == v for v in (call, *answers))


def test_every_code_is_documented():
    table = {int(code) for code in re.findall(r"^\| (-\d+) \|", PAGE, re.MULTILINE)}
    assert table == {int(code) for code in ErrorCode}


def test_the_limits_are_documented():
    limits = ServerLimits()
    assert f"{RPC_FRAME_MAX:,}" in PAGE
    assert f"| nesting (`JSON_DEPTH_MAX`) | {JSON_DEPTH_MAX} |" in PAGE
    assert f"| calls of one caller that run | {limits.running_max} |" in PAGE
    assert f"waiting ones included | {limits.open_max} |" in PAGE
    assert f"of one caller | {limits.held_bytes_max // 2**20} MiB |" in PAGE
    assert f"text id | {METHOD_MAX}; 64" in PAGE

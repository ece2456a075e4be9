"""Every error that the project raises on purpose, as one tree.

Why one tree: whose fault it was and what to do about it must be readable from the type alone. A
plugin may subclass, never start a tree of its own. The first line of a class's docstring is what
it means; `hint` says what to do; `code` is the number that crosses the wire, where one does.
"""

from __future__ import annotations

__all__ = [
    "AccessDeniedError", "AlreadyRunningError", "AmbiguousProviderError", "CasMismatchError",
    "ConfigError", "CursorInvalidError", "DecodeError", "DependencyCycleError", "DialError",
    "DiscoveryError", "EntryNewerError", "ExpiredError", "HandshakeAuthError", "HandshakeError",
    "HandshakeKeyError", "HandshakeMalformedError", "HandshakeTimeoutError", "HookError",
    "HttpError", "HttpListenError", "HttpReplyError", "HttpStatusError", "HttpTimeoutError",
    "HttpUnreachableError", "InvalidKeyError", "InvalidSignatureError", "ItemError",
    "KeyFileError", "LocalProtocolError", "MissingBlocksError", "MissingProviderError",
    "NamespaceError", "NoNodeError", "NonceExhaustedError", "NotAuthorisedError",
    "NotClosestError", "PluginConflictError", "PluginError", "PluginLoadError",
    "PluginNotFoundError", "ProtocolError", "QuotaError", "RecordingError",
    "RemoteProtocolError", "ReplyError", "RequestRefusedError", "RpcError", "SaltTooBigError",
    "SelfConnectError", "SeqTooFarError", "SeqTooLowError", "SkycoreError", "StoreAuthError",
    "StoreBusyError", "StoreCorruptError", "StoreError", "StoreFullError", "StoreReadOnlyError",
    "StoreSlowError", "StoreUnreachableError", "StoreUnsafeError", "StoreUnsupportedError",
    "StoreVersionError", "StreamError", "TooManyRequestsError", "TransportClosedError",
    "TransportError", "ValueTooBigError", "WiringError", "WrongNetworkError",
]  # fmt: skip


class SkycoreError(Exception):
    """Anything that skycore raises on purpose."""

    code: int = 0

    def __init__(self, message: str = "", *, hint: str = "") -> None:
        super().__init__(message or (type(self).__doc__ or "").split("\n", 1)[0])
        self.hint = hint


# --- configuration and assembly: exit code 2 -----------------------------------------------------


class ConfigError(SkycoreError):
    """The configuration does not say what it must."""


class KeyFileError(ConfigError):
    """The secret key file cannot be used."""


class PluginError(SkycoreError):
    """A plugin cannot be used."""


class PluginNotFoundError(PluginError):
    """No installed plugin has this name."""


class PluginLoadError(PluginError):
    """A plugin's module could not be imported."""


class PluginConflictError(PluginError):
    """Two plugins claim one thing."""


class HookError(PluginError):
    """A hook implementation breaks the rules of hooks."""


class WiringError(SkycoreError):
    """The parts of this node cannot be put together."""


class MissingProviderError(WiringError):
    """A part needs a contract that no active plugin provides."""


class AmbiguousProviderError(WiringError):
    """A part needs one provider of a contract and there are several."""


class DependencyCycleError(WiringError):
    """Parts need each other in a circle."""


class AlreadyRunningError(SkycoreError):
    """A node already runs on this data folder."""


class NoNodeError(SkycoreError):
    """No node runs on this data folder."""


# --- protocols -----------------------------------------------------------------------------------


class ProtocolError(SkycoreError):
    """A protocol rule was broken."""


class LocalProtocolError(ProtocolError):
    """We asked for something that the protocol forbids: a mistake in our own code."""


class RemoteProtocolError(ProtocolError):
    """The other side broke the protocol."""


class ReplyError(RemoteProtocolError):
    """The other side answered with an error; `code` is the number it gave."""

    def __init__(self, message: str = "", *, code: int = 0, hint: str = "") -> None:
        super().__init__(message, hint=hint)
        self.code = code


class DecodeError(RemoteProtocolError):
    """These bytes are not what they must encode. `reason` is one of a few fixed words."""

    def __init__(self, message: str = "", *, reason: str = "malformed", hint: str = "") -> None:
        super().__init__(message, hint=hint)
        self.reason = reason


class InvalidKeyError(RemoteProtocolError):
    """This is not a public key of the network's suite."""


# --- items: codes as BEP 44 has them, ours from 400 on ------------------------------------------


class ItemError(SkycoreError):
    """An item was refused."""

    code = 400


class ValueTooBigError(ItemError):
    """The value is larger than an item may carry."""

    code = 205


class InvalidSignatureError(ItemError):
    """The signature is not the signer's over exactly these bytes."""

    code = 206


class SaltTooBigError(ItemError):
    """The salt is longer than 200 bytes."""

    code = 207


class CasMismatchError(ItemError):
    """The expected seq is not the current one; nothing was changed."""

    code = 301


class SeqTooLowError(ItemError):
    """A newer item of this class is already stored."""

    code = 302


class SeqTooFarError(ItemError):
    """The seq lies too far ahead of this node's clock, or outside 1 .. 2^63-1."""

    code = 303


class NotAuthorisedError(ItemError):
    """The signer may not speak for this subject under this salt."""

    code = 401


class NamespaceError(ItemError):
    """The value does not fit the schema of its namespace."""

    code = 402


class QuotaError(ItemError):
    """A capacity limit of this node was reached."""

    code = 403


class ExpiredError(ItemError):
    """The item's lifetime is over, or promised for longer than its namespace allows."""

    code = 404


class NotClosestError(ItemError):
    """This regular node is not among the closest to the item's target."""

    code = 405


class MissingBlocksError(ItemError):
    """Blocks that a value stands on are not here."""

    code = 407


class CursorInvalidError(SkycoreError):
    """The cursor does not belong to this store, or points past its end."""

    code = 406


# --- links ---------------------------------------------------------------------------------------


class TransportError(SkycoreError):
    """A transport could not be made or used."""


class DialError(TransportError):
    """The remote node could not be reached."""


class HandshakeError(TransportError):
    """The secure handshake failed."""


class WrongNetworkError(HandshakeError):
    """The other side belongs to another network."""


class HandshakeAuthError(HandshakeError):
    """A handshake message is not by whom it should be."""


class HandshakeKeyError(HandshakeError):
    """The other side sent what is not a usable key."""


class HandshakeMalformedError(HandshakeError):
    """A handshake message does not have the form it must have."""


class HandshakeTimeoutError(HandshakeError):
    """The handshake did not end in time, whatever arrived."""


class SelfConnectError(HandshakeError):
    """The other side is this node itself."""


class TransportClosedError(TransportError):
    """The transport is closed."""


class NonceExhaustedError(TransportClosedError):
    """The channel has sealed as many frames as one key may; dial again."""


class StreamError(TransportError):
    """A stream was reset, refused or lost."""


# --- the rest ------------------------------------------------------------------------------------


class RecordingError(SkycoreError):
    """The file is no recording of a network."""


class StoreError(SkycoreError):
    """The item store cannot do this now."""


class StoreBusyError(StoreError):
    """Another process holds the item store."""


class StoreCorruptError(StoreError):
    """The item store's file is damaged."""


class StoreFullError(StoreError):
    """The item store has no room left on its disk."""


class StoreReadOnlyError(StoreError):
    """The item store cannot be written."""


class StoreVersionError(StoreError):
    """The item store was written by a newer version of this program."""


class StoreUnreachableError(StoreError):
    """The server that holds the items cannot be reached."""


class StoreSlowError(StoreUnreachableError):
    """The server that holds the items does not answer in time."""


class StoreAuthError(StoreError):
    """The server that holds the items refuses this user."""


class StoreUnsafeError(StoreError):
    """The server that holds the items may throw them away."""


class StoreUnsupportedError(StoreError):
    """The server that holds the items is of a kind that cannot be used."""


class HttpError(SkycoreError):
    """An HTTP request came to nothing."""


class HttpListenError(HttpError):
    """The HTTP server cannot listen where it should."""


class HttpReplyError(HttpError):
    """The HTTP server's answer is malformed, cut off or larger than asked for."""


class HttpStatusError(HttpError, ReplyError):
    """The HTTP server answered with a status that means no; `code` is it."""


class HttpTimeoutError(HttpError):
    """The HTTP server did not answer in time."""


class HttpUnreachableError(HttpError):
    """The HTTP server cannot be reached."""


class DiscoveryError(SkycoreError):
    """A discovery service or source cannot answer."""


class EntryNewerError(DiscoveryError):
    """A discovery server holds an entry of this key that was signed later than ours."""


class RequestRefusedError(DiscoveryError):
    """A discovery server refuses a request; `code` is the HTTP status."""

    def __init__(self, message: str = "", *, code: int = 400, hint: str = "") -> None:
        super().__init__(message, hint=hint)
        self.code = code


class AccessDeniedError(SkycoreError):
    """The caller is not authorised for this."""

    code = -32001


class TooManyRequestsError(SkycoreError):
    """The caller has more calls open than one may have."""

    code = -32002


class RpcError(SkycoreError):
    """A remote call failed; `code` is the JSON-RPC error code."""

    def __init__(self, message: str = "", *, code: int = -32000, hint: str = "") -> None:
        super().__init__(message, hint=hint)
        self.code = code

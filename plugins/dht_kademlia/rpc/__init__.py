"""The RPC methods `dht.*`."""

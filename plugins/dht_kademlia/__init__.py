"""The Kademlia DHT: find, put and bulk-sync signed items."""

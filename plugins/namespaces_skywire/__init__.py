"""The six namespaces of a Skywire network, as declarations."""

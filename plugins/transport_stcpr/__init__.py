"""STCPR: transports over plain TCP."""

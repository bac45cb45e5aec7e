"""Wiring: thin Protocols and Factories that join the other rooms to sockets."""

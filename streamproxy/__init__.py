"""A streaming, intercepting proxy daemon for HTTP. ARCHITECTURE.md tells how it is built."""

__version__ = "0.1.0"

"""Change: bytes to bytes for one body. Pure and synchronous; never sees pressure."""

"""Grammar: bytes to events and events to bytes. No Twisted, no clock, no I/O, no policy."""

"""The life of the process: its listeners, the signals it obeys, what it tells systemd, and how it stops."""

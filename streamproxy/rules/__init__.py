"""Policy: what should happen to a message, as pure functions of its head. Never sees a transport."""

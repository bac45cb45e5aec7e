"""Sight: what an operator sees of the proxy from outside, and the listener where that is shown."""

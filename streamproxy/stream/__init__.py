"""Pressure: producers and consumers. The only room that pauses anything."""

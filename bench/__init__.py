"""Measures a running streamproxy against the figures that it has to reach; see README.md beside this file."""

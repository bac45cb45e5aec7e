"""What scripts raise to be told about, and what they may be told in return."""

from __future__ import annotations


class OptionsError(Exception):
    """An option has a value that it can't have; raised by a script's `configure`, too."""


class ControlException(Exception):
    """A flow can't be told to do this now, such as to be killed a second time."""

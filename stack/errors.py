"""What stops the one-machine stack, in words for the person at the terminal."""

from __future__ import annotations


class StackError(Exception):
    """The stack cannot do what was asked; the message says why and what to do."""

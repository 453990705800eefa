"""`offhook doctor`: what is wrong with this machine and this configuration, and what would help."""

from . import command
from .command import register

__all__ = ["command", "register"]

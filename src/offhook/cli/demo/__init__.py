"""`offhook demo`: a phone call to an app, from end to end, on this machine."""

from .command import register

__all__ = ["register"]

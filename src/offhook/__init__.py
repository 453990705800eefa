"""Offhook: a self-hosted, drop-in Realtime API with SIP."""

__version__ = "0.1.0"

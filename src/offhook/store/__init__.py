"""What outlives the process: projects, keys, endpoints, webhooks on their way, calls and their stories."""

from .database import Database, StoreError

__all__ = ["Database", "StoreError"]

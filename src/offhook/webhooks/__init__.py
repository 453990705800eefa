"""Telling the developer's app: signed, retried, bounded."""

from .delivery import DeliverySettings, WebhookAnnouncer

__all__ = ["DeliverySettings", "WebhookAnnouncer"]

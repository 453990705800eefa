"""Indexes by time"""

from __future__ import annotations

from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_index("calls_of_all_by_time", "calls", ["created_at", "id"])
    op.create_index("calls_by_end", "calls", ["ended_at"])
    op.create_index("events_of_all_by_time", "events", ["created_at"])


def downgrade() -> None:
    op.drop_index("events_of_all_by_time", "events")
    op.drop_index("calls_by_end", "calls")
    op.drop_index("calls_of_all_by_time", "calls")

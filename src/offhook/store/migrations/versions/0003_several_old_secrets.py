"""Several old secrets"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None

_endpoints = sa.table(
    "webhook_endpoints",
    sa.column("id", sa.String),
    sa.column("old_secret", sa.Text),
    sa.column("old_secret_until", sa.Float),
    sa.column("old_secrets", sa.JSON),
)


def upgrade() -> None:
    op.add_column("webhook_endpoints", sa.Column("old_secrets", sa.JSON(), nullable=True))
    connection = op.get_bind()
    rows = connection.execute(sa.select(_endpoints).where(_endpoints.c.old_secret.is_not(None))).all()
    for row in rows:
        connection.execute(
            sa.update(_endpoints)
            .where(_endpoints.c.id == row.id)
            .values(old_secrets=[[row.old_secret, row.old_secret_until]])
        )
    op.drop_column("webhook_endpoints", "old_secret")
    op.drop_column("webhook_endpoints", "old_secret_until")


def downgrade() -> None:
    op.add_column("webhook_endpoints", sa.Column("old_secret", sa.Text(), nullable=True))
    op.add_column("webhook_endpoints", sa.Column("old_secret_until", sa.Float(), nullable=True))
    connection = op.get_bind()
    rows = connection.execute(sa.select(_endpoints.c.id, _endpoints.c.old_secrets)).all()
    for endpoint_id, old in rows:
        if old:
            connection.execute(
                sa.update(_endpoints)
                .where(_endpoints.c.id == endpoint_id)
                .values(old_secret=old[0][0], old_secret_until=old[0][1])
            )
    op.drop_column("webhook_endpoints", "old_secrets")

"""add

Revision ID: a
"""
from alembic import op

revision: str = 'a1'
down_revision = ("b2", r"c3")
depends_on = None


def upgrade():
    op.execute(f"""{1 + 1}""")

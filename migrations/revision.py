"""Write the next numbered migration from what the tables say: `make revision NAME="add x"`."""

import sys

from alembic import command
from sqlalchemy import create_engine
from sqlalchemy.pool import NullPool

import migrations
from shared.settings import Settings


def main(name: str) -> None:
    """Compare the database of DATABASE_URL with the tables and write the difference."""
    newest = max((int(head) for head in migrations.heads()), default=0)
    url = Settings().database_url.get_secret_value().partition("://")[2]
    engine = create_engine(f"postgresql+psycopg://{url}", poolclass=NullPool)
    with engine.connect() as connection:
        command.revision(
            migrations.config_for(connection),
            message=name,
            autogenerate=True,
            rev_id=f"{newest + 1:04d}",
        )


if __name__ == "__main__":
    main(sys.argv[1])

"""Where the straightforward program finds its servers."""

from arq.connections import RedisSettings
from pydantic_settings import BaseSettings
from sqlalchemy.ext.asyncio import AsyncEngine, async_sessionmaker, create_async_engine
from sqlmodel.ext.asyncio.session import AsyncSession

Sessions = async_sessionmaker[AsyncSession]


class Config(BaseSettings):
    """Read from the environment."""

    database_url: str
    redis_url: str
    openai_base_url: str
    openai_api_key: str


def redis_settings(config: Config) -> RedisSettings:
    return RedisSettings.from_dsn(config.redis_url)


def engine(config: Config) -> AsyncEngine:
    # No overflow: SQLAlchemy closes and reopens such connections all the time.
    return create_async_engine(config.database_url, pool_size=20, max_overflow=0)


def sessions(made: AsyncEngine) -> Sessions:
    return async_sessionmaker(made, class_=AsyncSession, expire_on_commit=False)

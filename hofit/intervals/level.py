"""The level of an interval, where none is asked for, and which there are."""

from __future__ import annotations

from ..errors import ConfigError

LEVEL = 0.95


def check_level(level: float) -> None:
    """Raises: ConfigError."""
    if not 0.0 < level < 1.0:
        raise ConfigError(f"--level {level:g}: a level lies between 0 and 1, as {LEVEL:g}")

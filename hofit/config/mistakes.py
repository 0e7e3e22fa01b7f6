"""What is wrong with a config, gathered with its places, so that all of it is said at once."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager

from ..errors import ConfigError, DataError, HofitError
from .source import KeyPath, Source


class Mistakes:
    """The mistakes found so far in a config, a line each: ``file:line: key: what is wrong``."""

    def __init__(self, source: Source, found: Iterable[str] = ()) -> None:
        self.source, self._found = source, list(found)

    def __bool__(self) -> bool:
        return bool(self._found)

    def add(self, key: KeyPath, text: str) -> None:
        """Note what is wrong at a key."""
        self._found.append(self.source.mistake(key, text))

    def error(self, key: KeyPath = (), *texts: str) -> ConfigError:
        """All of them as one error to raise, with these at a key as the last."""
        return ConfigError([*self._found, *(self.source.mistake(key, text) for text in texts)])

    @contextmanager
    def stage(self) -> Iterator[None]:
        """Around one stage of a check: when that fails, what was wrong before is reported with it."""
        try:
            yield
        except HofitError as error:
            raise self.beside(error) from error

    def beside(self, error: HofitError) -> HofitError:
        """The error, with its place where it has one, and with the mistakes before it."""
        if isinstance(error, DataError):
            located = DataError(self.source.mistake(error.key, str(error)), error.key)
            return ConfigError([*self._found, str(located)]) if self._found else located
        if not self._found or isinstance(error, ConfigError):
            return error
        return ConfigError([*self._found, str(error)])

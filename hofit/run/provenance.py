"""What a checkpoint belongs to: which config, model and data, by digests."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..config.load import dump
from ..config.schema import Config
from ..model.arguments import digest_arguments, digest_callable
from ..model.module import ModelSource, split_reference
from ..point import Site
from .data import Data
from .environment import versions


@dataclass(frozen=True)
class Provenance:
    """What a checkpoint belongs to: the config as it ran, and the SHA-256 of model source and data.

    ``model_files`` and ``data_files`` map path → SHA-256; ``arguments`` is the digest of the model's arguments;
    ``given`` names the arguments that came from Python, which a resume must be given again.
    """

    config: dict[str, Any]
    model: str
    model_files: dict[str, str]
    data_files: dict[str, str]
    arguments: str
    given: list[str]
    from_callable: bool
    threads: int
    versions: dict[str, str]
    sites: dict[str, str] = field(default_factory=dict)
    """Role and support of each, in the order of the trace. Those of the first checkpoints were not written."""

    @property
    def data_sha256(self) -> dict[str, str]:
        """Of every data file, and of the arguments."""
        return {**self.data_files, "arguments": self.arguments}


def provenance_of(
    config: Config,
    model: Callable[..., Any] | str | None,
    source: ModelSource,
    data: Data,
    given: Iterable[str],
    threads: int,
    sites: Mapping[str, Site],
) -> Provenance:
    """The provenance of a model, as it was asked for and as it was loaded, with its data.

    ``given`` names the arguments from Python; ``threads`` is what torch computes with.
    """
    by_name = isinstance(model, str)
    reference = _absolute_reference(model) if isinstance(model, str) else source.name
    return Provenance(
        dump(config) | {"model": reference if by_name else None},
        reference,
        source.files or {f"<{source.name}>": digest_callable(source.model)},
        data.files,
        digest_arguments(data.arguments),
        sorted(given),
        not by_name,
        threads,
        versions(),
        {name: f"{site.role}, {site.constraint}" for name, site in sites.items()},
    )


def _absolute_reference(reference: str) -> str:
    location, name = split_reference(reference)
    if location.endswith(".py") or "/" in location:
        return f"{Path(location).expanduser().resolve()}:{name}"
    return reference

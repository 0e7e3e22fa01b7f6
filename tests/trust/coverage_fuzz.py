"""The fuzz targets under atheris, which follows the branches of an input: ``python -m tests.trust.coverage_fuzz``.

Its first argument is a target's name, the others are libFuzzer's: ``config -runs=1000000``. An input that ends in
anything but the reader's own error is left in a file, and ends the program. `pip install atheris` comes first; it has
wheels for some systems only, so no test needs it.
"""

from __future__ import annotations

import sys
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import atheris

with atheris.instrument_imports(include=["hofit.config", "hofit.patterns", "hofit.run", "hofit.fitting.state", "yaml"]):
    import hofit.config.load
    import hofit.run.checkpoint

import safetensors.torch
import torch

from hofit.errors import CheckpointError
from hofit.record import CHECKPOINT
from tests.run.test_checkpoint import digest_of
from tests.trust.configs import GOOD
from tests.trust.test_config_fuzz import read
from tests.trust.test_damage import believed, written


class Targets:
    """What is called with an input, by its name; each has the good input that atheris begins with."""

    def __init__(self, folder: Path) -> None:
        self._path = folder / "fuzzed.safetensors"
        self._good = written(folder, 1)
        with safetensors.safe_open(folder / CHECKPOINT, framework="pt") as file:
            self._text: str = file.metadata()["hofit"]
            self._tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118

    def of(self, name: str) -> tuple[Any, bytes]:
        found = {
            "checkpoint": (self.checkpoint, self._good),
            "body": (self.body, self._text.encode()),
            "config": (self.config, GOOD.encode()),
        }
        return found[name]

    def checkpoint(self, content: bytes) -> None:
        """Any file."""
        assert not believed(self._path, content, self._good)

    def body(self, content: bytes) -> None:
        """Any JSON, with the digest of it."""
        text = content.decode(errors="ignore")
        metadata = {"hofit": text, "sha256": digest_of(text, self._tensors)}
        self._path.write_bytes(safetensors.torch.save(self._tensors, metadata))
        try:
            hofit.run.checkpoint.read_checkpoint(self._path)
        except CheckpointError as refused:
            assert str(self._path) in str(refused)

    def config(self, content: bytes) -> None:
        """Any text."""
        read(content.decode(errors="ignore"))


def main() -> None:
    torch.set_default_dtype(torch.float64)
    with TemporaryDirectory() as folder:
        target, good = Targets(Path(folder)).of(sys.argv[1])
        corpus = Path(folder) / "corpus"
        corpus.mkdir()
        (corpus / "good").write_bytes(good)
        atheris.Setup([sys.argv[0], str(corpus), *sys.argv[2:]], target)
        atheris.Fuzz()


if __name__ == "__main__":
    main()

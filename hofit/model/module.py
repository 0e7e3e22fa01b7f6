"""Load a model: ``path/to/model.py``, ``path/to/model.py:name`` or ``package.module:name``."""

from __future__ import annotations

import ast
import hashlib
import importlib
import importlib.util
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from difflib import get_close_matches
from importlib.machinery import PathFinder
from pathlib import Path
from types import ModuleType
from typing import Any

from ..errors import ModelError
from .faults import hint, is_library_file, user_fault

DEFAULT_NAME = "model"


@dataclass(frozen=True)
class ModelSource:
    """A loaded model and what came with it in its module.

    ``files`` maps every source file of the model (its own, and those it imported from its own folder) to its SHA-256.
    """

    model: Callable[..., Any]
    name: str
    module: ModuleType | None = None
    files: dict[str, str] = field(default_factory=dict)

    @property
    def load_data(self) -> Callable[..., Any] | None:
        return getattr(self.module, "load_data", None)

    @property
    def guide(self) -> Callable[..., Any] | None:
        found = getattr(self.module, "guide", None)
        if found is not None and (isinstance(found, type) or not callable(found)):
            raise ModelError(f"{self.name}: `guide` is {_a(found)}; a guide is a function or a PyroModule instance")
        return found

    @property
    def optimizers(self) -> Mapping[str, Any]:
        found = getattr(self.module, "optimizers", {})
        if not isinstance(found, Mapping):
            raise ModelError(f"{self.name}: `optimizers` must be a dict from name to class, not {type(found).__name__}")
        return found


def load_model(reference: str) -> ModelSource:
    """Import the module that ``reference`` names and take the model out of it.

    Raises: ModelError, naming the near misses when there is no such file or function.
    """
    location, name = split_reference(reference)
    is_file = location.endswith(".py") or "/" in location
    if not is_file and not all(part.isidentifier() for part in location.split(".")):
        raise ModelError(
            f"{location!r} is neither a Python file nor a module: write path/to/model.py or package.module"
        )
    module = _import_file(Path(location)) if is_file else _import_dotted(location)
    model: Any = module
    for part in name.split("."):
        if not hasattr(model, part):
            candidates = [key for key, value in vars(module).items() if callable(value) and not key.startswith("_")]
            raise ModelError(f"{location} has no `{name}`{did_you_mean(name, candidates)}")
        model = getattr(model, part)
    if isinstance(model, type) or not callable(model):
        raise ModelError(f"{reference}: `{name}` is {_a(model)}; a model is a function or a PyroModule instance")
    return ModelSource(model, name, module, _source_files(module))


def split_reference(reference: str) -> tuple[str, str]:
    """``location:name`` → (location, name); the name is ``model`` when it is left out."""
    location, colon, name = reference.rpartition(":")
    if not colon or "/" in name or "\\" in name:
        return reference, DEFAULT_NAME
    return location, name


def source_file(reference: str) -> Path | None:
    """The file that a reference would run, without running anything; None where there is none."""
    location, _ = split_reference(reference)
    if location.endswith(".py") or "/" in location:
        return Path(location).expanduser().resolve()
    parts, folders = location.split("."), ["", *sys.path]
    for depth in range(1, len(parts) + 1):
        spec = PathFinder.find_spec(".".join(parts[:depth]), folders)
        if spec is None:
            return None
        folders = list(spec.submodule_search_locations or [])
    return None if spec is None or spec.origin is None else Path(spec.origin).resolve()


def did_you_mean(word: str, candidates: list[str]) -> str:
    """``; did you mean "x"?`` for the near misses, or the list of what there is; empty when there is nothing."""
    near = get_close_matches(word, candidates, n=3, cutoff=0.5)
    if near:
        return "; did you mean " + " or ".join(f'"{n}"' for n in near) + "?"
    if candidates:
        listed = ", ".join(candidates[:12]) + (", …" if len(candidates) > 12 else "")
        return f"; there are: {listed}"
    return ""


def _import_file(path: Path) -> ModuleType:
    if not path.exists():
        nearby = sorted(p.name for p in path.parent.glob("*.py")) if path.parent.is_dir() else []
        raise ModelError(f"no model file {path}{did_you_mean(path.name, nearby)}")
    if path.is_dir():
        raise ModelError(f"{path} is a folder; a model is a Python file")
    path = path.resolve()
    # A name of its own keeps two models called model.py apart.
    unique = f"hofit_model_{path.stem}_{hashlib.sha256(str(path).encode()).hexdigest()[:8]}"
    spec = importlib.util.spec_from_file_location(unique, path)
    if spec is None or spec.loader is None:
        raise ModelError(f"{path} is no Python file")
    module = importlib.util.module_from_spec(spec)
    sys.modules[unique] = module
    sys.path.insert(0, str(path.parent))
    set_aside = _namesakes(path.parent)
    for name in set_aside:
        del sys.modules[name]
    try:
        spec.loader.exec_module(module)
    except (Exception, SystemExit) as error:
        sys.modules.pop(unique, None)
        raise ModelError(f"importing {path} failed: {user_fault(error)}{hint(error)}") from error
    finally:
        sys.path.remove(str(path.parent))
        sys.modules.update(set_aside)
    return module


def _namesakes(folder: Path) -> dict[str, ModuleType]:
    """Modules of other folders that have the name of one in this folder: two models may each have a helper.py."""
    names = {p.stem for p in folder.glob("*.py")} | {p.parent.name for p in folder.glob("*/__init__.py")}
    found = {name: sys.modules[name] for name in names if name in sys.modules and name != "__main__"}
    files = {name: str(Path(getattr(module, "__file__", None) or "<none>")) for name, module in found.items()}
    return {
        name: found[name]
        for name, file in files.items()
        if not is_library_file(file) and folder not in Path(file).resolve().parents
    }


def _import_dotted(location: str) -> ModuleType:
    sys.path.insert(0, "")
    try:
        return importlib.import_module(location)
    except ModuleNotFoundError as error:
        if error.name and (location == error.name or location.startswith(error.name + ".")):
            raise ModelError(
                f"no module {location}: write a model as path/to/model.py, path/to/model.py:name or package.module:name"
            ) from error
        raise ModelError(f"importing {location} failed: {user_fault(error)}{hint(error)}") from error
    except (Exception, SystemExit) as error:
        raise ModelError(f"importing {location} failed: {user_fault(error)}{hint(error)}") from error
    finally:
        sys.path.remove("")


def _source_files(module: ModuleType) -> dict[str, str]:
    """The module's own file and those that it imports from its folder or package, each with its SHA-256."""
    own = Path(module.__file__ or "").resolve()
    root = own.parent
    while (root / "__init__.py").is_file():
        root = root.parent
    seen: set[Path] = set()
    waiting = [own]
    while waiting:
        path = waiting.pop()
        if path in seen or path.suffix != ".py" or not path.is_file():
            continue
        seen.add(path)
        for relative in _imported(path):
            for folder in {own.parent, path.parent, root}:
                waiting += [folder / f"{relative}.py", folder / relative / "__init__.py"]
    return {str(path): sha256_of_file(path) for path in sorted(seen)}


def _imported(path: Path) -> set[str]:
    """What a source file imports, as relative paths without ending: the modules, and the names that may be modules."""
    try:
        tree = ast.parse(path.read_bytes())
    except (SyntaxError, ValueError):
        return set()
    names: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            prefix = f"{node.module}." if node.module else ""
            names |= {prefix + alias.name for alias in node.names} | ({node.module} if node.module else set())
    return {name.replace(".", "/") for name in names}


def sha256_of_file(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest() if hasattr(hashlib, "file_digest") else _digest(file)


def _digest(file: Any) -> str:  # Python 3.10 has no hashlib.file_digest
    digest = hashlib.sha256()
    while block := file.read(1 << 20):
        digest.update(block)
    return digest.hexdigest()


def _a(thing: object) -> str:
    return f"a class ({thing.__name__})" if isinstance(thing, type) else f"{type(thing).__name__} {thing!r:.40}"

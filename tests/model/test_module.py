"""Loading a model: path, path:name, package.module:name; near misses; the user's own frames."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

import hofit
from hofit.errors import ModelError
from hofit.model.faults import is_library_file
from hofit.model.module import load_model, split_reference
from tests.command_line import Write

TWO = """
    import pyro.nn

    class Net(pyro.nn.PyroModule):
        def forward(self): ...

    def model(): return "model"
    def other_model(): return "other"
    net = Net()
    number = 3
    optimizers = {"mine": 1}
    def load_data(): return {}
"""


@pytest.mark.parametrize(
    ("reference", "expected"),
    [
        ("m.py", ("m.py", "model")),
        ("a/m.py:f", ("a/m.py", "f")),
        ("package.module", ("package.module", "model")),
        ("package.module:f", ("package.module", "f")),
        ("C:/models/m.py", ("C:/models/m.py", "model")),
    ],
)
def test_a_reference_is_a_location_and_a_name(reference: str, expected: tuple[str, str]) -> None:
    assert split_reference(reference) == expected


def test_a_file_s_default_is_model_and_a_name_takes_another(write: Write) -> None:
    path = write("m.py", TWO)
    assert load_model(str(path)).model() == "model"
    source = load_model(f"{path}:other_model")
    assert source.model() == "other"
    assert source.name == "other_model"
    assert source.load_data is not None and source.load_data() == {}
    assert source.optimizers == {"mine": 1}


def test_a_pyro_module_instance_is_a_model(write: Write) -> None:
    path = write("m.py", TWO)
    assert type(load_model(f"{path}:net").model).__name__ == "Net"


def test_a_dotted_name_is_imported_from_the_working_directory(
    write: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write("hofit_test_package/__init__.py", "")
    write("hofit_test_package/inner.py", TWO)
    monkeypatch.chdir(tmp_path)
    assert load_model("hofit_test_package.inner:other_model").model() == "other"
    assert load_model("hofit_test_package.inner").model() == "model"


def test_two_models_of_one_name_are_two_models(write: Write) -> None:
    one, two = write("a/m.py", "def model(): return 1"), write("b/m.py", "def model(): return 2")
    assert (load_model(str(one)).model(), load_model(str(two)).model()) == (1, 2)


def test_helpers_of_one_name_beside_two_models_are_two_helpers(write: Write) -> None:
    for name, number in (("a", 1), ("b", 2)):
        write(f"{name}/hofit_test_helper.py", f"number = {number}")
        write(f"{name}/m.py", "from hofit_test_helper import number\ndef model(): return number")
    folder = write("a/m.py", "from hofit_test_helper import number\ndef model(): return number").parents[1]
    assert [load_model(str(folder / name / "m.py")).model() for name in "ab"] == [1, 2]


@pytest.mark.parametrize(
    ("name", "says"),
    [("modle", '"model"'), ("othermodel", '"other_model"'), ("", "has no"), ("number", "int"), ("Net", "a class")],
)
def test_a_name_that_is_no_model_is_refused_with_near_misses(write: Write, name: str, says: str) -> None:
    with pytest.raises(ModelError) as caught:
        load_model(f"{write('m.py', TWO)}:{name}")
    assert says in str(caught.value)


def test_a_missing_file_is_refused_with_near_misses(write: Write, tmp_path: Path) -> None:
    write("sleepstudy.py", "")
    with pytest.raises(ModelError, match=r'no model file .*slepstudy\.py.*"sleepstudy\.py"'):
        load_model(str(tmp_path / "slepstudy.py"))


@pytest.mark.parametrize(
    "reference", ["no_such_package_anywhere", "no_such_package.module:name", "os.no_such_module", ""]
)
def test_a_missing_module_is_refused(reference: str) -> None:
    with pytest.raises(ModelError):
        load_model(reference)


def test_what_is_no_python_file_is_refused(write: Write, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"m\.txt"):
        load_model(str(write("m.txt", TWO)))
    with pytest.raises(ModelError, match="folder"):
        load_model(str(tmp_path) + "/")


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("import no_such_module_at_all\n", ["ModuleNotFoundError", "m.py:1", "import no_such_module_at_all"]),
        ("def f():\n    return 1 / 0\nf()\n", ["ZeroDivisionError", "m.py:3", "m.py:2 in f: return 1 / 0"]),
        ("def model(:\n", ["SyntaxError", "m.py:1", "def model(:"]),
        ("raise ValueError('mine')\n", ["ValueError: mine", "m.py:1"]),
        ("import sys\nsys.exit(0)\n", ["SystemExit", "m.py:2"]),
    ],
    ids=["import", "error", "syntax", "raise", "exit"],
)
def test_an_error_while_importing_shows_the_user_s_own_frames(write: Write, text: str, says: list[str]) -> None:
    path = write("m.py", text)
    with pytest.raises(ModelError) as caught:
        load_model(str(path))
    message = str(caught.value)
    for part in says:
        assert part in message
    assert "importlib" not in message
    assert "hofit/model" not in message


def test_the_model_s_files_are_its_own_and_those_of_its_folder(write: Write) -> None:
    helper = write("a/hofit_helper_one.py", "def f(): ...")
    constant = write("a/hofit_helper_two.py", "SCALE = 2.0")
    unused = write("a/hofit_helper_three.py", "")
    path = write(
        "a/m.py",
        """
        import torch
        from hofit_helper_one import f
        from hofit_helper_two import SCALE
        def model(): ...
        """,
    )
    files = load_model(str(path)).files
    assert files[str(path)] == hashlib.sha256(path.read_bytes()).hexdigest()
    assert str(unused) not in files
    assert set(files) == {str(path), str(helper), str(constant)}


def test_optimizers_that_are_no_dict_are_refused(write: Write) -> None:
    with pytest.raises(ModelError, match="optimizers"):
        _ = load_model(str(write("m.py", "optimizers = [1]\ndef model(): ..."))).optimizers


def test_a_folder_whose_name_only_begins_like_the_package_s_is_the_user_s() -> None:
    package = Path(hofit.__file__).parent
    assert is_library_file(str(package / "api.py"))
    assert not is_library_file(str(package.with_name(package.name + "_models") / "m.py"))

"""hofit fit: what a run directory holds, where it lies, how a fit ends."""

from __future__ import annotations

import hashlib
import json
import math
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from scipy import stats

from tests.command_line import Hofit, Write
from tests.tolerances import CONVERSION, GRADIENT, ROUNDING
from tests.written import contents, fit_json, table

FILES = {"config.yaml", "progress.csv", "fit.json", "estimates.csv", "checkpoint.safetensors"}


def listing(path: Path) -> set[str]:
    return {entry.name for entry in path.iterdir() if not entry.name.startswith(".")}


NEWTON = "optimizers=[{params: '*', optimizer: newton}]"
OTHER = ("toy.py:other_model", "-s", "data.columns={y: y}")


# the run directory ------------------------------------------------------------------------------------------------


def test_a_fit_writes_the_files_of_the_contract_and_no_others(folder: Path, hofit: Hofit) -> None:
    outcome = hofit("fit", "toy.py", "-c", "a.yaml")
    assert outcome.code == 3
    assert listing(folder / "runs" / "a") == FILES
    assert listing(folder) == {"toy.py", "data.csv", "a.yaml", "runs", "__pycache__"} - (
        set() if (folder / "__pycache__").exists() else {"__pycache__"}
    )


def test_fit_json_holds_the_keys_of_the_contract(folder: Path, hofit: Hofit) -> None:
    outcome = hofit("fit", *OTHER, "-c", "a.yaml", "-s", NEWTON)
    fit = fit_json(folder / "runs" / "a")
    assert set(fit) >= {
        "status",
        "converged",
        "exit_code",
        "objective",
        "loss",
        "gradient_norm",
        "iterations",
        "evaluations",
        "seconds",
        "total_seconds",
        "parameters",
        "log_likelihood",
        "checks",
        "remarks",
        "versions",
    }
    assert (fit["status"], fit["converged"], fit["exit_code"], outcome.code) == ("converged", True, 0, 0)
    assert fit["objective"] == "map"
    assert fit["parameters"] == 1
    y = [1.5, 2.5, 0.5, 3.0, -0.7]
    expected = stats.norm.logpdf(y, sum(y) / 5).sum()
    assert fit["log_likelihood"] == pytest.approx(expected, rel=ROUNDING)
    assert fit["loss"] == -fit["log_likelihood"]
    assert fit["gradient_norm"] <= GRADIENT
    assert set(fit["evaluations"]) == {"loss", "gradient", "hvp", "inner"}
    assert 0 <= fit["seconds"] <= fit["total_seconds"]
    assert all(set(check) == {"name", "ok", "value", "message"} for check in fit["checks"])
    assert fit["checks"]
    assert fit["model_sha256"][str(folder / "toy.py")] == hashlib.sha256((folder / "toy.py").read_bytes()).hexdigest()
    digest = hashlib.sha256((folder / "data.csv").read_bytes()).hexdigest()
    assert fit["data_sha256"][str(folder / "data.csv")] == digest


def test_estimates_csv_has_a_row_a_scalar_to_seventeen_digits(folder: Path, hofit: Hofit) -> None:
    hofit("fit", "toy.py", "-c", "a.yaml", "-s", "fixed.sigma=0.1")
    text = (folder / "runs" / "a" / "estimates.csv").read_text()
    assert text.splitlines()[0] == "name,index,role,estimate,std_error,unconstrained,optimizer,lower,upper"
    rows = table(folder / "runs" / "a" / "estimates.csv")
    assert [(row["name"], row["index"], row["role"], row["optimizer"]) for row in rows] == [
        ("mean", "", "parameter", "adam"),
        ("sigma", "", "fixed", ""),
        ("effect", "0", "latent", "adam"),
        ("effect", "1", "latent", "adam"),
        ("effect", "2", "latent", "adam"),
    ]
    assert float(rows[1]["estimate"]) == 0.1
    assert float(rows[1]["unconstrained"]) == pytest.approx(math.log(0.1), rel=CONVERSION)
    assert {row["std_error"] for row in rows} == {""}
    assert all(float(format(float(row["estimate"]), ".17g")) == float(row["estimate"]) for row in rows)


def test_the_index_of_an_estimate_is_its_place(folder: Path, hofit: Hofit, write: Write) -> None:
    write(
        "shapes.py",
        """
        import pyro, torch
        def model():
            one = pyro.param("one", torch.zeros(1))
            two = pyro.param("two", torch.tensor([[1.0, 2.0], [3.0, 4.0]]))
            none = pyro.param("a,b", torch.tensor(5.0))
            pyro.factor("f", -(one ** 2).sum() - (two ** 2).sum() - none ** 2)
        """,
    )
    config = write("b.yaml", "optimizers: [{params: '*', optimizer: sgd, lr: 0.0}]\nstop: {max_iterations: 1}\n")
    hofit("fit", "shapes.py", "-c", config)
    rows = table(folder / "runs" / "b" / "estimates.csv")
    assert [(row["name"], row["index"], float(row["estimate"])) for row in rows] == [
        ("one", "0", 0.0),
        ("two", "0,0", 1.0),
        ("two", "0,1", 2.0),
        ("two", "1,0", 3.0),
        ("two", "1,1", 4.0),
        ("a,b", "", 5.0),
    ]


def test_progress_csv_has_a_row_an_iteration_from_zero(folder: Path, hofit: Hofit) -> None:
    hofit("fit", "toy.py", "-c", "a.yaml")
    rows = table(folder / "runs" / "a" / "progress.csv")
    assert next(iter(rows[0])) == "iteration"
    assert set(rows[0]) >= {"iteration", "loss", "gradient_norm", "step_norm", "seconds"}
    assert [int(row["iteration"]) for row in rows] == list(range(21))
    fit = fit_json(folder / "runs" / "a")
    assert float(rows[-1]["loss"]) == fit["loss"]
    assert float(rows[-1]["gradient_norm"]) == pytest.approx(fit["gradient_norm"], rel=1e-9)
    assert rows[0]["step_norm"] == ""
    seconds = [float(row["seconds"]) for row in rows]
    assert seconds == sorted(seconds)


def test_progress_csv_has_columns_for_every_part_of_a_mix(folder: Path, hofit: Hofit) -> None:
    parts = "optimizers=[{params: effect, optimizer: newton, trust_radius: 0.5}, {params: '*', optimizer: adam}]"
    hofit("fit", "toy.py", "-c", "a.yaml", "-s", parts)
    rows = table(folder / "runs" / "a" / "progress.csv")
    radius = next(key for key in rows[0] if "newton" in key and "radius" in key)
    assert float(rows[-1][radius]) == 0.5
    assert any("adam" in key for key in rows[0])


def test_config_yaml_is_the_whole_config_with_defaults_and_absolute_paths(folder: Path, hofit: Hofit) -> None:
    hofit("fit", "toy.py", "-c", "a.yaml", "--seed", "7", "-s", "stop.patience=5")
    config = yaml.safe_load((folder / "runs" / "a" / "config.yaml").read_text())
    assert config["model"] == f"{folder / 'toy.py'}:model"
    assert config["data"]["path"] == str(folder / "data.csv")
    assert config["seed"] == 7
    assert config["stop"] == {
        "max_iterations": 20,
        "max_seconds": None,
        "gradient": 1.0e-6,
        "decrement": None,
        "relative_loss": 1.0e-12,
        "patience": 5,
    }
    assert config["optimizers"] == [{"params": "*", "optimizer": "adam", "lr": 0.05}]
    assert set(config) >= {"model", "data", "objective", "init", "fixed", "optimizers", "order", "stop", "progress"}
    assert set(config) >= {"checkpoint", "seed", "dtype", "device"}


def test_config_yaml_fitted_again_from_elsewhere_gives_the_same_estimates(
    folder: Path, hofit: Hofit, monkeypatch: pytest.MonkeyPatch
) -> None:
    hofit("fit", "toy.py", "-c", "a.yaml", "-s", "init.strategy=sample", "--seed", "3")
    elsewhere = folder / "elsewhere"
    elsewhere.mkdir()
    monkeypatch.chdir(elsewhere)
    hofit("fit", "-c", folder / "runs" / "a" / "config.yaml", "--run-dir", "again")
    one, two = ((p / "estimates.csv").read_bytes() for p in (folder / "runs" / "a", elsewhere / "again"))
    assert one == two


@pytest.mark.parametrize("word", ["1e-3", "0o17", "yes", "null", "2024-01-31", "1_000", "a: b", "é", " x ", "1e5"])
def test_a_string_in_config_yaml_stays_a_string(folder: Path, hofit: Hofit, write: Write, word: str) -> None:
    write(
        "words.py",
        """
        import pyro, pyro.distributions as dist, torch
        def model(word):
            assert isinstance(word, str)
            pyro.sample("y", dist.Normal(pyro.param("x", torch.tensor(0.0)), 1.0), obs=torch.tensor(float(len(word))))
        """,
    )
    config = {"data": {"arguments": {"word": word}}, "optimizers": [{"params": "*", "optimizer": "newton"}]}
    (folder / "b.yaml").write_text(json.dumps(config))
    assert hofit("fit", "words.py", "-c", "b.yaml").code == 0
    again = hofit("fit", "-c", "runs/b/config.yaml", "--run-dir", "again")
    assert again.code == 0, again.err
    assert (folder / "again" / "estimates.csv").read_bytes() == (folder / "runs" / "b" / "estimates.csv").read_bytes()


def test_the_checkpoint_before_the_newest_is_kept_and_no_more(folder: Path, hofit: Hofit) -> None:
    hofit("fit", "toy.py", "-c", "a.yaml", "-s", "checkpoint.every=5")
    assert len(list((folder / "runs" / "a").glob("checkpoint*"))) == 2
    hofit("fit", "toy.py", "-c", "a.yaml", "-s", "checkpoint={every: 5, keep: 4}", "--run-dir", "b")
    assert len(list((folder / "b").glob("checkpoint*"))) == 4


def test_the_objective_is_written_into_every_output(folder: Path, hofit: Hofit) -> None:
    outcome = hofit("fit", "toy.py", "-c", "a.yaml", "-s", "objective=map_unconstrained", "-s", "optimizers.0.lr=0.1")
    assert "map_unconstrained" in outcome.out
    assert fit_json(folder / "runs" / "a")["objective"] == "map_unconstrained"


# where it lies ----------------------------------------------------------------------------------------------------


def test_without_a_run_dir_the_next_free_one_is_taken(folder: Path, hofit: Hofit) -> None:
    for _ in range(3):
        hofit("fit", "toy.py", "-c", "a.yaml", "-s", "stop.max_iterations=0")
    assert listing(folder / "runs") == {"a", "a-2", "a-3"}


def test_the_run_dir_is_named_at_the_end(folder: Path, hofit: Hofit) -> None:
    assert "runs/a" in hofit("fit", "toy.py", "-c", "a.yaml").out
    assert "elsewhere/deep" in hofit("fit", "toy.py", "-c", "a.yaml", "--run-dir", "elsewhere/deep").out


def test_an_empty_directory_is_fine(folder: Path, hofit: Hofit) -> None:
    (folder / "empty").mkdir()
    assert hofit("fit", "toy.py", "-c", "a.yaml", "--run-dir", "empty").code == 3
    assert listing(folder / "empty") == FILES


def test_a_taken_directory_is_refused_and_left_as_it_is(folder: Path, hofit: Hofit) -> None:
    hofit("fit", "toy.py", "-c", "a.yaml", "--run-dir", "mine")
    before = contents(folder / "mine")
    outcome = hofit("fit", "toy.py", "-c", "a.yaml", "--run-dir", "mine")
    assert outcome.code == 2
    assert "mine" in outcome.err and "--overwrite" in outcome.err
    assert outcome.out == ""
    assert contents(folder / "mine") == before


def test_a_directory_with_other_things_in_it_is_refused(folder: Path, hofit: Hofit) -> None:
    (folder / "mine").mkdir()
    (folder / "mine" / "thesis.tex").write_text("dear")
    outcome = hofit("fit", "toy.py", "-c", "a.yaml", "--run-dir", "mine")
    assert (outcome.code, listing(folder / "mine")) == (2, {"thesis.tex"})


def test_overwrite_replaces_the_run_and_nothing_else(folder: Path, hofit: Hofit) -> None:
    hofit("fit", "toy.py", "-c", "a.yaml", "--run-dir", "mine", "-s", "checkpoint={every: 1, keep: 5}")
    (folder / "mine" / "notes.txt").write_text("dear")
    sets = ("-s", "stop.max_iterations=2", "-s", "checkpoint.every=1")
    assert hofit("fit", "toy.py", "-c", "a.yaml", "--run-dir", "mine", "--overwrite", *sets).code == 3
    assert listing(folder / "mine") == {*FILES, "checkpoint-1.safetensors", "notes.txt"}
    assert len(table(folder / "mine" / "progress.csv")) == 3


def test_overwrite_with_a_bad_config_leaves_the_run_as_it_is(folder: Path, hofit: Hofit) -> None:
    hofit("fit", "toy.py", "-c", "a.yaml", "--run-dir", "mine")
    before = contents(folder / "mine")
    bad = ("-s", "optimizers.0.lr=-1")
    assert hofit("fit", "toy.py", "-c", "a.yaml", "--run-dir", "mine", "--overwrite", *bad).code == 2
    assert contents(folder / "mine") == before


def test_a_run_dir_that_is_a_file_is_refused(folder: Path, hofit: Hofit) -> None:
    for extra in ((), ("--overwrite",)):
        outcome = hofit("fit", "toy.py", "-c", "a.yaml", "--run-dir", "data.csv", *extra)
        assert outcome.code == 2
        assert "data.csv" in outcome.err
        assert "Traceback" not in outcome.text
    outcome = hofit("fit", "toy.py", "-c", "a.yaml", "--run-dir", "data.csv/inside")
    assert (outcome.code, "Traceback" in outcome.text) == (2, False)


HOLD = "import sys, filelock; l = filelock.FileLock(sys.argv[1]); l.acquire(); print(flush=True); input()"


@pytest.fixture
def in_use(folder: Path, hofit: Hofit) -> Iterator[Path]:
    """A run directory that another process holds."""
    hofit("fit", "toy.py", "-c", "a.yaml")
    run = folder / "runs" / "a"
    lock = next(entry for entry in run.iterdir() if entry.name.startswith("."))
    pipe = subprocess.PIPE
    with subprocess.Popen([sys.executable, "-c", HOLD, str(lock)], stdin=pipe, stdout=pipe) as process:
        assert process.stdout is not None
        process.stdout.readline()
        yield run
        process.kill()


def test_a_run_directory_in_use_is_refused_until_the_other_is_gone(folder: Path, hofit: Hofit, in_use: Path) -> None:
    before = contents(in_use)
    for command in (
        ("fit", "toy.py", "-c", "a.yaml", "--run-dir", in_use, "--overwrite"),
        ("resume", in_use),
        ("resume", in_use / "checkpoint.safetensors"),
    ):
        outcome = hofit(*command)
        assert outcome.code == 2
        assert str(in_use) in outcome.err and "in use" in outcome.err
        assert "Traceback" not in outcome.text
    assert contents(in_use) == before
    assert hofit("report", in_use).code == 0
    assert hofit("fit", "toy.py", "-c", "a.yaml").code == 3
    assert listing(folder / "runs") == {"a", "a-2"}


# how it ends ------------------------------------------------------------------------------------------------------


def test_a_converged_fit_leaves_with_0(folder: Path, hofit: Hofit) -> None:
    outcome = hofit("fit", *OTHER, "-c", "a.yaml", "-s", NEWTON)
    assert outcome.code == 0
    assert outcome.err == ""
    assert "converged" in outcome.out


def test_too_few_iterations_leave_with_3_and_say_how_to_go_on(folder: Path, hofit: Hofit) -> None:
    outcome = hofit("fit", "toy.py", "-c", "a.yaml")
    assert outcome.code == 3
    assert "max_iterations" in outcome.out
    assert "hofit resume runs/a" in outcome.out


def test_too_little_time_leaves_with_3(folder: Path, hofit: Hofit) -> None:
    outcome = hofit("fit", "toy.py", "-c", "a.yaml", "-s", "stop.max_seconds=1e-9")
    assert outcome.code == 3
    assert fit_json(folder / "runs" / "a")["status"] == "time"


ENDS = """
    import pyro, pyro.distributions as dist, torch
    from torch.distributions import constraints

    def unbounded():
        x = pyro.param("x", torch.tensor(1.0))
        s = pyro.param("s", torch.tensor(1.0), constraint=constraints.positive)
        pyro.sample("y", dist.Normal(x, s), obs=torch.tensor(1.0))

    def non_finite():
        x = pyro.param("x", torch.tensor(1.0))
        pyro.factor("f", -torch.log(x - 0.985))

    def model_error():
        x = pyro.param("x", torch.tensor(1.0))
        if abs(x.item() - 1) > 0.015:
            x = x + pyro.param("late", torch.tensor(1.0))
        pyro.factor("f", -x ** 2)
"""


@pytest.mark.parametrize(("name", "names"), [("unbounded", ["s"]), ("non_finite", ["f"]), ("model_error", ["late"])])
def test_a_fit_that_fails_leaves_with_4_and_names_the_site(
    folder: Path, hofit: Hofit, write: Write, name: str, names: list[str]
) -> None:
    write("ends.py", ENDS)
    write("b.yaml", "optimizers: [{params: '*', optimizer: sgd, lr: 0.01}]\nstop: {max_iterations: 3000}\n")
    outcome = hofit("fit", f"ends.py:{name}", "-c", "b.yaml")
    fit = fit_json(folder / "runs" / "b")
    assert (outcome.code, fit["status"], fit["converged"]) == (4, name, False)
    for part in names:
        assert part in " ".join(fit["remarks"])
    for remark in fit["remarks"]:
        assert remark in outcome.out
    assert "What to try" in outcome.out
    assert "Traceback" not in outcome.text
    assert listing(folder / "runs" / "b") >= FILES


def test_quiet_prints_nothing(folder: Path, hofit: Hofit) -> None:
    for extra in ((), ("-s", NEWTON, "-s", "fixed.sigma=1")):
        outcome = hofit("fit", "toy.py", "-c", "a.yaml", "--quiet", *extra)
        assert outcome.text == ""
    outcome = hofit("resume", "runs/a", "-q", "-s", "stop.max_iterations=25")
    assert outcome.text == ""
    assert fit_json(folder / "runs" / "a")["iterations"] == 25


def test_options_override_the_config(folder: Path, hofit: Hofit, write: Write) -> None:
    write("data2.csv", "y,group\n1,z\n")
    hofit(
        *("fit", "toy.py", "-c", "a.yaml", "--data", "data2.csv", "--seed", "5", "--dtype", "float32"),
        *("--device", "cpu", "-s", "stop.max_iterations=1", "-s", "stop.max_iterations=2"),
    )
    config = yaml.safe_load((folder / "runs" / "a" / "config.yaml").read_text())
    assert config["data"]["path"] == str(folder / "data2.csv")
    assert (config["seed"], config["dtype"], config["device"]) == (5, "float32", "cpu")
    assert config["stop"]["max_iterations"] == 2


def test_the_model_of_the_command_line_wins_over_the_config_s(folder: Path, hofit: Hofit, write: Write) -> None:
    write("sub/b.yaml", "model: ../toy.py:other_model\ndata: {path: ../data.csv, columns: {y: y}}\n" + ADAM)
    assert hofit("fit", "-c", "sub/b.yaml").code == 3
    assert [row["name"] for row in table(folder / "runs" / "b" / "estimates.csv")] == ["mean"]
    outcome = hofit("fit", "toy.py:model", "-c", "sub/b.yaml")
    assert outcome.code == 2
    assert "group" in outcome.err


ADAM = "optimizers: [{params: '*', optimizer: adam}]\nstop: {max_iterations: 2}\n"


def test_load_data_gets_the_path_of_the_config_and_of_the_command_line(
    folder: Path, hofit: Hofit, write: Write
) -> None:
    write(
        "own.py",
        """
        import pyro, pyro.distributions as dist, torch
        def load_data(path, rows=2):
            with open(path) as file:
                return {"y": [float(word) for word in file][:rows]}
        def model(y):
            pyro.sample("y", dist.Normal(pyro.param("x", torch.tensor(0.0)), 1.0).expand([len(y)]).to_event(1), obs=y)
        """,
    )
    write("sub/one.txt", "1\n2\n30\n")
    write("two.txt", "5\n7\n")
    write("sub/b.yaml", "data: {path: one.txt}\noptimizers: [{params: x, optimizer: newton}]\n")
    for extra, expected in (((), 1.5), (("-s", "data.options.rows=3"), 11.0), (("--data", "two.txt"), 6.0)):
        assert hofit("fit", "own.py", "-c", "sub/b.yaml", "--run-dir", f"run{expected}", *extra).code == 0
        estimate = float(table(folder / f"run{expected}" / "estimates.csv")[0]["estimate"])
        assert estimate == pytest.approx(expected, abs=1e-9)


def test_the_same_fit_twice_is_the_same_to_the_last_bit(folder: Path, hofit: Hofit) -> None:
    for _ in range(2):
        hofit("fit", "toy.py", "-c", "a.yaml", "-s", "init={strategy: sample, jitter: 0.1}")
    one, two = (folder / "runs" / name / "estimates.csv" for name in ("a", "a-2"))
    assert one.read_bytes() == two.read_bytes()


def test_deterministic_sites_have_a_file_of_their_own_and_are_reported(
    folder: Path, hofit: Hofit, write: Write
) -> None:
    write(
        "derived.py",
        """
        import pyro, torch
        def model():
            a = pyro.param("a", torch.tensor([1.0, 3.0]))
            pyro.deterministic("difference", a[0] - a[1])
            pyro.factor("f", -2 * ((a - torch.tensor([2.0, 1.0])) ** 2).sum())
        """,
    )
    config = write("c.yaml", "optimizers: [{params: '*', optimizer: trust_region}]\n")
    printed = hofit("fit", "derived.py", "-c", config).out
    (row,) = table(folder / "runs" / "c" / "derived.csv")
    assert (row["name"], row["index"]) == ("difference", "")
    assert float(row["estimate"]) == pytest.approx(1.0) and float(row["std_error"]) == pytest.approx(0.5**0.5)
    assert {one["name"] for one in table(folder / "runs" / "c" / "estimates.csv")} == {"a"}
    assert all(float(one["std_error"]) == pytest.approx(0.5) for one in table(folder / "runs" / "c" / "estimates.csv"))
    again = hofit("report", folder / "runs" / "c").out
    for text in (printed, again):
        assert "difference" in text and "95 % interval" in text and "0.707" in text

"""A SQLite store of MLflow is whole or not there, and what is wrong with one is said with what to do."""

from __future__ import annotations

import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest

from trainer.contract import store
from trainer.contract.paths import ROOT
from trainer.contract.settings import ConfigError
from trainer.contract.store import connect, require_answer

KILLS = 8

MAKE_AND_KILL = """
import os, pathlib, random, signal, sys, time
import mlflow.store.tracking.sqlalchemy_store, mlflow.tracking  # once: a child is killed amid tables, not amid imports
from trainer.contract.store import connect

rng, where = random.Random(7), sys.argv[1]
for number in range(int(sys.argv[2])):
    child = os.fork()
    if child == 0:
        connect(f"sqlite:///{where}/{number}.db", "e")
        os._exit(0)
    while not list(pathlib.Path(where).glob(f"*{number}.db*[!k]")):  # anything but the lock
        time.sleep(0.001)
    time.sleep(rng.uniform(0.0, 1.0))
    os.kill(child, signal.SIGKILL if number % 2 else signal.SIGINT)
    os.waitpid(child, 0)
"""


@pytest.mark.slow
def test_a_kill_at_any_moment_of_the_making_leaves_a_whole_store_or_none(tmp_path: Path) -> None:
    code = [sys.executable, "-c", MAKE_AND_KILL, str(tmp_path), str(KILLS)]
    subprocess.run(code, cwd=ROOT, check=True, capture_output=True, timeout=300)
    made = [path for path in tmp_path.glob("*.db") if not path.name.startswith(".")]
    for path in made:
        with sqlite3.connect(path) as connection:
            (schema,) = connection.execute("select version_num from alembic_version").fetchone()
        assert schema == store._latest(), f"{path.name} is half made"
    killed = next(path for path in (tmp_path / f"{number}.db" for number in range(KILLS)) if not path.exists())
    connect(f"sqlite:///{killed}", "e")
    assert not list(tmp_path.glob(f".{killed.name}*")), "nothing of the dead is left"


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store with its tables and no run."""
    path = tmp_path_factory.mktemp("it's a store ü") / "mlflow.db"
    connect(f"sqlite:///{path}", "e")
    return path


def copied(whole: Path, path: Path, *statements: str) -> str:
    path.write_bytes(whole.read_bytes())
    connection = sqlite3.connect(path)
    for statement in statements:
        connection.execute(statement)
    connection.commit()
    connection.close()
    return f"sqlite:///{path}"


RUN = "insert into runs (run_uuid, experiment_id) values ('a', 0)"
OLDER = "update alembic_version set version_num = 'bd07f7e963c5'"


@pytest.mark.parametrize(
    ("statements", "said"),
    [
        ((OLDER,), "is half made and holds no run: move it away"),
        (("drop table alembic_version",), "is half made and holds no run: move it away"),
        ((RUN, OLDER), r"made by another version of MLflow \(schema bd07f7e963c5, .*`mlflow db upgrade sqlite:///"),
    ],
)
def test_a_store_of_another_schema_says_what_to_do(
    whole: Path, tmp_path: Path, statements: tuple[str, ...], said: str
) -> None:
    with pytest.raises(ConfigError, match=said):
        connect(copied(whole, tmp_path / "mlflow.db", *statements), "e")


def test_a_database_of_something_else_is_not_written_to(tmp_path: Path) -> None:
    path = tmp_path / "mlflow.db"
    connection = sqlite3.connect(path)
    connection.execute("create table cats (name text)")
    connection.commit()
    connection.close()
    before = path.read_bytes()
    for use in (require_answer, lambda uri: connect(uri, "e")):
        with pytest.raises(ConfigError, match=r"is a database of something else \(tables cats\): choose another file"):
            use(f"sqlite:///{path}")
    assert path.read_bytes() == before


def test_a_torn_database_is_named_before_anything_starts(whole: Path, tmp_path: Path) -> None:
    path = tmp_path / "mlflow.db"
    path.write_bytes(b"x" * 100 + whole.read_bytes()[100:5000])
    with pytest.raises(ConfigError, match="is no SQLite database, or a damaged one: move it away") as refusal:
        require_answer(f"sqlite:///{path}")
    assert "\n" not in str(refusal.value)


def test_an_empty_file_becomes_a_store(tmp_path: Path) -> None:
    (tmp_path / "mlflow.db").touch()
    connect(f"sqlite:///{tmp_path}/mlflow.db", "e")
    require_answer(f"sqlite:///{tmp_path}/mlflow.db")


def test_a_folder_in_the_place_of_the_store_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot be written"):
        require_answer(f"sqlite:///{tmp_path}")

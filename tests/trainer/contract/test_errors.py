"""Errors of MLflow, SQLAlchemy and the network: the line that is shown is the one that says what is wrong."""

from __future__ import annotations

import pytest

from trainer.contract.errors import is_unreachable, reason, unusable
from trainer.contract.settings import ConfigError

AUTOFLUSH = (
    "(raised as a result of Query-invoked autoflush; consider using a session.no_autoflush block if this autoflush is "
    "occurring prematurely)\n(sqlite3.OperationalError) database or disk is full\n[SQL: INSERT INTO params VALUES (?)]"
    "\n[parameters: [('a', 'b')]]\n(Background on this error at: https://sqlalche.me/e/20/e3q8)"
)
REFUSED = (
    "API request to http://127.0.0.1:9/api/2.0/mlflow/runs/search failed with exception HTTPConnectionPool("
    "host='127.0.0.1', port=9): Max retries exceeded with url: /api (Caused by NewConnectionError(\"HTTPConnection("
    "host='127.0.0.1', port=9): Failed to establish a new connection: [Errno 111] Connection refused\"))"
)


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (RuntimeError(AUTOFLUSH), "database or disk is full"),
        (RuntimeError("(sqlite3.OperationalError) database is locked\n[SQL: SELECT 1]"), "database is locked"),
        (RuntimeError(REFUSED), "http://127.0.0.1:9: Connection refused"),
        (RuntimeError("\n\nthe run is deleted\nand more"), "RuntimeError: the run is deleted"),
        (ConfigError("one sentence"), "one sentence"),
        (KeyError(), "KeyError: KeyError"),
    ],
)
def test_the_cause_is_shown(error: Exception, said: str) -> None:
    assert reason(error) == said


def test_what_sqlalchemy_really_raises(tmp_path: object) -> None:
    import sqlalchemy
    from sqlalchemy.orm import Session

    session = Session(sqlalchemy.create_engine(f"sqlite:///{tmp_path}/x.db"))
    with pytest.raises(sqlalchemy.exc.OperationalError) as failure:
        session.execute(sqlalchemy.text("select * from missing"))
    session.close()
    assert reason(failure.value) == "no such table: missing"


def test_a_server_that_is_away_is_told_from_one_that_refuses() -> None:
    def raised(cause: Exception) -> Exception:
        try:
            try:
                raise cause
            except Exception:
                raise RuntimeError("API request failed") from None
        except RuntimeError as error:
            return error

    assert is_unreachable(raised(ConnectionRefusedError(111, "Connection refused")))
    assert is_unreachable(raised(TimeoutError("timed out")))
    assert not is_unreachable(raised(ValueError("no such experiment")))


def test_a_file_without_a_name_is_not_called_a_file() -> None:
    assert unusable(NotADirectoryError(20, "Not a directory", "/x/runs")).startswith(
        "/x/runs cannot be used (Not a dir"
    )
    assert unusable(OSError("no space left to write /x/y: free some")) == "no space left to write /x/y: free some"

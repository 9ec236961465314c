"""What holds for every test."""

from __future__ import annotations

from collections.abc import Iterator

import pytest


@pytest.fixture(scope="session", autouse=True)
def logs_of_tests_are_no_logs_of_the_user(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Runs that tests start keep their logs among the tests' files."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RTDENOISE_LOG_DIR", str(tmp_path_factory.mktemp("logs")))
        yield

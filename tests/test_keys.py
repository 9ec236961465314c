"""Keys in files: who may use them, what is refused, and that no secret is shown."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from typer.testing import CliRunner

from rtdenoise import keyring
from rtdenoise.errors import ConfigError, WireError
from rtdenoise.keys import keys as keys_verbs
from rtdenoise.publish import Publisher
from rtdenoise.session import Session
from rtdenoise.settings import Remote
from rtdenoise.wire import StreamFacts
from tests.keyrings import Rig, make_rig
from tests.runs import settings
from tests.test_cli import assert_one_line, cli

ANY_PORT = "tcp://127.0.0.1:*"


@pytest.fixture
def rig(tmp_path: Path) -> Rig:
    return make_rig(tmp_path)


@pytest.mark.parametrize("bind", ["203.0.113.77", "no-such-card", "0.0.0.0.0"])
def test_an_address_that_this_computer_does_not_have_is_named(rig: Rig, bind: str) -> None:
    with pytest.raises(WireError, match=bind):
        Publisher(ANY_PORT, StreamFacts("raw"), frame_bytes=1, remote=Remote(bind=bind, keys_folder=rig.folder))


def test_a_run_bound_elsewhere_does_not_start_without_keys_or_without_anybody_on_the_list(tmp_path: Path) -> None:
    run = ("run", "-s", "synthetic", "--bind", "0.0.0.0", "--keys-folder", tmp_path)
    assert_one_line(cli(*run), "--bind 0.0.0.0", "rtdenoise keys make", "rtdenoise keys add")
    keyring.make(tmp_path)
    remote = Remote(bind="0.0.0.0", keys_folder=tmp_path)
    with pytest.raises(ConfigError, match="nobody is on the list"), Session(settings("synthetic", {}, remote=remote)):
        pass


def test_the_verbs_make_list_and_remove_keys_and_print_no_secret(tmp_path: Path) -> None:
    here, file = ["--keys-folder", str(tmp_path / "keys")], tmp_path / "laptop.json"
    said = [
        verb("make", *here),
        verb("add", "laptop", "--out", str(file), *here),
        verb("list", *here),
        verb("remove", "laptop", *here),
        verb("list", *here),
    ]
    assert "laptop" in said[2]
    assert "nobody" in said[4]
    secrets = [json.loads(path.read_text())["secret"] for path in (file, tmp_path / "keys" / "server.json")]
    assert not any(secret in text for secret in secrets for text in said)
    with pytest.raises(ConfigError, match="a client's name"):
        verb("add", "no/such", *here)


def verb(*words: str) -> str:
    """What `rtdenoise keys words...` prints."""
    done = CliRunner().invoke(keys_verbs, words)
    if done.exception is not None:
        raise done.exception
    return done.output


def test_what_would_lock_somebody_out_or_overwrite_a_key_is_refused(rig: Rig) -> None:
    for wrong, says in (
        (lambda: keyring.make(rig.folder), "--replace"),
        (lambda: keyring.add(rig.folder, "office", rig.files / "again.json"), "on the list already"),
        (lambda: keyring.add(rig.folder, "second", rig.files / "office.json"), "exists already"),
        (lambda: keyring.remove(rig.folder, "nobody"), "it has: office"),
        (lambda: keyring.add(rig.files / "empty", "x", rig.files / "x.json"), "rtdenoise keys make"),
        (lambda: keyring.client(rig.files / "missing.json"), "no such key file"),
        (lambda: keyring.client(rig.folder / "server.json"), "is it the right file"),
    ):
        with pytest.raises(ConfigError, match=says):
            wrong()
    assert list(keyring.allowed(rig.folder)) == ["office"]


@pytest.mark.parametrize(
    "content", [b"", b"{}", b"[" * 10_000, b"\xff\xfe", b'{"htype":"rtdenoise-clients-1.0","clients":3}']
)
def test_a_list_that_cannot_be_read_lets_nobody_in(rig: Rig, content: bytes) -> None:
    inside = keyring.Allowed(rig.folder)
    assert rig.office.public in inside
    (rig.folder / "clients.json").write_bytes(content)
    assert rig.office.public not in inside


def test_neither_errors_nor_representations_show_a_secret(rig: Rig) -> None:
    secret = rig.office.secret
    assert secret not in repr(rig.office) + str(rig.office)
    damaged = rig.files / "damaged.json"
    damaged.write_text((rig.files / "office.json").read_text().replace(secret, secret[:-1]))
    with pytest.raises(ConfigError, match="secret") as refused:
        keyring.client(damaged)
    assert secret[:20] not in str(refused.value)


@pytest.mark.skipif(os.name != "posix", reason="Windows keeps other users out by the folder, not by bits of the file")
def test_only_this_user_can_read_the_keys(rig: Rig) -> None:
    for path in (rig.folder / "server.json", rig.folder / "clients.json", rig.files / "office.json"):
        assert path.stat().st_mode & 0o077 == 0, path
    assert rig.folder.stat().st_mode & 0o077 == 0
    (rig.folder / "server.json").chmod(0o644)
    with pytest.raises(ConfigError, match="chmod 600"):
        Publisher(ANY_PORT, StreamFacts("raw"), frame_bytes=1, remote=rig.remote)

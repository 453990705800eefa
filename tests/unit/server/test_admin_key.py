"""The key that opens the pages and `/admin/api`: found, or made once."""

import stat

import pytest

from offhook.config import ServerTable
from offhook.server import AdminKey, find_admin_key


def test_a_configured_key_is_kept_nowhere(tmp_path):
    assert find_admin_key("a-key-of-my-own-choice", tmp_path) == ("a-key-of-my-own-choice", None, False)
    assert list(tmp_path.iterdir()) == []


def test_a_key_is_made_once_and_only_its_owner_can_read_it(tmp_path):
    made, path, is_new = find_admin_key("", tmp_path / "data")
    assert is_new
    assert len(made) >= 40
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert find_admin_key("", tmp_path / "data") == (made, path, False)


def test_an_empty_file_opens_nothing(tmp_path):
    (tmp_path / "admin_key").write_text("\n")
    with pytest.raises(ValueError, match="remove it"):
        find_admin_key("", tmp_path)


@pytest.mark.parametrize("given", ["", "another-key-than-that", "a-key-of-my-own-choic", "\ud800", "é"])
def test_only_the_very_key_matches(given):
    key = AdminKey("a-key-of-my-own-choice")
    assert key.matches("a-key-of-my-own-choice")
    assert not key.matches(given)
    assert "choice" not in repr(key)


def test_what_is_derived_depends_on_the_key_and_the_purpose():
    assert len({AdminKey(key).derive(purpose) for key in "ab" for purpose in ("x", "y")}) == 4


@pytest.mark.parametrize("key", ["too-short", "has a space in the middle", "naïve-naïve-naïve"])
def test_a_weak_key_stops_the_start(key):
    with pytest.raises(ValueError, match="admin_key"):
        ServerTable(admin_key=key)

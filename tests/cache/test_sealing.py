"""Sealed secrets: opened by our keys, for just what they were sealed for, or not at all."""

import pytest

from app.cache.sealing import Sealer

SECRET, ABOUT = b"wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY", b'["acme", 1]'
KEYS = ("first-secret-key-of-the-tests-0123456789", "older-secret-key-of-the-tests-0123456789")


@pytest.fixture
def sealer():
    return Sealer(KEYS, "tests")


@pytest.mark.parametrize("secret", [b"", b"\0" * 10_000, bytes(range(256))])
def test_what_is_sealed_opens_again(sealer, secret):
    sealed = sealer.seal(secret, ABOUT)
    assert sealer.open(sealed, ABOUT) == secret
    assert Sealer(KEYS, "tests").open(sealed, ABOUT) == secret, "in another process too"


def test_nothing_of_the_secret_shows(sealer):
    sealed = sealer.seal(SECRET, ABOUT)
    assert not any(SECRET[at : at + 4] in sealed for at in range(len(SECRET) - 3))
    assert ABOUT not in sealed
    assert not any(key.encode() in sealed for key in KEYS)
    assert SECRET.decode() not in repr(vars(sealer))


def test_the_same_secret_is_never_sealed_alike(sealer):
    sealed = [sealer.seal(SECRET, ABOUT) for _ in range(50)]
    assert len({each[5:17] for each in sealed}) == 50, "a nonce is used once"
    assert len({each[17:] for each in sealed}) == 50


@pytest.mark.parametrize("about", [b"", b'["acme", 2]', ABOUT + b" ", ABOUT[:-1]])
def test_a_sealed_secret_opens_only_for_what_it_was_sealed_for(sealer, about):
    assert sealer.open(sealer.seal(SECRET, ABOUT), about) is None


def test_no_changed_bit_opens_and_no_part_and_nothing_more(sealer):
    """The version's bits neither."""
    sealed = sealer.seal(SECRET, ABOUT)
    for at in range(len(sealed)):
        changed = bytearray(sealed)
        changed[at] ^= 1
        assert sealer.open(bytes(changed), ABOUT) is None, at
        assert sealer.open(sealed[:at], ABOUT) is None, at
    assert sealer.open(sealed + b"\0", ABOUT) is None
    assert sealer.open(sealed[1:], ABOUT) is None


@pytest.mark.parametrize("junk", [b"", b"\x01", b"\x01" * 16, b"\x01" * 17, b"\x01" * 200])
def test_junk_is_no_error(sealer, junk):
    assert sealer.open(junk, ABOUT) is None
    ours = sealer.seal(SECRET, ABOUT)[:5]
    assert sealer.open(ours + junk, ABOUT) is None


def test_keys_of_one_purpose_open_nothing_of_another():
    sealed = Sealer(KEYS, "tests").seal(SECRET, ABOUT)
    assert Sealer(KEYS, "other").open(sealed, ABOUT) is None
    grafted = Sealer(KEYS, "other").seal(b"", b"")[:5] + sealed[5:]  # under the other's key id
    assert Sealer(KEYS, "other").open(grafted, ABOUT) is None


def test_the_first_key_seals_and_all_open():
    old, both, new = Sealer(KEYS[1:], "tests"), Sealer(KEYS, "tests"), Sealer(KEYS[:1], "tests")
    before, during = old.seal(SECRET, ABOUT), both.seal(SECRET, ABOUT)
    assert both.open(before, ABOUT) == SECRET
    assert new.open(before, ABOUT) is None, "its key is gone"
    assert new.open(during, ABOUT) == SECRET
    assert old.open(during, ABOUT) is None

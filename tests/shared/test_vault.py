"""Secrets at rest: they open where they belong, with a key that is configured, and nowhere else."""

import base64

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.vault import Vault, VaultError

OLD, NEW = bytes(range(32)), bytes(range(32, 64))
PLACE = ("webhook_secrets", "an id", "a workspace")


def _spec(**keys: bytes) -> str:
    return ",".join(f"{name}:{base64.b64encode(key).decode()}" for name, key in keys.items())


@given(plain=st.binary(max_size=200), place=st.lists(st.uuids(), max_size=3))
def test_what_was_sealed_for_a_place_opens_there(plain: bytes, place: list[object]) -> None:
    vault = Vault({"k": NEW})

    assert plain == vault.open(vault.seal(plain, *place), *place)


@pytest.mark.parametrize(
    "place",
    [
        ("webhook_secrets", "another id", "a workspace"),
        ("webhook_secrets", "an id", "another workspace"),
        ("environment_variables", "an id", "a workspace"),
        ("webhook_secrets", "an id"),
        (),
    ],
)
def test_a_moved_ciphertext_does_not_open(place: tuple[str, ...]) -> None:
    vault = Vault({"k": NEW})
    sealed = vault.seal(b"secret", *PLACE)

    with pytest.raises(VaultError):
        vault.open(sealed, *place)


@given(st.data())
def test_a_damaged_or_cut_ciphertext_does_not_open(data: st.DataObject) -> None:
    vault = Vault({"k": NEW})
    sealed = bytearray(vault.seal(b"secret", *PLACE))
    if data.draw(st.booleans()):
        place = data.draw(st.integers(0, len(sealed) - 1))
        sealed[place] ^= data.draw(st.integers(1, 255))
    else:
        del sealed[data.draw(st.integers(0, len(sealed) - 1)) :]

    with pytest.raises(VaultError):
        vault.open(bytes(sealed), *PLACE)


def test_nothing_of_the_plain_text_shows_and_no_two_seals_are_alike() -> None:
    vault = Vault({"k": NEW})

    first, second = (vault.seal(b"my secret words", *PLACE) for _ in range(2))

    assert b"secret" not in first
    assert first != second


def test_after_a_rotation_old_secrets_open_and_new_ones_use_the_new_key() -> None:
    before = Vault.parse(_spec(old=OLD))
    after = Vault.parse(_spec(new=NEW, old=OLD))
    sealed = before.seal(b"secret", *PLACE)

    assert b"secret" == after.open(sealed, *PLACE)
    assert after.seal(b"secret", *PLACE).startswith(b"new:")
    with pytest.raises(VaultError):
        Vault.parse(_spec(new=NEW)).open(sealed, *PLACE)


def test_the_wrong_key_under_the_right_id_does_not_open() -> None:
    sealed = Vault.parse(_spec(k=OLD)).seal(b"secret", *PLACE)

    with pytest.raises(VaultError):
        Vault.parse(_spec(k=NEW)).open(sealed, *PLACE)


@pytest.mark.parametrize("spec", ["", ",", ",,"])
def test_without_a_master_key_nothing_is_sealed(spec: str) -> None:
    vault = Vault.parse(spec)

    assert vault.current is None
    with pytest.raises(VaultError, match="MASTER_KEY"):
        vault.seal(b"secret")


@pytest.mark.parametrize(
    "spec",
    [
        "k",
        "k:",
        ":" + base64.b64encode(NEW).decode(),
        "k:not base64!",
        "k:ключ",
        "k:" + base64.b64encode(NEW[:31]).decode(),
        "k:" + base64.b64encode(NEW + b"x").decode(),
        "a-b:" + base64.b64encode(NEW).decode(),
        "ключ:" + base64.b64encode(NEW).decode(),
        "\u0663:" + base64.b64encode(NEW).decode(),
        _spec(k=NEW) + "," + _spec(k=OLD),
        _spec(k=NEW) + ", ,",
    ],
)
def test_an_unreadable_master_key_is_refused_without_repeating_it(spec: str) -> None:
    with pytest.raises(VaultError) as refused:
        Vault.parse(spec)

    for part in spec.replace(",", ":").split(":"):
        assert len(part.strip()) < 5 or part not in str(refused.value)


def test_spaces_around_entries_do_not_matter() -> None:
    vault = Vault.parse(f" {_spec(new=NEW)} , {_spec(old=OLD)} ")

    assert "new" == vault.current

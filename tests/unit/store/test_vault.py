"""The vault opens what it sealed, for the row it was sealed for, and nothing else."""

import pytest
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from cryptography.hazmat.primitives.padding import PKCS7
from hypothesis import given
from hypothesis import strategies as st

from tollway.domain.keys import Secret
from tollway.store.vault import Vault, provider_key_binding

KEY, OTHER_KEY, IV = bytes(range(32)), bytes(32), bytes(range(16))
HERE = provider_key_binding("key_1", "openai")
vault = Vault(KEY, IV)


def predecessors(plain: bytes, key: bytes = KEY, iv: bytes = IV) -> str:
    padder = PKCS7(128).padder()
    encryptor = Cipher(algorithms.AES256(key), modes.CBC(iv)).encryptor()
    return (encryptor.update(padder.update(plain) + padder.finalize()) + encryptor.finalize()).hex()


@given(st.text(alphabet=st.characters(codec="utf-8")))
def test_what_was_sealed_can_be_opened(plain: str) -> None:
    assert vault.decrypt(vault.encrypt(Secret(plain), HERE), HERE) == Secret(plain)


@given(st.text())
def test_junk_opens_to_nothing(text: str) -> None:
    assert vault.decrypt(text, HERE) is None


@given(st.text(alphabet="0123456789abcdef", max_size=200), st.text())
def test_junk_in_the_right_form_opens_to_nothing(body: str, binding: str) -> None:
    head = vault.encrypt(Secret("x"), HERE).rpartition(".")[0]
    assert vault.decrypt(f"{head}.{body}", binding) is None


def test_a_ciphertext_does_not_open_in_another_row() -> None:
    sealed = vault.encrypt(Secret("sk-1"), HERE)
    assert vault.decrypt(sealed, provider_key_binding("key_2", "openai")) is None
    assert vault.decrypt(sealed, provider_key_binding("key_1", "mistral")) is None


def test_every_changed_character_is_noticed() -> None:
    sealed = vault.encrypt(Secret("sk-1"), HERE)
    for position, character in enumerate(sealed):
        changed = sealed[:position] + ("A" if character != "A" else "B") + sealed[position + 1 :]
        assert vault.decrypt(changed, HERE) is None


def test_the_same_secret_is_never_sealed_the_same_way_twice() -> None:
    assert vault.encrypt(Secret("sk-1"), HERE) != vault.encrypt(Secret("sk-1"), HERE)


def test_another_encryption_key_opens_nothing_and_is_told_apart() -> None:
    other = Vault(OTHER_KEY)
    assert other.decrypt(vault.encrypt(Secret("sk-1"), HERE), HERE) is None
    assert other.check != vault.check
    assert other.pepper != vault.pepper


def test_what_the_predecessor_stored_is_read_where_the_iv_is_given() -> None:
    stored = predecessors(b"sk-old-key")
    assert vault.decrypt(stored, HERE) == Secret("sk-old-key")
    assert Vault(KEY).decrypt(stored, HERE) is None


@pytest.mark.parametrize("text", ["", "broken", "abc", "00", predecessors(b"sk", OTHER_KEY), predecessors(b"\xff\x00")])
def test_what_the_predecessor_did_not_store_opens_to_nothing(text: str) -> None:
    assert vault.decrypt(text, HERE) is None


def test_a_stored_text_holds_neither_the_secret_nor_the_key() -> None:
    sealed = vault.encrypt(Secret("sk-secret"), HERE)
    assert "sk-secret" not in sealed
    assert KEY.hex() not in sealed
    assert KEY not in (vault.pepper, vault.check)


@pytest.mark.parametrize(("key", "iv"), [(bytes(31), None), (bytes(32), bytes(15))])
def test_a_key_or_iv_of_the_wrong_size_is_refused(key: bytes, iv: bytes | None) -> None:
    with pytest.raises(ValueError, match="bytes"):
        Vault(key, iv)

"""The live keys of one issuer: those of its files and those of its directory.

A set of keys is replaced as a whole or not at all: a file or a directory that cannot be used takes nothing away from
what was good before.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from masque.errors import MasqueError
from masque.privacypass import BlindRsaPublicKey, IssuerDirectory, TokenType, parse_blind_rsa_key
from relay.auth.private_token.key_file import OriginKey, read_key_file
from relay.settings import IssuerSettings, SettingsError

__all__ = ["KeyRing", "ListedKey"]


@dataclass(frozen=True, slots=True)
class ListedKey:
    """A key of a directory."""

    key: BlindRsaPublicKey
    "The key."
    not_before: int | None
    "From when on clients can use it, in seconds since 1970; None means at once."


class KeyRing:
    """One issuer's keys. A directory's come before those of files; of each, the issuer's order counts."""

    def __init__(self, number: int, settings: IssuerSettings) -> None:
        """Start without keys; `load_files` and `use_files` bring those of files.

        Args:
            number: the issuer's place in the settings, from 0.
            settings: of the issuer.
        """
        self.number = number
        self.settings = settings
        self.types = tuple(TokenType(value) for value in settings.types)
        "The types of token that are taken from this issuer."
        self.version = 0
        "Another number after each change."
        self._filed: tuple[OriginKey, ...] = ()
        self._listed: tuple[ListedKey, ...] = ()

    @property
    def setting(self) -> str:
        """The issuer's place in the settings, for messages and logs."""
        return f"tokens.issuers[{self.number}]"

    def __len__(self) -> int:
        """Return how many keys are live."""
        return sum(len(self.live(token_type)) for token_type in self.types)

    def load_files(self) -> tuple[OriginKey, ...]:
        """Read the keys of the files, for `use_files`; nothing changes yet.

        Raises:
            SettingsError: a file cannot be used, or there is a type without any source of keys. The text names files.
        """
        found: list[OriginKey] = []
        for index, path in enumerate(self.settings.keys):
            name = f"{self.setting}.keys[{index}]"
            try:
                keys = read_key_file(path)
            except OSError as error:
                raise SettingsError(f"{name}: cannot read {path}: {error.strerror}") from None
            except ValueError as error:
                raise SettingsError(f"{name}: {path} {error}") from None
            if any(key.token_type not in self.types for key in keys):
                raise SettingsError(f"{name}: {path} holds a key of a type that {self.setting}.types does not name")
            found += keys
        for token_type in self.types:
            is_listed = token_type is TokenType.BLIND_RSA_2048 and self.settings.directory is not None
            if not is_listed and all(key.token_type is not token_type for key in found):
                raise SettingsError(f"{self.setting}.types: names {token_type.value}, and no file has a key of it")
        return tuple(found)

    def use_files(self, keys: tuple[OriginKey, ...]) -> None:
        """Use these keys in place of those of the files so far."""
        self._filed = keys
        self.version += 1

    def take(self, directory: IssuerDirectory) -> bool:
        """Use a directory's keys of type 2 in place of those of the one before.

        Args:
            directory: as fetched.

        Returns:
            Whether anything is different now.

        Raises:
            ValueError: it has no key of the type, or one that is none: the keys so far stay.
        """
        try:
            listed = tuple(
                ListedKey(parse_blind_rsa_key(entry.token_key), entry.not_before)
                for entry in directory.keys
                if entry.token_type == TokenType.BLIND_RSA_2048
            )
        except MasqueError as error:
            raise ValueError(error.detail) from None
        if not listed:
            raise ValueError("a directory without a key of type 2")
        if listed == self._listed:
            return False
        self._listed = listed
        self.version += 1
        return True

    def live(self, token_type: TokenType) -> Mapping[bytes, OriginKey]:
        """Return all keys of a type by id: what tokens are verified by, whether a key's time has come or not."""
        listed = [entry.key for entry in self._listed]
        return {key.key_id: key for key in (*listed, *self._filed) if key.token_type is token_type}

    def preferred(self, token_type: TokenType, now: float) -> bytes | None:
        """Return the public key that clients should use now, encoded, or None when none is known.

        Args:
            token_type: of the challenge.
            now: seconds since 1970.
        """
        for entry in self._listed:
            if entry.key.token_type is token_type and (entry.not_before is None or entry.not_before <= now):
                return entry.key.encoded
        return next((key.encoded for key in self._filed if key.token_type is token_type), None)

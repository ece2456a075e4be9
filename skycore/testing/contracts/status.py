"""What every status source must do. Inherit `StatusSourceContract` and give it `source`."""

from __future__ import annotations

import anyio
import msgspec
import pytest

from skycore.contracts.status import Health, Status, StatusSource

__all__ = ["StatusSourceContract"]

ANSWER_S = 2.0


class StatusSourceContract:
    """The suite. Whether what it says is true is its plugin's own test."""

    @pytest.fixture
    async def source(self) -> StatusSource:
        """Return the source under test."""
        raise NotImplementedError("give this suite a `source` fixture")

    async def test_it_has_a_name(self, source: StatusSource) -> None:
        """One word, for a table's first column."""
        assert source.name and source.name.replace("_", "").isalnum()

    async def test_it_answers_without_waiting_for_anybody(self, source: StatusSource) -> None:
        """Health is asked when things are slow; it must not be."""
        with anyio.fail_after(ANSWER_S):
            status = await source.status()
        assert isinstance(status, Status)
        assert isinstance(status.health, Health)

    async def test_it_says_something_in_one_line(self, source: StatusSource) -> None:
        """And why, when it is not well."""
        status = await source.status()
        assert status.summary.strip() and status.summary.isprintable()

    async def test_its_fields_are_plain_json(self, source: StatusSource) -> None:
        """Read by people, programs and other languages."""
        status = await source.status()
        assert all(isinstance(key, str) for key in status.fields)
        assert msgspec.json.decode(msgspec.json.encode(status.fields)) == dict(status.fields)

    async def test_c52_its_numbers_fit_json(self, source: StatusSource) -> None:
        """An integer over 2^53 is text, or other readers lose its last digits."""
        status = await source.status()
        for name, value in status.fields.items():
            assert not isinstance(value, int) or abs(value) <= 2**53, name

    async def test_its_keys_are_stable(self, source: StatusSource) -> None:
        """Two questions, one set of names."""
        assert (await source.status()).fields.keys() == (await source.status()).fields.keys()

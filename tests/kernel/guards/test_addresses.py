from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from skycore.guards.addresses import FAILURES_MAX, AddressBook, as_seen
from skycore.model.addresses import Address, Contact
from skycore.model.limits import ADDRESS_KIND_MAX, ENDPOINT_MAX, HELLO_ADDRESSES_MAX


def at(endpoint, kind="stcpr"):
    return Address(kind, endpoint)


KEY = b"k" * 32


def learn(book, *endpoints, key=KEY, pinned=False):
    book.learn(Contact(key, tuple(at(e) for e in endpoints)), pinned=pinned)


def test_newest_knowledge_first_in_the_order_it_was_told():
    book = AddressBook()
    learn(book, "a:1", "b:1")
    assert book.find(KEY) == (at("a:1"), at("b:1"))
    learn(book, "c:1")
    assert book.find(KEY) == (at("c:1"), at("a:1"), at("b:1"))
    assert book.find(b"other") == ()


def test_what_works_is_tried_before_what_is_new():
    book = AddressBook()
    learn(book, "a:1", "b:1")
    book.worked(KEY, at("b:1"))
    learn(book, "c:1")
    assert book.find(KEY)[0] == at("b:1")
    book.failed(KEY, at("b:1"))
    assert book.find(KEY)[0] == at("c:1")
    book.worked(KEY, at("b:1"))
    assert book.find(KEY)[0] == at("b:1")


def test_forgets_what_never_worked_and_keeps_what_is_pinned_or_once_did():
    book = AddressBook()
    learn(book, "never:1", "once:1")
    learn(book, "pinned:1", pinned=True)
    book.worked(KEY, at("once:1"))
    for _ in range(FAILURES_MAX):
        for endpoint in ("never:1", "once:1", "pinned:1"):
            book.failed(KEY, at(endpoint))
    assert set(book.find(KEY)) == {at("once:1"), at("pinned:1")}


def test_a_key_without_addresses_is_no_entry():
    book = AddressBook()
    learn(book, "a:1")
    for _ in range(FAILURES_MAX):
        book.failed(KEY, at("a:1"))
    assert book.find(KEY) == () and len(book) == 0
    book.failed(KEY, at("a:1"))
    book.worked(KEY, at("a:1"))


def test_forget_drops_pinned_ones_too():
    book = AddressBook()
    learn(book, "a:1", pinned=True)
    book.forget(KEY)
    assert book.find(KEY) == ()
    book.forget(KEY)


def test_bounded_in_keys_and_the_pinned_ones_stay():
    book = AddressBook(keys_max=10)
    learn(book, "p:1", key=b"pinned", pinned=True)
    for n in range(1_000):
        learn(book, "a:1", key=b"%d" % n)
    assert len(book) == 10
    assert book.find(b"pinned") and book.find(b"999") and not book.find(b"0")


def test_bounded_even_if_all_are_pinned():
    book = AddressBook(keys_max=10)
    for n in range(30):
        learn(book, "a:1", key=b"%d" % n, pinned=True)
    assert len(book) == 10 and book.find(b"29")


@given(st.lists(st.lists(st.text(max_size=8), max_size=20), max_size=20))
def test_bounded_in_addresses_per_key(told):
    book = AddressBook()
    for endpoints in told:
        learn(book, *endpoints)
    assert len(book.find(KEY)) <= HELLO_ADDRESSES_MAX


def test_a_peers_flood_of_addresses_does_not_push_out_what_works():
    book = AddressBook()
    learn(book, "good:1")
    book.worked(KEY, at("good:1"))
    for n in range(100):
        learn(book, f"bad{n}:1")
    assert book.find(KEY)[0] == at("good:1")


def test_refuses_what_is_no_address():
    book = AddressBook()
    for bad in ("", "x" * (ENDPOINT_MAX + 1), "a\nb:1", "\x1b[31m:1", "ä:1"):
        learn(book, bad)
    book.learn(Contact(KEY, (at("a:1", kind=""), at("a:1", kind="k" * (ADDRESS_KIND_MAX + 1)))))
    assert len(book) == 0


def test_says_when_there_is_something_new():
    told = []
    book = AddressBook(on_new=told.append)
    learn(book, "a:1")
    learn(book, "a:1")
    assert told == [KEY]
    learn(book, "a:1", pinned=True)  # a person said it again: worth a try
    assert told == [KEY, KEY]


def test_an_empty_host_is_the_one_that_was_seen():
    assert as_seen((at(":7"),), "192.0.2.1") == (at("192.0.2.1:7"),)
    assert as_seen((at(":7"),), "2001:db8::1") == (at("[2001:db8::1]:7"),)
    assert as_seen((at(":7"),), "") == ()
    assert as_seen((at("node.example:7"),), "192.0.2.1") == (at("node.example:7"),)
    assert as_seen((at("node.example:0"),), "192.0.2.1") == ()


def test_loopback_means_this_machine_only_to_those_on_it():
    for local in ("127.0.0.1:7", "localhost:7", "[::1]:7"):
        assert as_seen((at(local),), "192.0.2.1") == ()
        assert as_seen((at(local),), "127.0.0.1") == (at(local),)


def test_another_types_endpoints_are_left_as_they_are():
    assert as_seen((at("relay-key", kind="dmsg"),), "192.0.2.1") == (at("relay-key", kind="dmsg"),)


def test_many_new_places_push_out_neither_what_is_pinned_nor_where_the_key_was_last():
    book = AddressBook()
    learn(book, "pinned:1", pinned=True)
    learn(book, "once:1", "older:1")
    book.worked(KEY, at("older:1"))
    book.worked(KEY, at("once:1"))
    for endpoint in ("pinned:1", "once:1", "older:1"):  # it is away for a moment
        book.failed(KEY, at(endpoint))
    learn(book, *(f"lie{i}:1" for i in range(HELLO_ADDRESSES_MAX)))
    found = book.find(KEY)
    assert len(found) == HELLO_ADDRESSES_MAX
    assert {at("pinned:1"), at("once:1")} <= set(found)
    assert at("older:1") not in found
    assert found[0] == at("lie0:1")  # the order of dialling is as before

"""ClientHellos: read from any records and any reads, agreed on with a TLS server, refused where they are broken."""

from __future__ import annotations

import datetime
import random
import ssl
from collections.abc import Iterable
from typing import Any, SupportsIndex

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from hypothesis import given
from hypothesis import strategies as st
from OpenSSL import SSL
from twisted.trial.unittest import SynchronousTestCase

from streamproxy.wire.client_hello import LARGEST, MOST_RECORDS, ClientHello, read_client_hello
from streamproxy.wire.message import WireError
from tests.wire.reading import property_of

MALFORMED = "the ClientHello is malformed"
TOO_LARGE = "the ClientHello is too large"
NOT_TLS = "this is not a TLS handshake"
NOT_HELLO = "a TLS handshake that doesn't begin with a ClientHello"
CUT = "a ClientHello is cut short by something else"
RECORD_TOO_LONG = "a TLS record is too long"
RECORD_EMPTY = "an empty TLS record in a handshake"
TWICE = "an extension stands twice in the ClientHello"

SERVER_NAME, ALPN = 0, 16


def vector(width: int, *parts: bytes) -> bytes:
    content = b"".join(parts)
    return len(content).to_bytes(width, "big") + content


def extension(kind: int, content: bytes) -> bytes:
    return kind.to_bytes(2, "big") + vector(2, content)


def server_name(*names: bytes, kind: int = 0) -> bytes:
    return extension(SERVER_NAME, vector(2, *[bytes([kind]) + vector(2, name) for name in names]))


def alpn(*names: bytes) -> bytes:
    return extension(ALPN, vector(2, *[vector(1, name) for name in names]))


def message(
    *extensions: bytes,
    version: bytes = b"\3\3",
    session: bytes = b"",
    suites: bytes = b"\x13\1",
    compressions: bytes = b"\0",
    behind: bytes = b"",
) -> bytes:
    """A ClientHello without records around it."""
    body = version + bytes(range(32)) + vector(1, session) + vector(2, suites) + vector(1, compressions)
    return b"\1" + vector(3, body, vector(2, *extensions), behind)


def record(fragment: bytes, kind: int = 22, version: bytes = b"\3\1") -> bytes:
    return bytes([kind]) + version + vector(2, fragment)


def records(handshake: bytes, *sizes: int) -> bytes:
    """`handshake` in records of `sizes`, the last of which goes on being used."""
    out, at = [], 0
    for size in sizes:
        if at < len(handshake):
            out.append(record(handshake[at : at + size]))
            at += size
    out += [record(handshake[start : start + sizes[-1]]) for start in range(at, len(handshake), sizes[-1])]
    return b"".join(out)


def hello(*extensions: bytes, **parts: bytes) -> bytes:
    return record(message(*extensions, **parts))


def taken_out(data: bytes) -> bytes:
    """The handshake message in a real client's one record."""
    assert int.from_bytes(data[3:5], "big") == len(data) - 5
    return data[5:]


def from_ssl(
    name: str | None, protocols: Iterable[str] = (), version: ssl.TLSVersion = ssl.TLSVersion.MAXIMUM_SUPPORTED
) -> bytes:
    """What Python's ssl says first."""
    settings = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    settings.check_hostname = False
    settings.maximum_version = version
    if protocols:
        settings.set_alpn_protocols(list(protocols))
    out = ssl.MemoryBIO()
    try:
        settings.wrap_bio(ssl.MemoryBIO(), out, server_hostname=name).do_handshake()
    except ssl.SSLWantReadError:
        return out.read()
    raise AssertionError("a handshake without a server")


def from_openssl(name: bytes | None, protocols: Iterable[bytes] = ()) -> bytes:
    """What OpenSSL says first, with whatever name it is given."""
    settings = SSL.Context(SSL.TLS_CLIENT_METHOD)
    if protocols:
        settings.set_alpn_protos(list(protocols))
    connection = SSL.Connection(settings, None)
    if name is not None:
        connection.set_tlsext_host_name(name)
    connection.set_connect_state()
    try:
        connection.do_handshake()
    except SSL.WantReadError:
        return connection.bio_read(65536)
    raise AssertionError("a handshake without a server")


class TlsServer:
    """Reads ClientHellos with OpenSSL: another reader to agree with."""

    def __init__(self) -> None:
        key = ec.generate_private_key(ec.SECP256R1())
        name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "test")])
        day = datetime.datetime(2020, 1, 1)
        certificate = x509.CertificateBuilder(name, name, key.public_key(), 1, day, day + datetime.timedelta(36500))
        self._settings = SSL.Context(SSL.TLS_SERVER_METHOD)
        self._settings.use_privatekey(key)
        self._settings.use_certificate(certificate.sign(key, hashes.SHA256()))
        self._settings.set_tlsext_servername_callback(self._named)
        self._settings.set_alpn_select_callback(self._offered)

    def _named(self, connection: SSL.Connection) -> None:
        self._asked = True
        self._name = connection.get_servername()

    def _offered(self, _connection: SSL.Connection, protocols: list[bytes]) -> Any:
        self._protocols = tuple(protocols)
        return SSL.NO_OVERLAPPING_PROTOCOLS

    def read(self, data: bytes) -> tuple[bytes | None, tuple[bytes, ...]] | None:
        """The name and the protocols that it saw; None where it refused, or waits for more."""
        self._asked, self._name, self._protocols = False, None, ()
        connection = SSL.Connection(self._settings, None)
        connection.set_accept_state()
        connection.bio_write(data)
        try:
            connection.do_handshake()
        except SSL.WantReadError:
            return (self._name, self._protocols) if self._asked else None
        except SSL.Error:
            return None
        raise AssertionError("a handshake in one message")


def outcome(data: bytes) -> ClientHello | str | None:
    """What is read, or the words with which it is refused."""
    try:
        return read_client_hello(data)
    except WireError as error:
        return error.reason


def first_outcome(data: bytes, step: int = 1) -> tuple[ClientHello | str | None, int]:
    """What comes of `data` that arrives `step` bytes at a time, and how many it took."""
    got: ClientHello | str | None = None
    for size in range(0, len(data) + step, step):
        got = outcome(data[:size])
        if got is not None:
            return got, min(size, len(data))
    return got, len(data)


REAL = [
    (from_ssl("example.com"), ClientHello("example.com", ())),
    (from_ssl(None), ClientHello(None, ())),
    (from_ssl("a.b", ["h2", "http/1.1"]), ClientHello("a.b", (b"h2", b"http/1.1"))),
    (from_ssl(None, ["http/1.1"]), ClientHello(None, (b"http/1.1",))),
    (from_ssl("old.example", ["x"], ssl.TLSVersion.TLSv1_2), ClientHello("old.example", (b"x",))),
    (from_ssl("xn--bcher-kva.example"), ClientHello("xn--bcher-kva.example", ())),
    (from_openssl(b"WWW.Example.COM.", [b"h2", b"\xff\0"]), ClientHello("www.example.com", (b"h2", b"\xff\0"))),
    (from_openssl(b"127.0.0.1"), ClientHello("127.0.0.1", ())),
    (from_openssl(b"::1", [b"h2"]), ClientHello(None, (b"h2",), bad_name=True)),
    (from_openssl(None), ClientHello(None, ())),
]


class RealTests(SynchronousTestCase):
    def test_what_real_clients_say_is_read(self) -> None:
        for data, expected in REAL:
            self.assertEqual(outcome(data), expected)

    def test_it_is_read_at_its_last_byte_and_not_before(self) -> None:
        for data, expected in REAL:
            self.assertEqual(first_outcome(data), (expected, len(data)))

    def test_it_is_read_from_records_of_any_one_size(self) -> None:
        for data, expected in REAL[2:6]:
            for size in range(1, len(data)):
                self.assertEqual(outcome(records(taken_out(data), size)), expected, size)

    @given(
        which=st.sampled_from(REAL),
        # The last is the one that repeats.
        sizes=st.lists(st.integers(4, 9) | st.integers(10, 700), min_size=1, max_size=30),
        step=st.integers(5, 200),
        behind=st.binary(max_size=40),
    )
    @property_of(100)
    def test_it_is_read_from_any_records_and_any_reads(
        self, which: tuple[bytes, ClientHello], sizes: list[int], step: int, behind: bytes
    ) -> None:
        data, expected = which
        cut = records(taken_out(data), *sizes)
        self.assertEqual(outcome(cut[:-1]), None)
        self.assertEqual(outcome(cut + behind), expected)
        self.assertEqual(
            first_outcome(cut + behind, step), (expected, min(-(-len(cut) // step) * step, len(cut + behind)))
        )

    def test_a_server_reads_the_same_from_records_as_they_are_cut_here(self) -> None:
        """So the records made here are TLS to others too."""
        server = TlsServer()
        handshake = taken_out(from_ssl("a.b", ["h2", "http/1.1"]))
        for sizes in ([1, 2, 3, 500], [100], [4, 1, 9999]):
            self.assertEqual(server.read(records(handshake, *sizes)), (b"a.b", (b"h2", b"http/1.1")))


class DamagedTests(SynchronousTestCase):
    def test_a_real_one_with_any_byte_changed_is_read_or_refused_and_never_worse(self) -> None:
        draw = random.Random(1)
        seen = set()
        for data, _ in REAL:
            for at in range(len(data)):
                for value in {0, 1, 255, data[at] ^ 1, data[at] ^ 128, draw.randrange(256)} - {data[at]}:
                    got = outcome(data[:at] + bytes([value]) + data[at + 1 :])
                    seen.add(got if isinstance(got, str) else type(got))
        every = {ClientHello, type(None), NOT_TLS, NOT_HELLO, MALFORMED, TOO_LARGE, RECORD_TOO_LONG, TWICE, CUT}
        # Whether one byte can make a record an empty one is a question of its length.
        self.assertEqual(seen - {RECORD_EMPTY}, every)

    def test_a_server_that_takes_a_changed_one_reads_the_same_name_and_protocols(self) -> None:
        server = TlsServer()
        taken = refused = 0
        for data in (from_openssl(b"example.com", [b"h2", b"http/1.1"]), from_ssl("b", ["h2"], ssl.TLSVersion.TLSv1_2)):
            for at in range(len(data)):
                for bit in (1, 4, 64):
                    changed = data[:at] + bytes([data[at] ^ bit]) + data[at + 1 :]
                    theirs, ours = server.read(changed), outcome(changed)
                    if theirs is None or ours is None:
                        continue
                    if isinstance(ours, str):
                        refused += 1
                        continue
                    taken += 1
                    name, protocols = theirs
                    self.assertEqual(ours.alpn, protocols, (at, bit))
                    if not ours.bad_name:
                        self.assertEqual(ours.server_name, name and name.decode().lower(), (at, bit))
        self.assertGreater(taken, 500)
        # What a server takes isn't refused here but where it looks at less.
        self.assertLess(refused, 20)

    def test_one_that_ends_early_is_waited_for_or_refused_and_never_read(self) -> None:
        for data, _ in REAL:
            handshake = taken_out(data)
            read = []
            for size in range(len(handshake)):
                self.assertIsNone(outcome(record(handshake[:size]) if size else b""))
                if size >= 4:
                    # It says of itself that it's whole, so that the lengths inside it lead out of it.
                    got = outcome(record(b"\1" + vector(3, handshake[4:size])))
                    if got != MALFORMED:
                        read.append(got)
            # But for the one place where it may end.
            self.assertEqual(read, [ClientHello(None, ())])

    @given(st.binary(max_size=300))
    @property_of(300)
    def test_garbage_is_refused_by_its_first_byte_or_never_read(self, data: bytes) -> None:
        got = outcome(data)
        if data and data[0] != 22:
            self.assertEqual(got, NOT_TLS)
        self.assertNotIsInstance(got, ClientHello)

    @given(st.binary(max_size=120))
    @property_of(500)
    def test_a_body_of_garbage_is_refused_or_read_and_nothing_else_is_raised(self, body: bytes) -> None:
        got = outcome(record(b"\1" + vector(3, b"\3\3" + bytes(32), body)))
        self.assertTrue(got in (TWICE, MALFORMED) or type(got) is ClientHello, got)

    @given(st.lists(st.tuples(st.sampled_from([0, 16, 43, 2570]), st.binary(max_size=12)), max_size=4))
    @property_of(500)
    def test_extensions_of_garbage_are_refused_or_read(self, extensions: list[tuple[int, bytes]]) -> None:
        got = outcome(hello(*[extension(kind, content) for kind, content in extensions]))
        kinds = [kind for kind, _ in extensions]
        if len(set(kinds)) < len(kinds):
            self.assertEqual(got, TWICE)
        else:
            self.assertTrue(got == MALFORMED or type(got) is ClientHello, got)

    @given(st.data())
    @property_of(300)
    def test_more_bytes_change_no_answer(self, data: st.DataObject) -> None:
        whole = bytearray(records(message(server_name(b"a.b"), alpn(b"h2")), 30, 7, 60) + b"\x17\3\3\0\1x")
        for _ in range(data.draw(st.integers(0, 2))):
            whole[data.draw(st.integers(0, len(whole) - 1))] = data.draw(st.sampled_from([0, 1, 3, 22, 255]))
        answers = [outcome(bytes(whole[:size])) for size in range(len(whole) + 1)]
        while answers and answers[0] is None:
            del answers[0]
        self.assertLessEqual(len(set(answers)), 1, answers)


class EarlyTests(SynchronousTestCase):
    def test_what_can_never_be_one_is_refused_with_the_byte_that_tells(self) -> None:
        good = message()
        table = [
            (b"G", NOT_TLS),
            (b"\x80", NOT_TLS),  # SSL 2.0: a length, no type.
            (b"\x15", NOT_TLS),
            (b"\x16\2", NOT_TLS),
            (b"\x16\3\1\x41", RECORD_TOO_LONG),
            (b"\x16\3\1\x40\1", RECORD_TOO_LONG),
            (b"\x16\3\1\0\0", RECORD_EMPTY),
            (b"\x16\3\1\0\x50\2", NOT_HELLO),
            (b"\x16\3\1\0\x50\1\1", TOO_LARGE),
            (b"\x16\3\1\0\x50\1\0\0\x28", MALFORMED),
            (b"\x16\3\1\0\x50\1\0\1\0\2", MALFORMED),
            (record(good[:4]) + b"\x16\3\1\0\x50\2", MALFORMED),
            (record(b"\1") + b"\x17", CUT),
            (record(b"\1") + b"\x16\2", CUT),
            (record(b"\1") + b"\x16\3\3\0\0", RECORD_EMPTY),
            (record(good[:1]) + record(good[1:5]) + record(good[5:9]) + b"\x15", CUT),
        ]
        for data, words in table:
            self.assertEqual(first_outcome(data), (words, len(data)), data)

    def test_the_hello_of_ssl_2_is_refused(self) -> None:
        self.assertEqual(outcome(b"\x80\x2e\1\3\1\0\x15\0\0\0\x10" + bytes(37)), NOT_TLS)

    def test_a_record_of_another_kind_inside_it_is_refused(self) -> None:
        good = message(server_name(b"a"))
        for kind in (20, 21, 23, 24, 0, 255):
            between = record(good[:20]) + record(b"\1", kind) + record(good[20:])
            self.assertEqual(outcome(between), CUT, kind)
        self.assertEqual(outcome(record(good[:20]) + record(good[20:])), ClientHello("a", ()))

    def test_the_least_that_can_be_one_is_read(self) -> None:
        body = b"\3\3" + bytes(32) + vector(1) + vector(2, b"\0\1") + vector(1, b"\0")
        self.assertEqual(outcome(record(b"\1" + vector(3, body))), ClientHello(None, ()))
        self.assertEqual(outcome(record(b"\1" + vector(3, body[:-1]))), MALFORMED)

    def test_any_minor_version_is_taken(self) -> None:
        for minor in (0, 1, 2, 3, 4, 255):
            version = bytes([3, minor])
            self.assertEqual(
                outcome(record(message(alpn(b"x"), version=version), 22, version)), ClientHello(None, (b"x",))
            )


class LimitTests(SynchronousTestCase):
    def of_size(self, size: int) -> bytes:
        """A message of `size` bytes in all."""
        without = len(message(server_name(b"a"), extension(21, b"")))
        return message(server_name(b"a"), extension(21, bytes(size - without)))

    def test_the_largest_is_read_and_a_byte_more_is_refused_when_its_length_is_known(self) -> None:
        fits = records(self.of_size(LARGEST - 4 * 5), 16384)
        self.assertEqual(len(fits), LARGEST)
        self.assertEqual(outcome(fits), ClientHello("a", ()))
        larger = records(self.of_size(LARGEST - 4 * 5 + 1), 16384)
        self.assertEqual(len(larger), LARGEST + 1)
        self.assertIsNone(outcome(larger[: 3 * (16384 + 5)]))
        self.assertEqual(outcome(larger[: 3 * (16384 + 5) + 5]), TOO_LARGE)

    def test_what_stands_behind_it_counts_for_no_limit(self) -> None:
        data = records(self.of_size(300), 100)
        for behind in (b"\x17" * LARGEST, b"\x16\3\1\0\0", record(b"x") * MOST_RECORDS):
            self.assertEqual(outcome(data + behind), ClientHello("a", ()))
        self.assertEqual(outcome(record(self.of_size(300) + b"\2\0\0\0")), ClientHello("a", ()))

    def test_a_record_may_have_so_many_bytes_and_no_more(self) -> None:
        self.assertEqual(outcome(records(self.of_size(16384), 16384)), ClientHello("a", ()))
        self.assertEqual(outcome(records(self.of_size(16385), 16385)), RECORD_TOO_LONG)

    def test_there_may_be_so_many_records_and_no_more(self) -> None:
        self.assertEqual(outcome(records(self.of_size(MOST_RECORDS), 1)), ClientHello("a", ()))
        self.assertEqual(outcome(records(self.of_size(MOST_RECORDS + 1), 1)), TOO_LARGE)


class Counted(bytes):
    """Bytes that count how many of them are copied."""

    copied = 0

    def __getitem__(self, index: SupportsIndex | slice) -> Any:
        got = super().__getitem__(index)
        if isinstance(got, bytes):
            Counted.copied += len(got)
        return got


class CostTests(SynchronousTestCase):
    def copied(self, data: bytes) -> int:
        Counted.copied = 0
        read_client_hello(Counted(data))
        return Counted.copied

    def test_waiting_for_the_rest_copies_nothing_of_what_came(self) -> None:
        data = records(message(extension(21, bytes(40_000))), 16384)
        for size in range(100, len(data), 999):
            self.assertLess(self.copied(data[:size]), 20, size)

    def test_reading_it_copies_each_byte_once(self) -> None:
        data = records(message(extension(21, bytes(40_000))), 16384)
        self.assertLess(self.copied(data + bytes(20_000)), len(data) + 20)


class NameTests(SynchronousTestCase):
    def test_a_host_name_is_given_in_lower_case_and_without_a_last_dot(self) -> None:
        table = {
            b"example.com": "example.com",
            b"EXAMPLE.Com": "example.com",
            b"example.com.": "example.com",
            b"localhost": "localhost",
            b"_a-b.c_-": "_a-b.c_-",
            b"10.0.0.1": "10.0.0.1",
            b"a" * 253: "a" * 253,
            b"a." * 126 + b"b.": "a." * 126 + "b",
        }
        for name, expected in table.items():
            self.assertEqual(outcome(hello(server_name(name))), ClientHello(expected, ()), name)

    def test_what_is_no_host_name_is_told_and_not_given(self) -> None:
        names = [b".", b"..", b".a", b"a..", b"a..b", b"a b", b" a", b"a\n", b"a\0", b"a\0.b", b"a/b", b"a:1", b"::1"]
        names += [b"[::1]", b"*.a", b"a%62", b"user@a", b"a,b", b"\xc3\xa9", b"\xff", b"a" * 254, b"a" * 254 + b"."]
        for name in names:
            got = outcome(hello(server_name(name), alpn(b"h2")))
            self.assertEqual(got, ClientHello(None, (b"h2",), bad_name=True), name)

    def test_the_first_host_name_is_the_one(self) -> None:
        self.assertEqual(outcome(hello(server_name(b"a", b"b"))), ClientHello("a", ()))
        self.assertEqual(outcome(hello(server_name(b"a b", b"b"))), ClientHello(None, (), bad_name=True))
        other_first = extension(SERVER_NAME, vector(2, b"\7" + vector(2, b"x y"), b"\0" + vector(2, b"b")))
        self.assertEqual(outcome(hello(other_first)), ClientHello("b", ()))

    def test_names_of_other_types_alone_are_no_name(self) -> None:
        self.assertEqual(outcome(hello(server_name(b"a", kind=1))), ClientHello(None, ()))

    def test_an_extension_that_breaks_its_grammar_is_refused(self) -> None:
        contents = [b"", b"\0", b"\0\0", b"\0\1\0", b"\0\3\0\0\0", b"\0\4\0\0\1", b"\0\4\0\0\2a", b"\0\4\0\0\1ab"]
        contents += [b"\0\5\0\0\1ab", b"\0\5\0\0\1a"]
        for content in contents:
            self.assertEqual(outcome(hello(extension(SERVER_NAME, content))), MALFORMED, content)
        self.assertEqual(outcome(hello(extension(SERVER_NAME, b"\0\4\0\0\1a"))), ClientHello("a", ()))


class ProtocolTests(SynchronousTestCase):
    def test_protocols_are_given_in_order_and_as_they_are(self) -> None:
        names = (b"h2", b"http/1.1", b"h2", b"\0", b"x" * 255)
        self.assertEqual(outcome(hello(alpn(*names), server_name(b"a"))), ClientHello("a", names))

    def test_a_list_that_breaks_its_grammar_is_refused(self) -> None:
        for content in (b"", b"\0", b"\0\0", b"\0\1\0", b"\0\2\2a", b"\0\2\1", b"\0\2\1ab", b"\0\3\1ab", b"\0\3\1a\0"):
            self.assertEqual(outcome(hello(extension(ALPN, content))), MALFORMED, content)
        self.assertEqual(outcome(hello(extension(ALPN, b"\0\2\1a"))), ClientHello(None, (b"a",)))


class FramingTests(SynchronousTestCase):
    def test_an_extension_of_any_type_may_stand_once(self) -> None:
        for kind in (SERVER_NAME, ALPN, 43, 2570, 65535):
            one = {SERVER_NAME: server_name(b"a"), ALPN: alpn(b"x")}.get(kind, extension(kind, b"1"))
            self.assertEqual(outcome(hello(one, extension(1, b""), one)), TWICE, kind)
            self.assertIsInstance(outcome(hello(one, extension(1, b""))), ClientHello, kind)

    def test_parts_that_do_not_add_up_are_refused(self) -> None:
        for data in (
            hello(session=bytes(33)),
            hello(suites=b""),
            hello(suites=b"\x13\1\x13"),
            hello(compressions=b""),
            hello(behind=b"\0"),
            hello(b"\0"),
            hello(b"\0\x2b\0"),
            hello(b"\0\x2b\0\1"),
            hello(extension(43, b"abc")[:-1]),
        ):
            self.assertEqual(outcome(data), MALFORMED, data)

    def test_parts_at_their_bounds_are_read(self) -> None:
        for data in (hello(), hello(session=bytes(32)), hello(suites=bytes(14_000)), hello(compressions=bytes(255))):
            self.assertEqual(outcome(data), ClientHello(None, ()))

    def test_it_is_refused_with_the_status_of_a_bad_request(self) -> None:
        error = self.assertRaises(WireError, read_client_hello, b"GET / HTTP/1.1\r\n")
        self.assertEqual((error.status, error.reason), (400, NOT_TLS))

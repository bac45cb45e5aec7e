"""Handshakes: what is asked for is read, what is wrong refused in words, and an answer held against what was asked."""

from __future__ import annotations

import base64
from collections.abc import Sequence

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase
from websockets.datastructures import Headers as PeerHeaders
from websockets.exceptions import InvalidHeaderFormat
from websockets.headers import parse_extension
from websockets.http11 import Request
from websockets.server import ServerProtocol

from streamproxy.wire.framing import request_framing
from streamproxy.wire.headers import Headers
from streamproxy.wire.message import CHUNKED, NO_BODY, Framing, Kind, RequestHead, ResponseHead, WireError
from streamproxy.wire.upgrade import (
    Agreed,
    Extension,
    Handshake,
    accept_for,
    check_answer,
    check_switch,
    is_websocket,
    read_extensions,
    read_handshake,
    upgrade_asked,
)

# The key and its answer of RFC 6455 section 1.3.
KEY = b"dGhlIHNhbXBsZSBub25jZQ=="
ACCEPT = b"s3pPLMBiTxaQ9kYGzzhZRbK+xOo="
DEFLATE = Extension(b"permessage-deflate", (), b"permessage-deflate")

Line = tuple[bytes, bytes]

UPGRADE = [(b"Connection", b"Upgrade"), (b"Upgrade", b"websocket")]
GOOD = [*UPGRADE, (b"Sec-WebSocket-Version", b"13"), (b"Sec-WebSocket-Key", KEY)]
GOOD_ANSWER = [*UPGRADE, (b"Sec-WebSocket-Accept", ACCEPT)]


def asking(lines: Sequence[Line], method: bytes = b"GET") -> RequestHead:
    return RequestHead(method, b"/chat", (1, 1), Headers(lines), NO_BODY)


def answering(lines: Sequence[Line]) -> ResponseHead:
    return ResponseHead((1, 1), 101, b"Switching Protocols", Headers(lines), NO_BODY)


def changed(lines: Sequence[Line], name: bytes, *values: bytes) -> list[Line]:
    """`lines` with these values of `name` in place of the one it has, if any."""
    return [line for line in lines if line[0] != name] + [(name, value) for value in values]


def extensions_of(*lines: bytes) -> tuple[Extension, ...]:
    return read_extensions(Headers((b"Sec-WebSocket-Extensions", line) for line in lines))


class AskedTests(SynchronousTestCase):
    def test_an_upgrade_is_asked_for_by_connection_and_upgrade_together(self) -> None:
        self.assertEqual(upgrade_asked(asking(UPGRADE)), b"websocket")
        self.assertEqual(upgrade_asked(asking(UPGRADE, b"POST")), b"websocket")
        several = [(b"connection", b"keep-alive, UPGRADE"), (b"UPGRADE", b"h2c"), (b"Upgrade", b"IRC/6.9, RTA/x11")]
        self.assertEqual(upgrade_asked(asking(several)), b"h2c, IRC/6.9, RTA/x11")

    def test_half_an_upgrade_is_none(self) -> None:
        for lines in (
            [],
            [(b"Connection", b"upgrade")],
            [(b"Upgrade", b"websocket")],
            [(b"Connection", b"close"), (b"Upgrade", b"websocket")],
            [(b"Connection", b"upgrades"), (b"Upgrade", b"websocket")],
            [(b"Connection", b"upgrade"), (b"Upgrade", b"")],
            [(b"Connection", b"upgrade"), (b"Upgrade", b" , ,")],
        ):
            self.assertIsNone(upgrade_asked(asking(lines)), lines)

    def test_no_upgrade_is_asked_for_in_another_version_or_before_a_body(self) -> None:
        head = asking(UPGRADE)
        for other in (
            head._replace(version=(1, 0)),
            head._replace(version=(2, 0)),
            head._replace(framing=CHUNKED),
            head._replace(framing=Framing(Kind.LENGTH, 5)),
        ):
            self.assertIsNone(upgrade_asked(other))

    def test_a_content_length_of_zero_is_no_body(self) -> None:
        headers = Headers([*UPGRADE, (b"Content-Length", b"0")])
        head = RequestHead(b"POST", b"/", (1, 1), headers, request_framing((1, 1), headers))
        self.assertEqual(upgrade_asked(head), b"websocket")

    def test_websocket_is_websocket_alone(self) -> None:
        for upgrade in (b"websocket", b"WebSocket", b"WEBSOCKET", b" websocket\t", b", websocket,"):
            self.assertTrue(is_websocket(upgrade), upgrade)
        for upgrade in (b"", b"websocket, h2c", b"websocket, websocket", b"websocket/13", b"websockets", b"web socket"):
            self.assertFalse(is_websocket(upgrade), upgrade)


class HandshakeTests(SynchronousTestCase):
    def refusal(self, lines: Sequence[Line], method: bytes = b"GET") -> tuple[int, str]:
        error = self.assertRaises(WireError, read_handshake, asking(lines, method))
        return error.status, error.reason

    def test_what_is_asked_for_is_read(self) -> None:
        self.assertEqual(read_handshake(asking(GOOD)), Handshake(KEY, (), ()))
        lines = [
            *GOOD,
            (b"Sec-WebSocket-Protocol", b"chat, superchat"),
            (b"Sec-WebSocket-Extensions", b"permessage-deflate"),
            (b"Sec-WebSocket-Protocol", b",Chat ,"),
            (b"Sec-WebSocket-Extensions", b""),
        ]
        self.assertEqual(read_handshake(asking(lines)), Handshake(KEY, (b"chat", b"superchat", b"Chat"), (DEFLATE,)))

    def test_an_empty_field_of_protocols_or_extensions_asks_for_none(self) -> None:
        lines = [*GOOD, (b"Sec-WebSocket-Protocol", b""), (b"Sec-WebSocket-Extensions", b" , ")]
        self.assertEqual(read_handshake(asking(lines)), Handshake(KEY, (), ()))

    def test_a_key_may_have_padding_bits(self) -> None:
        for last in b"ABQZagw09+/":
            key = KEY[:21] + bytes([last]) + b"=="
            self.assertEqual(read_handshake(asking(changed(GOOD, b"Sec-WebSocket-Key", key))).key, key)

    def test_a_malformed_handshake_is_refused_in_words(self) -> None:
        key, version = b"Sec-WebSocket-Key", b"Sec-WebSocket-Version"
        protocol, extensions = b"Sec-WebSocket-Protocol", b"Sec-WebSocket-Extensions"
        no_key = (400, "Sec-WebSocket-Key isn't 16 bytes in base64")
        other_version = (426, "Sec-WebSocket-Version isn't 13")
        no_protocol = (400, "Sec-WebSocket-Protocol is malformed")
        table: list[tuple[bytes, tuple[bytes, ...], tuple[int, str]]] = [
            (version, (), (400, "no Sec-WebSocket-Version")),
            (version, (b"13", b"13"), (400, "several Sec-WebSocket-Versions")),
            (version, (b"",), other_version),
            (version, (b"8",), other_version),
            (version, (b"13, 8",), other_version),
            (version, (b"013",), other_version),
            (version, (b"+13",), other_version),
            (version, (b"14",), other_version),
            (key, (), (400, "no Sec-WebSocket-Key")),
            (key, (KEY, KEY), (400, "several Sec-WebSocket-Keys")),
            (key, (b"",), no_key),
            (key, (KEY[:-1],), no_key),
            (key, (KEY[:-2],), no_key),
            (key, (KEY + b"=",), no_key),
            (key, (KEY + b"\n",), no_key),
            (key, (b"dGhlIHNhbXBsZSBub25jZQA=",), no_key),
            (key, (b"dGhlIHNhbXBsZSBub25jZQAA",), no_key),
            (key, (b"dGhlIHNhbXBsZSBub25j",), no_key),
            (key, (b"dGhlIHNhbXBsZSBub25jZ-==",), no_key),
            (key, (b"dGhlIHNhbXBsZS ub25jZQ==",), no_key),
            (key, (b"dGhlIHNhbXBsZS=ub25jZQ==",), no_key),
            (protocol, (b"a b",), no_protocol),
            (protocol, (b"a;b",), no_protocol),
            (protocol, (b"a", b'"b"'), no_protocol),
            (protocol, (b"caf\xe9",), no_protocol),
            (protocol, (b"a, b, a",), (400, "Sec-WebSocket-Protocol names a protocol twice")),
            (protocol, (b"a", b"a"), (400, "Sec-WebSocket-Protocol names a protocol twice")),
            (extensions, (b"a;",), (400, "Sec-WebSocket-Extensions is malformed")),
        ]
        for name, values, expected in table:
            self.assertEqual(self.refusal(changed(GOOD, name, *values)), expected, (name, values))

    def test_another_method_than_get_is_refused(self) -> None:
        for method in (b"POST", b"get", b"HEAD"):
            self.assertEqual(self.refusal(GOOD, method), (400, "the method of a WebSocket handshake isn't GET"))

    def test_the_answer_to_a_key_is_the_one_of_the_rfc(self) -> None:
        self.assertEqual(accept_for(KEY), ACCEPT)

    @settings(max_examples=150, deadline=None)
    @given(
        st.binary(min_size=14, max_size=18).map(base64.b64encode) | st.text("Aa+/=-", max_size=25).map(str.encode),
        st.lists(st.sampled_from([b"13", b"13", b"12"]), max_size=2),
        st.lists(st.sampled_from([b"a", b"b", b"a, b", b"c d", b"x/y", b"e,,f"]), max_size=2),
    )
    def test_a_handshake_that_is_read_is_one_to_another_reader(
        self, key: bytes, versions: list[bytes], protocols: list[bytes]
    ) -> None:
        lines = changed(changed(GOOD, b"Sec-WebSocket-Key", key), b"Sec-WebSocket-Version", *versions)
        lines = changed(lines, b"Sec-WebSocket-Protocol", *protocols)
        fields = PeerHeaders([(name.decode(), value.decode()) for name, value in lines])
        status = ServerProtocol().accept(Request("/chat", fields, "GET", "HTTP/1.1")).status_code
        try:
            read_handshake(asking(lines))
        except WireError:
            # The other looks at protocols only where it has some itself.
            self.assertTrue(status != 101 or protocols)
        else:
            self.assertEqual(status, 101)


class ExtensionTests(SynchronousTestCase):
    def test_extensions_are_read_with_their_parameters_in_order(self) -> None:
        written = b'X-One; A = 1;b="2" ;c'
        self.assertEqual(
            extensions_of(written + b" , permessage-deflate", b"z"),
            (
                Extension(b"x-one", ((b"a", b"1"), (b"b", b"2"), (b"c", None)), written),
                DEFLATE,
                Extension(b"z", (), b"z"),
            ),
        )

    def test_a_quoted_value_is_unquoted(self) -> None:
        for value in (b'"10"', b'"1\\0"', b'"\\1\\0"', b"10", b' "10" ', b"\t10"):
            self.assertEqual(extensions_of(b"x; a=" + value)[0].parameters, ((b"a", b"10"),), value)

    def test_a_parameter_given_twice_is_read_twice(self) -> None:
        self.assertEqual(extensions_of(b"x; a=1; a")[0].parameters, ((b"a", b"1"), (b"a", None)))

    def test_empty_members_mean_nothing(self) -> None:
        for line in (b"", b" ", b",", b" ,\t, "):
            self.assertEqual(extensions_of(line), (), line)
        self.assertEqual(extensions_of(b",permessage-deflate, ,", b""), (DEFLATE,))
        self.assertEqual(read_extensions(Headers()), ())

    def test_what_is_no_list_of_extensions_is_refused(self) -> None:
        table = [
            b";",
            b"x;",
            b"x; ",
            b"x;,",
            b"x;;a",
            b"x a",
            b"x; a b",
            b"x;a=",
            b"x;a= ,y",
            b'x;a=""',
            b'x;a="1',
            b"x;=1",
        ]
        table += [b'x;a="1 2"', b'x;a="1,2"', b'x;a="1;b"', b'x;a="\\', b'x;a="1"2', b"x;a=1=2", b"x=1", b'"x"', b"x/1"]
        table += [b"x;a=b\xe9", b"\xe9", b"x\n", b"x;a=1\n", b"y, x;a=1\x00", b'x;a="\\ "', b'x;a="\\"', b"x;a=[1]"]
        for line in table:
            error = self.assertRaises(WireError, extensions_of, b"good", line)
            self.assertEqual((error.status, error.reason), (400, "Sec-WebSocket-Extensions is malformed"), line)

    @settings(max_examples=400, deadline=None)
    @given(st.text('aB1;=," \t\\', max_size=12))
    def test_extensions_are_read_as_another_reader_reads_them(self, line: str) -> None:
        try:
            # A head's reader takes white space from around a value. The other refuses a list that is empty.
            members = parse_extension(line.strip(" \t")) if line.strip(" \t,") else []
        except InvalidHeaderFormat:
            self.assertRaises(WireError, extensions_of, line.encode())
            return
        expected = [
            (
                name.lower().encode(),
                tuple((key.lower().encode(), value and value.encode()) for key, value in parameters),
            )
            for name, parameters in members
        ]
        self.assertEqual([member[:2] for member in extensions_of(line.encode())], expected)

    @settings(max_examples=200, deadline=None)
    @given(st.lists(st.sampled_from([b"a", b"X-b; c", b'd;e="f"', b"g;h = i ; j"]), max_size=6), st.integers(0, 6))
    def test_it_doesnt_matter_on_how_many_lines_they_stand(self, members: list[bytes], at: int) -> None:
        one = extensions_of(b", ".join(members))
        self.assertEqual(extensions_of(b",".join(members[:at]), b" ,".join(members[at:])), one)
        self.assertEqual([extension.written for extension in one], members)
        self.assertEqual(extensions_of(*[extension.written for extension in one]), one)


class AnswerTests(SynchronousTestCase):
    asked = Handshake(KEY, (b"chat", b"Super"), (DEFLATE, Extension(b"x", (), b"x")))

    def refusal(self, lines: Sequence[Line]) -> tuple[int, str]:
        error = self.assertRaises(WireError, check_answer, self.asked, answering(lines))
        return error.status, error.reason

    def test_a_right_answer_says_what_was_agreed_on(self) -> None:
        self.assertEqual(check_answer(self.asked, answering(GOOD_ANSWER)), Agreed(None, ()))
        lines = [
            (b"upgrade", b"WebSocket"),
            (b"connection", b"keep-alive, upgrade"),
            (b"sec-websocket-accept", ACCEPT),
            (b"sec-websocket-protocol", b"Super"),
            (b"sec-websocket-extensions", b"Permessage-Deflate; a=1"),
        ]
        agreed = Extension(b"permessage-deflate", ((b"a", b"1"),), b"Permessage-Deflate; a=1")
        self.assertEqual(check_answer(self.asked, answering(lines)), Agreed(b"Super", (agreed,)))

    def test_an_empty_field_chooses_nothing(self) -> None:
        lines = [*GOOD_ANSWER, (b"Sec-WebSocket-Protocol", b""), (b"Sec-WebSocket-Extensions", b"")]
        self.assertEqual(check_answer(self.asked, answering(lines)), Agreed(None, ()))

    def test_a_wrong_answer_is_refused_in_words(self) -> None:
        connection, upgrade, accept = b"Connection", b"Upgrade", b"Sec-WebSocket-Accept"
        protocol, extensions = b"Sec-WebSocket-Protocol", b"Sec-WebSocket-Extensions"
        no_connection = "the origin's 101 has no Connection: Upgrade"
        other = "the origin's 101 doesn't upgrade to WebSocket"
        wrong = "the origin's Sec-WebSocket-Accept doesn't answer the Sec-WebSocket-Key"
        unasked = "the origin's Sec-WebSocket-Protocol wasn't asked for"
        several = "the origin's Sec-WebSocket-Protocol names several protocols"
        unoffered = "the origin's Sec-WebSocket-Extensions names one that wasn't offered"
        table: list[tuple[bytes, tuple[bytes, ...], str]] = [
            (connection, (), no_connection),
            (connection, (b"close",), no_connection),
            (connection, (b"x-upgrade",), no_connection),
            (upgrade, (), other),
            (upgrade, (b"",), other),
            (upgrade, (b"h2c",), other),
            (upgrade, (b"websocket, h2c",), other),
            (upgrade, (b"websocket", b"websocket"), other),
            (accept, (), "the origin's 101 has no Sec-WebSocket-Accept"),
            (accept, (ACCEPT, ACCEPT), "the origin's 101 has several Sec-WebSocket-Accept"),
            (accept, (b"",), wrong),
            (accept, (ACCEPT.lower(),), wrong),
            (accept, (ACCEPT + b"=",), wrong),
            (accept, (KEY,), wrong),
            (protocol, (b"super",), unasked),
            (protocol, (b"other",), unasked),
            (protocol, (b"chat, Super",), several),
            (protocol, (b"chat", b"chat"), several),
            (protocol, (b"a b",), "the origin's Sec-WebSocket-Protocol is malformed"),
            (extensions, (b"y",), unoffered),
            (extensions, (b"permessage-deflate", b"y; z"), unoffered),
            (extensions, (b"x;",), "the origin's Sec-WebSocket-Extensions is malformed"),
        ]
        for name, values, reason in table:
            self.assertEqual(self.refusal(changed(GOOD_ANSWER, name, *values)), (502, reason), (name, values))

    def test_nothing_may_be_chosen_where_nothing_was_asked_for(self) -> None:
        asked = Handshake(KEY, (), ())
        for line in ((b"Sec-WebSocket-Protocol", b"chat"), (b"Sec-WebSocket-Extensions", b"x")):
            self.assertRaises(WireError, check_answer, asked, answering([*GOOD_ANSWER, line]))


class SwitchTests(SynchronousTestCase):
    def test_a_switch_to_what_was_asked_for_is_right(self) -> None:
        for asked, chosen in (
            (b"h2c", b"h2c"),
            (b"H2C", b"h2c"),
            (b"IRC/6.9, RTA/x11", b"rta/X11"),
            (b"TLS/1.0, HTTP/1.1", b"TLS/1.0, HTTP/1.1"),
            (b"tcp", b"tcp/2"),
            (b"tcp/2", b"tcp"),
            (b"tcp/2, tcp", b"tcp/3"),
            (b"websocket, h2c", b"WebSocket"),
        ):
            check_switch(asked, answering([(b"Connection", b"x, UPGRADE"), (b"Upgrade", chosen)]))

    def test_a_switch_to_anything_else_is_refused(self) -> None:
        connection = "the origin's 101 has no Connection: Upgrade"
        unasked = "the origin's 101 upgrades to a protocol that wasn't asked for"
        table: list[tuple[bytes, list[Line], str]] = [
            (b"h2c", [(b"Upgrade", b"h2c")], connection),
            (b"h2c", [(b"Connection", b"close"), (b"Upgrade", b"h2c")], connection),
            (b"h2c", [(b"Connection", b"upgrade")], "the origin's 101 has no Upgrade"),
            (b"h2c", [(b"Connection", b"upgrade"), (b"Upgrade", b",")], "the origin's 101 has no Upgrade"),
            (b"h2c", [(b"Connection", b"upgrade"), (b"Upgrade", b"websocket")], unasked),
            (b"h2c", [(b"Connection", b"upgrade"), (b"Upgrade", b"h2c, tcp")], unasked),
            (b"tcp/2", [(b"Connection", b"upgrade"), (b"Upgrade", b"tcp/3")], unasked),
            (b"tcp/2", [(b"Connection", b"upgrade"), (b"Upgrade", b"/2")], unasked),
            (b"tcp", [(b"Connection", b"upgrade"), (b"Upgrade", b"tc")], unasked),
        ]
        for asked, lines, reason in table:
            error = self.assertRaises(WireError, check_switch, asked, answering(lines))
            self.assertEqual((error.status, error.reason), (502, reason), (asked, lines))

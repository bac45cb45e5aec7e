"""Responses, flows and their connections as scripts see them."""

from __future__ import annotations

import gc
import weakref

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from streamproxy.scripts import http
from streamproxy.scripts.connection import Client, Server
from streamproxy.scripts.exceptions import ControlException
from streamproxy.wire.headers import response_head_bytes
from streamproxy.wire.message import ResponseHead
from tests.scripts.making import flow_of, request_of, response_of
from tests.wire.reading import property_of, read, responses


class ResponseTests(SynchronousTestCase):
    def test_its_parts_are_told(self) -> None:
        response = response_of([(b"Content-Type", b"text/html")], body=b"abc", status=404, reason=b"N\xf6")
        self.assertEqual((response.status_code, response.reason, response.http_version), (404, "Nö", "HTTP/1.1"))
        self.assertEqual((response.timestamp_start, response.timestamp_end), (1001.5, None))
        self.assertEqual(repr(response), "Response(404, text/html, 3b)")

    def test_what_was_only_read_goes_on_as_the_very_head_that_came(self) -> None:
        response = response_of([(b"A", b"1")])
        response.headers.get("a")
        self.assertIs(response.to_head(), response._head)
        self.assertFalse(response.edited)

    def test_status_reason_and_fields_are_changed(self) -> None:
        response = response_of([(b"A", b"1")])
        response.status_code, response.reason, response.headers["a"] = 503, "Später", "2"
        head = response.to_head()
        self.assertEqual((head.status, head.reason, head.headers.fields), (503, b"Sp\xe4ter", ((b"A", b"2"),)))
        self.assertTrue(response.edited)

    def test_nonsense_is_refused_in_words_when_it_is_to_be_sent(self) -> None:
        for status in (99, 1000, "200", 200.0, True, None):
            response = response_of()
            response.status_code = status  # type: ignore[assignment]
            with self.assertRaises(ValueError, msg=str(status)) as caught:
                response.to_head()
            self.assertIn("from 100 to 999", str(caught.exception))
        response = response_of()
        response.reason = "OK\r\nX: y"
        with self.assertRaises(ValueError):
            response.to_head()

    def test_one_is_made_of_status_content_and_headers(self) -> None:
        response = http.Response.make(418, b"tea", {"Content-Type": "text/plain"})
        head = response.to_head()
        self.assertEqual((head.status, head.reason), (418, b"I'm a Teapot"))
        self.assertEqual(head.headers.fields, ((b"Content-Type", b"text/plain"), (b"content-length", b"3")))
        self.assertEqual(response.content, b"tea")

    def test_an_empty_one_is_made_of_nothing(self) -> None:
        response = http.Response.make()
        self.assertEqual((response.status_code, response.reason, response.content), (200, "OK", b""))
        self.assertEqual(http.Response.make(799).reason, "")

    def test_text_is_taken_for_content_and_other_things_are_not(self) -> None:
        self.assertEqual(http.Response.make(200, "é").text, "é")
        for args in ((200, None), (200, 3), ("200",)):
            with self.assertRaises(TypeError, msg=str(args)):
                http.Response.make(*args)

    @property_of(200)
    @given(st.integers(0, 1100), st.text(max_size=10), st.text(max_size=10))
    def test_whatever_is_set_is_refused_or_read_as_one_head_that_says_the_same(
        self, status: int, reason: str, value: str
    ) -> None:
        response = response_of()
        try:
            response.status_code, response.reason, response.headers["x"] = status, reason, value
            head = response.to_head()
        except ValueError:
            return
        got = read(responses(), response_head_bytes(head.status, head.reason, head.headers.written))[0]
        assert isinstance(got, ResponseHead)
        self.assertEqual((got.status, got.reason, got.headers), (head.status, head.reason, head.headers))


class FlowTests(SynchronousTestCase):
    def test_a_flow_has_what_scripts_ask_for(self) -> None:
        flow = flow_of()
        self.assertEqual((flow.type, flow.live, flow.response, flow.error, flow.websocket), ("http", True, *[None] * 3))
        self.assertEqual((flow.metadata, flow.marked, flow.comment, flow.is_replay), ({}, "", "", None))
        self.assertEqual((flow.timestamp_created, flow.timestamp_start, flow.intercepted), (1000.0, 1000.5, False))
        self.assertEqual((flow.client_conn.peername, flow.client_conn.address), (("192.0.2.1", 5555),) * 2)
        self.assertEqual(flow.server_conn.address, ("example.com", 80))

    def test_ids_are_lasting_and_differ(self) -> None:
        flow, other = flow_of(), flow_of()
        self.assertEqual(flow.id, flow.id)
        self.assertEqual(len({flow.id, other.id, flow.client_conn.id, flow.server_conn.id}), 4)

    def test_what_is_no_message_is_none_of_its(self) -> None:
        flow = flow_of()
        for name, wrong in (("response", "text"), ("response", flow.request), ("request", None)):
            with self.assertRaises(TypeError):
                setattr(flow, name, wrong)
        self.assertIsNone(flow.response)

    def test_it_is_killed_once(self) -> None:
        flow = flow_of()
        self.assertTrue(flow.killable)
        flow.kill()
        self.assertEqual((flow.killed, flow.live, flow.killable), (True, False, False))
        self.assertEqual(str(flow.error), http.Error.KILLED_MESSAGE)
        with self.assertRaises(ControlException):
            flow.kill()

    def test_nobody_can_intercept_it_by_hand(self) -> None:
        for call in (flow_of().intercept, flow_of().resume):
            with self.assertRaises(NotImplementedError):
                call()

    def test_it_tells_whether_a_script_changed_it(self) -> None:
        self.assertFalse(flow_of(response=response_of()).modified())
        changed = [flow_of(response=response_of()) for _ in range(6)]
        changed[0].request.path = "/b"
        changed[1].request.content = b"x"
        for number, flow in enumerate(changed[2:5]):
            assert flow.response is not None
            if number == 0:
                flow.response.headers["x"] = "y"
            elif number == 1:
                flow.response.content = b"x"
            else:
                flow.response.status_code = 0
        changed[5].response = http.Response.make()
        self.assertEqual([flow.modified() for flow in changed], [True] * 6)

    def test_a_copy_is_changed_by_itself_and_is_not_live(self) -> None:
        flow = flow_of(response=response_of())
        flow.metadata["a"] = 1
        copy = flow.copy()
        copy.request.path = "/other"
        copy.metadata["b"] = 2
        assert copy.response is not None
        copy.response.headers["x"] = "y"
        self.assertNotEqual(copy.id, flow.id)
        self.assertEqual((copy.live, copy.client_conn), (False, flow.client_conn))
        self.assertEqual((flow.request.path, flow.metadata, flow.modified()), ("/a?b=1", {"a": 1}, False))

    def test_scripts_may_hang_things_of_their_own_on_it(self) -> None:
        flow = flow_of()
        for each in (flow, flow.request, flow.client_conn):
            each.mine = 7  # type: ignore[union-attr]
            self.assertEqual(each.mine, 7)  # type: ignore[union-attr]
        kept = weakref.WeakKeyDictionary({flow: 1})
        self.assertIn(flow, kept)
        del flow, each
        gc.collect()
        self.assertEqual(len(kept), 0)

    def test_it_is_shown_with_its_parts(self) -> None:
        flow = flow_of(response=response_of())
        for part in ("Request(GET example.com:80/a?b=1)", "Response(200", "Client(192.0.2.1:5555)", "Server(example"):
            self.assertIn(part, str(flow))
        flow.kill()
        self.assertIn("Error('Connection killed.')", repr(flow))


class ConnectionTests(SynchronousTestCase):
    def test_they_tell_whether_they_are_open_and_speak_tls(self) -> None:
        client = Client(("192.0.2.1", 1), timestamp_start=1.0, tls_established=True, sni="a.example")
        self.assertEqual((client.connected, client.tls, client.sni), (True, True, "a.example"))
        client.timestamp_end = 2.0
        self.assertFalse(client.connected)
        server = Server(("a.example", 443), ("192.0.2.2", 443))
        self.assertEqual((server.connected, server.ip_address, server.via), (False, ("192.0.2.2", 443), None))


class RequestCopyTests(SynchronousTestCase):
    def test_a_copy_of_a_request_keeps_where_it_goes(self) -> None:
        request = request_of()
        copy = request.copy()
        copy.host = "other.example"
        self.assertEqual((request.host, request.headers["host"]), ("example.com", "example.com"))
        self.assertEqual(copy.to_head()[1].url, "http://other.example/a?b=1")

"""The line of an exchange, for programs and for people, and the journal that gathers lines."""

import json

from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from streamproxy.filters.tap import Budget
from streamproxy.filters.websocket import WebSocketData, WebSocketMessage
from streamproxy.flow import BodyRecord, Flow
from streamproxy.journal import LONGEST_REASON, LONGEST_URL, Journal, log_line, printable, text_line
from tests.conversation import REFUSED, Stage, settings_of
from tests.proxy.test_rules_on_messages import GET, OK, POST


def flow(**more) -> Flow:
    made = Flow(id="1f", started=1_700_000_000.25, client="127.0.0.1:50000")
    for name, value in more.items():
        setattr(made, name, value)
    return made


class LineTests(SynchronousTestCase):
    def test_all_of_a_flow_is_in_it(self):
        line = log_line(
            flow(
                method="POST",
                url="http://a.example/x?q=1",
                status=201,
                rules=["one", 'two "2"'],
                request=BodyRecord("held", "rule one", 5),
                response=BodyRecord("streamed", "type text/event-stream", 7),
                client_in=100,
                client_out=200,
                origin_out=300,
                origin_in=400,
                first_byte=0.0123,
                duration=1.5,
                outcome="forwarded",
            )
        )
        self.assertEqual(
            json.loads(line),
            {
                "time": "2023-11-14T22:13:20.250Z",
                "id": "1f",
                "client": "127.0.0.1:50000",
                "method": "POST",
                "url": "http://a.example/x?q=1",
                "status": 201,
                "outcome": "forwarded",
                "rules": ["one", 'two "2"'],
                "request": {"how": "held", "why": "rule one", "size": 5},
                "response": {"how": "streamed", "why": "type text/event-stream", "size": 7},
                "bytes": {"client_in": 100, "client_out": 200, "origin_in": 400, "origin_out": 300},
                "first_byte_ms": 12.3,
                "duration_ms": 1500.0,
            },
        )

    def test_what_never_was_is_null_or_left_out(self):
        line = json.loads(log_line(flow(outcome="malformed", error="a bad head")))
        self.assertEqual((line["status"], line["first_byte_ms"], line["duration_ms"]), (None, None, None))
        self.assertEqual((line["method"], line["url"], line["rules"], line["error"]), ("-", "-", [], "a bad head"))
        self.assertEqual(line["request"], {"how": "none", "size": 0})
        self.assertNotIn("error", json.loads(log_line(flow(outcome="forwarded"))))

    def test_times_go_on_over_the_second_and_back(self):
        times = []
        for started in (0.0, 0.9996, 1.0, 59.125, 0.5):
            line = json.loads(log_line(Flow("1", started, "-")))
            times.append(line["time"])
        day = "1970-01-01T00:"
        self.assertEqual(
            times, [day + end for end in ("00:00.000Z", "00:00.999Z", "00:01.000Z", "00:59.125Z", "00:00.500Z")]
        )

    @given(st.text(), st.text(), st.lists(st.text()), st.text(), st.text(min_size=1))
    def test_any_text_makes_one_line_of_json(self, method, path, rules, why, error):
        line = log_line(
            flow(method=method, url="http://a/" + path, rules=rules, request=BodyRecord("held", why), error=error)
        )
        self.assertEqual(len(line.splitlines()), 1)
        self.assertTrue(line.isascii())
        self.assertTrue(line.isprintable())
        read = json.loads(line)
        self.assertEqual((read["method"][:64], read["rules"], read["error"]), (method[:64], rules, error))
        self.assertEqual(read["request"].get("why", ""), why)

    def test_what_a_client_may_write_at_any_length_is_cut(self):
        start = "http://a/"
        for size, shown in ((LONGEST_URL, "x" * 2039), (LONGEST_URL + 1, "x" * 2039 + "...")):
            url = start + "x" * (size - len(start))
            self.assertEqual(json.loads(log_line(flow(url=url)))["url"], start + shown)
        self.assertEqual(json.loads(log_line(flow(method="M" * 64)))["method"], "M" * 64)
        self.assertEqual(json.loads(log_line(flow(method="M" * 65)))["method"], "M" * 64 + "...")
        self.assertLess(len(log_line(flow(method="M" * 60_000, url="http://a/?" + "%=&" * 20_000))), 3000)

    def test_bytes_that_are_no_text_make_a_line_too(self):
        line = log_line(flow(url="http://a/\udcff\x00\x7f\u2028", error='"\\\n'))
        self.assertEqual(json.loads(line)["error"], '"\\\n')
        self.assertEqual(len(line.splitlines()), 1)


def websocket(close_code=None, close_reason="", closed_by_client=None, streamed=False) -> WebSocketData:
    made = WebSocketData(1000, Budget(1000))
    made.streamed = streamed
    if close_code is not None:
        made.closed(close_code, close_reason, closed_by_client)
    return made


def websocket_part(data: WebSocketData) -> dict:
    return json.loads(log_line(flow(websocket=data)))["websocket"]


class WebSocketLineTests(SynchronousTestCase):
    def test_what_each_side_sent_and_how_it_closed_is_in_it_and_no_payload(self):
        data = websocket(closed_by_client=True, close_code=1000, close_reason='good"bye')
        dropped = WebSocketMessage(1, True, b"a payload that is dropped")
        dropped.drop()
        data.keep(dropped)
        data.keep(WebSocketMessage(2, True, b"a payload"))
        data.keep(WebSocketMessage(1, False, b"payload"))
        data.keep(WebSocketMessage(1, False, b"payload", injected=True))
        data.show(WebSocketMessage(1, False, b"payload"))
        data.from_client.pings, data.from_origin.pongs = 3, 4
        line = log_line(flow(outcome="switched", websocket=data))
        self.assertNotIn("payload", line)
        self.assertEqual(
            json.loads(line)["websocket"],
            {
                "mode": "messages",
                "client": {"messages": 2, "bytes": 34, "pings": 3, "pongs": 0, "dropped": 1, "injected": 0},
                "origin": {"messages": 1, "bytes": 7, "pings": 0, "pongs": 4, "dropped": 0, "injected": 1},
                "close": {"code": 1000, "reason": 'good"bye', "by": "client"},
            },
        )

    def test_it_stands_behind_the_response_and_nothing_else_is_changed(self):
        plain = log_line(flow(outcome="switched"))
        self.assertNotIn("websocket", plain)
        before, behind = plain.split('"bytes": {"client_in"')
        line = log_line(flow(outcome="switched", websocket=websocket()))
        self.assertTrue(line.startswith(before + '"websocket": {"mode": "messages", '))
        self.assertTrue(line.endswith('}, "bytes": {"client_in"' + behind))

    def test_who_closed_it_is_told(self):
        for by_client, by in ((True, "client"), (False, "origin"), (None, "proxy")):
            part = websocket_part(websocket(closed_by_client=by_client, close_code=1006))
            self.assertEqual(part["close"], {"code": 1006, "reason": "", "by": by})
        self.assertIs(websocket_part(websocket())["close"], None)

    def test_one_that_streamed_says_so(self):
        self.assertEqual(websocket_part(websocket(streamed=True))["mode"], "streamed")

    @given(st.text())
    def test_any_reason_makes_one_line_and_is_cut_to_what_a_close_frame_holds(self, reason):
        for text in (reason, reason * 200, reason + "ü" * 100, "\udcff" + reason):
            line = log_line(flow(websocket=websocket(close_code=1000, close_reason=text)))
            self.assertTrue(line.isascii() and line.isprintable())
            shown = json.loads(line)["websocket"]["close"]["reason"]
            self.assertLessEqual(len(shown.encode()), LONGEST_REASON)
            if text.isprintable() and len(text.encode()) <= LONGEST_REASON:
                self.assertEqual(shown, text)
            elif text.isprintable():
                self.assertTrue(text.startswith(shown))
                self.assertGreater(len(shown.encode()), LONGEST_REASON - 4)


class JournalTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock = Clock()
        self.written: list[str] = []
        self.journal = Journal(self.written.append, self.clock)

    def test_lines_wait_for_each_other_but_not_for_long(self):
        self.journal.record(flow(url="http://a/1"))
        self.clock.advance(Journal.DELAY / 2)
        self.journal.record(flow(url="http://a/2"))
        self.assertEqual(self.written, [])
        self.clock.advance(Journal.DELAY / 2)
        (text,) = self.written
        self.assertEqual([json.loads(line)["url"] for line in text.splitlines()], ["http://a/1", "http://a/2"])
        self.assertTrue(text.endswith("}\n"))
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_many_do_not_wait_at_all(self):
        for _ in range(Journal.MOST):
            self.journal.record(flow())
        (text,) = self.written
        self.assertEqual(text.count("\n"), Journal.MOST)
        self.assertEqual(self.clock.getDelayedCalls(), [])
        self.journal.record(flow())
        self.clock.advance(Journal.DELAY)
        self.assertEqual(len(self.written), 2)

    def test_a_flush_leaves_nothing_behind(self):
        self.journal.record(flow())
        self.journal.flush()
        self.journal.flush()
        self.assertEqual(len(self.written), 1)
        self.assertEqual(self.clock.getDelayedCalls(), [])


class OneLineAnExchangeTests(SynchronousTestCase):
    """Through the proxy: whatever becomes of an exchange, there is one line of it."""

    SECRETS = (
        b"Authorization: Basic aHVzaA==\r\nCookie: hush=aHVzaA==\r\nX-Api-Key: aHVzaA==\r\n"
        b"Proxy-Authorization: aHVzaA==\r\n"
    )

    def lines(
        self, *said: bytes, rules: str = "", answer: bytes = OK, refuses=None, waits=False, after: float = 0.0
    ) -> list[dict]:
        stage = Stage(settings_of(rules))
        stage.pool.refuses, stage.pool.waits = refuses, waits
        client = stage.client()
        for data in said:
            client.say(data)
            stage.settle(client)
            if stage.pool.made:
                stage.origin.say(answer)
                stage.settle(client)
        for _ in range(20):
            stage.clock.advance(after / 20)
            stage.settle(client)
        stage.journal.flush()
        text = "".join(stage.journal.written)
        self.assertNotIn("aHVzaA==", text)
        self.assertTrue(not text or text.endswith("\n"))
        return [json.loads(line) for line in text.splitlines()]

    def one(self, *said: bytes, **more) -> tuple:
        (line,) = self.lines(*said, **more)
        return line["outcome"], line["status"], line["method"], line["url"]

    def test_forwarded(self):
        secret = GET[:-2] + self.SECRETS + b"\r\n"
        answer = b"HTTP/1.1 200 OK\r\nSet-Cookie: aHVzaA==\r\nContent-Length: 0\r\n\r\n"
        self.assertEqual(self.one(secret, answer=answer), ("forwarded", 200, "GET", "http://a.example/x"))
        self.assertEqual(len(self.lines(secret, secret, secret, answer=answer)), 3)

    def test_the_bytes_of_both_sides(self):
        (line,) = self.lines(GET)
        self.assertEqual(line["bytes"]["client_in"], len(GET))
        self.assertEqual(line["bytes"]["origin_in"], len(OK))
        self.assertEqual(
            line["bytes"]["origin_out"], len(b"GET /x HTTP/1.1\r\nHost: a.example\r\nVia: 1.1 proxy\r\n\r\n")
        )
        self.assertEqual(line["bytes"]["client_out"], len(OK) + len(b"Via: 1.1 proxy\r\n"))

    def test_secrets_of_the_url_are_masked(self):
        url = b"http://a.example/x?token=aHVzaA==&q=1"
        request = b"GET " + url + b" HTTP/1.1\r\nHost: a.example\r\n\r\n"
        self.assertEqual(self.one(request)[3], "http://a.example/x?token=***&q=1")

    def test_a_password_in_a_target_that_is_refused_for_it_is_masked(self):
        request = b"GET http://me:aHVzaA==@a.example/ HTTP/1.1\r\nHost: a.example\r\n\r\n"
        self.assertEqual(self.one(request), ("malformed", 400, "GET", "http://***@a.example/"))

    def test_refused_and_answered_by_a_rule(self):
        secret = POST + self.SECRETS + b"Content-Length: 2\r\n\r\nhi"
        url = "http://a.example/x"
        self.assertEqual(self.one(secret, rules="rules:\n  - {block: 403}\n"), ("refused", 403, "POST", url))
        self.assertEqual(self.one(secret, rules="rules:\n  - {respond: {text: hi}}\n"), ("answered", 200, "POST", url))

    def test_malformed(self):
        self.assertEqual(self.one(b"GET / HTTP/9\r\n" + self.SECRETS + b"\r\n")[0], "malformed")
        self.assertEqual(self.one(b"Cookie: aHVzaA==\r\n\r\n")[:3], ("malformed", 400, "-"))
        self.assertEqual(self.one(b"GET / HTTP/1.1\r\nHost: a\r\nCookie : aHVzaA==\r\n\r\n")[:2], ("malformed", 400))
        self.assertEqual(
            self.one(POST + b"Transfer-Encoding: chunked\r\n\r\naHVzaA==\r\n", answer=b"")[:2], ("malformed", 400)
        )

    def test_malformed_by_the_origin(self):
        self.assertEqual(self.one(GET, answer=b"Set-Cookie: aHVzaA==\r\n\r\n")[:2], ("malformed", 502))

    def test_an_origin_that_refuses_and_one_that_never_answers(self):
        (line,) = self.lines(GET, refuses=REFUSED)
        self.assertEqual((line["outcome"], line["status"]), ("origin-gone", 502))
        self.assertIn("refused", line["error"])
        self.assertEqual(self.one(GET, answer=b"", after=700)[:2], ("timed-out", 504))
        self.assertEqual(self.one(GET, waits=True, after=700)[:2], ("timed-out", 504))

    def test_a_head_that_never_ends_and_a_body_that_never_does(self):
        self.assertEqual(self.one(GET[:-2], after=100)[:2], ("timed-out", 408))
        self.assertEqual(self.one(POST + b"Content-Length: 2\r\n\r\nh", answer=b"", after=700)[:2], ("timed-out", 408))

    def test_a_connection_too_many(self):
        stage = Stage(settings_of("limits: {connections: 1}\n"))
        stage.client()
        stage.settle(stage.client())
        self.assertEqual([(each.outcome, each.status) for each in stage.journal.flows], [("refused", 503)])

    def test_a_client_that_leaves(self):
        stage = Stage()
        client = stage.client()
        client.say(GET)
        stage.settle(client)
        client.reset()
        stage.turn()
        self.assertEqual([(each.outcome, each.status) for each in stage.journal.flows], [("client-gone", None)])

    def test_connections_that_ask_for_nothing_leave_no_line(self):
        self.assertEqual(self.lines(b"", after=100), [])
        stage = Stage()
        client = stage.client()
        client.end()
        stage.settle(client)
        self.assertEqual(stage.journal.flows, [])


class TextTests(SynchronousTestCase):
    """The line for people."""

    def test_it_has_the_same_in_short(self):
        told = flow(
            method="POST",
            url="http://a.example/x?token=1",
            status=502,
            rules=["one", "the other"],
            user="some one",
            request=BodyRecord("held", "rule one", 5),
            response=BodyRecord("let go", "type text/event-stream", 7),
            duration=1.5,
            outcome="origin-gone",
            error="the origin refused the connection",
        )
        self.assertEqual(
            text_line(told),
            "2023-11-14T22:13:20.250Z 127.0.0.1:50000 POST http://a.example/x?token=*** 502 origin-gone 1500.00ms"
            " request=held/5 response=let-go/7 user=some\\x20one rules=[one, the other]"
            " error=the origin refused the connection",
        )

    def test_what_there_is_none_of(self):
        self.assertEqual(
            text_line(flow(outcome="client-gone")),
            "2023-11-14T22:13:20.250Z 127.0.0.1:50000 - - - client-gone -ms request=none/0 response=none/0",
        )

    def test_a_websocket_has_its_counts(self):
        data = websocket(close_code=1000)
        data.from_client.messages, data.from_client.bytes = 2, 30
        line = text_line(flow(outcome="switched", websocket=data))
        self.assertIn(" websocket=messages sent=2/30 received=0/0 close=1000", line)

    @given(st.text(), st.text(), st.text())
    def test_nothing_on_the_wire_forges_a_line_or_speaks_to_a_terminal(self, method, url, error):
        line = text_line(flow(method=method, url=url, error=error, outcome="refused"))
        self.assertTrue(line.isprintable())
        # Time, client, method and URL are the first four words, whatever the last two of them are.
        words = line.split(" ")
        self.assertEqual(words[5], "refused")

    def test_what_is_not_printed_is_told_by_its_number(self):
        self.assertEqual(printable("a\x1b[31m\n\r\u2028\u202e\udc80é"), "a\\x1b[31m\\x0a\\x0d\\u2028\\u202e\\udc80é")
        self.assertEqual(printable("a\n\tb\0", "\n\t"), "a\n\tb\\x00")
        self.assertEqual(printable("\U000e0001"), "\\U000e0001")

    def test_the_journal_writes_what_it_is_told_to_make(self):
        written = []
        journal = Journal(written.append, Clock(), text_line)
        journal.record(flow(outcome="answered"))
        journal.flush()
        self.assertEqual(written, [text_line(flow(outcome="answered")) + "\n"])

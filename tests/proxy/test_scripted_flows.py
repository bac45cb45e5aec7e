"""What a flow tells its hooks of the exchange, and how rules and scripts go together."""

import gzip

from tests.conversation import Stage
from tests.proxy.scripting import CHUNKED, GET, OK, OK_HEAD, POST, ScriptTestCase, scripted

UPLOAD = POST + b"Content-Length: 11\r\n\r\nhello foo, "
RESPONSE = OK_HEAD + b"Content-Length: 11\r\n\r\nworld foo! "
NAMES = ("requestheaders", "request", "responseheaders", "response")


class AttributeTests(ScriptTestCase):
    def test_connections_times_and_id(self):
        seen = []

        def hook(flow):
            seen.append(
                (
                    flow.id,
                    flow.client_conn.peername,
                    flow.server_conn.address,
                    flow.server_conn.peername,
                    flow.request.timestamp_end is not None,
                    None if flow.response is None else flow.response.timestamp_end is not None,
                    flow.live,
                )
            )

        peer = ("127.0.0.1", 50000)
        for request in (GET, UPLOAD):
            for text in ("", "stream_large_bodies: 1\n"):
                stage = self.kept(Stage(scripted(text, **dict.fromkeys(NAMES, hook))))
                client = stage.client()
                client.say(request)
                stage.settle(client)
                stage.origin.say(RESPONSE)
                stage.settle(client)
                (flow,) = stage.journal.flows
                dialled = peer if text and request is UPLOAD else None
                self.assertEqual(
                    seen,
                    [
                        (flow.id, peer, ("a.example", 80), None, False, None, True),
                        (flow.id, peer, ("a.example", 80), dialled, True, None, True),
                        (flow.id, peer, ("a.example", 80), peer, True, False, True),
                        (flow.id, peer, ("a.example", 80), peer, True, True, True),
                    ],
                )
                seen.clear()

    def test_the_address_follows_where_a_script_sends_it(self):
        seen = []

        def hook(flow):
            flow.request.host = "b.example"

        self.exchanged(GET, requestheaders=hook, response=lambda flow: seen.append(flow.server_conn.address))
        self.assertEqual(set(seen), {("b.example", 80)})

    def test_what_a_rule_captures_is_seen_though_it_streamed(self):
        seen = []

        def hook(flow):
            seen.append(flow.response.content)
            seen.extend(
                (each.content, each.cut) for each in (flow.request.captured.sent, flow.response.captured.received)
            )

        rule = "{request: {capture: true}, response: {capture: {limit: 5}, replace: [{find: o, with: 0}]}}"
        stage = self.kept(Stage(scripted(f"stream_large_bodies: 1\nrules: [{rule}]\n", response=hook)))
        client = stage.client()
        client.say(UPLOAD)
        stage.settle(client)
        stage.origin.say(RESPONSE)
        stage.settle(client)
        (flow,) = stage.journal.flows
        self.assertEqual([each.content for each in flow.response.recorded], [b"world", b"w0rld"])
        self.assertEqual(seen, [None, (b"hello foo, ", False), (b"world", True)])

    def test_metadata_goes_along_and_no_further(self):
        seen = []

        def count(flow):
            seen.append(len(flow.metadata))
            flow.metadata[len(flow.metadata)] = True

        stage = self.kept(Stage(scripted(**dict.fromkeys(NAMES, count))))
        client = stage.client()
        for _ in range(2):
            client.say(GET)
            stage.settle(client)
            stage.origin.say(OK)
            stage.settle(client)
        self.assertEqual(seen, [0, 1, 2, 3] * 2)

    def test_clients_of_one_connection_are_the_same(self):
        seen = []
        stage = self.kept(Stage(scripted(request=lambda flow: seen.append(flow.client_conn))))
        client = stage.client()
        client.say(GET)
        stage.settle(client)
        stage.origin.say(OK)
        stage.settle(client)
        client.say(GET)
        stage.settle(client)
        self.assertEqual(len(seen), 2)
        self.assertIs(seen[0], seen[1])

    def test_no_error_where_all_went_well(self):
        from streamproxy.scripts import http

        seen = []

        def answers(flow):
            flow.response = http.Response.make(500)

        self.exchanged(GET, error=seen.append)
        self.passed(GET, error=seen.append, request=answers)
        self.assertEqual(seen, [])

    def test_an_error_hook_that_fails_harms_nothing(self):
        def hook(flow):
            raise RuntimeError("no")

        passed = self.passed(GET, OK_HEAD + b"Content-Length: 5\r\n\r\n", ends=True, error=hook)
        self.assertEqual(passed.flow.outcome, "origin-gone")


class RuleTests(ScriptTestCase):
    def test_rules_edits_are_seen_and_stay(self):
        text = (
            "rules:\n"
            "  - request: {headers: {set: {X-Set: s, Proxy-Authorization: p}, remove: [X-Gone], add: {X-Add: a}}}\n"
            "    response: {headers: {set: {X-Set: s}, remove: [X-Gone], add: {X-Add: a}}}\n"
        )

        def hook(flow):
            headers = (flow.response or flow.request).headers
            self.assertEqual((headers["x-set"], headers.get("x-gone"), headers["x-add"]), ("s", None, "a"))
            headers["x-add"] += "b"

        request = GET[:-2] + b"X-Gone: g\r\n\r\n"
        response = OK.replace(b"OK\r\n", b"OK\r\nX-Gone: g\r\n", 1)
        sent, answer = self.exchanged(request, response, text=text, requestheaders=hook, responseheaders=hook)
        for message in (sent, answer):
            values = (message.values(b"x-set"), message.values(b"x-add"), message.values(b"x-gone"))
            self.assertEqual(values, ([b"s"], [b"ab"], []))
        # What a rule says to the next connection alone is said, script or none.
        self.assertEqual(sent.values(b"proxy-authorization"), [b"p"])

    def test_a_held_body_is_shown_as_rules_made_it_and_its_change_goes_on_as_it_is(self):
        text = "rules:\n  - {response: {replace: {find: foo, with: bar}}, request: {replace: {find: foo, with: bar}}}\n"

        def hook(flow):
            message = flow.response or flow.request
            self.assertIn(b"bar", message.content)
            self.assertNotIn(b"foo", message.content)
            message.content += b"foo"

        for request, response in (
            (UPLOAD, RESPONSE),
            (
                POST + CHUNKED + b"\r\n6\r\nhello \r\n5\r\nfoo, \r\n0\r\n\r\n",
                OK_HEAD + CHUNKED + b"\r\n7\r\nworld f\r\n4\r\noo! \r\n0\r\n\r\n",
            ),
        ):
            sent, answer = self.exchanged(request, response, text=text, request=hook, response=hook)
            self.assertEqual((sent.body, answer.body), (b"hello bar, foo", b"world bar! foo"))

    def test_coded_bodies_too(self):
        text = "rules:\n  - {response: {replace: {find: foo, with: bar}}}\n"

        def hook(flow):
            flow.response.text += " foo"

        body = gzip.compress(b"a foo", mtime=0)
        response = OK_HEAD + b"Content-Encoding: gzip\r\nContent-Length: %d\r\n\r\n" % len(body) + body
        _, answer = self.exchanged(GET, response, text=text, response=hook)
        self.assertEqual(gzip.decompress(answer.body), b"a bar foo")

    def test_content_that_a_script_made_up_goes_on_as_it_is(self):
        text = "rules:\n  - {response: {replace: {find: foo, with: bar}}, request: {replace: {find: foo, with: bar}}}\n"

        def hook(flow):
            (flow.response or flow.request).content = b"foo"

        sent, answer = self.exchanged(
            GET, OK_HEAD + b"Content-Length: 0\r\n\r\n", text=text, request=hook, response=hook
        )
        self.assertEqual((sent.body, answer.body), (b"foo", b"foo"))
        self.assertEqual((sent.values(b"content-length"), answer.values(b"content-length")), ([b"3"], [b"3"]))

    def test_rules_that_answer_go_before_scripts(self):
        seen = []
        text = "rules:\n  - {match: {path: /x}, block: 403}\n"
        passed = self.passed(GET, text=text, **dict.fromkeys((*NAMES, "error"), seen.append))
        self.assertEqual((passed.flow.outcome, seen), ("refused", []))

    def test_where_something_may_read_the_response_only_codings_are_asked_for_that_can_be_read(self):
        request = GET[:-2] + b"Accept-Encoding: gzip, odd\r\n\r\n"
        for name, asked in (("response", [b"gzip"]), ("responseheaders", [b"gzip"]), ("request", [b"gzip, odd"])):
            sent, _ = self.exchanged(request, **{name: lambda flow: None})
            self.assertEqual(sent.values(b"accept-encoding"), asked, name)

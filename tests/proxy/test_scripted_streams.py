"""Stream functions on either body, in each of their forms; and what becomes of an exchange in which one fails."""

import gzip

from tests.conversation import Stage
from tests.fakes import TCP, TLS
from tests.passage import read_request, read_response
from tests.proxy.scripting import (
    CHUNKED,
    GET,
    OK,
    OK_HEAD,
    POST,
    ScriptTestCase,
    StageTestCase,
    plainly,
    scripted,
    settle,
)

BODY = b"one foo, and another foo."
CHANGED = b"ONE FOO, AND ANOTHER FOO.!"


def over_chunks(chunks):
    for chunk in chunks:
        yield chunk.upper()
    yield b"!"


async def over_chunks_later(chunks):
    async for chunk in chunks:
        yield chunk.upper()
    yield b"!"


def of_bytes(chunk):
    return chunk.upper() if chunk else b"!"


async def of_bytes_later(chunk):
    return chunk.upper() if chunk else b"!"


def of_bytes_in_parts(chunk: bytes):
    yield chunk[:1].upper()
    yield None
    yield chunk[1:].upper() if chunk else b"!"


class Fed:
    def __init__(self, flow):
        self.flow = flow

    def feed(self, chunk):
        return chunk.upper()

    def finish(self):
        return b"!"


FORMS = (over_chunks, over_chunks_later, of_bytes, of_bytes_later, of_bytes_in_parts, Fed)


def coded(framing: str, body: bytes) -> bytes:
    if framing == "length":
        return b"Content-Length: %d\r\n\r\n" % len(body) + body
    parts = [body[at : at + 4] for at in range(0, len(body), 4)]
    return CHUNKED + b"\r\n" + b"".join(b"%x\r\n%b\r\n" % (len(part), part) for part in parts) + b"0\r\n\r\n"


class FormTests(ScriptTestCase):
    def test_each_form_on_either_body(self):
        for form in FORMS:

            def hook(flow, form=form):
                (flow.response or flow.request).stream = form

            for framing in ("length", "chunks"):
                sent, answer = self.exchanged(
                    POST + coded(framing, BODY),
                    OK_HEAD + coded(framing, BODY),
                    ways=(plainly,),
                    requestheaders=hook,
                    responseheaders=hook,
                )
                self.assertEqual((sent.body, answer.body), (CHANGED, CHANGED), (form, framing))

    def test_on_bodies_without_any_bytes(self):
        def hook(flow):
            flow.response.stream = of_bytes

        for rest in (b"Content-Length: 0\r\n\r\n", CHUNKED + b"\r\n0\r\n\r\n"):
            _, answer = self.exchanged(GET, OK_HEAD + rest, responseheaders=hook, response=lambda flow: None)
            self.assertEqual(answer.body, b"!")

    def test_where_no_body_can_be(self):
        def hook(flow):
            flow.response.stream = of_bytes

        for request, response in (
            (GET.replace(b"GET", b"HEAD"), OK_HEAD + b"Content-Length: 5\r\n\r\n"),
            (GET, b"HTTP/1.1 304 Not Modified\r\n\r\n"),
        ):
            _, answer = self.exchanged(request, response, responseheaders=hook)
            self.assertEqual(answer.body, b"")

    def test_an_http_1_0_client(self):
        def hook(flow):
            flow.response.stream = of_bytes

        for framing in ("length", "chunks"):
            passed = self.passed(
                b"GET http://a.example/x HTTP/1.0\r\n\r\n", OK_HEAD + coded(framing, BODY), responseheaders=hook
            )
            self.assertTrue(passed.client_heard.endswith(b"\r\n\r\n" + CHANGED))
            self.assertTrue(passed.closed)

    def test_the_hook_behind_it_sees_that_it_streamed(self):
        seen = []

        def hook(flow):
            flow.response.stream = of_bytes

        def response(flow):
            seen.append((flow.response.content, flow.response.streamed, flow.response.stream is of_bytes))

        self.exchanged(GET, OK_HEAD + coded("length", BODY), responseheaders=hook, response=response, cuts=(None,))
        self.assertEqual(set(seen), {(None, True, True)})

    def test_each_piece_goes_on_at_once(self):
        for form in FORMS:

            def hook(flow, form=form):
                flow.response.stream = form

            for manner in (TCP, TLS):
                stage = self.kept(Stage(scripted(responseheaders=hook), manner))
                client = stage.client()
                client.say(GET)
                settle(stage, client)
                stage.origin.say(OK_HEAD + CHUNKED + b"\r\n")
                for piece in (b"a", b"bc", b"d"):
                    settle(stage, client)
                    before = len(client.heard)
                    stage.origin.say(b"%x\r\n%b\r\n" % (len(piece), piece))
                    client.take()
                    heard = bytes(client.heard[before:])
                    self.assertEqual(
                        heard.replace(b"\r\n", b"").translate(None, b"0123456789"), piece.upper(), (form, manner)
                    )
                stage.origin.say(b"0\r\n\r\n")
                settle(stage, client)
                self.assertTrue(bytes(client.heard).endswith(b"1\r\n!\r\n0\r\n\r\n"), (form, manner))

    def test_a_function_and_a_rule_and_a_coding(self):
        """The rule's replacement comes first, and both are inside of the coding."""
        text = "rules:\n  - {response: {replace: {find: foo, with: bar}}, request: {replace: {find: foo, with: bar}}}\n"

        def hook(flow):
            (flow.response or flow.request).stream = of_bytes

        body = gzip.compress(BODY, mtime=0)
        fields = b"Content-Encoding: gzip\r\n"
        for framing in ("length", "chunks"):
            for where, passed in self.each(
                POST + fields + coded(framing, body),
                OK_HEAD + fields + coded(framing, body),
                text=text,
                requestheaders=hook,
                responseheaders=hook,
            ):
                for message in (read_request(passed.origin_heard), read_response(passed.client_heard)):
                    self.assertEqual(gzip.decompress(message.body), b"ONE BAR, AND ANOTHER BAR.!", where)
                    self.assertEqual(message.values(b"content-length"), [])


class FailureTests(ScriptTestCase):
    def raises_at(self, number: int):
        """A function that raises at a piece."""
        count = [0]

        def broken(chunk):
            count[0] += 1
            if count[0] > number:
                raise ValueError("no more")
            return chunk

        return broken

    WHY = "tests.proxy.test_scripted_streams:FailureTests.raises_at.<locals>.broken raised ValueError: no more"

    def test_in_the_middle_of_a_response_it_is_cut_visibly_and_told_in_words(self):
        def hook(flow):
            flow.response.stream = self.raises_at(2)

        for rest, ends in (
            (b"Content-Length: 10\r\n\r\n0123456789", False),
            (CHUNKED + b"\r\n1\r\na\r\n1\r\nb\r\n1\r\nc\r\n0\r\n\r\n", False),
            (b"\r\n0123456789", True),
        ):
            told: list[str] = []
            for where, passed in self.each(
                GET,
                OK_HEAD + rest,
                ends=ends,
                cuts=(1,),
                responseheaders=hook,
                error=lambda flow, told=told: told.append(flow.error.msg),
            ):
                # A reset takes with it what the client hadn't read.
                if not ends or passed.client_heard:
                    self.assertTrue(passed.client_heard.startswith(b"HTTP/1.1 200 OK\r\n"), where)
                self.assertTrue(passed.closed or passed.reset, where)
                self.assertFalse(passed.client_heard.endswith(b"0\r\n\r\n"), where)
                if ends:
                    self.assertTrue(passed.reset)
                self.assertEqual(passed.flow.outcome, "failed")
                self.assertTrue(passed.flow.error.startswith(self.WHY), passed.flow.error)
                self.assertEqual(told, [passed.flow.error])
                told.clear()

    def test_in_the_middle_of_a_request_the_client_is_told(self):
        def hook(flow):
            flow.request.stream = self.raises_at(2)

        request = POST + CHUNKED + b"\r\n1\r\na\r\n1\r\nb\r\n1\r\nc\r\n0\r\n\r\n"
        for passed in self.refused("raised ValueError: no more", request, cuts=(1,), requestheaders=hook):
            self.assertTrue(passed.flow.error.startswith(self.WHY))
            self.assertNotIn(b"0\r\n\r\n", passed.origin_heard)

    def test_what_is_no_stream_function_is_a_502_before_anything_goes(self):
        class Nothing:
            pass

        def hook(flow):
            (flow.response or flow.request).stream = Nothing

        self.refused("is a class without feed(chunk)", POST + coded("length", BODY), requestheaders=hook)
        self.refused("is a class without feed(chunk)", GET, OK_HEAD + coded("length", BODY), responseheaders=hook)

    def test_a_coding_that_cannot_be_read_is_a_502(self):
        def hook(flow):
            flow.response.stream = of_bytes

        response = OK_HEAD + b"Content-Encoding: odd\r\n" + coded("length", BODY)
        self.refused("can't read Content-Encoding odd", GET, response, responseheaders=hook)

    def test_the_next_exchange_works(self):
        def hook(flow):
            if flow.request.path == "/x":
                raise RuntimeError("no")

        for name in ("requestheaders", "request", "responseheaders", "response"):
            for manner in (TCP, TLS):
                stage = self.kept(Stage(scripted(**{name: hook}), manner))
                client = stage.client()
                client.say(GET)
                stage.settle(client)
                if stage.pool.made:
                    stage.origin.say(OK)
                    stage.settle(client)
                before = len(client.heard)
                self.assertIn(
                    b"502 Bad Gateway: script.py:%b raised RuntimeError: no" % name.encode(), bytes(client.heard)
                )
                client.say(GET.replace(b"/x", b"/y"))
                stage.settle(client)
                stage.origin.say(OK)
                stage.settle(client)
                self.assertEqual(read_response(bytes(client.heard[before:])).body, b"ok", (name, manner))

    def test_a_hook_that_was_written_as_a_generator_is_refused(self):
        def hook(flow):
            yield flow

        async def later(flow):
            yield flow

        for each in (hook, later):
            self.refused("has a yield in it", GET, ways=(plainly,), request=each)


class HangTests(StageTestCase):
    """Calls that don't end, with the watchdog that interrupts them."""

    def run_with(self, **hooks) -> tuple[Stage, bytes]:
        stage = self.kept(Stage(scripted("timeouts: {script: 0.1, script_budget: 0.01}\n", **hooks)))
        stage.proxy.start_scripts()
        self.addCleanup(stage.proxy.stop_scripts)
        client = stage.client()
        for path in (b"/x", b"/y"):
            client.say(GET.replace(b"/x", path))
            settle(stage, client)
            if stage.pool.made and not stage.origin.disconnected:
                stage.origin.say(OK)
                settle(stage, client)
        return stage, bytes(client.heard)

    def hang(self, flow) -> None:
        while flow.request.path == "/x":
            pass

    def test_in_a_hook(self):
        async def later(flow):
            self.hang(flow)

        for name in ("requestheaders", "request", "responseheaders", "response"):
            for hook in (self.hang, later):
                stage, heard = self.run_with(**{name: hook})
                self.assertEqual([flow.outcome for flow in stage.journal.flows], ["failed", "forwarded"], name)
                self.assertIn(b"502 Bad Gateway: script.py:%b didn't end, and was interrupted" % name.encode(), heard)
                self.assertTrue(heard.endswith(b"\r\n\r\nok"))
                stage.proxy.stop_scripts()

    def test_in_a_stream_function(self):
        def hook(flow):
            def function(chunk):
                self.hang(flow)
                return chunk

            flow.response.stream = function

        stage = self.kept(Stage(scripted("timeouts: {script: 0.1, script_budget: 0.01}\n", responseheaders=hook)))
        stage.proxy.start_scripts()
        self.addCleanup(stage.proxy.stop_scripts)
        client = stage.client()
        client.say(GET)
        settle(stage, client)
        stage.origin.say(OK)
        settle(stage, client)
        (flow,) = stage.journal.flows
        self.assertEqual(flow.outcome, "failed")
        self.assertIn("didn't end, and was interrupted", flow.error)
        self.assertTrue(client.disconnected or client.write_closed)
        other = stage.client()
        other.say(GET.replace(b"/x", b"/y"))
        settle(stage, other)
        stage.origin.say(OK)
        settle(stage, other)
        self.assertTrue(bytes(other.heard).endswith(b"ok\r\n0\r\n\r\n"))


class MemoryTests(StageTestCase):
    def test_a_large_body_goes_through_a_function_in_bounded_memory(self):
        """100 MiB, to a client that reads in fits and starts."""

        def hook(flow):
            flow.response.stream = of_bytes

        for manner in (TCP, TLS):
            stage = self.kept(Stage(scripted(responseheaders=hook), manner))
            client = stage.client()
            client.say(GET)
            stage.settle(client)
            size = 100 << 20
            stage.origin.say(OK_HEAD + b"Content-Length: %d\r\n\r\n" % size)
            (connection,) = stage.proxy.connections
            pump = connection._layer._exchange._response_pump
            piece = b"x" * 65536
            sent, heard, most = 0, 0, 0
            while sent < size:
                if stage.origin.reading:
                    stage.origin.say(piece)
                    sent += len(piece)
                else:
                    heard += len(client.take())
                    client.heard.clear()
                most = max(most, pump.queued + len(client.buffer))
            stage.settle(client)
            heard += len(client.heard)
            self.assertLess(most, 300000)
            self.assertGreater(heard, size)
            self.assertEqual([flow.outcome for flow in stage.journal.flows], ["forwarded"])

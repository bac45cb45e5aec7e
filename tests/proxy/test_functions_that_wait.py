"""Functions that rules name, which wait: bodies that are held for them, and what is let go of after a time."""

from pathlib import Path

from tests.conversation import Stage, settings_of
from tests.fakes import TCP, TLS
from tests.passage import read_request, read_response
from tests.proxy.scripting import StageTestCase, settle

SCRIPT = """
import asyncio


async def on_record(record):
    await asyncio.sleep(0)


async def transform(chunk):
    await asyncio.sleep(0.25)
    return chunk.upper()


async def over_chunks(chunks):
    async for chunk in chunks:
        await asyncio.sleep(0.25)
        yield chunk.upper()
"""
GET = b"GET http://a.example/x HTTP/1.1\r\nHost: a.example\r\n\r\n"
POST = b"POST http://a.example/x HTTP/1.1\r\nHost: a.example\r\n"


class HeldTests(StageTestCase):
    def setUp(self) -> None:
        super().setUp()
        self.script = Path(self.mktemp())
        self.script.mkdir()
        self.script /= "waits.py"
        self.script.write_text(SCRIPT)

    def stage(self, rule: str, manner: str) -> Stage:
        stage = self.kept(Stage(settings_of(f"rules: [{rule.replace('FILE', str(self.script))}]\n"), manner))
        self.addCleanup(stage.proxy.script_loop.stop)
        return stage

    def test_thousands_of_records_of_one_read_are_waited_for_one_by_one(self) -> None:
        body = b'{"a": 1}\n' * 3000
        for manner in (TCP, TLS):
            stage = self.stage("{response: {stream: false, lines: 'FILE:on_record'}}", manner)
            client = stage.client()
            client.say(GET)
            stage.settle(client)
            stage.origin.say(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body))
            settle(stage, client)
            self.assertEqual(read_response(bytes(client.heard)).body, body)

    def test_an_upload_is_read_on_when_its_function_has_waited(self) -> None:
        for manner in (TCP, TLS):
            stage = self.stage("{request: {stream: false, transform: 'FILE:transform'}}", manner)
            client = stage.client()
            client.say(POST + b"Content-Length: 30\r\n\r\n")
            for _ in range(3):
                client.say(b"ten bytes.")
                settle(stage, client)
            self.assertEqual(read_request(bytes(stage.origin.heard)).body, b"TEN BYTES." * 3, manner)

    def test_a_body_that_is_let_go_while_its_function_waits_goes_on(self) -> None:
        body = b'{"a": 1}\n' * 400
        rule = "{response: {lines: 'FILE:on_record'}}]\nhold: always\nstream_large_bodies: 1k\nscripts: ["
        for manner in (TCP, TLS):
            stage = self.stage(rule, manner)
            client = stage.client()
            client.say(GET)
            stage.settle(client)
            stage.origin.say(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n200\r\n" + body[:512] + b"\r\n")
            stage.origin.say(b"%x\r\n%b\r\n0\r\n\r\n" % (len(body) - 512, body[512:]))
            settle(stage, client)
            self.assertEqual(read_response(bytes(client.heard)).body, body)

    def test_an_upload_that_is_given_up_while_its_function_waits_looks_cut(self) -> None:
        for manner in (TCP, TLS):
            stage = self.stage("{request: {stream: true, transform: 'FILE:over_chunks'}}", manner)
            client = stage.client()
            chunks = b"5\r\nhello\r\n7\r\n secret\r\n6\r\n world\r\n0\r\n\r\n"
            client.say(POST + b"Transfer-Encoding: chunked\r\n\r\n" + chunks)
            stage.turn()
            origin = stage.origin
            client.reset()
            settle(stage, client)
            origin.take()
            self.assertFalse(bytes(origin.heard).endswith(b"0\r\n\r\n"), manner)
            # An end behind a part of it; a reset is for who has had all.
            self.assertEqual((origin.disconnected, origin.aborted), (True, False), manner)
            self.assertEqual([flow.outcome for flow in stage.journal.flows], ["client-gone"])


class HoldTimeTests(StageTestCase):
    def test_what_is_let_go_is_what_was_kept_when_the_time_began(self) -> None:
        rule = "{response: {replace: {find: secret-key, with: '***'}, hold_time: 1}}"
        for manner in (TCP, TLS):
            stage = self.kept(Stage(settings_of(f"rules: [{rule}]\n"), manner))
            client = stage.client()
            client.say(GET)
            stage.settle(client)
            stage.origin.say(b"HTTP/1.1 200 OK\r\nContent-Length: 90000\r\n\r\n", b"secret-")
            stage.clock.advance(0.5)
            # This fills what the client doesn't read. So it waits, with the beginning of another secret at its end.
            stage.origin.say(b"key" + b"z" * 70_000, b"z" * 5000 + b"secret-")
            stage.clock.advance(0.6)
            for _ in range(30):
                client.take()
                stage.turn()
            stage.origin.say(b"key")
            stage.settle(client)
            self.assertNotIn(b"secret-", bytes(client.heard), manner)
            self.assertEqual(bytes(client.heard).count(b"***"), 2, manner)

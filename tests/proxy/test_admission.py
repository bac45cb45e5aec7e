"""Users who prove who they are, before anything else is done for them: each request, each tunnel, in any pieces."""

from __future__ import annotations

from base64 import b64encode
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from streamproxy.proxy import admission, passwords
from streamproxy.proxy.admission import credentials_of
from streamproxy.proxy.passwords import Credentials, Passwords
from streamproxy.wire.headers import Headers
from tests.conversation import Stage, settings_of
from tests.fakes import TLS
from tests.proxy.scripting import StageTestCase, scripted
from tests.proxy.test_faults import GET, GOT, HEARD_OK, OK, UPLOAD, answer
from tests.proxy.test_opening import ESTABLISHED, OpeningTestCase, connect_to
from tests.proxy.test_passwords import FakeThreads, hashed

ASKED = b'Proxy-Authenticate: Basic realm="streamproxy", charset="UTF-8"\r\n'


def basic(user: bytes | str = "ann", password: bytes | str = "secret") -> bytes:
    """The value of the field for these."""
    user, password = (each.encode() if isinstance(each, str) else each for each in (user, password))
    return b"Basic " + b64encode(user + b":" + password)


def with_field(head: bytes, *values: bytes) -> bytes:
    """A request's bytes with Proxy-Authorization fields."""
    line, end, rest = head.partition(b"\r\n")
    return line + end + b"".join(b"Proxy-Authorization: %b\r\n" % value for value in values) + rest


def refused(why: str, close: bool = False, at: float = 0) -> bytes:
    """The 407 as the client hears it."""
    told = answer("407 Proxy Authentication Required", why, close, at)
    return told.replace(b"X-Content-Type-Options: nosniff\r\n", b"X-Content-Type-Options: nosniff\r\n" + ASKED)


class CredentialsTests(SynchronousTestCase):
    def read(self, *values: bytes) -> Credentials | str:
        return credentials_of(Headers((b"Proxy-Authorization", value) for value in values))

    def test_a_name_and_a_password_as_clients_send_them(self):
        self.assertEqual(self.read(basic("ann", "secret")), Credentials("ann", b"secret"))
        self.assertEqual(self.read(basic("Jörg", "a:b é")), Credentials("Jörg", "a:b é".encode()))
        self.assertEqual(self.read(basic("", "")), Credentials("", b""))

    def test_the_scheme_in_any_case_and_spaces_behind_it(self):
        for scheme in (b"basic ", b"BASIC ", b"Basic    "):
            self.assertEqual(self.read(basic().replace(b"Basic ", scheme)), Credentials("ann", b"secret"))

    def test_without_a_field_it_is_asked_for(self):
        self.assertEqual(self.read(), admission.MISSING)

    def test_anything_else_is_unreadable_and_never_an_exception(self):
        for value in (
            b"",
            b"Basic",
            b"Basic ",
            b"Basic =",
            b"Basic a",
            b"Basic YW5uOnNlY3JldA",
            b"Basic YW5uOnNlY3JldA===",
            b"Basic YW5u OnNlY3JldA==",
            b"Basic YW5uOnNlY3JldB==x",
            b"Basic " + b64encode(b"no colon"),
            b"Basic\tYW5uOnNlY3JldA==",
            basic() + b", " + basic(),
            b"Bearer abc",
            b"Digest username=ann",
            b"Negotiate YII=",
            b"\xff\xfe",
            basic(b"J\xf6rg"),
            basic("ann", b"\xff"),
            basic("a\0b"),
            basic("ann", "secret\0x"),
            basic("ann", "a\nb"),
            basic("ann", "\x7f"),
            basic("ann", "x" * 4096),
        ):
            self.assertEqual(self.read(value), admission.UNREADABLE, value)
        self.assertEqual(self.read(basic(), basic()), admission.UNREADABLE)


class UserTestCase(OpeningTestCase):
    """Whoever asks must be ann, whose password is "secret"; or bob, with "hush"."""

    def begin(self, rules: str = "", addresses=None) -> None:
        self.htpasswd = Path(self.mktemp())
        self.htpasswd.write_bytes(b"ann:%b\nbob:%b\n" % (hashed(b"secret"), hashed(b"hush")))
        super().begin(f"access: {{htpasswd: {self.htpasswd}}}\n{rules}", addresses)
        self.use_fake_threads()

    def use_fake_threads(self) -> None:
        self.threads = FakeThreads()
        proxy = self.stage.proxy
        proxy.passwords = Passwords(proxy.settings.access.users, self.stage.clock, self.threads)

    def know(self, *pairs: tuple[str, bytes]) -> None:
        """These have been checked before."""
        for user, password in pairs or (("ann", b"secret"),):
            self.stage.proxy.passwords.check(Credentials(user, password), "", lambda right: None)
        self.threads.finish_all()
        self.threads.asked.clear()

    def assert_nobody_was_asked(self) -> None:
        self.assertEqual((self.dialled, self.resolver.asked), ([], []))


class RequestTests(UserTestCase):
    def test_without_a_password_it_is_asked_for_and_nothing_is_dialled(self):
        self.client.say(GET)
        self.assertEqual(self.heard(), refused(admission.MISSING))
        self.assert_nobody_was_asked()
        self.assertEqual((self.flow.outcome, self.flow.status, self.flow.user), ("refused", 407, None))

    def test_the_connection_is_kept_for_one_with_a_password(self):
        self.know()
        self.client.say(GET)
        self.heard()
        self.client.say(with_field(GET, basic()))
        self.assertEqual(self.origin_heard(), GOT)
        self.origin.say(OK)
        self.assertEqual(self.heard(), HEARD_OK)

    def test_the_field_does_not_go_on_nor_onto_the_log(self):
        self.know()
        self.client.say(with_field(GET, basic()))
        self.assertEqual(self.origin_heard(), GOT)
        self.origin.say(OK)
        self.heard()
        self.stage.journal.flush()
        (line,) = self.stage.journal.written
        self.assertIn('"user": "ann"', line)
        for secret in (b64encode(b"ann:secret").decode(), "secret"):
            self.assertNotIn(secret, line)

    def test_of_a_refused_one_no_user_is_on_the_log(self):
        self.know(("eve", b"x"))
        self.client.say(with_field(GET, basic("eve", "x")))
        self.heard()
        self.stage.journal.flush()
        (line,) = self.stage.journal.written
        self.assertNotIn("eve", line)
        self.assertNotIn('"user"', line)

    def test_a_password_that_is_not_known_yet_is_checked_and_the_client_not_read_meanwhile(self):
        self.client.say(with_field(GET, basic()))
        self.assertEqual((self.heard(), self.dialled, self.threads.asked), (b"", [], [(b"secret", hashed(b"secret"))]))
        self.assertFalse(self.client.reading)
        self.threads.finish()
        self.assertEqual(self.origin_heard(), GOT)
        self.assertTrue(self.client.reading)
        self.origin.say(OK)
        self.assertEqual(self.heard(), HEARD_OK)
        self.client.say(with_field(GET, basic()))
        self.assertEqual((self.origin_heard(), len(self.threads.asked)), (GOT, 1))

    def test_a_wrong_one_is_refused_then_and_at_once_the_next_time(self):
        for waits in (True, False):
            self.client.say(with_field(GET, basic(password="guess")))
            self.assertEqual(len(self.threads.running), waits)
            self.threads.finish_all()
            self.assertEqual(self.heard(), refused(admission.WRONG))
        self.assert_nobody_was_asked()

    def test_each_request_is_for_itself(self):
        self.know(("ann", b"secret"), ("bob", b"hush"))
        for user, password in (("ann", "secret"), ("bob", "hush")):
            self.client.say(with_field(GET, basic(user, password)))
            self.origin_heard()
            self.origin.say(OK)
            self.heard()
        self.client.say(GET)
        self.assertEqual(self.heard(), refused(admission.MISSING))
        self.assertEqual([flow.user for flow in self.stage.journal.flows], ["ann", "bob", None])

    def test_the_time_of_the_check_is_the_exchanges(self):
        self.client.say(with_field(GET, basic()))
        self.stage.clock.advance(2)
        self.threads.finish()
        self.heard()
        self.origin.say(OK)
        self.heard()
        self.assertEqual(
            (self.flow.started, self.flow.duration, self.flow.client_in), (0, 2, len(with_field(GET, basic())))
        )
        self.client.say(with_field(GET, basic()))
        self.origin.say(OK)
        self.heard()
        self.assertEqual(self.stage.journal.flows[1].started, 2)

    def test_unreadable_fields_are_refused_in_words(self):
        self.client.say(with_field(GET, basic(), basic()))
        self.assertEqual(self.heard(), refused(admission.UNREADABLE))
        self.client.say(with_field(GET, b"Bearer x"))
        self.assertEqual(self.heard(), refused(admission.UNREADABLE))
        self.assertEqual(self.threads.asked, [])

    def test_a_body_that_has_not_come_is_not_waited_for(self):
        for more in ((), (b"Basic !",)):
            self.begin()
            self.client.say(with_field(UPLOAD, *more))
            self.assertTrue(self.heard().startswith(b"HTTP/1.1 407 "))
            self.assertTrue(self.has_ended(self.client))
            self.assert_nobody_was_asked()
            self.client.say(b"x" * 1000)
            self.assert_nothing_left()

    def test_a_client_that_asks_whether_to_send_its_body_is_told_407(self):
        self.client.say(UPLOAD.replace(b"\r\n\r\nabc", b"\r\nExpect: 100-continue\r\n\r\n"))
        self.assertEqual(self.heard(), refused(admission.MISSING, close=True))

    def test_a_body_that_comes_while_the_password_is_checked_is_kept(self):
        whole = with_field(UPLOAD, basic()) + b"def"
        for cut in range(len(whole)):
            self.begin()
            self.client.say(whole[:cut], whole[cut:])
            self.threads.finish()
            self.assertTrue(self.origin_heard().endswith(b"\r\n\r\nabcdef"), cut)
            self.origin.say(OK)
            self.assertEqual(self.heard(), HEARD_OK)
            self.assertEqual(self.flow.client_in, len(whole))

    def test_requests_that_are_sent_ahead_wait_for_their_turn(self):
        self.client.say(with_field(GET, basic()) + with_field(GET, basic("bob", "hush")) + with_field(GET, basic()))
        self.assertEqual([asked[0] for asked in self.threads.asked], [b"secret"])
        self.threads.finish()
        for _ in range(2):
            self.origin_heard()
            self.origin.say(OK)
            self.heard()
            self.threads.finish_all()
        self.assertEqual(self.origin_heard(), GOT)
        self.origin.say(OK)
        self.assertEqual(self.heard(), HEARD_OK)
        self.assertEqual([flow.user for flow in self.stage.journal.flows], ["ann", "bob", "ann"])

    def test_a_client_that_has_ended_its_side_gets_its_answer(self):
        self.client.say(with_field(GET, basic()))
        self.client.end()
        self.threads.finish()
        self.assertEqual(self.origin_heard(), GOT)
        self.origin.say(OK)
        self.assertEqual(self.heard(), HEARD_OK.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n"))
        self.assertTrue(self.has_ended(self.client))

    def test_one_that_ended_inside_its_body_is_told_so(self):
        self.client.say(with_field(UPLOAD, basic()))
        self.client.end()
        self.threads.finish()
        self.assertTrue(self.heard().startswith(b"HTTP/1.1 400 "))
        self.assertEqual(self.outcomes, [("POST", "client-gone")])

    def test_one_that_leaves_is_forgotten_and_on_the_log(self):
        for number in range(3):
            self.client.say(with_field(GET, basic(password=f"{number}")))
            if number < 2:
                self.client = self.stage.client()
        self.client.reset()
        self.threads.finish_all()
        self.assertEqual(len(self.threads.asked), 2)
        (flow, *_) = self.stage.journal.flows
        self.assertEqual((flow.outcome, flow.method, flow.url), ("client-gone", "GET", "http://a.example/x"))
        self.assertEqual(flow.client_in, len(with_field(GET, basic(password="2"))))

    def test_a_check_that_does_not_end_has_the_heads_time(self):
        self.client.say(with_field(GET, basic()))
        self.wait(29)
        self.assertEqual(self.heard(), b"")
        self.wait(2)
        self.assertEqual(self.heard(), answer("503 Service Unavailable", admission.TOO_SLOW, at=30))
        self.assertEqual((self.flow.outcome, self.flow.duration), ("timed-out", 30))
        self.threads.finish()
        self.assertEqual((self.dialled, self.outcomes), ([], [("GET", "timed-out")]))

    def test_where_too_many_wait_it_is_told_so(self):
        self.patch(passwords, "MOST_WAITING", 1)
        for number in range(3):
            self.client = self.stage.client()
            self.client.say(with_field(GET, basic(password=f"{number}")))
        self.client = self.stage.client()
        self.client.say(with_field(GET, basic()))
        self.assertEqual(self.heard(), answer("503 Service Unavailable", admission.TOO_MANY))
        self.assertEqual(self.outcomes, [("GET", "refused")])
        self.threads.finish_all()
        self.client.say(with_field(GET, basic()))
        self.threads.finish()
        self.assertEqual(self.origin_heard(), GOT)

    def test_a_proxy_that_stops_cuts_a_check(self):
        self.client.say(with_field(GET, basic()))
        self.stage.proxy.drain()
        self.assertEqual(self.heard(), b"")
        self.stage.proxy.cut("the proxy was stopped")
        self.assertTrue(self.heard().startswith(b"HTTP/1.1 503 "))
        self.assertEqual((self.flow.outcome, self.flow.error), ("failed", "the proxy was stopped"))
        self.threads.finish()
        self.assert_nothing_left()

    def test_rules_and_the_proxys_own_page_are_behind_it(self):
        self.begin("rules: [{match: {host: a.example}, respond: {text: hello}}]")
        self.client.say(GET)
        self.assertTrue(self.heard().startswith(b"HTTP/1.1 407 "))
        self.assertEqual(self.flow.rules, [])
        self.client.say(GET.replace(b"a.example", b"streamproxy.test"))
        self.assertTrue(self.heard().startswith(b"HTTP/1.1 407 "))
        self.know()
        self.client.say(with_field(GET, basic()))
        self.assertTrue(self.heard().endswith(b"\r\n\r\nhello"))

    def test_nothing_is_left_behind(self):
        self.client.say(with_field(GET, basic()))
        self.client.reset()
        self.threads.finish()
        self.assert_nothing_left()
        self.assertEqual(self.stage.proxy.memory.held, 0)

    def test_without_a_password_file_nobody_is_asked_and_the_field_goes_no_further(self):
        OpeningTestCase.begin(self)
        self.assertIsNone(self.stage.proxy.passwords)
        self.client.say(with_field(GET, basic()))
        self.assertEqual(self.origin_heard(), GOT)
        self.assertIsNone(self.client.protocol.user)


class ReloadTests(UserTestCase):
    def obey(self, text: str) -> None:
        self.stage.proxy.obey(settings_of(text), self.stage.proxy.tls)

    def test_a_file_that_has_changed_is_asked_anew(self):
        self.know()
        self.htpasswd.write_bytes(b"ann:%b\n" % hashed(b"another"))
        before = self.stage.proxy.passwords
        self.obey(f"access: {{htpasswd: {self.htpasswd}}}")
        self.assertIsNot(self.stage.proxy.passwords, before)
        self.use_fake_threads()
        self.client.say(with_field(GET, basic()))
        self.threads.finish()
        self.assertEqual(self.heard(), refused(admission.WRONG))

    def test_one_that_has_not_leaves_what_is_known(self):
        before = self.stage.proxy.passwords
        self.obey(f"access: {{htpasswd: {self.htpasswd}}}")
        self.assertIs(self.stage.proxy.passwords, before)

    def test_nobody_is_asked_any_more_where_there_is_none(self):
        self.obey("")
        self.client.say(GET)
        self.assertEqual(self.origin_heard(), GOT)


class ConnectTests(UserTestCase):
    def connect(self, *values: bytes, target: str = "a.example:443") -> None:
        self.client.say(with_field(connect_to(target), *values))

    def test_without_a_password_it_is_asked_for_and_the_connection_closed(self):
        # Behind a CONNECT may come what was meant for the tunnel.
        self.connect()
        self.assertEqual(self.heard(), refused(admission.MISSING, close=True))
        self.assertTrue(self.has_ended(self.client))
        self.assertEqual(self.outcomes, [("CONNECT", "refused")])
        self.assert_nobody_was_asked()
        self.assert_nothing_left()

    def test_what_came_behind_a_refused_one_is_no_request(self):
        self.know()
        self.client.say(connect_to() + with_field(GET, basic()))
        self.assertEqual(self.heard(), refused(admission.MISSING, close=True))
        self.assert_nobody_was_asked()

    def test_with_the_right_one_there_is_a_tunnel(self):
        self.connect(basic())
        self.assertEqual(self.heard(), b"")
        self.threads.finish()
        self.assertEqual(self.heard(), ESTABLISHED)
        self.assertTrue(self.client.reading)

    def test_what_is_said_behind_it_meanwhile_is_the_tunnels(self):
        whole = with_field(connect_to("a.example:80"), basic()) + b"GET /x HTTP/1.1\r\nHost: a.example\r\n\r\n"
        for cut in range(0, len(whole), 7):
            self.begin()
            self.client.say(whole[:cut], whole[cut:])
            self.threads.finish()
            self.assertEqual(self.origin_heard(), GOT, cut)

    def test_requests_in_the_tunnel_need_none_and_have_its_user_on_the_log(self):
        self.know()
        self.connect(basic(), target="a.example:80")
        self.heard()
        self.client.say(b"GET /x HTTP/1.1\r\nHost: a.example\r\n\r\n")
        self.assertEqual(self.origin_heard(), GOT)
        self.origin.say(OK)
        self.heard()
        self.assertEqual([flow.user for flow in self.stage.journal.flows], ["ann", "ann"])

    def test_so_in_one_that_is_intercepted(self):
        self.know()
        self.connect(basic())
        self.heard()
        peer = self.secure()
        peer.say(b"GET /x HTTP/1.1\r\nHost: a.example\r\nConnection: close\r\n\r\n")
        self.stage.run(peer)
        self.assertEqual(self.dialled, [("a.example", 443)])
        peer.say_goodbye()
        self.stage.run(peer)
        self.client.reset()
        self.stage.settle(self.client)
        self.assertEqual([flow.user for flow in self.stage.journal.flows], ["ann", "ann"])

    def test_what_is_held_meanwhile_is_counted_and_nothing_is_afterwards(self):
        whole = with_field(connect_to("a.example:80"), basic())
        for ending in (self.client.reset, lambda: self.threads.finish()):
            self.client = self.stage.client()
            before = self.stage.proxy.memory.held
            self.client.say(whole[:20], whole[20:])
            self.assertGreaterEqual(self.stage.proxy.memory.held, before + len(whole))
            ending()
            self.client.reset()
            self.assertEqual(self.stage.proxy.memory.held, before)

    def test_a_wrong_one_is_refused_before_any_lookup(self):
        self.begin("tls: {passthrough: [10.0.0.0/8]}")
        self.connect(basic(password="guess"))
        self.threads.finish()
        self.assertEqual(self.heard(), refused(admission.WRONG, close=True))
        self.assert_nobody_was_asked()


class NotReadTests(UserTestCase):
    """Over TLS the rest of a read comes though the client isn't read any more."""

    manner = TLS

    def test_it_is_kept_for_the_body(self):
        whole = with_field(UPLOAD, basic()) + b"def"
        for cut in range(0, len(whole), 3):
            self.begin()
            self.client.say(whole[:cut], *(whole[at : at + 1] for at in range(cut, len(whole))))
            self.threads.finish()
            self.assertTrue(self.origin_heard().endswith(b"\r\n\r\nabcdef"), cut)
            self.origin.say(OK)
            self.assertEqual(self.heard(), HEARD_OK)
            self.assertEqual(self.flow.client_in, len(whole))

    def test_it_is_kept_for_the_tunnel(self):
        connect, inside = with_field(connect_to("a.example:80"), basic()), b"GET /x HTTP/1.1\r\nHost: a.example\r\n\r\n"
        self.client.say(connect, inside[:9], inside[9:])
        self.threads.finish()
        self.assertEqual(self.origin_heard(), GOT)

    def test_it_is_kept_for_the_next_request(self):
        asked = with_field(GET, basic())
        self.client.say(asked, asked[:20], asked[20:], asked)
        self.threads.finish()
        for _ in range(3):
            self.assertTrue(self.origin_heard().endswith(GOT))
            self.origin.say(OK)
            self.assertEqual(self.heard(), HEARD_OK)

    def test_it_is_dropped_behind_what_is_refused(self):
        self.client.say(with_field(UPLOAD, basic(password="guess")), b"def")
        self.threads.finish()
        self.assertTrue(self.heard().startswith(b"HTTP/1.1 407 "))
        self.assert_nobody_was_asked()
        self.assert_nothing_left()

    def test_of_one_that_leaves_it_is_counted(self):
        asked = with_field(UPLOAD, basic())
        self.client.say(asked, b"de")
        self.client.reset()
        self.assertEqual((self.flow.client_in, self.stage.proxy.memory.held), (len(asked), 0))


class SecureListenerTests(UserTestCase):
    """TLS that is spoken to the proxy itself."""

    def ask(self, peer, *values: bytes) -> bytes:
        before = len(peer.heard)
        peer.say(with_field(GET, *values))
        self.stage.run(peer)
        return bytes(peer.heard[before:])

    def test_its_requests_need_a_password(self):
        peer = self.secure("proxy.example")
        self.assertEqual(self.ask(peer), refused(admission.MISSING))
        self.assertEqual(self.ask(peer, basic()), b"")
        self.threads.finish()
        self.stage.run(peer)
        self.assertEqual(self.origin_heard(), GOT)

    def test_a_body_that_comes_meanwhile_is_kept(self):
        peer = self.secure("proxy.example")
        peer.say(with_field(UPLOAD, basic()))
        peer.say(b"def")
        self.stage.run(peer)
        self.threads.finish()
        self.stage.run(peer)
        self.assertTrue(self.origin_heard().endswith(b"\r\n\r\nabcdef"))


class ScriptsTests(StageTestCase):
    def test_scripts_do_not_see_the_field_nor_who_is_refused(self):
        path = Path(self.mktemp())
        path.write_bytes(b"ann:" + hashed(b"secret"))
        seen: list[object] = []
        hooks = {name: lambda flow: seen.append(dict(flow.request.headers)) for name in ("requestheaders", "error")}
        stage = self.kept(Stage(scripted(f"access: {{htpasswd: {path}}}", **hooks)))
        threads = FakeThreads()
        stage.proxy.passwords = Passwords(stage.settings.access.users, stage.clock, threads)
        client = stage.client()
        client.say(GET)
        stage.settle(client)
        client.say(with_field(GET, basic(password="guess")))
        threads.finish()
        stage.settle(client)
        self.assertEqual((client.heard.count(b"HTTP/1.1 407 "), seen), (2, []))
        client.say(with_field(GET, basic()))
        threads.finish()
        stage.settle(client)
        self.assertEqual(seen, [{"Host": "a.example"}])

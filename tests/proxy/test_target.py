"""Where a request wants to go, and when that can't be."""

from twisted.trial.unittest import SynchronousTestCase

from streamproxy.proxy.route import Route, direct
from streamproxy.proxy.target import decide_target
from streamproxy.wire.headers import Headers
from streamproxy.wire.message import NO_BODY, Origin, RequestHead, Target, WireError

INSIDE = Origin("https", "a.example", 8443)


def decide(target: bytes, *fields: tuple[bytes, bytes], method: bytes = b"GET", inside: Route | None = None):
    return decide_target(RequestHead(method, target, (1, 1), Headers(fields), NO_BODY), b"proxy", inside)


class TargetTests(SynchronousTestCase):
    def refused(self, *args, **more) -> int:
        return self.assertRaises(WireError, decide, *args, **more).status

    def test_the_origin_and_the_path_as_they_came(self):
        target, host, _ = decide(b"http://A.example:81/x/../%41?q", (b"Host", b"A.example:81"))
        self.assertEqual((target.origin, target.path), (Origin("http", "a.example", 81), "/x/../%41?q"))
        self.assertEqual(host, b"A.example:81")

    def test_host_keeps_its_form_where_it_says_the_same(self):
        for said in (b"a.example", b"A.EXAMPLE", b"a.example:80", b"a.example:"):
            self.assertEqual(decide(b"http://a.example/", (b"Host", said))[1], said)

    def test_the_target_wins_over_a_host_that_says_something_else(self):
        for said in (b"b.example", b"a.example:81", b"a.example.", b""):
            self.assertEqual(decide(b"http://a.example/", (b"Host", said))[1], b"a.example", said)
        self.assertEqual(decide(b"http://a.example:8080/")[1], b"a.example:8080")

    def test_ipv6(self):
        target, host, _ = decide(b"http://[::1]:81/", (b"Host", b"[::1]:81"))
        self.assertEqual((target.origin.host, host), ("::1", b"[::1]:81"))
        self.assertEqual(decide(b"http://[::1]/")[1], b"[::1]")

    def test_a_malformed_host_is_refused_even_though_the_target_would_win(self):
        for said in (b"a b", b"user@a.example", b"a/b", b"a:b", b"a:99999", b"\xe4", b"[::1", b"a,b@"):
            self.assertEqual(self.refused(b"http://a.example/", (b"Host", said)), 400, said)

    def test_a_malformed_target_is_refused(self):
        for target in (
            b"/x",
            b"x",
            b"http:/x",
            b"http://",
            b"http://user@a.example/",
            b"http://a.example:0/",
            b"http://a.example/#x",
        ):
            self.assertEqual(self.refused(target), 400, target)

    def test_what_is_not_spoken(self):
        self.assertEqual(self.refused(b"ftp://a.example/"), 501)

    def test_a_request_that_has_been_here_is_a_loop(self):
        for said in (b"1.1 proxy", b"1.0 other, 1.1 PROXY", b"HTTP/1.1 proxy (words)", b"1.1   proxy"):
            self.assertEqual(self.refused(b"http://a.example/", (b"Via", said)), 508, said)
        self.assertEqual(self.refused(b"http://a.example/", (b"Via", b"1.1 one"), (b"via", b"1.1 proxy")), 508)

    def test_one_that_has_only_been_elsewhere_is_not(self):
        for said in (b"1.1 other", b"1.1 other (proxy)", b"proxy", b"1.1 proxy2", b"1.1", b",,", b""):
            self.assertEqual(decide(b"http://a.example/", (b"Via", said))[1], b"a.example", said)


class InsideTests(SynchronousTestCase):
    """In a tunnel there is one origin."""

    def inside(self, target: bytes, *fields: tuple[bytes, bytes], method: bytes = b"GET"):
        return decide(target, *fields, method=method, inside=direct(INSIDE))

    def refused(self, *args, **more) -> int:
        return self.assertRaises(WireError, self.inside, *args, **more).status

    def test_a_path_is_the_tunnels_origins(self):
        found = self.inside(b"/x/../%41?q", (b"Host", b"A.example:8443"))
        self.assertEqual(found, (Target(INSIDE, "/x/../%41?q"), b"A.example:8443", ()))

    def test_without_host_it_is_the_origins(self):
        self.assertEqual(self.inside(b"/")[1:], (b"a.example:8443", ()))
        self.assertEqual(self.inside(b"/", (b"Host", b""))[1:], (b"a.example:8443", ()))

    def test_another_host_goes_on_as_it_came_and_is_told(self):
        for said, named in (
            (b"b.example", Origin("https", "b.example", 443)),
            (b"a.example", Origin("https", "a.example", 443)),
            (b"B.example:1", Origin("https", "b.example", 1)),
        ):
            self.assertEqual(self.inside(b"/", (b"Host", said)), (Target(INSIDE, "/"), said, (named,)))

    def test_whom_the_connect_named_is_told_as_well(self):
        route = Route(INSIDE, "front.example")
        front = Origin("https", "front.example", 8443)
        for said, named in ((b"a.example:8443", ()), (b"b.example", (Origin("https", "b.example", 443),)), (b"", ())):
            found = decide(b"/", (b"Host", said), inside=route)
            self.assertEqual((found.target, found.aliases), (Target(INSIDE, "/"), (front, *named)))

    def test_the_server_as_a_whole(self):
        self.assertEqual(self.inside(b"*", method=b"OPTIONS").target, Target(INSIDE, "*"))
        self.assertEqual(self.refused(b"*"), 400)

    def test_an_absolute_target_is_for_the_same_origin_and_wins_over_host(self):
        for said in (b"b.example", b"a.example:8443"):
            found = self.inside(b"https://A.example:8443/x", (b"Host", said))
            self.assertEqual(found, (Target(INSIDE, "/x"), b"a.example:8443", ()))
        for other in (b"https://b.example:8443/", b"http://a.example:8443/", b"https://a.example/"):
            self.assertEqual(self.refused(other), 421, other)

    def test_what_is_malformed_is_refused(self):
        for target in (b"x", b"a.example:443", b"/a#b", b"*x", b"ftp:/x"):
            self.assertEqual(self.refused(target, method=b"OPTIONS"), 400, target)
        for said in (b"a b", b"user@a.example", b"a:99999"):
            self.assertEqual(self.refused(b"/", (b"Host", said)), 400, said)

    def test_a_request_that_has_been_here_is_a_loop(self):
        self.assertEqual(self.refused(b"/", (b"Via", b"1.1 proxy")), 508)

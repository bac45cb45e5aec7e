"""What rules in YAML do to real traffic."""

from __future__ import annotations

import random
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from tests.system.parts import (
    Asked,
    Client,
    Origin,
    Proxy,
    Ran,
    chunk,
    chunked,
    curl,
    each_request,
    new_folder,
    read_request,
    response,
)


class RulesCase(SynchronousTestCase):
    def setUp(self) -> None:
        self.seen: list[Asked] = []
        self.answer = response(b"from the origin")
        self.origin = Origin(self, each_request(self._answer))

    def _answer(self, asked: Asked) -> bytes:
        self.seen.append(asked)
        return self.answer

    def start(self, rules: str, *overrides: str) -> None:
        """Start a proxy on `rules`, in which ORIGIN stands for the origin's host and port."""
        self.proxy = Proxy(self, rules.replace("ORIGIN", self.origin.netloc), *overrides)

    def curl(self, *arguments: str | Path, stdin: bytes = b"") -> Ran:
        ran = curl(self, self.proxy, *arguments, stdin=stdin)
        self.assertEqual(ran.status, 0, ran.err)
        return ran


class AnsweringTests(RulesCase):
    def test_what_is_blocked_never_reaches_the_origin(self) -> None:
        self.start("rules: [{name: no posts, match: {method: POST, path: '/x/*'}, block: 451}]")
        ran = self.curl("-w", "%{http_code}", "-d", "a body", self.origin.url("/x/y"))
        self.assertEqual(ran.out, b"Blocked by rule 'no posts'.\n451")
        self.assertEqual(self.origin.wires, [])
        self.assertEqual(self.curl(self.origin.url("/x/y")).out, b"from the origin")

    def test_a_large_upload_is_blocked_before_any_of_it_has_left(self) -> None:
        self.start("rules: [{match: {method: PUT}, block: true}]")
        body = new_folder(self) / "body"
        body.write_bytes(bytes(32 << 20))
        for arguments in ([], ["-H", "Expect:"], ["-H", "Transfer-Encoding: chunked", "-H", "Expect:"]):
            ran = curl(
                self, self.proxy, "-T", body, "-o", "/dev/null", "-w", "%{http_code}", *arguments, self.origin.url()
            )
            self.assertEqual(ran.out, b"403", ran.err)
        self.assertEqual(self.origin.wires, [])

    def test_a_blocked_path_is_blocked_however_it_is_written(self) -> None:
        self.start("rules: [{match: {path: '/admin/*'}, block: 403}]")
        for path in ("/admin/x", "/%61dmin/x", "/x/../admin/x", "//admin/x", "/./admin/x", "/x/%2e%2E/admin/x"):
            ran = self.curl("--path-as-is", "-o", "/dev/null", "-w", "%{http_code}", self.origin.url(path))
            self.assertEqual(ran.out, b"403", path)
        self.assertEqual(self.origin.wires, [])

    def test_text_is_answered(self) -> None:
        self.start("""
            rules:
              - match: {host: hello.example}
                respond: {status: 203, headers: {X-One: "1", Content-Type: text/html}, text: "<p>hello\\n"}
        """)
        ran = self.curl("-i", "http://hello.example/any/path")
        head, _, body = ran.out.partition(b"\r\n\r\n")
        self.assertEqual(body, b"<p>hello\n")
        self.assertTrue(head.startswith(b"HTTP/1.1 203 "), head)
        self.assertIn(b"\r\nX-One: 1\r\n", head + b"\r\n")
        self.assertEqual(head.count(b"Content-Type"), 1)
        self.assertEqual(self.curl("-I", "http://hello.example/").out.partition(b"\r\n\r\n")[2], b"")

    def test_a_large_file_is_answered_as_it_is(self) -> None:
        content = random.Random(1).randbytes(9 << 20)
        path = new_folder(self) / "large.bin"
        path.write_bytes(content)
        self.start(f"rules: [{{match: {{host: files.example}}, respond: {{file: '{path}'}}}}]")
        self.assertEqual(self.curl("http://files.example/").out, content)

    def test_a_redirected_request_goes_elsewhere_unseen(self) -> None:
        self.start("rules: [{match: {url: 'http://old.example/a/*'}, redirect_to: 'http://ORIGIN/new/'}]")
        ran = self.curl("-w", "%{http_code}", "http://old.example/a/b/c?q=1")
        self.assertEqual(ran.out, b"from the origin200")
        self.assertEqual(self.seen[0].line, b"GET /new/b/c?q=1 HTTP/1.1")
        self.assertIn(b"\r\nHost: " + self.origin.netloc.encode() + b"\r\n", self.seen[0].head)


class FolderTests(RulesCase):
    """A folder is served, and nothing that isn't below it."""

    SECRET = b"outside of the folder"

    def setUp(self) -> None:
        super().setUp()
        self.folder = new_folder(self)
        root = self.folder / "static"
        (root / "sub").mkdir(parents=True)
        (root / "page.html").write_text("<p>page")
        (root / "sub" / "index.html").write_text("<p>index")
        (root / "a b.txt").write_text("spaced")
        (self.folder / "secret").write_bytes(self.SECRET)
        (self.folder / "static-not").mkdir()
        (self.folder / "static-not" / "secret").write_bytes(self.SECRET)
        (root / "out").symlink_to(self.folder / "secret")
        (root / "up").symlink_to("..")
        (root / "in").symlink_to("page.html")
        self.start(f"rules: [{{match: {{host: files.example, path: '/static/*'}}, respond: {{file: '{root}'}}}}]")

    def get(self, path: str) -> tuple[str, bytes]:
        ran = self.curl("--path-as-is", "-w", "%{stderr}%{http_code}", f"http://files.example{path}")
        return ran.err, ran.out

    def test_files_below_it_are_served(self) -> None:
        self.assertEqual(self.get("/static/page.html"), ("200", b"<p>page"))
        self.assertEqual(self.get("/static/sub/"), ("200", b"<p>index"))
        self.assertEqual(self.get("/static/a%20b.txt"), ("200", b"spaced"))
        self.assertEqual(self.get("/static/in"), ("200", b"<p>page"))
        self.assertEqual(self.get("/static/none")[0], "404")

    def test_nothing_outside_of_it_is(self) -> None:
        for path in (
            "/static/../secret",
            "/static/../../../../../../../../etc/passwd",
            "/static/%2e%2e/secret",
            "/static/.%2E/secret",
            "/static/%2e%2e%2fsecret",
            "/static/..%2fsecret",
            "/static/..%5csecret",
            "/static/sub/../../secret",
            "/static/sub/%2e%2e/%2e%2e/secret",
            "/static//../secret",
            "/static/./../secret",
            "/static/../static-not/secret",
            "/static/%2fetc/passwd",
            "/static//etc/passwd",
            "/static/page.html%00/../secret",
            "/static/%252e%252e/secret",
            f"/static/{self.folder}/secret",
            "/static/out",
            "/static/up/secret",
            "/static/up/static-not/secret",
        ):
            status, body = self.get(path)
            self.assertIn(status, ("400", "403", "404", "502"), path)
            self.assertNotIn(self.SECRET, body, path)
            self.assertNotIn(b"root:", body, path)

    def test_files_are_not_written(self) -> None:
        ran = self.curl("-w", "%{http_code}", "-o", "/dev/null", "-d", "x", "http://files.example/static/page.html")
        self.assertEqual(ran.out, b"405")
        self.assertEqual(self.get("/static/page.html"), ("200", b"<p>page"))


class HeaderTests(RulesCase):
    def test_fields_are_set_added_and_removed_in_both_messages(self) -> None:
        self.start("""
            rules:
              - match: {host: 127.0.0.1}
                request:
                  headers: {set: {X-Set: new, User-Agent: rule}, add: {X-Add: [b, c]}, remove: [Cookie]}
                response:
                  headers: {set: {X-Set: new}, add: {X-Add: [b, c]}, remove: [Server, X-Gone]}
        """)
        self.answer = response(
            b"body", b"Server: odd/1", b"X-Set: old", b"X-Kept: yes", b"X-Add: a", b"X-Gone: 1", b"x-gone: 2"
        )
        fields = ["-H", "X-Set: old", "-H", "Cookie: a=1", "-H", "X-Add: a", "-H", "X-Kept: yes"]
        head = self.curl("-i", *fields, self.origin.url()).out.partition(b"\r\n\r\n")[0]
        for got in (self.seen[0].head, head):
            names = [line.partition(b":")[0].lower() for line in got.split(b"\r\n")]
            self.assertEqual(names.count(b"x-set"), 1, got)
            self.assertIn(b"\r\nX-Set: new\r\n", got)
            self.assertIn(b"\r\nX-Kept: yes\r\n", got)
            added = [line for line in got.split(b"\r\n") if line.startswith(b"X-Add: ")]
            self.assertEqual(added, [b"X-Add: a", b"X-Add: b", b"X-Add: c"])
            self.assertFalse({b"cookie", b"server", b"x-gone"} & set(names), got)
        self.assertIn(b"\r\nUser-Agent: rule\r\n", self.seen[0].head)

    def test_a_rule_on_the_type_of_a_response(self) -> None:
        self.start("""
            rules: [{match: {content_type: text/html}, response: {headers: {set: {X-Html: "yes"}}}}]
        """)
        self.answer = response(b"<p>", b"Content-Type: text/html; charset=utf-8")
        self.assertIn(b"\r\nX-Html: yes\r\n", self.curl("-i", self.origin.url()).out)
        self.answer = response(b"{}", b"Content-Type: application/json")
        self.assertNotIn(b"X-Html", self.curl("-i", self.origin.url()).out)


class ReplaceTests(SynchronousTestCase):
    """A replacement is the same however the body is framed, cut, paced or held."""

    RULES = """
        rules:
          - match: {host: 127.0.0.1}
            request: {replace: [{find: needle, with: thread}, {find: hay, with: ""}]}
            response: {replace: [{find: needle, with: thread}, {find: hay, with: ""}]}
    """
    BODY = b"needle in the hay, needl e, nneedle, haneedley " * 300
    WANTED = BODY.replace(b"needle", b"thread").replace(b"hay", b"")

    def cuts(self) -> list[list[bytes]]:
        """The body in one piece, in pieces of each size that cuts a find, and in odd ones."""
        source = random.Random(7)
        odd = []
        rest = self.BODY
        while rest:
            size = source.choice((1, 2, 3, 5, 50, 3000))
            odd.append(rest[:size])
            rest = rest[size:]
        sizes = (len(self.BODY), 1024, 47, 5)
        return [odd, *[[self.BODY[at : at + size] for at in range(0, len(self.BODY), size)] for size in sizes]]

    def each_way(self) -> list[Proxy]:
        """A proxy for each way in which bodies may go."""
        return [Proxy(self, self.RULES, way) for way in ("hold=needed", "hold=always", "stream_large_bodies=1k")]

    def test_the_wanted_text_is_a_changed_one(self) -> None:
        self.assertNotEqual(self.WANTED, self.BODY)
        self.assertNotEqual(len(self.WANTED), len(self.BODY))
        self.assertNotIn(b"needle", self.WANTED)

    def test_a_response_is_replaced_alike_however_it_comes(self) -> None:
        for proxy in self.each_way():
            client = Client(self, proxy)
            for pieces in self.cuts():
                for answer in (chunked(*pieces), response(b"".join(pieces), b'ETag: "x"')):
                    origin = Origin(self, each_request(lambda asked, answer=answer: answer))
                    client.get(origin)
                    head = client.read_head()
                    self.assertEqual(client.read_body(head), self.WANTED)
                    self.assertNotIn(b'ETag: "x"', head)
                    self.assertIn(b"\r\nAccept-Encoding: identity\r\n", self.head_seen_by(origin))

    def head_seen_by(self, origin: Origin) -> bytes:
        return origin.wires[0].heads[0]

    def test_a_request_is_replaced_alike_however_it_comes(self) -> None:
        for proxy in self.each_way():
            client = Client(self, proxy)
            for pieces in self.cuts():
                framed = b"".join(map(chunk, pieces)) + b"0\r\n\r\n"
                for field, body in (
                    (b"Transfer-Encoding: chunked", framed),
                    (b"Content-Length: %d" % len(self.BODY), self.BODY),
                ):
                    seen: list[bytes] = []
                    origin = Origin(
                        self, each_request(lambda asked, seen=seen: seen.append(asked.body) or response(b""))
                    )
                    client.ask(b"POST", origin, "/", field, body=body)
                    client.read_head()
                    self.assertEqual(seen, [self.WANTED])

    def test_a_response_is_replaced_alike_at_a_slow_pace(self) -> None:
        body = b"a needle, a nee" + b"dle, hay and a needl"
        wanted = b"a thread, a thread,  and a needl"
        for proxy in self.each_way():
            client, origin = Client(self, proxy), Origin(self)
            client.get(origin)
            wire = origin.accept()
            wire.read_head()
            wire.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
            for at in range(len(body)):
                wire.send(chunk(body[at : at + 1]))
                wire.wait_until_acknowledged()
            wire.send(b"0\r\n\r\n")
            self.assertEqual(client.read_body(client.read_head()), wanted)

    def test_a_response_that_a_rule_cannot_read_is_refused(self) -> None:
        proxy = Proxy(self, self.RULES)
        answer = response(b"\x1f\x8b...", b"Content-Encoding: dcz")
        origin = Origin(self, each_request(lambda asked: answer))
        ran = curl(self, proxy, "-w", "%{http_code}", origin.url())
        self.assertTrue(ran.out.endswith(b"502"), ran.out)
        self.assertNotIn(b"\x1f\x8b", ran.out)
        self.assertIn(b"dcz", ran.out)


class HeldTests(SynchronousTestCase):
    def test_a_body_past_the_limit_is_refused_only_where_it_is_held(self) -> None:
        body = new_folder(self) / "body"
        body.write_bytes(bytes(3 << 20))
        origin = Origin(self, each_request(lambda asked: response(asked.body)))
        proxy = Proxy(
            self,
            "rules: [{match: {path: /held-request}, request: {stream: false}},"
            " {match: {path: /held-response}, response: {stream: false}}]",
            "limits.held_body=1m",
        )
        for arguments in ([], ["-H", "Transfer-Encoding: chunked"]):
            for path, status in (("/", b"200"), ("/held-request", b"413"), ("/held-response", b"502")):
                ran = curl(
                    self,
                    proxy,
                    "-T",
                    body,
                    "-X",
                    "POST",
                    *arguments,
                    "-o",
                    "/dev/null",
                    "-w",
                    "%{http_code}",
                    origin.url(path),
                )
                self.assertEqual(ran.out, status, (path, arguments, ran.err))

    def test_a_held_request_reaches_the_origin_only_when_it_is_whole(self) -> None:
        proxy = Proxy(self, "rules: [{match: {method: POST}, request: {stream: false}}]")
        origin = Origin(self)
        client = Client(self, proxy)
        client.ask(b"POST", origin, "/", b"Content-Length: 6", body=b"abc")
        client.wait_until_acknowledged()
        # Somebody else's request overtakes it.
        other = Client(self, proxy)
        other.get(origin)
        wire = origin.accept()
        self.assertTrue(wire.read_head().startswith(b"GET / "))
        client.send(b"def")
        wire = origin.accept()
        asked = read_request(wire)
        assert asked is not None
        self.assertEqual(asked.body, b"abcdef")

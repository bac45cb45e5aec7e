"""The real parts of the system tests: a twistd that runs streamproxy, origins, clients, curl, nginx and Chromium.

Every part belongs to the test that started it, is stopped when that ends, and never makes it wait for longer than a
bounded time. All listen on 127.0.0.1 only, on ports that the system gave them.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import re
import resource
import shutil
import signal
import socket
import ssl
import struct
import subprocess
import sysconfig
import tempfile
import termios
import threading
import time
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple
from unittest import SkipTest

from twisted.trial.unittest import SynchronousTestCase

# How long anything may take that ought to happen soon, in seconds. No test says how soon.
WAIT = 30.0
# How long a program may run that does all its work at one go.
RUN = 90.0
PROJECT = Path(__file__).resolve().parents[2]
TWISTD = Path(sysconfig.get_path("scripts"), "twistd")


def clean_environment(home: Path) -> dict[str, str]:
    """What a part is started with: nothing that says how to reach the network, or where to find our code."""
    return {"PATH": "/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin", "HOME": str(home), "LANG": "C.UTF-8"}


def needed(program: str, package: str) -> str:
    """Where a program of Debian's `package` is; without it the test is skipped."""
    found = shutil.which(program, path=clean_environment(Path("/"))["PATH"])
    if found is None:
        raise SkipTest(f"needs {program} (apt-get install {package})")
    return found


def new_folder(case: SynchronousTestCase) -> Path:
    """A folder that goes when the test ends."""
    folder = Path(tempfile.mkdtemp(prefix="streamproxy-"))
    # Chromium's last children may still be writing there.
    case.addCleanup(shutil.rmtree, folder, ignore_errors=True)
    return folder


def want_open_files(case: SynchronousTestCase, number: int) -> None:
    """Let this process and those that it starts have `number` files open."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY and hard < number:
        raise SkipTest(f"needs {number} open files (ulimit -Hn says {hard})")
    if soft < number:
        resource.setrlimit(resource.RLIMIT_NOFILE, (number, hard))
        case.addCleanup(resource.setrlimit, resource.RLIMIT_NOFILE, (soft, hard))


def until(true: Callable[[], bool], what: str, seconds: float = WAIT) -> None:
    """Wait until something is true that nobody can tell us of."""
    end = time.monotonic() + seconds
    while not true():
        if time.monotonic() > end:
            raise AssertionError(f"{what}: not within {seconds:g} seconds")
        time.sleep(0.01)


def settled(count: Callable[[], int], seconds: float = 1.0) -> int:
    """What `count` comes to once it has stood still for so many `seconds`."""
    end = time.monotonic() + WAIT
    seen, since = count(), time.monotonic()
    while time.monotonic() - since < seconds:
        if time.monotonic() > end:
            raise AssertionError(f"still counting after {WAIT:g} seconds: {seen}")
        time.sleep(0.02)
        now = count()
        if now != seen:
            seen, since = now, time.monotonic()
    return seen


class Program:
    """A process that the test started, and what it prints (both outputs, line by line)."""

    def __init__(
        self, case: SynchronousTestCase, command: Sequence[str | Path], folder: Path, **options: object
    ) -> None:
        self.lines: list[str] = []
        self._news = threading.Condition()
        self._ended = False
        options = {"env": clean_environment(folder), "stderr": subprocess.STDOUT, **options}
        self.process = subprocess.Popen(
            [str(word) for word in command],
            cwd=folder,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            start_new_session=True,
            **options,  # type: ignore[call-overload]
        )
        self.pid = self.process.pid
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()
        case.addCleanup(self.end)

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            with self._news:
                self.lines.append(line.decode("utf-8", "replace").rstrip("\n"))
                self._news.notify_all()
        with self._news:
            self._ended = True
            self._news.notify_all()

    @property
    def output(self) -> str:
        return "\n".join(self.lines)

    def wait_for(self, true: Callable[[list[str]], bool], what: str) -> None:
        """Wait until the lines printed so far are what is waited for."""
        with self._news:
            self._news.wait_for(lambda: self._ended or true(self.lines), WAIT)
            if not true(self.lines):
                raise AssertionError(f"{what}: not seen in\n{self.output}")

    def wait(self) -> int:
        """Wait for the process to end by itself; its exit status."""
        status = self.process.wait(RUN)
        self._reader.join(WAIT)
        return status

    def stop(self) -> int:
        """Ask the process to end, and wait until it has; its exit status."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        return self.wait()

    def end(self) -> None:
        """See that the process, and what it started, is gone."""
        try:
            if self.process.poll() is None:
                self.process.send_signal(signal.SIGTERM)
                self.process.wait(20)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"{self.process.args} did not end when it was asked to") from None
        finally:
            # The group is our own: start_new_session made it, with the process's id.
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.pid, signal.SIGKILL)
            self.process.wait(20)
            self._reader.join(20)
            if self.process.stdout is not None:
                self.process.stdout.close()


class Proxy(Program):
    """`twistd -n streamproxy -c FILE` with `rules` (YAML) in the file, once it listens on `port`.

    It may not print a traceback: that fails the test when it ends. `ca` is where its authority's certificate is, unless
    it was told of another `state_dir`. `environment` is what it is started with beside the usual. It has no admin
    listener, unless `overrides` say where.
    """

    def __init__(
        self,
        case: SynchronousTestCase,
        rules: str = "",
        *overrides: str,
        twistd: Sequence[str | Path] = (TWISTD,),
        folder: Path | None = None,
        environment: Mapping[str, str] = {},
        **options: object,
    ) -> None:
        self.folder = folder or new_folder(case)
        self.ca = self.folder / ".streamproxy" / "ca.pem"
        config = self.folder / "rules.yaml"
        config.write_text(rules)
        overrides = ("listen=[tcp:0:interface=127.0.0.1]", "admin=false", "timeouts.drain=5", *overrides)
        sets = [word for override in overrides for word in ("--set", override)]
        case.addCleanup(self._check_output, case)
        command = [*twistd, "-n", "--pidfile=", "streamproxy", "-c", config, *sets]
        super().__init__(case, command, self.folder, env={**clean_environment(self.folder), **environment}, **options)
        listening = re.compile(r"(?<!admin: )listening on 127\.0\.0\.1:([0-9]+)")
        self.wait_for(lambda lines: any(map(listening.search, lines)), "the line of a listener")
        self.port = int(next(found[1] for found in map(listening.search, self.lines) if found))
        self.url = f"http://127.0.0.1:{self.port}"

    def _check_output(self, case: SynchronousTestCase) -> None:
        for word in ("Traceback", "Unhandled"):
            case.assertNotIn(word, self.output)

    def journal(self) -> list[dict]:
        """The lines of the exchanges so far."""
        return [json.loads(line[line.index("{") :]) for line in list(self.lines) if '"outcome": ' in line]

    def recorded(self, number: int) -> list[dict]:
        """The lines of the exchanges, once there are `number` of them."""
        self.wait_for(lambda lines: sum('"outcome": ' in line for line in lines) >= number, f"{number} exchanges")
        return self.journal()

    def resident(self) -> int:
        """Bytes of memory that the process has resident."""
        found = re.search(r"^VmRSS:\s+([0-9]+) kB$", Path(f"/proc/{self.pid}/status").read_text(), re.MULTILINE)
        assert found is not None
        return int(found[1]) << 10


class Wire:
    """One end of a TCP connection, with every wait bounded."""

    def __init__(self, sock: socket.socket) -> None:
        sock.settimeout(WAIT)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.sock = sock
        self._buffer = bytearray()
        self.ended = False
        # What `read_head` gave.
        self.heads: list[bytes] = []

    def send(self, *data: bytes) -> None:
        for each in data:
            self.sock.sendall(each)

    def _more(self) -> bool:
        data = b"" if self.ended else self.sock.recv(65536)
        self._buffer += data
        self.ended = not data
        return not self.ended

    def _take(self, number: int) -> bytes:
        taken = bytes(self._buffer[:number])
        del self._buffer[:number]
        return taken

    def read(self, number: int) -> bytes:
        """The next `number` bytes; fewer where the end comes first."""
        while len(self._buffer) < number and self._more():
            pass
        return self._take(number)

    def read_until(self, end: bytes) -> bytes:
        """All up to and with `end`."""
        while (at := self._buffer.find(end)) < 0:
            if not self._more():
                raise AssertionError(f"ended without {end!r}: {bytes(self._buffer)!r}")
        return self._take(at + len(end))

    def at_end(self) -> bool:
        """Whether the other side ended its own instead of sending more; waits until it's known."""
        return not self._buffer and not self._more()

    def read_to_end(self) -> bytes:
        """All that comes before the other side ends."""
        while self._more():
            pass
        return self._take(len(self._buffer))

    def expect(self, data: bytes) -> None:
        """Read `data`, exactly that; what comes behind it is left."""
        try:
            got = self.read(len(data))
        except TimeoutError:
            got = bytes(self._buffer) + b" and then nothing"
        if got != data:
            raise AssertionError(f"expected {data!r}, got {got!r}")

    def expect_end(self) -> None:
        """The other side has ended its own in order."""
        rest = self.read_to_end()
        if rest:
            raise AssertionError(f"expected the end, got {rest!r}")

    def expect_reset(self) -> None:
        """The connection is gone, and not in order."""
        try:
            rest = self.read_to_end()
        except ConnectionResetError:
            return
        raise AssertionError(f"expected a reset, got {rest!r} and the end")

    def read_head(self) -> bytes:
        """A head, with the empty line."""
        head = self.read_until(b"\r\n\r\n")
        self.heads.append(head)
        return head

    def read_body(self, head: bytes, *, bodiless: bool = False) -> bytes:
        """The content of the body behind `head`, unchunked; raises `AssertionError` where it is cut short."""
        fields = head.lower()
        if b"\r\ntransfer-encoding: chunked\r\n" in fields:
            return b"".join(self.read_chunks())
        found = re.search(rb"\r\ncontent-length: ([0-9]+)\r\n", fields)
        if found is not None:
            length = int(found[1])
            body = self.read(length)
            if len(body) != length:
                raise AssertionError(f"the body ends after {len(body)} of {length} bytes")
            return body
        return b"" if bodiless else self.read_to_end()

    def read_chunks(self) -> Iterator[bytes]:
        """The content of each chunk of a chunked body, up to and with its trailers."""
        while size := int(self.read_until(b"\r\n"), 16):
            yield self.read(size)
            self.expect(b"\r\n")
        while self.read_until(b"\r\n") != b"\r\n":
            pass

    def wait_until_acknowledged(self) -> None:
        """Wait until the kernel on the other side has all that was sent."""
        until(lambda: fcntl.ioctl(self.sock, termios.TIOCOUTQ, bytes(4)) == bytes(4), "an acknowledgement")

    def half_close(self) -> None:
        self.sock.shutdown(socket.SHUT_WR)

    def start_tls(self, context: ssl.SSLContext, server: bool = False, name: str | None = None) -> None:
        """Speak TLS from now on; `name` is whom a client takes the other side for.

        An end without close_notify is an error then (`ssl.SSLError`, which is an `OSError`), and no end.
        """
        assert not self._buffer, "there is something left to be read as it is"
        sock = context.wrap_socket(
            self.sock,
            server_side=server,
            server_hostname=name,
            do_handshake_on_connect=False,
            suppress_ragged_eofs=False,
        )
        # Before the handshake: whoever ends the test then finds it here.
        self.sock = sock
        sock.do_handshake()

    def say_goodbye(self) -> None:
        """End TLS in order (close_notify), and wait until the other side has done the same."""
        assert isinstance(self.sock, ssl.SSLSocket)
        self.sock = self.sock.unwrap()

    def reset(self) -> None:
        """End the connection with a reset."""
        self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.sock.close()

    def close(self) -> None:
        self.sock.close()


class Asked(NamedTuple):
    """A request as an origin got it: its first line, its whole head, and the content of its body."""

    line: bytes
    head: bytes
    body: bytes


Script = Callable[[Wire], None]


class Origin:
    """A listener whose connections the test plays itself (`accept`), or, with a `script`, a thread for each does.

    `buffer` is the size of the kernel's buffers of each connection, where it matters.
    """

    def __init__(self, case: SynchronousTestCase, script: Script | None = None, buffer: int | None = None) -> None:
        self._listener = socket.socket()
        if buffer is not None:
            self._listener.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, buffer)
            self._listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, buffer)
        self._listener.bind(("127.0.0.1", 0))
        self._listener.listen(1024)
        self._listener.settimeout(WAIT)
        self.port = self._listener.getsockname()[1]
        self.netloc = f"127.0.0.1:{self.port}"
        self.wires: list[Wire] = []
        self._script = script
        self._threads: list[threading.Thread] = []
        self._failures: list[str] = []
        self._stopping = False
        case.addCleanup(self._stop)
        if script is not None:
            self._start(self._accept_all)

    def url(self, path: str = "/") -> str:
        return f"http://{self.netloc}{path}"

    def accept(self) -> Wire:
        """The next connection."""
        wire = Wire(self._listener.accept()[0])
        self.wires.append(wire)
        return wire

    def _start(self, target: Callable[..., None], *arguments: object) -> None:
        thread = threading.Thread(target=target, args=arguments, daemon=True)
        self._threads.append(thread)
        thread.start()

    def _accept_all(self) -> None:
        self._listener.settimeout(None)
        while True:
            try:
                wire = self.accept()
            except OSError:
                return
            self._start(self._play, wire)

    def _play(self, wire: Wire) -> None:
        assert self._script is not None
        try:
            self._script(wire)
        except OSError:
            # The proxy gave the connection up, or the test is over.
            pass
        except Exception:
            if not self._stopping:
                self._failures.append(traceback.format_exc())
        finally:
            wire.close()

    def _stop(self) -> None:
        self._stopping = True
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for wire in self.wires:
            with contextlib.suppress(OSError):
                wire.sock.shutdown(socket.SHUT_RDWR)
            wire.close()
        for thread in self._threads:
            thread.join(20)
        if self._failures:
            raise AssertionError("the origin's script failed:\n" + "\n".join(self._failures))


def read_request(wire: Wire) -> Asked | None:
    """The next request of a connection, read whole; None where the connection ended in order."""
    if wire.at_end():
        return None
    head = wire.read_head()
    return Asked(head.partition(b"\r\n")[0], head, wire.read_body(head, bodiless=True))


def each_request(answer: Callable[[Asked], bytes]) -> Script:
    """A script that reads each request whole and sends what `answer` gives."""

    def script(wire: Wire) -> None:
        while (asked := read_request(wire)) is not None:
            wire.send(answer(asked))

    return script


def response(body: bytes, *fields: bytes, status: bytes = b"200 OK") -> bytes:
    """A response with a Content-Length."""
    lines = [b"HTTP/1.1 " + status, b"Content-Length: %d" % len(body), *fields]
    return b"\r\n".join(lines) + b"\r\n\r\n" + body


def chunked(*chunks: bytes, fields: Sequence[bytes] = (), trailers: bytes = b"") -> bytes:
    """A chunked response."""
    lines = [b"HTTP/1.1 200 OK", b"Transfer-Encoding: chunked", *fields]
    return b"\r\n".join(lines) + b"\r\n\r\n" + b"".join(map(chunk, chunks)) + b"0\r\n" + trailers + b"\r\n"


def chunk(data: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(data), data)


class Client(Wire):
    """A connection to the proxy. `buffer` is the size of the kernel's buffers, where it matters."""

    def __init__(self, case: SynchronousTestCase, proxy: Proxy, buffer: int | None = None) -> None:
        sock = socket.socket()
        case.addCleanup(sock.close)
        if buffer is not None:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, buffer)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, buffer)
        sock.settimeout(WAIT)
        sock.connect(("127.0.0.1", proxy.port))
        super().__init__(sock)

    def get(self, origin: Origin, path: str = "/", *fields: bytes) -> None:
        """Send a GET request."""
        self.ask(b"GET", origin, path, *fields)

    def ask(self, method: bytes, origin: Origin, path: str = "/", *fields: bytes, body: bytes = b"") -> None:
        """Send a request."""
        lines = [b"%b %b HTTP/1.1" % (method, origin.url(path).encode()), b"Host: " + origin.netloc.encode(), *fields]
        self.send(b"\r\n".join(lines) + b"\r\n\r\n" + body)


class Ran(NamedTuple):
    """A program that has ended by itself."""

    status: int
    out: bytes
    err: str


def run(
    case: SynchronousTestCase,
    *command: str | Path,
    folder: Path | None = None,
    stdin: bytes = b"",
    environment: Mapping[str, str] = {},
) -> Ran:
    """Run a program to its end; its `environment` is the usual and this."""
    folder = folder or new_folder(case)
    ended = subprocess.run(
        [str(word) for word in command],
        input=stdin,
        capture_output=True,
        cwd=folder,
        env={**clean_environment(folder), **environment},
        timeout=RUN,
        check=False,
    )
    return Ran(ended.returncode, ended.stdout, ended.stderr.decode())


def curl_command(proxy: Proxy, *arguments: str | Path) -> list[str | Path]:
    """What to run for curl to ask by way of `proxy`."""
    program = needed("curl", "curl")
    return [program, "-q", "-sS", "--max-time", f"{RUN - 10:g}", "--proxy", proxy.url, "--noproxy", "", *arguments]


def curl(case: SynchronousTestCase, proxy: Proxy, *arguments: str | Path, stdin: bytes = b"") -> Ran:
    """Run curl by way of `proxy`, to its end."""
    return run(case, *curl_command(proxy, *arguments), stdin=stdin)


class Nginx(Program):
    """nginx from Debian's packages with `root` as its documents; `PUT /put/NAME` keeps what it gets in `root`/put.

    With `pem` (a key and its certificates) it speaks TLS. `more` are settings of its server.
    """

    def __init__(self, case: SynchronousTestCase, pem: bytes | None = None, more: str = "") -> None:
        program = needed("nginx", "nginx-light")
        folder = new_folder(case)
        self.root = folder / "root"
        (self.root / "put").mkdir(parents=True)
        # It gets its listener from us, the way in which it passes it on to a new version of itself. So no port
        # can be taken before it gets there, and nobody needs to wait for it.
        listener = socket.socket()
        listener.bind(("127.0.0.1", 0))
        listener.listen(1024)
        self.port = listener.getsockname()[1]
        self.netloc = f"127.0.0.1:{self.port}"
        self.scheme, secure = "http", ""
        if pem is not None:
            (folder / "nginx.pem").write_bytes(pem)
            self.scheme, secure = "https", "ssl"
            more += f" ssl_certificate {folder}/nginx.pem; ssl_certificate_key {folder}/nginx.pem;"
        # Started by root, its workers would else be nobody, who may write nowhere here.
        user = "user root;" if os.geteuid() == 0 else ""
        (folder / "nginx.conf").write_text(f"""
            {user}
            daemon off;
            worker_processes 1;
            pid {folder}/nginx.pid;
            error_log stderr;
            events {{ worker_connections 512; }}
            http {{
                access_log off;
                client_body_temp_path {folder}/body;
                proxy_temp_path {folder}/proxy;
                fastcgi_temp_path {folder}/fastcgi;
                uwsgi_temp_path {folder}/uwsgi;
                scgi_temp_path {folder}/scgi;
                default_type application/octet-stream;
                types {{ text/html html; text/css css; text/plain txt; image/svg+xml svg; }}
                client_max_body_size 1g;
                server {{
                    listen {self.netloc} {secure};
                    {more}
                    root {self.root};
                    location /put/ {{ dav_methods PUT; }}
                    location /small/ {{ dav_methods PUT; client_max_body_size 1k; }}
                }}
            }}
        """)
        descriptor = listener.fileno()
        try:
            super().__init__(
                case,
                [program, "-e", "stderr", "-p", folder, "-c", folder / "nginx.conf"],
                folder,
                pass_fds=(descriptor,),
                env={**clean_environment(folder), "NGINX": f"{descriptor};"},
            )
        finally:
            listener.close()

    def url(self, path: str = "/", host: str = "127.0.0.1") -> str:
        """The URL of `path`, with the address or a name of it."""
        return f"{self.scheme}://{host}:{self.port}{path}"


def chromium(case: SynchronousTestCase, proxy: Proxy, *arguments: str | Path, home: Path | None = None) -> str:
    """Run Chromium by way of `proxy` for one page; what it prints on its standard output. Its HOME is `home`."""
    program = needed("chromium", "chromium")
    folder = home or new_folder(case)
    errors = folder / "errors"
    command = [program, "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"]
    command += ["--disable-background-networking", "--disable-component-update", "--disable-sync"]
    command += ["--disable-dev-shm-usage", f"--user-data-dir={folder}/profile", f"--proxy-server={proxy.url}"]
    command += ["--proxy-bypass-list=<-loopback>", *map(str, arguments)]
    with errors.open("wb") as stderr:
        browser = Program(case, command, folder, stderr=stderr)
    try:
        status = browser.wait()
    except subprocess.TimeoutExpired:
        status = -1
    if status != 0:
        raise AssertionError(f"chromium ended with {status}:\n{errors.read_text(errors='replace')}")
    return browser.output

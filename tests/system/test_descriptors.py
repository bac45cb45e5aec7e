"""Out of file descriptors: the daemon lives, says so once, serves those that it has, and takes new clients again when
others leave."""

from __future__ import annotations

import functools
import os
import resource

from twisted.trial.unittest import SynchronousTestCase

from tests.system.parts import Client, Origin, Proxy, each_request, response, until, want_open_files

MOST = 128
CLIENTS = 300
SHORT = "file descriptors run short"


class DescriptorTests(SynchronousTestCase):
    def setUp(self) -> None:
        want_open_files(self, 4 * CLIENTS)
        few = functools.partial(resource.setrlimit, resource.RLIMIT_NOFILE, (MOST, MOST))
        self.proxy = Proxy(self, "", "timeouts.keepalive=60", preexec_fn=few)
        self.origin = Origin(self, each_request(lambda asked: response(asked.line)))
        self.files = self.open_files()

    def open_files(self) -> int:
        return len(os.listdir(f"/proc/{self.proxy.pid}/fd"))

    def assert_served(self, client: Client, path: str) -> None:
        client.get(self.origin, path)
        self.assertEqual(client.read_body(client.read_head()), b"GET %b HTTP/1.1" % path.encode())

    def crowd(self) -> list[Client]:
        """More clients than the daemon may have files, each with a connection that the kernel has taken."""
        return [Client(self, self.proxy) for _ in range(CLIENTS)]

    def wait_until_full(self) -> None:
        self.proxy.wait_for(lambda lines: any(SHORT in line for line in lines), "that files run short")

    def test_clients_beyond_them_wait_and_are_served_when_others_leave(self) -> None:
        clients = self.crowd()
        self.wait_until_full()
        for number, client in enumerate(clients):
            self.assert_served(client, f"/{number}")
            client.close()
        self.assert_served(Client(self, self.proxy), "/after")

    def test_those_that_are_in_are_served_meanwhile(self) -> None:
        first = Client(self, self.proxy)
        self.assert_served(first, "/first")
        clients = self.crowd()
        self.wait_until_full()
        for number in range(20):
            self.assert_served(first, f"/{number}")
        for client in clients:
            client.reset()
        self.assert_served(Client(self, self.proxy), "/after")

    def test_it_is_told_once_and_not_for_each_client(self) -> None:
        for turn in range(2):
            clients = self.crowd()
            self.wait_until_full()
            for client in clients:
                client.reset()
            self.assert_served(Client(self, self.proxy), f"/{turn}")
        self.assertLess(len([line for line in self.proxy.lines if "descriptors" in line]), 12, self.proxy.output)
        self.assertNotIn("Too many open files", self.proxy.output)

    def test_they_are_all_given_back(self) -> None:
        clients = self.crowd()
        self.wait_until_full()
        for client in clients:
            client.reset()
        self.assert_served(Client(self, self.proxy), "/after")
        # The connection of the last one, and that to the origin.
        until(lambda: self.open_files() <= self.files + 4, "that all are given back")

"""The testsuite's nasty client or nasty server, for Python 2.7: `fuzzer.py client|server SPECIFICATION [PEM]`.

The specification is the testsuite's own, in a JSON file. The client ends when it has gone through the cases. The server
listens on a free port of 127.0.0.1, which it prints, by TLS where it is given a file with certificate and key, until a
signal comes. The testsuite's own `wstest` would listen on all addresses, and wants to be told a free port.
"""

import json
import sys

# First of all: it chooses the reactor.
import autobahntestsuite.wstest  # noqa: F401  # isort: skip
from autobahntestsuite import fuzzing
from twisted.internet import reactor, ssl


def main(role, specification, pem=None):
    with open(specification) as file:
        spec = json.load(file)
    if role == "client":
        # It connects by itself, and stops the reactor.
        fuzzing.FuzzingClientFactory(spec)
    else:
        factory = fuzzing.FuzzingServerFactory(spec)
        if pem is None:
            port = reactor.listenTCP(0, factory, interface="127.0.0.1")
        else:
            contexts = ssl.DefaultOpenSSLContextFactory(pem, pem)
            port = reactor.listenSSL(0, factory, contexts, interface="127.0.0.1")
        # What it holds the Host field against.
        factory.port = factory.externalPort = port.getHost().port
        sys.stdout.write("listening on " + str(factory.port) + "\n")
    reactor.run()


main(*sys.argv[1:])

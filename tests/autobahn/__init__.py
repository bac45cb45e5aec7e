"""The Autobahn|Testsuite with the proxy in the middle: `make autobahn`, or `python -m tests.autobahn`.

It isn't a part of `make test`, for it takes long and needs a Python 2.7.
"""

"""Compiles what every byte passes through, by mypyc, where there is a C compiler; everything else is in setup.cfg.

The modules are plain Python, and run as such where there is no compiler, in an editable install (where a change to a
file should be seen), and with STREAMPROXY_PURE=1 in the environment.
"""

import os
import sys

from setuptools import setup

COMPILED = """
    counts flow journal memory inspect/tally
    wire/chunked wire/fields wire/framing wire/headers wire/http1 wire/message wire/target wire/upgrade
    wire/websocket
    filters/chain filters/coding filters/decoders filters/encoders filters/events filters/fault filters/finders
    filters/inflate filters/lines filters/literal_finder filters/message_deflate filters/messages filters/records
    filters/regex_finder filters/replace filters/tap filters/websocket
    rules/ruleset rules/verdict rules/wanted rules/way
    stream/batches stream/body stream/deadline stream/pace stream/pump stream/read_size stream/sink stream/spool
    stream/valve
    proxy/asking proxy/ends proxy/exchange proxy/faults proxy/heads proxy/http1 proxy/link proxy/reply proxy/route
    proxy/scripted proxy/sides proxy/stalls proxy/target proxy/tunnel proxy/websocket
"""


def extensions():
    if os.environ.get("STREAMPROXY_PURE") or "editable_wheel" in sys.argv:
        return []
    from mypyc.build import mypycify

    paths = [f"streamproxy/{name}.py" for name in COMPILED.split()]
    # Other packages' types count as unknown, so that the same comes of it wherever it is compiled.
    options = ["--config-file=", "--no-site-packages", "--ignore-missing-imports", "--follow-imports=silent"]
    try:
        modules = mypycify([*options, *paths], opt_level="3", debug_level="0", group_name="streamproxy")
    except SystemExit as error:
        print(f"streamproxy is installed uncompiled: {error}", file=sys.stderr)
        return []
    for module in modules:
        # Without a compiler, or Python's headers, the wheel has the modules as they are.
        module.optional = True
    return modules


setup(ext_modules=extensions())

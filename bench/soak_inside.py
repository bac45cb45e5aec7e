"""What the daemon that is soaked looks like from inside, written by itself: loaded as a script, but without hooks,
so that exchanges are what they are without a script.

Each second a line of JSON goes into a file: delayed calls, objects that the garbage collector knows, blocks of memory
that are allocated, and threads. While there is a file `rest` beside it, garbage is collected first: what is left then
is in use.
"""

import collections
import gc
import json
import os
import sys
import threading
import time

from twisted.internet import reactor

FOLDER = os.environ["HOME"]
# The one that is loaded last goes on.
sys.soak_inside = TOKEN = object()


def look():
    if sys.soak_inside is not TOKEN:
        return
    reactor.callLater(1, look)
    resting = os.path.exists(f"{FOLDER}/rest")
    if resting:
        gc.collect()
    objects = gc.get_objects()
    told = {
        "at": time.time(),
        "resting": resting,
        "timers": len(reactor.getDelayedCalls()),
        "objects": len(objects) + gc.get_freeze_count(),
        "blocks": sys.getallocatedblocks(),
        "threads": threading.active_count(),
        "readers": len(reactor.getReaders()) + len(reactor.getWriters()),
    }
    if resting:
        kinds = collections.Counter(type(each).__name__ for each in objects)
        told["kinds"] = dict(kinds.most_common(60))
    del objects
    with open(f"{FOLDER}/inside", "a") as file:
        file.write(json.dumps(told) + "\n")


reactor.callWhenRunning(look)

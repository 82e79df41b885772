"""Starts `runlane` processes in no time: imports the program once and forks.

Reads one JSON object a line (`args`, `env`, `log`, `errors`), answers with the new process's id.
It never waits for its children: an ended one stays a zombie, so that its id cannot become
another's.
"""

import gc
import json
import os
import signal
import sys
from typing import Any, NoReturn

import worker.providers.anthropic
import worker.providers.openai  # noqa: F401 (imported for every child at once)
from cli import (
    main,
    operator,  # noqa: F401 (as above)
    serve_api,  # noqa: F401
    serve_worker,  # noqa: F401
)


def _become(order: dict[str, Any]) -> NoReturn:
    os.setsid()
    # Whoever runs the tests in the background of a script has all of them ignore Ctrl-C.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    log, errors = (
        os.open(order[name], os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        for name in ("log", "errors")
    )
    nothing = os.open(os.devnull, os.O_RDONLY)
    for source, target in ((nothing, 0), (log, 1), (errors, 2)):
        os.dup2(source, target)
    os.environ.clear()  # noqa: TID251 (the child's own environment is made here)
    os.environ.update(order["env"])  # noqa: TID251 (as above)
    sys.argv = ["runlane", *order["args"]]
    try:
        main.main()
    finally:
        sys.stderr.flush()
    sys.exit(0)


def _serve() -> None:
    gc.freeze()  # or every child's first collection would copy what it shares with us
    for line in sys.stdin:
        order = json.loads(line)
        pid = os.fork()
        if pid == 0:
            _become(order)
        sys.stdout.write(f"{pid}\n")
        sys.stdout.flush()


if __name__ == "__main__":
    _serve()

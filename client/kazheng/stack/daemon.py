"""supervisord, for as long as the process that started it lives.

`kazheng up` starts this module with a pipe as its standard input and never writes to it. However `up` ends, `kill -9`
included, the kernel closes the pipe; supervisord then stops everything in order, as on Ctrl-C. A pipe rather than
PR_SET_PDEATHSIG: it works on macOS too, and it follows the process, where PDEATHSIG follows the thread.
"""

import os
import signal
import sys
import threading

from supervisor import supervisord


def _follow_parent() -> None:
    while os.read(0, 1):
        pass
    os.kill(os.getpid(), signal.SIGTERM)


def main() -> None:
    """Run supervisord in the foreground with the configuration named on the command line."""
    threading.Thread(target=_follow_parent, daemon=True).start()
    supervisord.main(["--nodaemon", "--configuration", sys.argv[1]])


if __name__ == "__main__":
    main()

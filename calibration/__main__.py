"""`python -m calibration`: see ``calibration.cli.main``."""

import signal
import sys

from .cli.main import main

if __name__ == "__main__":
    # A machine that is taken away says so with SIGTERM: what was found is kept, as after Ctrl-C.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    sys.exit(main(sys.argv[1:]))

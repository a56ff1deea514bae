"""Sends job start events (004, "Send Test Events"): the command `publish` under the name that people know.

source .venv/bin/activate
python3 tests/create-job-start-event.py [--url http://localhost:8080] [--count N] [--priority P] [--wait]
"""

import sys

from builder.cli import main

if __name__ == "__main__":
    sys.exit(main(["publish", *sys.argv[1:]]))

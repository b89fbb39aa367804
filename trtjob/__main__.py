"""`python -m trtjob` is the command `trtjob`."""

import sys

from trtjob.cli.app import main

if __name__ == "__main__":
    sys.exit(main())

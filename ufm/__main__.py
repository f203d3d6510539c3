"""`python -m ufm` is the command line."""

import sys

from ufm.commands.main import main

sys.exit(main())

"""`python -m cdred` is the `cdred` command."""

import sys

from cdred.cli.main import main

sys.exit(main())

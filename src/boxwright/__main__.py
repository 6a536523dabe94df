"""``python -m boxwright``."""

import sys

from boxwright.cli.main import main

sys.exit(main())

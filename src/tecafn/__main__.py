"""``python -m tecafn`` is the command line, for torchrun and friends."""

import sys

from tecafn.cli import main

sys.exit(main())

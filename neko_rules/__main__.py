"""``python -m neko_rules`` is ``neko``."""

import sys

from neko_rules.cli import main

sys.exit(main())

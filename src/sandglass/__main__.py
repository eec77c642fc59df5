"""``python -m sandglass`` is the command ``sandglass``."""

import sys

from sandglass.app.main import main

if __name__ == "__main__":
    sys.exit(main())

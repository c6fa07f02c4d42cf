"""`python -m datagen`."""

import sys

try:
    from datagen.cli import main
except KeyboardInterrupt:  # Ctrl-C while the program loads
    sys.exit(130)

main()

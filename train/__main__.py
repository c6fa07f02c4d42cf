"""`python -m train`."""

import os

# Before torch is loaded: threads that spin while they wait for one another came to a tenth of the speed beside other busy processes, and
# threads that sleep at once to two thirds of it alone. These spin for some microseconds.
os.environ.setdefault("GOMP_SPINCOUNT", "20000")

from train.cli import main

if __name__ == "__main__":
    main()

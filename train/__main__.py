"""`python -m train`."""

import os

# Before torch is loaded: threads that wait for one another by spinning came to a tenth of the speed beside other busy processes.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

from train.cli import main

if __name__ == "__main__":
    main()

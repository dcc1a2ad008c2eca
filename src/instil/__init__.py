"""instil: labelled rows in, a proven instruct model out."""

import os

__version__ = "0.1.0"

# torch's threads meet behind every operation, and spin some milliseconds before a waiting one
# sleeps. On busy cores the one that spins takes the time of the one that it waits for: training
# ran ten times slower than with a short spin, and was no faster on idle cores (docs/002). libgomp
# reads this when it is loaded: before any import of torch. Child processes inherit it.
if not {"OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "KMP_BLOCKTIME"} & os.environ.keys():
    os.environ["GOMP_SPINCOUNT"] = "200"

"""See the module docstrings."""

import logging

# PEFT imports bitsandbytes wherever it is installed, which then asks for kernels that are not used.
logging.getLogger("bitsandbytes").setLevel(logging.ERROR)

"""Base models and their adapters: found, checked, loaded, merged and exported."""

import logging

# PEFT imports bitsandbytes wherever it is installed, which then asks for kernels that are not used.
logging.getLogger("bitsandbytes").setLevel(logging.ERROR)

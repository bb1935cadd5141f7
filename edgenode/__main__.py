"""``python -m edgenode``: see ``edgenode.process``."""

from __future__ import annotations

import os
import sys

# Read when gRPC is first imported. Its own log speaks of every connection that a stopping peer
# closes; what matters of that the node says itself.
os.environ.setdefault("GRPC_VERBOSITY", "NONE")
# Read when NumPy is first imported, if a policy ever is. Policies multiply nothing with it, and a
# thread per processor at each of many nodes would cost memory and time for nothing.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

if __name__ == "__main__":
    from edgenode.process import main

    sys.exit(main())

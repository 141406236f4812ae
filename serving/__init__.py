"""Serving: the light gRPC client and the embedded server.

`serving.client` needs numpy, protobuf and grpcio; only the server's modules import TensorFlow.
"""

import os

# TensorFlow reads this once, when it loads: without it every start prints pages of CPU notes.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

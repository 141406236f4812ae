"""Click and dislike prediction from several kinds of user feedback.

TensorFlow is imported by the submodules that need it, never here, so that the light client
install can use `tfrec_feedback.schema` alone.
"""

import os

# tensorflow-recommenders is written against Keras 2; TensorFlow reads this once, when it loads.
os.environ.setdefault("TF_USE_LEGACY_KERAS", "1")
# On a machine without accelerator TensorFlow reports two "errors" at every start; what really goes
# wrong raises.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

__version__ = "0.1.0"

# The embedded server, for small deployments. From the root of the repository:
#
#   docker build --file docker/serving.Dockerfile --tag tfrec-feedback-serving .
#   docker run --read-only --cap-drop all --publish 8500:8500 --publish 127.0.0.1:8501:8501 \
#     --volume "$PWD/models/dfn:/models/dfn:ro" tfrec-feedback-serving
#
# BASE_IMAGE: any Debian or the like with Python 3.11 and its venv module.
ARG BASE_IMAGE=python:3.11-slim-bookworm

FROM ${BASE_IMAGE} AS build
WORKDIR /src
COPY setup.py pyproject.toml README.md ./
COPY tfrec_feedback ./tfrec_feedback
COPY serving ./serving
COPY pipelines ./pipelines
# pip compiles what it installs: on a read-only root nothing could be compiled later. The headers of
# TensorFlow are for building operations, which is not done here.
RUN python3 -m venv /opt/server \
    && /opt/server/bin/python -m pip install --no-cache-dir --disable-pip-version-check ".[server]" \
    && /opt/server/bin/python -m pip uninstall --yes --quiet pip \
    && rm -rf /opt/server/lib/python3*/site-packages/tensorflow/include

FROM ${BASE_IMAGE}
COPY --from=build /opt/server /opt/server
# TEST_TMPDIR: TensorFlow imports its own test tools, which look for a folder that can be written and
# end the process where a read-only root has none. Named here, it is not looked for, nor ever used.
ENV PATH=/opt/server/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    PYTHONDONTWRITEBYTECODE=1 \
    TEST_TMPDIR=/tmp/absl_testing
# A number, so that Kubernetes can see that it is not root.
USER 10001:10001
WORKDIR /models
EXPOSE 8500 8501
STOPSIGNAL SIGTERM
# A model takes seconds to load; until then the port is closed.
HEALTHCHECK --interval=10s --timeout=5s --start-period=60s --retries=3 \
    CMD ["python", "-m", "serving.probe", "localhost:8500"]
# 8501 has neither TLS nor a password: metrics, health and the page are for the inner network.
ENTRYPOINT ["python", "-m", "serving.server", "--host", "0.0.0.0", "--port", "8500", \
    "--http-host", "0.0.0.0", "--http-port", "8501"]
CMD ["--model-base-path", "/models/dfn", "--model-name", "dfn"]

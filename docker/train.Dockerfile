# Preparing, training, evaluating and publishing. From the root of the repository:
#
#   docker build --file docker/train.Dockerfile --tag tfrec-feedback-train .
#   docker run --rm --user "$(id -u):$(id -g)" --volume "$PWD:/work" tfrec-feedback-train \
#     pipelines.export --run runs/mine --output models/dfn
#
# BASE_IMAGE: any Debian or the like with Python 3.11 and its venv module.
ARG BASE_IMAGE=python:3.11-slim-bookworm

FROM ${BASE_IMAGE} AS build
WORKDIR /src
COPY setup.py pyproject.toml README.md ./
COPY tfrec_feedback ./tfrec_feedback
COPY serving ./serving
COPY pipelines ./pipelines
RUN python3 -m venv /opt/train \
    && /opt/train/bin/python -m pip install --no-cache-dir --disable-pip-version-check \
        ".[train,server]" \
    && /opt/train/bin/python -m pip uninstall --yes --quiet pip

FROM ${BASE_IMAGE}
COPY --from=build /opt/train /opt/train
# HOME: matplotlib and TensorFlow keep caches there, and the user has no home of his own.
ENV PATH=/opt/train/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    PYTHONDONTWRITEBYTECODE=1 \
    HOME=/tmp
USER 10001:10001
WORKDIR /work
ENTRYPOINT ["python", "-m"]
CMD ["pipelines.run", "--help"]

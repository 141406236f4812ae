#!/bin/sh
# Builds the images without a daemon, and runs the embedded server's the way production does:
# read-only root, no capabilities, no root user. Needs root, and Debian's packages podman, buildah,
# runc, debootstrap, uidmap, netavark and iptables.
#
#   docker/image.sh build [serving|train]          # base image (once) and this one, by default serving
#   docker/image.sh start MODEL_BASE NAME PORT     # e.g. models/dfn dfn 8500; HTTP is the next port
#   docker/image.sh stop                           # SIGTERM; prints the server's exit code
#
# BASE_IMAGE names another base; by default one is made by debootstrap. EXTRA_BUILD holds further
# options of `podman build`, such as --volume for the pip configuration of the machine.
set -eu
cd "$(dirname "$0")/.."

BASE=localhost/debian-python:bookworm
CONTAINER=${CONTAINER:-tfrec-feedback-serving}

for tool in podman runc debootstrap; do
  command -v "$tool" >/dev/null || {
    echo "Error: $tool is not installed: apt-get update && apt-get install podman buildah runc" \
      "debootstrap uidmap netavark iptables" >&2
    exit 2
  }
done

# crun refuses the cgroups of a container without systemd; runc does not.
engine() {
  podman --runtime runc --cgroup-manager cgroupfs "$@"
}

make_base() {
  root=$(mktemp -d)
  trap 'rm -rf "$root"' EXIT
  debootstrap --variant=minbase --include=python3,python3-venv,ca-certificates bookworm "$root" >&2
  tar -C "$root" -c . | podman import - "$BASE" >&2
}

build() {
  if [ -z "${BASE_IMAGE:-}" ]; then
    podman image exists "$BASE" || make_base
    BASE_IMAGE=$BASE
  fi
  # chroot isolation and the host's network: there are no namespaces to be had inside a container.
  # The docker format keeps HEALTHCHECK, which OCI images do not know.
  # shellcheck disable=SC2086 - EXTRA_BUILD is a list of words
  engine build --isolation chroot --network host --format docker --pull-never \
    --ulimit nofile=20000:20000 --ulimit nproc=16000:16000 ${EXTRA_BUILD:-} \
    --build-arg BASE_IMAGE="$BASE_IMAGE" --file "docker/$1.Dockerfile" \
    --tag "${IMAGE:-localhost/tfrec-feedback-$1}" .
}

start() {
  base=$(cd "$1" && pwd)
  # Of an option given twice, the last counts: these stand after the image's own.
  engine run --detach --replace --name "$CONTAINER" --network host \
    --read-only --read-only-tmpfs=false --cap-drop all --security-opt no-new-privileges \
    --ulimit nofile=20000:20000 --ulimit nproc=16000:16000 \
    --volume "$base:/models/$2:ro" \
    "${IMAGE:-localhost/tfrec-feedback-serving}" --host 127.0.0.1 --port "$3" \
    --http-host 127.0.0.1 --http-port "$(($3 + 1))" \
    --model-base-path "/models/$2" --model-name "$2"
}

stop() {
  engine stop --time 30 "$CONTAINER" >/dev/null
  engine inspect --format '{{.State.ExitCode}}' "$CONTAINER"
  engine logs "$CONTAINER" >&2
  engine rm "$CONTAINER" >/dev/null
}

case "${1:-}" in
  build)
    case "${2:-serving}" in
      serving | train) build "${2:-serving}" ;;
      *) echo "usage: image.sh build [serving|train]" >&2; exit 2 ;;
    esac ;;
  start) [ $# -eq 4 ] || { echo "usage: image.sh start MODEL_BASE NAME PORT" >&2; exit 2; }
    start "$2" "$3" "$4" ;;
  stop) stop ;;
  *) sed -n '2,11p' "$0"; exit 2 ;;
esac

#!/bin/sh
# Entry point of the stock image. Its own one keeps a shell as process 1, which passes no SIGTERM on:
# every stop would wait ten seconds and then kill calls under way. `exec` makes the server process 1.
set -eu

exec tensorflow_model_server \
  --port=8500 \
  --rest_api_port=8501 \
  --model_config_file=/etc/tfserving/models.config \
  --model_config_file_poll_wait_seconds=30 \
  --monitoring_config_file=/etc/tfserving/monitoring.config \
  --tensorflow_intra_op_parallelism=1 \
  --tensorflow_inter_op_parallelism="${CORES:-$(nproc)}" \
  --num_load_threads=1 \
  --num_unload_threads=1 \
  --max_num_load_retries=1 \
  --load_retry_interval_micros=1000000 \
  --enable_batching=false \
  "$@"
# Why, flag by flag:
# --rest_api_port: Prometheus' metrics are served there.
# --model_config_file_poll_wait_seconds: labels that were moved take effect without a restart.
# --tensorflow_intra_op_parallelism: an operation of these models is too small to be split: a quarter
#   less CPU time for each request than with the default.
# --tensorflow_inter_op_parallelism: one a core. CORES is for limits that nproc does not see.
# --num_load_threads, --num_unload_threads: with 0, the default, versions are loaded on the thread
#   that manages them, and nothing else is managed meanwhile.
# --max_num_load_retries, --load_retry_interval_micros: with the defaults, one corrupt version holds
#   back the next good one for five minutes.
# --enable_batching: see batching.config; "$@" comes last and can turn it on:
#   --enable_batching=true --batching_parameters_file=/etc/tfserving/batching.config

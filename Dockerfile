# The command `bua` in a container: for CPUs, or for NVIDIA GPUs with the extra cuda12, whose wheels bring CUDA.
# It was not built in CI, where there is no docker: there tests/test_docker.py reads it and does no more.
# launch/container.sh builds it with docker or podman, and tries what stands here.
#
#   docker build --tag bua-jax .
#   docker build --tag bua-jax:cuda --build-arg EXTRAS=cuda12 .
#   mkdir -p runs
#   docker run --rm --init --user "$(id -u):$(id -g)" --volume "$PWD/runs:/home/bua/runs" \
#     --volume bua-cache:/home/bua/.cache bua-jax curriculum --config=configs/quickstart.py
#   docker run --rm --init --user "$(id -u):$(id -g)" --volume "$PWD/runs:/home/bua/runs" \
#     --volume bua-cache:/home/bua/.cache --gpus all bua-jax:cuda fit runs/events.csv
#
# --user: who writes the mounted folder, which docker would make for root if it were not there.
# bua-cache: compiled kernels and programs, which the next container need not make again.
# --init: `docker stop -t 90` is a Ctrl-C, with time to save the step at hand. To each container another is
# another host: what one that was killed had claimed takes --take_over.
# It runs with --network=none, and with --read-only --tmpfs /tmp.
FROM python:3.12-slim-bookworm

ARG EXTRAS=""

# The compiler makes the kernels for this CPU on first use, and brings the OpenMP library that LightGBM loads.
# Whoever --user names may write runs and .cache, with volumes or without.
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install --yes --no-install-recommends g++ \
    && rm -rf /var/lib/apt/lists/* \
    && useradd --no-log-init --create-home --uid 1000 bua \
    && install --directory --mode=1777 /home/bua/runs /home/bua/.cache

WORKDIR /src
COPY pyproject.toml README.md LICENSE ./
COPY bua_jax ./bua_jax
COPY configs ./configs
# Versions are those that pyproject.toml allows.
# hadolint ignore=DL3013
RUN pip install --no-cache-dir --root-user-action=ignore ".${EXTRAS:+[${EXTRAS}]}" \
    && rm -rf build ./*.egg-info

ENV HOME=/home/bua MPLCONFIGDIR=/home/bua/.cache/matplotlib
WORKDIR /home/bua
USER 1000
STOPSIGNAL SIGINT
ENTRYPOINT ["bua"]
CMD ["--help"]

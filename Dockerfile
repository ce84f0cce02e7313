# The command `bua` in a container: for CPUs, or for NVIDIA GPUs with the extra cuda12, whose wheels bring CUDA.
# It was not built in CI, where there is no docker: tests/test_docker.py reads it and does no more.
#
#   docker build --tag bua-jax .
#   docker build --tag bua-jax:cuda --build-arg EXTRAS=cuda12 .
#   docker run --rm --volume "$PWD/runs:/home/bua/runs" bua-jax curriculum --config=configs/quickstart.py
#   docker run --rm --gpus all --volume "$PWD/runs:/home/bua/runs" bua-jax:cuda fit runs/events.csv
#
# The mounted folder must be one that the user of the container can write: --build-arg USER_ID="$(id -u)".
FROM python:3.12-slim-bookworm

ARG EXTRAS=""
ARG USER_ID=1000

# The compiler makes the kernels for this CPU on first use, and brings the OpenMP library that LightGBM loads.
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install --yes --no-install-recommends g++ \
    && rm -rf /var/lib/apt/lists/* \
    && useradd --no-log-init --create-home --uid "${USER_ID}" bua

WORKDIR /src
COPY pyproject.toml README.md LICENSE ./
COPY bua_jax ./bua_jax
COPY configs ./configs
# Versions are those that pyproject.toml allows.
# hadolint ignore=DL3013
RUN pip install --no-cache-dir ".${EXTRAS:+[${EXTRAS}]}"

WORKDIR /home/bua
USER ${USER_ID}
ENTRYPOINT ["bua"]
CMD ["--help"]

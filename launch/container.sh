#!/usr/bin/env bash
# Builds the image of `Dockerfile` and tries it: not as root, without network, its root only read. With docker, or
# else podman as root; another by its path: ENGINE=/opt/bin/podman. Arguments go to the build:
#   launch/container.sh --build-arg EXTRAS=cuda12
set -euo pipefail
cd "$(dirname "$0")/.."

engine="${ENGINE:-$(command -v docker || command -v podman || true)}"
if ! "${engine:=docker}" info >/dev/null 2>&1; then
  echo "$engine does not answer. Install it, or start its daemon." >&2
  exit 2
fi
"$engine" build --tag bua-jax:tried "$@" .

folder="$(mktemp -d)"
trap 'rm -rf "$folder"' EXIT
mkdir "$folder/runs" "$folder/cache"
user="$(id -u)" group="$(id -g)"
if [ "$user" = 0 ]; then # whom it is not to run as
  user=12345 group=12345
  chown -R "$user:$group" "$folder"
fi

# run COMMAND ARGUMENT ...: what stands after the name of the image at the head of `Dockerfile`
run() {
  echo "-- $*" >&2
  "$engine" run --rm --init --network=none --read-only --tmpfs /tmp --user "$user:$group" \
    --volume "$folder/runs:/home/bua/runs" --volume "$folder/cache:/home/bua/.cache" "${given[@]}" \
    bua-jax:tried "$@"
}

given=(--entrypoint sh)
# shellcheck disable=SC2016 # the container's id
run -c '[ "$(id -u)" != 0 ] && ! touch /home/bua/x 2>/dev/null && [ -z "$(find / -xdev -name .git 2>/dev/null)" ] &&
  [ ! -e /src/tests ] && [ ! -e /src/runs ]'
given=()
run --help >/dev/null
run curriculum --config=configs/quickstart.py --dry_run
run curriculum --config=configs/curriculum.py:scale=tiny --workdir=runs/tiny
run predict --model=runs/tiny --example=2 >"$folder/runs/people.jsonl"
run predict --model=runs/tiny --input=runs/people.jsonl
printf 'user,time,behaviour\n' >"$folder/runs/events.csv"
for hour in 07 08 09 12 13 18 20 22; do
  for person in anna ben cleo dan eva finn gina hugo; do
    printf '%s,2024-03-01 %s:30,walk\n%s,2024-03-02 %s:00,read\n' "$person" "$hour" "$person" "$hour"
  done
done >>"$folder/runs/events.csv"
run check runs/events.csv || [ $? = 1 ] # 1: so few events are a problem, and said

[ -f "$folder/runs/tiny/report.html" ]
[ "$(stat -c %u "$folder/runs/tiny")" = "$user" ]
compgen -G "$folder/cache/bua_jax/cpu-*.so" >/dev/null # the compiler in it makes the kernels
echo "The image bua-jax:tried was built and tried."

#!/usr/bin/env bash
# Sets everything up and builds the site of docs/ into build/site. A broken link, a page that is not in
# mkdocs.yml or an undocumented public name fails. Arguments go to mkdocs:
#   launch/docs.sh
#   launch/docs.sh serve
source "$(dirname "$0")/setup.sh"
setup "docs,test"
JAX_PLATFORMS=cpu python -m pytest -q tests/test_docs.py
if [ $# -eq 0 ]; then set -- build --strict; fi
exec python -m mkdocs "$@"

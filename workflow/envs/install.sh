#!/bin/sh
# What an image gets, as root: Dockerfile and mscl.def both run this. The files that it reads lie beside it there.
#   install.sh cpu     requirements.lock. Where pip finds a CPU build of torch (PIP_EXTRA_INDEX_URL), it is taken; else the build for CUDA
#   install.sh cuda    the build for CUDA, with its libraries, and the C++ compiler that compute.kernels.compile needs
set -eu
here=$(cd "$(dirname "$0")" && pwd)
case "$1" in
  cpu) libraries=--constraint compiler= ;;  # a constraint pins what is installed anyway
  cuda) libraries=--requirement compiler=g++ ;;
  *) echo "install.sh: the kind of image is cpu or cuda, not '$1'" >&2; exit 1 ;;
esac
apt-get update
# unar: for the RAR archives of UCF101 and HMDB51
xargs apt-get install --yes --no-install-recommends $compiler < "$here/apt.txt"
rm -rf /var/lib/apt/lists/*
python -m pip install --no-cache-dir --requirement "$here/requirements.lock" "$libraries" "$here/requirements-cuda.lock"
if [ "$1" = cuda ]; then
  python -c 'import sys, torch; sys.exit(None if torch.version.cuda else "install.sh: pip took a CPU build of torch; take PIP_EXTRA_INDEX_URL away")'
fi

#!/bin/sh
# Fills a folder with what `run.sh` needs on a machine with a GPU and no network: Debian's packages of the
# libraries that kiln is built with, as files, some 22 MB. To be run on Debian 12, x86-64, with a network.
#   spec/gpu/carry.sh FOLDER
set -eu
[ $# -eq 1 ] || { sed -n 2,4p "$0" | cut -c3- >&2; exit 2; }
mkdir -p "$1"
cd "$1"
apt-get -q update >/dev/null || echo 'apt-get update failed; trying with the lists that are there' >&2
missing=
for package in \
  liblua5.4-dev liblua5.4-0 check libsubunit-dev libsubunit0 \
  libpng-dev libpng16-16 libjpeg62-turbo-dev libjpeg62-turbo zlib1g-dev zlib1g \
  libarchive-dev libarchive13 libxml2 libicu72 libacl1 libbz2-1.0 liblz4-1 liblzma5 libnettle8 libzstd1 \
  libdnnl-dev libdnnl2 pkgconf pkgconf-bin libpkgconf3; do
  ls "$package"_*.deb >/dev/null 2>&1 && continue
  apt-get -q download "$package" >/dev/null 2>&1 || missing="$missing $package"
done
[ ! "$missing" ] || { echo "carry.sh: apt-get could not download:$missing" >&2; exit 1; }
du -sh . | cut -f 1

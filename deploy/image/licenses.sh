#!/bin/sh
# licenses.sh BINARY DIR copies into DIR the licence and the notices of every module
# that is linked into a Go binary, and those of Go itself. They must go wherever the
# binary goes. It runs in the directory of the module that the binary was built from,
# with its modules in the cache, and fails when a module has none.
set -eu

binary=$1 dir=$2

# texts FROM TO copies the texts of a directory.
texts() {
  found=
  for file in "$1"/LICEN[SC]E* "$1"/licen[sc]e* "$1"/COPYING* "$1"/NOTICE* "$1"/PATENTS*; do
    if [ -f "$file" ]; then
      mkdir -p "$2"
      cp "$file" "$2/"
      found=yes
    fi
  done
  [ -n "$found" ] || { echo "licenses.sh: $1 has no licence" >&2; return 1; }
}

texts "$(go env GOROOT)" "$dir/go"
go version -m "$binary" | awk '$1 == "dep" { print $2 }' | while read -r module; do
  texts "$(go list -m -f '{{.Dir}}' "$module")" "$dir/$module"
done
# The image's CA certificates are Debian's.
if [ -f /usr/share/doc/ca-certificates/copyright ]; then
  mkdir -p "$dir/ca-certificates"
  cp /usr/share/doc/ca-certificates/copyright "$dir/ca-certificates/"
fi
chmod -R a+rX "$dir"

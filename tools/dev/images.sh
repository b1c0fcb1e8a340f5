# shellcheck shell=bash
# The container images, with tools/images. Sourced by ./dev.

# Runs a command in the root file system of Debian 13, with the sources at /src (read-only) and build/ at /build.
in_images_root() { tools/images/enter "$root/build/images/root" "$root" "$root/build" "$@"; }

# assemble_images SOURCE TREE OUT REPOSITORY [image...]: with paths as they are where it runs.
assemble_images() {
  local source=$1 tree=$2 out=$3 repository=$4 version revision epoch run=()
  shift 4
  version=$(sed -n 's/^project(postern VERSION \([0-9.]*\).*/\1/p' CMakeLists.txt)
  revision=$(git rev-parse HEAD)
  if [ -n "$(git status --porcelain)" ]; then revision+=-modified; fi
  epoch=$(git log -1 --format=%ct)
  if [ "$source" != "$root" ]; then run=(in_images_root); fi
  "${run[@]}" python3 "$source/tools/images/assemble.py" --tree "$tree" --out "$out" --version "$version" --revision "$revision" --epoch "$epoch" \
    --repository "$repository" "$@"
}

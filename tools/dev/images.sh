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

packages_in() { dpkg-query --admindir="$1/var/lib/dpkg" --show | sort; }

# check_images REPOSITORY [image...]: the same commit once more, in a clone elsewhere, from nothing. The archives, manifests and SBOMs have to be the same.
check_images() {
  local repository=$1 again=$root/build/images/again/postern file files differ=0
  shift
  rm -rf --one-file-system "$again"
  git clone --quiet "$root" "$again"
  CCACHE_DISABLE=1 "$again/dev" images --repository "$repository" "$@"
  say "compare build/images with build/images/again/postern/build/images"
  mapfile -t files < <(cd "$again/build/images" && printf '%s\n' *.tar *.spdx.json */index.json)
  for file in "${files[@]}"; do
    cmp -s "build/images/$file" "$again/build/images/$file" || { printf '    %s differs\n' "$file"; differ=1; }
  done
  if [ "$differ" = 1 ]; then
    diff <(packages_in "$root/build/images/root") <(packages_in "$again/build/images/root") ||
      die "images: the packages have changed since build/images/root was made. Run: ./dev images --renew --check"
    die "images: two builds of $(git rev-parse HEAD) differ; both are kept"
  fi
  printf '    %d archives, manifests and SBOMs are the same, byte for byte\n' "${#files[@]}"
  rm -rf --one-file-system "$(dirname "$again")"
}

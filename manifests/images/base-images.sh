#!/usr/bin/env bash
# Base images made here from Debian packages, for where no public image can be pulled:
#   edge-testbed/base:bookworm     Debian 12 with its Python 3.11
#   edge-testbed/jre:bookworm      that with a Java 17 runtime
#   edge-testbed/mariadb:bookworm  that with a MariaDB server
# Needs a container engine, and debootstrap (or mmdebstrap, which is faster) run as root. Images that
# are there stay: with all three, nothing is done.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/local"

docker=${DOCKER:-docker}
prefix=${IMAGE_PREFIX:-edge-testbed}
suite=bookworm
images=("$prefix/base:$suite" "$prefix/jre:$suite" "$prefix/mariadb:$suite")

! "$docker" image inspect "${images[@]}" >/dev/null 2>&1 || exit 0

as_root=()
((EUID == 0)) || as_root=(sudo)
work=$(mktemp -d)
trap '"${as_root[@]}" rm -rf "$work"' EXIT
left_out=(--exclude './dev/*' --exclude './proc/*' --exclude './sys/*'
    --exclude './usr/share/doc/*' --exclude './usr/share/man/*' --exclude './usr/share/info/*'
    --exclude './usr/share/locale/*' --exclude './var/lib/apt/lists/*' --exclude './var/log/*'
    --exclude './var/cache/apt/*' --exclude './debootstrap*')
root=$work/root
# An image that was interrupted is made again: nothing needs to reach the disk at once.
options=(--variant=minbase)
packages=python3,python3-venv
if command -v mmdebstrap >/dev/null; then
    # As debootstrap does by itself; a package that does it later would bring all of Perl.
    options+=(--include="$packages,usr-is-merged" --dpkgopt=force-unsafe-io
        --hook-dir=/usr/share/mmdebstrap/hooks/merged-usr)
    bootstrap=mmdebstrap
else
    options+=(--include="$packages")
    bootstrap=debootstrap
fi
"${as_root[@]}" "$bootstrap" "${options[@]}" "$suite" "$root" >"$work/log" 2>&1 ||
    { tail -20 "$work/log" >&2; exit 1; }
"${as_root[@]}" tar --create --numeric-owner --directory "$root" "${left_out[@]}" . |
    "$docker" import --change 'CMD ["python3"]' - "${images[0]}"

# The host's network: packages come the way they come to this machine.
for each in jre mariadb; do
    "$docker" build --quiet --network host --build-arg "BASE_IMAGE=${images[0]}" \
        --tag "$prefix/$each:$suite" "$each"
done

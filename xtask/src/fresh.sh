#!/bin/sh
# Runs commands as root in a new system, in its copy of the project: fresh.sh SYSTEM PACKAGES COMMAND...
# Called in a mount namespace of its own, so that the mounts end with it.
set -eu
system=$1
packages=$2
shift 2

mount -t proc proc "$system/proc"
mount --rbind /sys "$system/sys"
mount --rbind /dev "$system/dev"
mount -t tmpfs tmpfs "$system/run"
mount -t tmpfs -o mode=1777 tmpfs "$system/tmp"
cp /etc/resolv.conf /etc/hosts "$system/etc/"
# debootstrap names the release alone; an installed Debian has its security updates too.
mirror=$(sed -n 's/^deb \([^ ]*\) .*/\1/p' "$system/etc/apt/sources.list")
echo "deb ${mirror%/debian}/debian-security bookworm-security main" >>"$system/etc/apt/sources.list"

# Nothing of this user's environment goes in, except how the network is reached.
inside() {
    env -i PATH=/usr/sbin:/usr/bin:/sbin:/bin HOME=/root LANG=C.UTF-8 DEBIAN_FRONTEND=noninteractive \
        ${http_proxy:+http_proxy="$http_proxy"} ${https_proxy:+https_proxy="$https_proxy"} \
        chroot "$system" /bin/sh -euc "$1"
}

inside "apt-get update --quiet && apt-get install --yes --quiet $packages" >"$system/install.log" 2>&1 || {
    tail -n 20 "$system/install.log"
    exit 1
}
# The new system trusts whom this one trusts: a company's proxy may have a certificate of its own.
if [ -r /etc/ssl/certs/ca-certificates.crt ]; then
    cp /etc/ssl/certs/ca-certificates.crt "$system/etc/ssl/certs/ca-certificates.crt"
fi
for command in "$@"; do
    echo "+ $command"
    inside "cd /finwait && $command"
done

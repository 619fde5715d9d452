#!/bin/sh
# Boots the host's systemd on a copy-on-write image of the host, in separate namespaces, and runs trial.sh there as a
# service. Nothing remains afterwards. Usage:
#   unshare --mount --pid --net --cgroup --ipc --uts --fork boot.sh FOLDER
# FOLDER contains finwait.deb, trial.sh and trial.service; the output is written to FOLDER/log.
set -eu
folder=$1

mount -t tmpfs none /mnt
mkdir /mnt/upper /mnt/work /mnt/root
mount -t overlay none -o lowerdir=/,upperdir=/mnt/upper,workdir=/mnt/work /mnt/root
cd /mnt/root
mount -t proc none proc
mount -t sysfs none sys
mount -t cgroup2 none sys/fs/cgroup
mount -t tmpfs none run
mount -t tmpfs none tmp
mount -t tmpfs none dev
for device in null zero full random urandom tty; do
    touch dev/$device
    mount --bind /dev/$device dev/$device
done
mkdir -p dev/pts dev/shm run/trial run/systemd/system
mount -t devpts -o newinstance,ptmxmode=0666 none dev/pts
ln -s pts/ptmx dev/ptmx
touch dev/console "$folder/console"
mount --bind "$folder/console" dev/console
mount --bind "$folder" run/trial
cp "$folder/trial.service" run/systemd/system/

# pivot_root instead of chroot: a unit with its own mount namespace needs a real root.
mkdir run/old
pivot_root . run/old
cd /
umount -l /run/old
exec env -i container=finwait PATH=/usr/sbin:/usr/bin:/sbin:/bin \
    /lib/systemd/systemd --system --unit=trial.service

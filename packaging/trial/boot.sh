#!/bin/sh
# Boots this system's systemd on a copy-on-write image of this system, in namespaces of its own, and runs trial.sh there as
# a service. Nothing of it remains: to be called as `unshare --mount --pid --net --cgroup --ipc --uts --fork boot.sh FOLDER`.
# FOLDER holds finwait.deb, trial.sh and trial.service; `log` appears in it.
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

# Not chroot: the mount namespaces that the unit asks for are made of a real root.
mkdir run/old
pivot_root . run/old
cd /
umount -l /run/old
exec env -i container=finwait PATH=/usr/sbin:/usr/bin:/sbin:/bin \
    /lib/systemd/systemd --system --unit=trial.service

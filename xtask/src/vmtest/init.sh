#!/bin/busybox sh
# The first process of a guest of `cargo xtask vmtest`: makes a system, runs the lines of /plan, says how it went.
/bin/busybox --install -s /bin
export PATH=/bin NO_COLOR=1 TERM=dumb FINWAIT_TEST_SEGMENTS=20000
mount -t devtmpfs dev /dev
exec </dev/console >/dev/console 2>&1
mount -t proc proc /proc
mount -t sysfs sys /sys
mount -t bpf bpf /sys/fs/bpf
mkdir -p /run/netns
ip link set lo up
while read -r module; do insmod "/modules/$module" || exit 1; done </modules/order
echo "Linux $(uname -r)"

failures=0
while read -r line; do
    echo "== $line"
    eval "$line" </dev/null || { echo "== FAILED ($?): $line"; failures=$((failures + 1)); }
done </plan

# A kernel that complains has not passed, whatever the tests say.
if dmesg | grep -E 'BUG:|WARNING:|Oops|soft lockup|RCU.*stall'; then failures=$((failures + 1)); fi
[ "$failures" = 0 ] && echo "vmtest: everything passed"
sync
poweroff -f

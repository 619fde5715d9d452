# Trial of the package: install, use, break and purge it as an administrator would. boot.sh runs this script as a service
# of a separate systemd.

trap '[ $? = 0 ] || journalctl --no-pager --lines 40 --unit finwait' EXIT

# Repeats a command until it succeeds, for at most two minutes.
eventually() {
    tries=0
    until "$@"; do
        tries=$((tries + 1))
        [ $tries -lt 240 ]
        sleep 0.5
    done
}
# Succeeds if a command fails. (`set -e` ignores `! command`.)
fails() {
    if "$@"; then return 1; fi
}
# Checks a line of the agent's /proc/PID/status.
has() {
    grep -q "^$1:[[:space:]]*$2\$" "/proc/$(systemctl show --property MainPID --value finwait)/status"
}

# Container images forbid packages to start services. This system stands for a host.
rm -f /usr/sbin/policy-rc.d
dpkg -i /run/trial/finwait.deb
systemd-analyze verify finwait.service
systemd-analyze security --no-pager --threshold=30 finwait.service | tail -1
systemctl is-enabled finwait

# The installation started the agent: it is attached, answers queries and has minimal privileges.
systemctl is-active finwait
finwait status
finwait status | grep -E '^ *lo +tcx +tcx'
curl --silent --fail http://127.0.0.1:9817/metrics | grep '^finwait_build_info'
has Uid "$(id -u finwait | sed 's/.*/&[[:space:]]*&[[:space:]]*&[[:space:]]*&/')"
has CapEff 0000000000001000
has CapPrm 0000000000001000
has NoNewPrivs 1
test "$(stat --format '%a %U %G' /run/finwait)" = '750 finwait finwait'
test "$(stat --format '%a %U %G' /run/finwait/finwait.sock)" = '660 finwait finwait'
setpriv --reuid nobody --regid finwait --clear-groups finwait status > /dev/null
fails setpriv --reuid nobody --regid nogroup --clear-groups finwait status

# What closes is in the history, which only the agent's user and root may read.
written() { test "$(finwait history --since 1h --no-header | wc -l)" -gt 0; }
fails bash -c ': < /dev/tcp/127.0.0.1/1'
eventually written
finwait history --sql 'SELECT closed_at, close_kind FROM connections LIMIT 1'
test "$(stat --format '%a %U %G' /var/lib/finwait)" = '700 finwait finwait'
test "$(stat --format '%a %U' /var/lib/finwait/*.db | sort -u)" = '600 finwait'
setpriv --reuid nobody --regid finwait --clear-groups finwait history > /dev/null
fails setpriv --reuid nobody --regid finwait --clear-groups finwait history --sql 'SELECT 1'

# The agent attaches to an interface that appears later.
ip link add late0 type veth peer name late1
ip link set late0 up
watched() { finwait status | grep -E '^ *late0 +tcx +tcx'; }
eventually watched

# The watchdog restarts an agent that hangs.
mkdir -p /run/systemd/system/finwait.service.d
printf '[Service]\nWatchdogSec=3\n' > /run/systemd/system/finwait.service.d/trial.conf
systemctl daemon-reload
systemctl restart finwait
before=$(systemctl show --property MainPID --value finwait)
sleep 6
test "$(systemctl show --property MainPID --value finwait)" = "$before"
kill -STOP "$before"
replaced() {
    systemctl is-active --quiet finwait && [ "$(systemctl show --property MainPID --value finwait)" != "$before" ]
}
eventually replaced
journalctl --no-pager --unit finwait | grep -i watchdog
finwait status > /dev/null

# A mistake in the configuration file is logged with its line.
echo 'max-flow = 3' >> /etc/finwait/finwait.toml
systemctl stop finwait
fails systemctl start finwait
journalctl --no-pager --unit finwait | grep 'finwait.toml, line .*max-flow'
sed -i '$d' /etc/finwait/finwait.toml
systemctl reset-failed finwait
systemctl start finwait

# Man pages and completions are where man and the shells look for them.
for page in man1/finwait.1 man1/finwait-run.1 man1/finwait-ls.1 man5/finwait.toml.5; do
    zcat "/usr/share/man/$page.gz" | grep -q '^.TH'
done
bash -c '. /usr/share/bash-completion/completions/finwait && complete -p finwait'
test -s /usr/share/zsh/vendor-completions/_finwait
test -s /usr/share/fish/vendor_completions.d/finwait.fish

dpkg --purge finwait
fails systemctl is-active finwait
test ! -e /run/finwait
test ! -e /var/lib/finwait
for path in /usr/bin/finwait /etc/finwait /lib/systemd/system/finwait.service /usr/share/doc/finwait; do
    test ! -e $path
done

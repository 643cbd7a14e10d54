#!/bin/sh
# Becomes systemd: process 1 of a machine of its own, made of this one's /usr and nothing else that lives here.
#
#   boot.sh FOLDER CGROUP PROGRAM...    in new mount, PID, UTS and IPC namespaces; CGROUP is made, the programs stand
#                                       in /usr/local/bin there
set -eu
root=$1 cgroup=$2
shift 2

mount --make-rprivate /
mount -t tmpfs -o mode=755 tmpfs "$root"
cd "$root"
mkdir -p dev etc/systemd/system old proc root run sys tmp usr var/log/journal var/tmp
for name in bin lib lib64 sbin; do ln -s "usr/$name" "$name"; done

mount --rbind /usr usr
mount -o remount,bind,ro usr
mount -t tmpfs -o mode=755 tmpfs usr/local
mkdir usr/local/bin
for program; do cp "$program" usr/local/bin/; done

printf '%s\n' 'root:x:0:0:root:/root:/bin/sh' 'nobody:x:65534:65534:nobody:/:/usr/sbin/nologin' >etc/passwd
printf '%s\n' 'root:x:0:' 'nogroup:x:65534:' >etc/group
echo 'hosts: files dns' >etc/nsswitch.conf
tr -d - </proc/sys/kernel/random/uuid >etc/machine-id
cp /etc/ld.so.cache /etc/resolv.conf etc/
# What would speak to the kernel of the real machine, and what is not everywhere.
for unit in systemd-udevd.service systemd-udevd-kernel.socket systemd-udevd-control.socket systemd-udev-trigger.service \
    systemd-logind.service systemd-sysctl.service systemd-modules-load.service systemd-random-seed.service \
    systemd-binfmt.service proc-sys-fs-binfmt_misc.automount kmod-static-nodes.service getty.target \
    dbus.service dbus.socket; do
    ln -s /dev/null "etc/systemd/system/$unit"
done

mount -t tmpfs -o mode=755 tmpfs dev
mkdir dev/net dev/pts dev/shm
ln -s pts/ptmx dev/ptmx
for device in full null random tty urandom zero net/tun; do
    : >"dev/$device"
    mount --bind "/dev/$device" "dev/$device"
done
# /proc/sys and /sys are the machine's but for the network's part.
mount -t proc proc proc
mount --bind proc/sys proc/sys
mount --bind proc/sys/net proc/sys/net
mount -o remount,bind,ro proc/sys
mount -t sysfs -o ro sysfs sys

# A control group of its own is all that it sees of them, whichever way they are mounted outside.
mount -t cgroup2 cgroup2 old
mkdir "old/$cgroup"
echo 0 >"old/$cgroup/cgroup.procs"
umount old
# shellcheck disable=SC2016
exec unshare --cgroup sh -c '
    mount -t cgroup2 cgroup2 sys/fs/cgroup
    pivot_root . old
    umount -l old
    # As systemd does by itself where it is in no container: what a unit mounts is there for the others.
    mount --make-rshared /
    exec env -i container=test PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin /lib/systemd/systemd'

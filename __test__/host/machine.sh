#!/bin/bash
# The first process of a test machine (uml.ts, qemu.ts). The machine sees the checkout and every program of the real one
# read-only; what it writes is on tmpfs, or in the output directory it shares with the host at /run/out.
#   /run/out/argv     the command, NUL-separated     /run/out/output   what it printed
#   /run/out/env      its environment                /run/out/status   its exit status, written last
export PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
mount -t proc proc /proc
mount -t sysfs sys /sys
mountpoint -q /dev || mount -t devtmpfs dev /dev
mkdir -p /dev/shm /dev/pts
mount -t tmpfs -o mode=1777 shm /dev/shm
mount -t devpts -o mode=620,ptmxmode=666,newinstance devpts /dev/pts
mount -t tmpfs -o mode=755 run /run
mkdir -p /run/out /run/lock /run/netns /run/m/lib/modules
mkdir -m 1777 /run/tmp
mkdir -m 700 /run/home
mount -t cgroup2 cgroup2 /sys/fs/cgroup
ip link set lo up

# UML is told where the directory is; QEMU gives it a tag, and says where the modules are.
if [ -n "$out" ]; then
  mount -t hostfs out /run/out -o "$out"
  modules=/usr/lib/uml/modules
  # Its kernel has no NAT for nftables.
  wanted=(overlay veth bridge loop nf_tables iptable_nat)
  end=(halt -f)
else
  mount -t 9p -o trans=virtio,version=9p2000.L out /run/out
  wanted=(overlay veth bridge loop nf_tables nft_chain_nat nft_nat nft_masq)
  end=(reboot -f)
fi
mount --bind "$modules" /run/m/lib/modules
modprobe -d /run/m -a "${wanted[@]}" 2>/run/out/modprobe || { echo "host: modules are missing:"; cat /run/out/modprobe; } >>/run/out/output

mapfile -d '' -t environment </run/out/env
mapfile -d '' -t command </run/out/argv
# The checkout may be read-only, but tools keep caches beside their packages.
cd "${command[0]}" && [ -d node_modules ] && mount -t tmpfs cache node_modules/.cache 2>/dev/null
env -i "PATH=$PATH" HOME=/run/home TMPDIR=/run/tmp "${environment[@]}" "${command[@]:1}" </dev/null >>/run/out/output 2>&1
echo $? >/run/out/status
sync
"${end[@]}"

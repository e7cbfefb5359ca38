#!/bin/bash
# Fetches Debian's backported kernel and makes an initrd that mounts the machine's files by 9p: qemu-kernel.sh DIR
# Unpacked below DIR, not installed; through apt, from the machine's own mirror, with the archive's signature checked.
set -euo pipefail
dir=$1
rm -rf "$dir"
mkdir -p "$dir"/{lists/partial,archives/partial,root/bin,root/m}
suite=bookworm
uri=$(apt-get indextargets --format '$(REPO_URI)' "Codename: $suite" | head -1)
[ -n "$uri" ] || { echo "no mirror of Debian $suite in apt's sources" >&2; exit 1; }
echo "deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] $uri $suite-backports main" >"$dir/sources.list"
apt=(
  -qq -o Dir::Etc::SourceList="$dir/sources.list" -o Dir::Etc::SourceParts=/dev/null
  -o Dir::State::Lists="$dir/lists" -o Dir::Cache="$dir" -o APT::Sandbox::User=root
)
apt-get "${apt[@]}" update
package=$(apt-cache "${apt[@]}" depends linux-image-amd64 | awk '/Depends/ { print $2; exit }')
cd "$dir"
apt-get "${apt[@]}" download "$package"
dpkg-deb -x "$package"*.deb kernel
rm "$package"*.deb
version=$(ls kernel/lib/modules)
PATH=$PATH:/usr/sbin:/sbin
depmod -b "$dir/kernel" "$version"

cp "$(command -v busybox)" root/bin/busybox
modprobe -d "$dir/kernel" -S "$version" -a --show-depends virtio_pci 9p 9pnet_virtio |
  awk '$1 == "insmod" && !seen[$2]++ { print $2 }' |
  while read -r module; do cp "$module" root/m/; basename "$module"; done >root/m/list
cat >root/init <<'I'
#!/bin/busybox sh
b=/bin/busybox
$b mkdir /proc /dev /h
$b mount -t proc p /proc
$b mount -t devtmpfs d /dev
for m in $($b cat /m/list); do $b insmod /m/$m; done
$b mount -t 9p -o ro,trans=virtio,version=9p2000.L,msize=512000,cache=loose root /h
$b mount --move /dev /h/dev
exec $b switch_root /h /bin/bash "$script"
I
chmod +x root/init
(cd root && find . | busybox cpio -o -H newc 2>/dev/null | gzip -1) >initrd.new
cp kernel/boot/vmlinuz-* vmlinuz
rm -rf root lists archives
mv initrd.new initrd

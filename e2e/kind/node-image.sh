#!/bin/bash
# Builds the root file system of a kind node from Debian packages and the binaries in BIN,
# and writes it to OUT as a zstd-compressed tar, to be imported by podman.
#
#   BIN         folder with kube-apiserver, kube-controller-manager, kube-proxy, kube-scheduler,
#               kubeadm, kubectl, kubelet, coredns and etcd
#   KIND_FILES  folder images/base/files of kind's Go module: entry point and systemd units of a node
#   WORK        folder for the intermediate files, emptied first
#   OUT         file to write
#   VERSION     of Kubernetes, with its v
#
# Runs as root. Needs mmdebstrap, containerd, cc with a static libc, jq and zstd.
set -euo pipefail
: "${BIN:?}" "${KIND_FILES:?}" "${WORK:?}" "${OUT:?}" "${VERSION:?}"
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
suite=bookworm

say() { printf '%5ds  %s\n' "$SECONDS" "$*"; }

# pack OUT.tar ARGUMENT...: a tar whose bytes depend on the contents alone
pack() { tar --sort=name --mtime=@0 --owner=0 --group=0 --numeric-owner -cf "$@"; }

# debian FOLDER VARIANT PACKAGE,...
debian() {
  mmdebstrap --quiet --mode=root --variant="$2" --include="$3" \
    --dpkgopt='path-exclude=/usr/share/doc/*' --dpkgopt='path-exclude=/usr/share/man/*' --dpkgopt='path-exclude=/usr/share/locale/*' \
    "$suite" "$1"
  rm -rf "$1"/dev/* "$1"/var/lib/apt/lists/* "$1"/var/cache/apt/*.bin "$1"/var/log/*.log "$1"/var/log/apt
}

# layer NAME FILE PATH: a layer of one executable
layer() {
  rm -rf stage && install -D -m 755 "$2" "stage/$3" && pack "layers/$1.tar" -C stage .
}

# image NAME ENTRYPOINT-JSON LAYER...: an image in docker's archive format
image() {
  local name=$1 entrypoint=$2 digest layers=() ids=()
  shift 2
  rm -rf stage && mkdir stage
  for layer in "$@"; do
    digest=$(sha256sum "layers/$layer.tar" | cut -d' ' -f1)
    ln "layers/$layer.tar" "stage/$digest.tar" && layers+=("$digest.tar") && ids+=("sha256:$digest")
  done
  jq -n --argjson entrypoint "$entrypoint" '{
      architecture: "amd64", os: "linux", created: "1970-01-01T00:00:00Z",
      config: {Entrypoint: $entrypoint, Env: ["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"]},
      rootfs: {type: "layers", diff_ids: $ARGS.positional}
    }' --args "${ids[@]}" > stage/config.json
  jq -n --arg name "$name" '[{Config: "config.json", RepoTags: [$name], Layers: $ARGS.positional}]' \
    --args "${layers[@]}" > stage/manifest.json
  tar -C stage -cf "images/${name//[\/:]/_}.tar" .
}

rm -rf "$WORK" && mkdir -p "$WORK"/{layers,images} "$(dirname "$OUT")"
cd "$WORK"

say "root file systems"
debian libc extract libc6,libgcc-s1
debian network essential iptables,conntrack,kmod,iproute2
debian node essential systemd,conntrack,iptables,nftables,iproute2,ethtool,util-linux,mount,kmod,libseccomp2,e2fsprogs,bash,ca-certificates,curl,jq,procps,socat,containerd,runc,containernetworking-plugins
rm -rf libc/usr/share libc/var
pack layers/libc.tar -C libc .
pack layers/network.tar -C network .

say "images of the control plane"
cc -static -Os -Wall -Werror -o pause "$here/pause.c"
for binary in kube-apiserver kube-controller-manager kube-proxy kube-scheduler kubectl etcd; do
  layer "$binary" "$BIN/$binary" "usr/local/bin/$binary"
done
layer coredns "$BIN/coredns" coredns
layer pause pause pause
layer node-network "$here/node-network.sh" usr/local/bin/node-network
pause_image=
while read -r name; do
  case $name in
    */kube-proxy:*) image "$name" null network kube-proxy ;;
    */kube-*:* | */etcd:*) binary=${name##*/} && image "$name" null libc "${binary%%:*}" ;;
    */coredns:*) image "$name" '["/coredns"]' coredns ;;
    */pause:*) image "$name" '["/pause"]' pause && pause_image=$name ;;
    *) echo "kubeadm $VERSION wants an image that this script does not know: $name" >&2 && exit 1 ;;
  esac
done < <("$BIN/kubeadm" config images list --kubernetes-version "$VERSION")
image localhost/node-network:1 null network kubectl node-network

say "the node's own files"
install -d node/kind/{bin,manifests} node/etc/{containerd,cni/net.d,kubernetes/manifests,systemd/system/kubelet.service.d} node/opt/cni
install -m 755 "$KIND_FILES/usr/local/bin/entrypoint" node/usr/local/bin/
install -m 755 "$KIND_FILES"/kind/bin/* node/kind/bin/
install -m 644 "$KIND_FILES/etc/default/kubelet" node/etc/default/
install -m 644 "$KIND_FILES"/etc/sysctl.d/* node/etc/sysctl.d/
for unit in kubelet.slice undo-mount-hacks.service containerd.service kubelet.service; do
  install -m 644 "$KIND_FILES/etc/systemd/system/$unit" node/etc/systemd/system/
done
install -m 644 "$KIND_FILES"/etc/systemd/system/kubelet.service.d/* node/etc/systemd/system/kubelet.service.d/
install -m 644 "$here/node-network.yaml" node/kind/manifests/default-cni.yaml
printf '%s' "$VERSION" > node/kind/version
install -m 755 "$BIN"/{kubelet,kubeadm,kubectl} node/usr/bin/
# What a container has no use for, as in kind's own base image.
find node/lib/systemd/system/sysinit.target.wants/ -name systemd-tmpfiles-setup.service -delete
rm -f node/lib/systemd/system/{multi-user,local-fs,basic}.target.wants/* node/etc/systemd/system/*.wants/* node/lib/systemd/system/sockets.target.wants/*{udev,initctl}*
echo ReadKMsg=no >> node/etc/systemd/journald.conf
ln -sf /usr/lib/systemd/systemd node/sbin/init
ln -sf /usr/bin/containerd node/usr/local/bin/containerd
ln -sfn /usr/lib/cni node/opt/cni/bin
rm -f node/lib/systemd/system/containerd.service
chroot node systemctl --quiet enable kubelet.service containerd.service undo-mount-hacks.service
chroot node systemctl --quiet mask systemd-binfmt.service
ctr oci spec | jq '.hooks.createContainer += [{path: "/kind/bin/mount-product-files.sh"}] | del(.process.rlimits)' > node/etc/containerd/cri-base.json
# A machine without CAP_SYS_RESOURCE cannot lower a pod's OOM score.
sed -e "s#^\( *sandbox_image = \).*#\1\"$pause_image\"#" \
    -e 's/restrict_oom_score_adj = false/restrict_oom_score_adj = true/' \
    -e '/^\[proxy_plugins/,/containerd-fuse-overlayfs.sock/d' \
    "$KIND_FILES/etc/containerd/config.toml" > node/etc/containerd/config.toml
: > node/etc/machine-id
rm -f node/etc/resolv.conf node/etc/hostname

say "images into the node's containerd"
cat > containerd.toml <<TOML
version = 2
root = "$WORK/node/var/lib/containerd"
state = "$WORK/containerd"
disabled_plugins = ["io.containerd.grpc.v1.cri"]
[grpc]
  address = "$WORK/containerd.sock"
TOML
rm -rf node/var/lib/containerd && mkdir -p node/var/lib/containerd
containerd --config containerd.toml > containerd.log 2>&1 &
containerd=$!
trap 'kill $containerd 2>/dev/null || true' EXIT
ctr=(ctr --address "$WORK/containerd.sock" --namespace k8s.io)
deadline=$((SECONDS + 30))
until "${ctr[@]}" version > /dev/null 2>&1; do
  [ $SECONDS -lt $deadline ] || { echo "containerd does not answer within 30 s, see $WORK/containerd.log" >&2; exit 1; }
  sleep 0.2
done
for archive in images/*.tar; do "${ctr[@]}" images import "$archive" > /dev/null; done
# The unpacked snapshots are all that the node needs.
"${ctr[@]}" content prune references > /dev/null
kill $containerd && wait $containerd || true

say "packing"
tar -C node --numeric-owner --xattrs --xattrs-include='*' -cf - . | zstd -q -3 -T0 -f -o "$OUT.new"
mv "$OUT.new" "$OUT"
cd / && rm -rf "$WORK"
say "$OUT, $(du -h "$OUT" | cut -f1)"

#!/bin/bash
# Pod network of one node: a bridge for its own pods, a route to each other node's pods,
# masquerading for what leaves the pod network. Runs as a DaemonSet on the host's network.
# The CNI configuration is written here and not laid into the image, because pods would
# otherwise start before their node has its pod subnet.
set -u
: "${NODE_NAME:?name of this node}" "${POD_SUBNET:?subnet of all pods}"
conf=/etc/cni/net.d/10-pods.conflist

conflist() {
  cat <<JSON
{"cniVersion": "0.4.0", "name": "pods", "plugins": [
  {"type": "bridge", "bridge": "cni0", "isGateway": true, "ipMasq": false, "hairpinMode": true,
   "ipam": {"type": "host-local", "dataDir": "/run/cni-ipam-state", "ranges": [[{"subnet": "$1"}]], "routes": [{"dst": "0.0.0.0/0"}]}},
  {"type": "portmap", "capabilities": {"portMappings": true}}
]}
JSON
}

configure_own() {
  local cidr=$1
  if [ "$(cat "$conf" 2>/dev/null)" != "$(conflist "$cidr")" ]; then
    conflist "$cidr" > "$conf.new" && mv "$conf.new" "$conf" && echo "pods of this node get $cidr"
  fi
  local rule=(POSTROUTING -s "$cidr" ! -d "$POD_SUBNET" -j MASQUERADE)
  iptables -w -t nat -C "${rule[@]}" 2>/dev/null || iptables -w -t nat -A "${rule[@]}"
}

nodes='{range .items[*]}{.metadata.name} {.spec.podCIDR} {.status.addresses[?(@.type=="InternalIP")].address}{"\n"}{end}'
rounds=0
while :; do
  # kubectl's own --request-timeout would turn its in-cluster configuration off.
  if list=$(timeout 5 kubectl get nodes -o jsonpath="$nodes"); then
    while read -r name cidr address; do
      [ -n "${address:-}" ] || continue
      if [ "$name" = "$NODE_NAME" ]; then configure_own "$cidr"; else ip route replace "$cidr" via "$address"; fi
    done <<< "$list"
    rounds=$((rounds + 1))
  fi
  # Nodes join within the first minute; after that a change is rare.
  if [ $rounds -lt 30 ]; then sleep 2; else sleep 30; fi
done

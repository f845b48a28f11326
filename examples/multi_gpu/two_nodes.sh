#!/usr/bin/env bash
# One model on the GPUs of two nodes, through Ray. IP is the address under which the other node reaches this one.
#
#   on the first node     two_nodes.sh head IP
#   on the second node    two_nodes.sh join HEAD_IP IP
#   on the first node     two_nodes.sh serve IP MODEL --tensor-parallel-size 2
#
# What follows these arguments goes to `ray start` or `vllm serve`. `head` and `join` stay in the foreground.
set -euo pipefail
PORT=${RAY_PORT:-6379}

# On a node with several networks gloo, NCCL and vLLM would each pick one by themselves.
use_network_of() {
    local interface
    interface=$(ip -o -4 address show to "$1" | awk '{print $2; exit}')
    [ -n "$interface" ] || { echo "this node has no network interface with the address $1" >&2; exit 1; }
    export VLLM_HOST_IP=$1 GLOO_SOCKET_IFNAME=$interface NCCL_SOCKET_IFNAME=$interface
}

case ${1-} in
    head)
        use_network_of "$2"
        exec ray start --block --head --node-ip-address="$2" --port="$PORT" "${@:3}"
        ;;
    join)
        use_network_of "$3"
        exec ray start --block --address="$2:$PORT" --node-ip-address="$3" "${@:4}"
        ;;
    serve)
        use_network_of "$2"
        RAY_ADDRESS="$2:$PORT" exec vllm serve "${@:3}" --distributed-executor-backend ray
        ;;
    *)
        sed -n '2,8s/^# \{0,1\}//p' "$0" >&2
        exit 2
        ;;
esac

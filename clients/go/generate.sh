#!/bin/sh
# Compiles the contract into ./oncelogv1, with the plugins that go.mod pins.
set -eu
cd "$(dirname "$0")"
proto=../../proto
package=oncelog.example/clients/oncelogv1
options="module=oncelog.example/clients,Moncelog/v1/broker.proto=$package,Moncelog/v1/producer.proto=$package"
protoc --proto_path="$proto" \
    --plugin=protoc-gen-go="$(go tool -n protoc-gen-go)" --go_out=. --go_opt="$options" \
    --plugin=protoc-gen-go-grpc="$(go tool -n protoc-gen-go-grpc)" --go-grpc_out=. --go-grpc_opt="$options" \
    oncelog/v1/broker.proto oncelog/v1/producer.proto

#!/bin/sh
# Sends records through a producer, sends one batch twice to the broker, and verifies that each is in the log once. In topics of
# its own, which it deletes. Needs oncelog and grpcurl, and ONCELOG_BROKER and ONCELOG_PRODUCER as http://host:port.
set -eu

broker=${ONCELOG_BROKER#http://}
: "${ONCELOG_PRODUCER:?}"
sent=exactly-once-sent-$$-$(date +%s)
repeated=exactly-once-repeated-$$-$(date +%s)
directory=$(mktemp -d)

call() { # METHOD REQUEST
    grpcurl -plaintext -d "$2" "$broker" "oncelog.v1.BrokerService/$1"
}
fail() {
    echo "FAILED: $*" >&2
    exit 1
}
clean_up() {
    rm -rf "$directory"
    for topic in "$sent" "$repeated"; do
        call DeleteTopic "{\"topic\":\"$topic\"}" > /dev/null 2>&1 || true
    done
}
trap clean_up EXIT

echo "==> sends 1000 records"
seq 1000 | oncelog send "$sent" --history "$directory/history"
oncelog fetch "$sent" > "$directory/fetched"
seq 1000 | cmp - "$directory/fetched" || fail "what was fetched is not what was sent"

echo "==> sends a batch, and sends it again"
producer_id=$(call InitProducerId '{}' | sed -n 's/.*"producerId": "\([0-9]*\)".*/\1/p')
[ -n "$producer_id" ] || fail "no producer id"
batch="{\"producerId\":$producer_id,\"batches\":[{\"topic\":\"$repeated\",\"records\":[{\"value\":\"aGVsbG8=\"}]}]}"
first=$(call Produce "$batch")
second=$(call Produce "$batch")
case $first in
*'"ack"'*) ;;
*) fail "the batch was not appended: $first" ;;
esac
case $second in
*'"duplicate": true'*) ;;
*) fail "its repetition was not recognised: $second" ;;
esac
[ "$(oncelog fetch "$repeated")" = hello ] || fail "the batch is not in the log once"

echo "==> verifies"
oncelog verify --topic "$sent" --history "$directory/history"
oncelog verify --topic "$repeated"

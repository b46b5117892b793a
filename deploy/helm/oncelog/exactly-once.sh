#!/bin/sh
# Sends records through a producer, sends one batch twice to the broker and one ahead of its turn, and verifies that each record is in
# the log once. In topics of its own, which it deletes. Needs oncelog and grpcurl, and ONCELOG_BROKER and ONCELOG_PRODUCER as
# http://host:port; over TLS, as https://host:port, and ONCELOG_TLS_CA, ONCELOG_TLS_CERT and ONCELOG_TLS_KEY.
set -eu

# Kubernetes makes one dollar of two in a pod's arguments, so a process cannot name itself here.
run=$(hostname)-$(date +%s)
sent=exactly-once-sent-$run
repeated=exactly-once-repeated-$run
directory=$(mktemp -d)

call() { # WHERE METHOD REQUEST
    where=$1 method=$2 request=$3
    case $where in
    https:*) set -- -cacert "$ONCELOG_TLS_CA" -cert "$ONCELOG_TLS_CERT" -key "$ONCELOG_TLS_KEY" ;;
    *) set -- -plaintext ;;
    esac
    grpcurl "$@" -d "$request" "${where#*://}" "oncelog.v1.$method"
}
produce() { # BASE_SEQUENCE
    call "$ONCELOG_BROKER" BrokerService/Produce "{\"producerId\":$producer_id,\"batches\":[
        {\"topic\":\"$repeated\",\"baseSequence\":$1,\"records\":[{\"value\":\"aGVsbG8=\"}]}]}"
}
expect() { # ANSWER WORD COMPLAINT
    case $1 in
    *"$2"*) ;;
    *) fail "$3: $1" ;;
    esac
}
fail() {
    echo "FAILED: $*" >&2
    exit 1
}
clean_up() {
    rm -rf "$directory"
    for topic in "$sent" "$repeated"; do
        call "$ONCELOG_BROKER" BrokerService/DeleteTopic "{\"topic\":\"$topic\"}" > /dev/null 2>&1 || true
    done
}
trap clean_up EXIT

echo "==> sends 1000 records"
seq 1000 | oncelog send "$sent" --history "$directory/history"
oncelog fetch "$sent" > "$directory/fetched"
seq 1000 | cmp - "$directory/fetched" || fail "what was fetched is not what was sent"

echo "==> sends a batch, sends it again, and one ahead of its turn"
producer_id=$(call "$ONCELOG_BROKER" BrokerService/InitProducerId '{}' | sed -n 's/.*"producerId": "\([0-9]*\)".*/\1/p')
[ -n "$producer_id" ] || fail "no producer id"
expect "$(produce 0)" '"ack"' "the batch was not appended"
expect "$(produce 0)" '"duplicate": true' "its repetition was not recognised"
expect "$(produce 7)" '"expectedSequence": "1"' "a gap was not refused"
[ "$(oncelog fetch "$repeated")" = hello ] || fail "the batch is not in the log once"

echo "==> sends a record, as any caller does"
call "$ONCELOG_PRODUCER" ProducerService/Send "{\"topic\":\"$repeated\",\"records\":[{\"value\":\"aGVsbG8=\"}]}" > /dev/null
[ "$(oncelog fetch "$repeated")" = "hello
hello" ] || fail "the record is not in the log once"

echo "==> verifies"
oncelog verify --topic "$sent" --history "$directory/history"
oncelog verify --topic "$repeated"

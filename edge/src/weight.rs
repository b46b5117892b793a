//! What the messages of a call take in memory once they are decoded, told while their bytes arrive.
//!
//! Decoding multiplies: two bytes may be an empty submessage, which becomes a struct of a hundred bytes in a list that has room
//! for more. So each submessage is counted before a decoder sees it, by a walk over tags and lengths that jumps over all else and
//! takes the bytes in whatever pieces the transport hands over. Where submessages stand is known from the contract's own
//! descriptors.
//!
//! It never says less than the decoder takes. What the walk cannot follow, a group or lengths that contradict each other, counts
//! as the most that it could be: a submessage every two bytes.

use std::{collections::HashMap, sync::LazyLock};

use oncelog_proto::FILE_DESCRIPTOR_SET;
use prost::Message;
use prost_types::{
    DescriptorProto, FileDescriptorSet,
    field_descriptor_proto::{Label, Type},
};

/// What a submessage counts, in bytes, its place in a list included: lists grow by doubling, and a list of one has room for four.
pub const SUBMESSAGE_BYTES: u64 = 256;

/// A call of the contract.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Call {
    /// What its requests are.
    request: Kind,
    /// Its caller sends any number of them.
    pub(crate) is_stream: bool,
}

impl Call {
    /// By its path; none: it is no call of the contract, and its messages have nothing in them that multiplies.
    pub(crate) fn of(path: &str) -> Option<Self> {
        CONTRACT.calls.get(path).copied()
    }
}

/// Weighs the messages of one call, each behind its length as gRPC sends them.
#[derive(Clone, Debug)]
pub(crate) struct Scale {
    call: Option<Call>,
    head: Vec<u8>,
    /// Bytes of the message in progress that are still to come.
    missing: u64,
    walk: Option<Walk>,
    bytes: u64,
    submessages: u64,
}

/// What came of some bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Weighed {
    /// What the messages take that ended in them.
    pub(crate) whole: u64,
    /// What the message takes that has begun, as far as it is known.
    pub(crate) begun: u64,
}

impl Scale {
    pub(crate) fn new(call: Option<Call>) -> Self {
        Self { call, head: Vec::new(), missing: 0, walk: None, bytes: 0, submessages: 0 }
    }

    /// Has a message begun that is not whole?
    pub(crate) fn has_begun(&self) -> bool {
        !self.head.is_empty()
    }

    /// Weighs the next bytes of the call.
    pub(crate) fn put(&mut self, mut bytes: &[u8]) -> Weighed {
        let mut whole = 0;
        while !bytes.is_empty() {
            let (len, weighed) = self.put_message(bytes);
            whole += weighed.whole;
            bytes = &bytes[len..];
        }
        Weighed { whole, begun: self.begun() }
    }

    /// Weighs the next bytes of the call up to the first end of a message in them, if one ends. How many they were, at least one
    /// if there is one.
    pub(crate) fn put_message(&mut self, bytes: &[u8]) -> (usize, Weighed) {
        let mut left = bytes;
        while !left.is_empty() {
            if self.head.len() < HEAD_BYTES {
                let (head, rest) = left.split_at(left.len().min(HEAD_BYTES - self.head.len()));
                self.head.extend_from_slice(head);
                left = rest;
                let Ok([flag, len @ ..]) = <[u8; HEAD_BYTES]>::try_from(self.head.as_slice()) else { break };
                self.missing = u64::from(u32::from_be_bytes(len));
                // Compressed messages are refused by the server, unread.
                self.walk = self.call.filter(|_| flag == 0).map(|call| Walk::new(call.request, self.missing));
            } else {
                let len = usize::try_from(self.missing).unwrap_or(usize::MAX).min(left.len());
                let (part, rest) = left.split_at(len);
                self.submessages += self.walk.as_mut().map_or(0, |walk| walk.over(part));
                self.bytes += len as u64;
                self.missing -= len as u64;
                left = rest;
            }
            if self.missing == 0 && self.head.len() == HEAD_BYTES {
                let whole = self.begun();
                (self.bytes, self.submessages) = (0, 0);
                self.head.clear();
                return (bytes.len() - left.len(), Weighed { whole, begun: 0 });
            }
        }
        (bytes.len(), Weighed { whole: 0, begun: self.begun() })
    }

    fn begun(&self) -> u64 {
        self.bytes.max(self.submessages.saturating_mul(SUBMESSAGE_BYTES))
    }
}

/// The way through one message.
#[derive(Clone, Debug)]
struct Walk {
    /// Bytes behind.
    at: u64,
    /// The message, and the submessages around this place: what they are, and where they end.
    around: Vec<(Kind, u64)>,
    next: Next,
    varint: u64,
    shift: u32,
}

/// What stands at this place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Next {
    Key,
    Number,
    Len(Field),
    Jump(u64),
    /// Nobody knows.
    Lost,
}

impl Walk {
    fn new(kind: Kind, len: u64) -> Self {
        Self { at: 0, around: vec![(kind, len)], next: Next::Key, varint: 0, shift: 0 }
    }

    /// The submessages that begin in the next bytes.
    fn over(&mut self, mut bytes: &[u8]) -> u64 {
        let mut submessages = 0;
        while !bytes.is_empty() {
            if let Next::Jump(len) = self.next {
                let step = usize::try_from(len).unwrap_or(usize::MAX).min(bytes.len());
                bytes = &bytes[step..];
                self.at += step as u64;
                self.next = Next::Jump(len - step as u64);
            } else if self.next == Next::Lost {
                return submessages + (bytes.len() as u64).div_ceil(2);
            } else {
                let Some(number) = self.varint(&mut bytes) else { break };
                submessages += self.pass(number);
            }
            self.leave();
        }
        submessages
    }

    /// Passes a number; one, if a submessage begins behind it.
    fn pass(&mut self, number: u64) -> u64 {
        let (kind, end) = *self.around.last().expect("the message itself is left last, with its last byte");
        match self.next {
            Next::Key => {
                let field = CONTRACT.field(kind, number >> 3);
                self.next = match number & 7 {
                    0 => Next::Number,
                    1 => Next::Jump(8),
                    2 => Next::Len(field),
                    5 => Next::Jump(4),
                    _ => Next::Lost,
                };
                0
            }
            Next::Len(_) if number > end.saturating_sub(self.at) => {
                self.next = Next::Lost;
                0
            }
            Next::Len(Field::Plain) => {
                self.next = Next::Jump(number);
                0
            }
            Next::Len(Field::Counted) => {
                self.next = Next::Jump(number);
                1
            }
            Next::Len(Field::Within(kind)) => {
                self.next = if self.around.len() < DEEPEST { Next::Key } else { Next::Lost };
                self.around.push((kind, self.at + number));
                1
            }
            Next::Number | Next::Jump(_) | Next::Lost => {
                self.next = Next::Key;
                0
            }
        }
    }

    /// Leaves what ends here.
    fn leave(&mut self) {
        if self.next == Next::Jump(0) {
            self.next = Next::Key;
        }
        while self.around.pop_if(|(_, end)| *end == self.at && self.next == Next::Key).is_some() {}
        // A number or a jump led over an end.
        if self.around.last().is_some_and(|(_, end)| *end < self.at) {
            self.next = Next::Lost;
        }
    }

    /// The number that ends in these bytes; none if they end before it.
    fn varint(&mut self, bytes: &mut &[u8]) -> Option<u64> {
        while let Some((&byte, rest)) = bytes.split_first() {
            *bytes = rest;
            self.at += 1;
            // What has more than ten bytes is cut here, and refused by the decoder.
            self.varint |= u64::from(byte & 0x7f).checked_shl(self.shift).unwrap_or(0);
            self.shift += 7;
            if byte < 0x80 {
                self.shift = 0;
                return Some(std::mem::take(&mut self.varint));
            }
        }
        None
    }
}

/// A message of the contract, by its place in [`Contract::kinds`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Kind(usize);

/// What a field means to the walk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Field {
    /// It takes no more than its bytes.
    Plain,
    /// It takes a submessage's place, and nothing in it does.
    Counted,
    /// It takes a submessage's place, and so does what is in it.
    Within(Kind),
}

/// What the descriptors say.
#[derive(Debug)]
struct Contract {
    calls: HashMap<String, Call>,
    /// The fields of each message, by their numbers.
    kinds: Vec<Vec<Field>>,
}

static CONTRACT: LazyLock<Contract> = LazyLock::new(Contract::read);

impl Contract {
    fn read() -> Self {
        let files = FileDescriptorSet::decode(FILE_DESCRIPTOR_SET).expect("it was written by a compiler").file;
        let mut messages = HashMap::new();
        for file in &files {
            collect(&format!(".{}", file.package()), &file.message_type, &mut messages);
        }
        let mut reading = Reading { messages, known: HashMap::new(), kinds: Vec::new() };
        let mut calls = HashMap::new();
        for file in &files {
            for (service, method) in file.service.iter().flat_map(|s| s.method.iter().map(move |m| (s, m))) {
                let path = format!("/{}.{}/{}", file.package(), service.name(), method.name());
                calls.insert(path, Call { request: reading.kind(method.input_type()), is_stream: method.client_streaming() });
            }
        }
        Self { calls, kinds: reading.kinds }
    }

    fn field(&self, kind: Kind, number: u64) -> Field {
        let fields = &self.kinds[kind.0];
        usize::try_from(number).ok().and_then(|number| fields.get(number).copied()).unwrap_or(Field::Plain)
    }
}

struct Reading<'a> {
    messages: HashMap<String, &'a DescriptorProto>,
    known: HashMap<String, Kind>,
    kinds: Vec<Vec<Field>>,
}

impl Reading<'_> {
    fn kind(&mut self, name: &str) -> Kind {
        if let Some(kind) = self.known.get(name) {
            return *kind;
        }
        let kind = Kind(self.kinds.len());
        self.known.insert(name.to_owned(), kind);
        self.kinds.push(Vec::new());
        let message = *self.messages.get(name).expect("the descriptors are complete");
        let mut fields = Vec::new();
        for field in &message.field {
            let number = usize::try_from(field.number()).expect("field numbers are positive");
            let meaning = match (field.r#type(), field.label()) {
                (Type::Message, _) => Field::Within(self.kind(field.type_name())),
                (_, Label::Repeated) => Field::Counted,
                _ => Field::Plain,
            };
            fields.resize(fields.len().max(number + 1), Field::Plain);
            fields[number] = match meaning {
                // A walk into it would find nothing to count.
                Field::Within(inner) if inner != kind && self.kinds[inner.0].iter().all(|field| *field == Field::Plain) => {
                    Field::Counted
                }
                meaning => meaning,
            };
        }
        self.kinds[kind.0] = fields;
        kind
    }
}

fn collect<'a>(scope: &str, messages: &'a [DescriptorProto], into: &mut HashMap<String, &'a DescriptorProto>) {
    for message in messages {
        let name = format!("{scope}.{}", message.name());
        collect(&name, &message.nested_type, into);
        into.insert(name, message);
    }
}

/// A flag, and the length of the message.
const HEAD_BYTES: usize = 5;
/// Submessages within each other, more than the contract has.
const DEEPEST: usize = 16;

#[cfg(test)]
mod tests {
    use oncelog_proto::v1::{Batch, Header, PackedRecords, ProduceRequest, ProduceStreamRequest, Record};

    use super::*;

    const PRODUCE: &str = "/oncelog.v1.BrokerService/Produce";

    fn framed(message: &[u8]) -> Vec<u8> {
        let mut bytes = vec![0];
        bytes.extend(u32::try_from(message.len()).expect("small").to_be_bytes());
        bytes.extend(message);
        bytes
    }

    fn submessages(path: &str, message: &[u8]) -> u64 {
        let call = Call::of(path).expect("it is in the contract");
        Walk::new(call.request, message.len() as u64).over(message)
    }

    /// What prost builds.
    fn built(request: &ProduceRequest) -> u64 {
        let record = |record: &Record| 1 + record.headers.len() as u64 + u64::from(record.timestamp.is_some());
        let batch = |batch: &Batch| 1 + batch.records.iter().map(record).sum::<u64>() + u64::from(batch.packed.is_some());
        request.batches.iter().map(batch).sum()
    }

    fn request() -> ProduceRequest {
        let header = Header { key: "k".repeat(200), value: "v".into() };
        let record = Record {
            key: Some("key".into()),
            value: Some(vec![0x2a; 300].into()),
            headers: vec![header, Header::default()],
            timestamp: Some(prost_types::Timestamp { seconds: 1, nanos: 2 }),
        };
        let plain = Batch { topic: "t".into(), records: vec![record, Record::default()], ..Batch::default() };
        let packed = PackedRecords { data: vec![0x0a; 40].into(), record_count: 3, ..PackedRecords::default() };
        let packed = Batch { packed: Some(packed), base_sequence: i64::MAX, ..Batch::default() };
        ProduceRequest { producer_id: Some(7), batches: vec![plain, packed, Batch::default()], ..ProduceRequest::default() }
    }

    #[test]
    fn every_submessage_is_counted_and_nothing_in_payloads_is() {
        let message = request().encode_to_vec();
        assert_eq!(submessages(PRODUCE, &message), built(&request()));
        let streamed = ProduceStreamRequest { produce: Some(request()) }.encode_to_vec();
        assert_eq!(submessages("/oncelog.v1.BrokerService/ProduceStream", &streamed), built(&request()) + 1);
        // Strings that are repeated take a place each.
        assert_eq!(submessages("/oncelog.v1.BrokerService/DescribeTopics", &[0x0a, 0, 0x0a, 0]), 2);
    }

    #[test]
    fn the_count_is_the_same_however_the_bytes_are_cut() {
        let two = [framed(&request().encode_to_vec()), framed(&request().encode_to_vec())].concat();
        let in_one = Scale::new(Call::of(PRODUCE)).put(&two);
        assert_eq!(in_one.begun, 0);
        for cut in 0..two.len() {
            let mut scale = Scale::new(Call::of(PRODUCE));
            let whole = scale.put(&two[..cut]).whole + scale.put(&two[cut..]).whole;
            assert_eq!((whole, scale.has_begun()), (in_one.whole, false), "cut at {cut}");
        }
        let mut scale = Scale::new(Call::of(PRODUCE));
        assert_eq!(two.iter().map(|byte| scale.put(&[*byte]).whole).sum::<u64>(), in_one.whole);
    }

    #[test]
    fn a_message_weighs_its_bytes_or_its_submessages_whichever_is_more() {
        let mut scale = Scale::new(Call::of(PRODUCE));
        // An empty batch.
        assert_eq!(scale.put(&framed(&[0x22, 0])), Weighed { whole: SUBMESSAGE_BYTES, begun: 0 });
        let large =
            ProduceRequest { batches: vec![Batch { traceparent: "x".repeat(1_000), ..Batch::default() }], ..Default::default() };
        let large = large.encode_to_vec();
        let framed = framed(&large);
        assert_eq!(scale.put(&framed[..5 + 500]), Weighed { whole: 0, begun: 500 });
        assert!(scale.has_begun());
        assert_eq!(scale.put(&framed[5 + 500..]), Weighed { whole: large.len() as u64, begun: 0 });
        assert!(!scale.has_begun());
    }

    #[test]
    fn what_is_no_call_of_the_contract_weighs_its_bytes() {
        assert_eq!(Call::of("/grpc.health.v1.Health/Check"), None);
        assert_eq!(Scale::new(None).put(&framed(&[0x22, 0])), Weighed { whole: 2, begun: 0 });
    }

    #[test]
    fn behind_a_group_everything_counts_as_the_most_that_it_could_be() {
        // prost skips the group and builds what follows.
        let mut message = vec![0x7b, 0x7c];
        message.extend([0x22, 0].repeat(100));
        let request = ProduceRequest::decode(message.as_slice()).expect("prost reads it");
        assert_eq!(request.batches.len(), 100);
        assert!(submessages(PRODUCE, &message) >= 100);
    }

    #[test]
    fn it_never_says_less_than_what_the_decoder_builds() {
        let sound = request().encode_to_vec();
        let (mut chance, mut decoded) = (1_u64, 0);
        let mut draw = |below: usize| {
            chance = chance.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            usize::try_from(chance >> 33).expect("31 bits") % below
        };
        for round in 0..50_000 {
            let mut message = sound.clone();
            for _ in 0..1 + round % 4 {
                let at = draw(message.len());
                match draw(3) {
                    0 => message[at] = u8::try_from(draw(256)).expect("a byte"),
                    1 => drop(message.remove(at)),
                    _ => message.insert(at, [0x22, 0x2a, 0x1a, 0, 0x0b, 0x0c, 0x80][draw(7)]),
                }
            }
            if let Ok(request) = ProduceRequest::decode(message.as_slice()) {
                decoded += 1;
                assert!(submessages(PRODUCE, &message) >= built(&request), "{message:?}");
            }
        }
        assert!(decoded > 1_000, "only {decoded} could be decoded at all");
    }
}

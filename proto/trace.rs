//! The W3C trace context, as far as it is carried along: which trace something belongs to, and which span of it came before.
//!
//! It says nothing about records and decides nothing. The pure machines carry it beside a batch and never look into it.

use std::fmt;

/// A sampled span of somewhere else: what a `traceparent` says whose sampled flag is set. One that is not sampled is never
/// carried.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TraceContext {
    trace: [u8; 16],
    span: [u8; 8],
}

/// What a `traceparent` says of its trace, sampled or not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Traceparent {
    /// Which span.
    pub context: TraceContext,
    /// Whether it is recorded.
    pub sampled: bool,
}

/// Contexts that become one: the first [`MAX_LINKS`] of them, and how many more there were.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Joined {
    contexts: Vec<TraceContext>,
    /// Which came last, in `contexts` or counted.
    last: Option<TraceContext>,
    more: usize,
}

impl TraceContext {
    /// From its two ids. None if one of them is zero, which W3C forbids.
    pub fn new(trace: [u8; 16], span: [u8; 8]) -> Option<Self> {
        (trace != [0; 16] && span != [0; 8]).then_some(Self { trace, span })
    }

    /// The context that a `traceparent` tells, if it is a valid one and sampled. Whatever else it says is nobody's fault: a trace
    /// is cut, and the record goes on.
    pub fn sampled(traceparent: &str) -> Option<Self> {
        Traceparent::parse(traceparent).filter(|parsed| parsed.sampled).map(|parsed| parsed.context)
    }

    /// The id of the trace.
    pub fn trace(&self) -> [u8; 16] {
        self.trace
    }

    /// The id of the span.
    pub fn span(&self) -> [u8; 8] {
        self.span
    }

    /// The id of the trace as it stands in logs: 32 hexadecimal digits.
    pub fn trace_id(&self) -> impl fmt::Display + use<> {
        Hex(self.trace)
    }

    /// The id of the span as it stands in logs: 16 hexadecimal digits.
    pub fn span_id(&self) -> impl fmt::Display + use<> {
        Hex(self.span)
    }
}

impl fmt::Display for TraceContext {
    /// As a `traceparent`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "00-{}-{}-01", Hex(self.trace), Hex(self.span))
    }
}

impl fmt::Debug for TraceContext {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl Traceparent {
    /// Reads a `traceparent`. A version above 0 may say more behind the four fields; what they mean stays the same.
    pub fn parse(text: &str) -> Option<Self> {
        let bytes = text.as_bytes();
        let separated = bytes.len() >= LEN && [2, 35, 52].iter().all(|&at| bytes[at] == b'-');
        if !separated {
            return None;
        }
        let [version] = unhex(&bytes[..2])?;
        let fits = match version {
            0 => bytes.len() == LEN,
            0xff => false,
            _ => bytes.len() == LEN || bytes[LEN] == b'-',
        };
        let context = TraceContext::new(unhex(&bytes[3..35])?, unhex(&bytes[36..52])?)?;
        let [flags] = unhex(&bytes[53..55])?;
        fits.then_some(Self { context, sampled: flags & SAMPLED != 0 })
    }
}

impl Joined {
    /// Adds one; beyond the limit it is only counted. The same as the one before it is not added again.
    pub fn push(&mut self, context: TraceContext) {
        if self.last.replace(context) == Some(context) {
            return;
        }
        if self.contexts.len() < MAX_LINKS {
            self.contexts.push(context);
        } else {
            self.more += 1;
        }
    }

    /// The first of them.
    pub fn contexts(&self) -> &[TraceContext] {
        &self.contexts
    }

    /// How many more there were.
    pub fn more(&self) -> usize {
        self.more
    }

    /// Is there none?
    pub fn is_empty(&self) -> bool {
        self.contexts.is_empty()
    }
}

impl Extend<TraceContext> for Joined {
    fn extend<I: IntoIterator<Item = TraceContext>>(&mut self, contexts: I) {
        contexts.into_iter().for_each(|context| self.push(context));
    }
}

struct Hex<const N: usize>([u8; N]);

impl<const N: usize> fmt::Display for Hex<N> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

/// Lower-case digits alone, as W3C has it.
fn unhex<const N: usize>(digits: &[u8]) -> Option<[u8; N]> {
    let digit = |byte: u8| match byte {
        b'0'..=b'9' => Some(byte - b'0'),
        b'a'..=b'f' => Some(byte - b'a' + 10),
        _ => None,
    };
    let mut bytes = [0; N];
    for (byte, pair) in bytes.iter_mut().zip(digits.chunks_exact(2)) {
        *byte = digit(pair[0])? << 4 | digit(pair[1])?;
    }
    Some(bytes)
}

/// The key of a record's header, and of a call's metadata.
pub const TRACEPARENT: &str = "traceparent";
/// Bytes of a `traceparent` that is written here.
pub const LEN: usize = 55;
/// Most contexts that one span links to, as OpenTelemetry has it by default.
pub const MAX_LINKS: usize = 128;
/// Most batches of one call that have spans of their own, at either end of it. The context of each takes 57 bytes of a request
/// whose size is limited, and a caller with ten thousand partitions would fill every queue of spans by itself.
pub const MAX_TRACED_BATCHES: usize = 64;
const SAMPLED: u8 = 1;

#[cfg(test)]
mod tests {
    use super::*;

    const W3C: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

    #[test]
    fn what_is_sampled_comes_back_as_it_was_written() {
        let context = TraceContext::sampled(W3C).expect("the example of the standard");
        assert_eq!(context.to_string(), W3C);
        assert_eq!(W3C.len(), LEN);
        assert_eq!(context.trace_id().to_string(), "0af7651916cd43dd8448eb211c80319c");
        assert_eq!(context.span_id().to_string(), "b7ad6b7169203331");
    }

    #[test]
    fn what_is_not_sampled_is_read_and_not_carried() {
        let unsampled = W3C.replace("-01", "-00");
        assert_eq!(TraceContext::sampled(&unsampled), None);
        assert!(!Traceparent::parse(&unsampled).expect("valid").sampled);
        assert!(Traceparent::parse(&W3C.replace("-01", "-03")).expect("other flags").sampled);
    }

    #[test]
    fn a_later_version_may_say_more_and_the_first_may_not() {
        assert!(TraceContext::sampled(&format!("{}-more", W3C.replacen("00", "01", 1))).is_some());
        assert!(TraceContext::sampled(&W3C.replacen("00", "01", 1)).is_some());
        assert!(TraceContext::sampled(&format!("{W3C}-more")).is_none());
        assert!(TraceContext::sampled(&format!("{}more", W3C.replacen("00", "01", 1))).is_none());
    }

    #[test]
    fn what_the_standard_forbids_is_no_context() {
        let zeros = "0".repeat(32);
        for bad in [
            "",
            "00",
            &W3C[..54],
            &W3C.replacen("00", "ff", 1),
            &W3C.replace('f', "F"),
            &W3C.replace("0af7651916cd43dd8448eb211c80319c", &zeros),
            &W3C.replace("b7ad6b7169203331", &zeros[..16]),
            &W3C.replace('-', "_"),
            &W3C.replace("31-01", "31-0ä"),
            &"ä".repeat(LEN),
        ] {
            assert_eq!(Traceparent::parse(bad), None, "{bad}");
        }
    }

    #[test]
    fn as_many_are_joined_as_a_span_links_to_and_the_rest_is_counted() {
        let context = |n: u8| TraceContext::new([1; 16], [n; 8]).expect("not zero");
        let mut joined = Joined::default();
        joined.extend((1..=128).map(context));
        assert_eq!((joined.contexts().len(), joined.more()), (MAX_LINKS, 0));
        joined.push(context(128));
        assert_eq!(joined.more(), 0, "it is the last one again");
        joined.extend([context(129); 2]);
        assert_eq!((joined.contexts().len(), joined.more()), (MAX_LINKS, 1), "it is the last one again");
        joined.extend([context(130), context(129)]);
        assert_eq!(joined.more(), 3);
    }
}

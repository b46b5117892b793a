//! The table of errors: what each code means to a caller, in one place.
//!
//! docs/errors.md prints this table; a test there compares the two.

use std::{borrow::Cow, fmt, time::Duration};

use tonic::{Code, Status};
use tonic_types::{ErrorDetails, StatusExt};

use crate::{
    Epoch, Sequence,
    v1::{self, ErrorCode},
};

/// The `domain` of every `google.rpc.ErrorInfo` that oncelog sends.
pub const ERROR_DOMAIN: &str = "oncelog.v1";

/// One thing that went wrong, ready to be told to a caller: as the error of a batch or as the status of a call.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Fault {
    code: ErrorCode,
    message: Cow<'static, str>,
    metadata: Vec<(&'static str, String)>,
    retry_after: Option<Duration>,
    expected_sequence: Option<Sequence>,
    current_epoch: Option<Epoch>,
}

impl Fault {
    /// A fault; `message` says what happened, which value, which limit, what to do.
    pub fn new(code: ErrorCode, message: impl Into<Cow<'static, str>>) -> Self {
        Self {
            code,
            message: message.into(),
            metadata: Vec::new(),
            retry_after: None,
            expected_sequence: None,
            current_epoch: None,
        }
    }

    /// Repeats a part of the message for machines. Keys are snake_case.
    #[must_use]
    pub fn with(mut self, key: &'static str, value: impl fmt::Display) -> Self {
        self.metadata.push((key, value.to_string()));
        self
    }

    /// Tells the caller when to try again.
    #[must_use]
    pub fn retry_after(mut self, delay: Duration) -> Self {
        self.retry_after = Some(delay);
        self
    }

    /// Tells the sequence that the partition expects.
    #[must_use]
    pub fn expecting(mut self, sequence: Sequence) -> Self {
        self.expected_sequence = Some(sequence);
        self.with("expected_sequence", sequence)
    }

    /// Tells the producer's epoch.
    #[must_use]
    pub fn current_epoch(mut self, epoch: Epoch) -> Self {
        self.current_epoch = Some(epoch);
        self.with("current_epoch", epoch)
    }

    /// The code.
    pub fn code(&self) -> ErrorCode {
        self.code
    }

    /// The message.
    pub fn message(&self) -> &str {
        &self.message
    }

    /// The sequence told by [`Self::expecting`].
    pub fn expected_sequence(&self) -> Option<Sequence> {
        self.expected_sequence
    }

    /// As the error of one batch.
    pub fn to_batch_error(&self) -> v1::BatchError {
        v1::BatchError {
            code: self.code.into(),
            message: self.message.clone().into_owned(),
            expected_sequence: self.expected_sequence.map(Sequence::get),
            current_epoch: self.current_epoch.map(Epoch::get),
        }
    }

    /// As the status of a call, with `ErrorInfo` and, where it helps, `RetryInfo`. Message and details together have at most 4
    /// KiB: what is longer is cut, or a peer that limits its headers would refuse them and never hear why.
    pub fn to_status(&self) -> Status {
        let message = cut(&self.message, MAX_MESSAGE_BYTES);
        let metadata = self.metadata.iter().map(|(key, value)| ((*key).to_owned(), cut(value, MAX_VALUE_BYTES).into_owned()));
        let mut details = ErrorDetails::with_error_info(
            self.code.reason(),
            ERROR_DOMAIN,
            metadata.collect::<std::collections::HashMap<_, _>>(),
        );
        if let Some(delay) = self.retry_after {
            details.set_retry_info(Some(delay));
        }
        Status::with_error_details(self.code.grpc_code(), message, details)
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.code.reason(), self.message)
    }
}

impl std::error::Error for Fault {}

impl From<Fault> for Status {
    fn from(fault: Fault) -> Self {
        fault.to_status()
    }
}

impl ErrorCode {
    /// The name without the enum's prefix: Kafka's name, and the `reason` of `ErrorInfo`.
    pub fn reason(self) -> &'static str {
        self.as_str_name().trim_start_matches("ERROR_CODE_")
    }

    /// May the same batch or call, unchanged, succeed later?
    pub const fn is_retriable(self) -> bool {
        match self {
            Self::RequestTimedOut
            | Self::BrokerNotAvailable
            | Self::OutOfOrderSequenceNumber
            | Self::KafkaStorageError
            | Self::ResourceExhausted => true,
            Self::Unspecified
            | Self::OffsetOutOfRange
            | Self::CorruptMessage
            | Self::UnknownTopicOrPartition
            | Self::MessageTooLarge
            | Self::InvalidTopicException
            | Self::InvalidRequiredAcks
            | Self::TopicAuthorizationFailed
            | Self::ClusterAuthorizationFailed
            | Self::SaslAuthenticationFailed
            | Self::TopicAlreadyExists
            | Self::InvalidPartitions
            | Self::InvalidRequest
            | Self::DuplicateSequenceNumber
            | Self::InvalidProducerEpoch
            | Self::UnknownProducerId
            | Self::UnsupportedCompressionType
            | Self::InvalidRecord
            | Self::SequenceConflict
            | Self::CorruptLog => false,
        }
    }

    /// Is it certain that *this call* appended nothing? An earlier copy of the same batch may still have.
    pub const fn outcome_is_known(self) -> bool {
        match self {
            Self::RequestTimedOut | Self::KafkaStorageError | Self::Unspecified => false,
            Self::OffsetOutOfRange
            | Self::CorruptMessage
            | Self::UnknownTopicOrPartition
            | Self::BrokerNotAvailable
            | Self::MessageTooLarge
            | Self::InvalidTopicException
            | Self::InvalidRequiredAcks
            | Self::TopicAuthorizationFailed
            | Self::ClusterAuthorizationFailed
            | Self::SaslAuthenticationFailed
            | Self::TopicAlreadyExists
            | Self::InvalidPartitions
            | Self::InvalidRequest
            | Self::OutOfOrderSequenceNumber
            | Self::DuplicateSequenceNumber
            | Self::InvalidProducerEpoch
            | Self::UnknownProducerId
            | Self::UnsupportedCompressionType
            | Self::InvalidRecord
            | Self::SequenceConflict
            | Self::ResourceExhausted
            | Self::CorruptLog => true,
        }
    }

    /// The status of a call that fails with this code as a whole.
    pub const fn grpc_code(self) -> Code {
        match self {
            Self::OffsetOutOfRange => Code::OutOfRange,
            Self::UnknownTopicOrPartition | Self::UnknownProducerId => Code::NotFound,
            Self::TopicAlreadyExists => Code::AlreadyExists,
            Self::TopicAuthorizationFailed | Self::ClusterAuthorizationFailed => Code::PermissionDenied,
            Self::SaslAuthenticationFailed => Code::Unauthenticated,
            Self::OutOfOrderSequenceNumber
            | Self::DuplicateSequenceNumber
            | Self::InvalidProducerEpoch
            | Self::SequenceConflict => Code::FailedPrecondition,
            Self::CorruptMessage
            | Self::MessageTooLarge
            | Self::InvalidTopicException
            | Self::InvalidRequiredAcks
            | Self::InvalidPartitions
            | Self::InvalidRequest
            | Self::UnsupportedCompressionType
            | Self::InvalidRecord => Code::InvalidArgument,
            Self::RequestTimedOut => Code::DeadlineExceeded,
            Self::BrokerNotAvailable | Self::KafkaStorageError => Code::Unavailable,
            Self::ResourceExhausted => Code::ResourceExhausted,
            Self::CorruptLog => Code::DataLoss,
            Self::Unspecified => Code::Unknown,
        }
    }
}

/// A caller's text as a message repeats it: no more than its first 64 characters, with an ellipsis for the rest.
pub fn excerpt(text: &str) -> Cow<'_, str> {
    match text.char_indices().nth(EXCERPT_CHARS) {
        None => Cow::Borrowed(text),
        Some((end, _)) => Cow::Owned(format!("{}…", &text[..end])),
    }
}

/// At most so many bytes of it, the ellipsis that stands for the rest included.
fn cut(text: &str, most: usize) -> Cow<'_, str> {
    if text.len() <= most {
        return Cow::Borrowed(text);
    }
    let end = (0..=most - '…'.len_utf8()).rev().find(|end| text.is_char_boundary(*end)).unwrap_or(0);
    Cow::Owned(format!("{}…", &text[..end]))
}

const EXCERPT_CHARS: usize = 64;
/// The message travels twice: by itself, where a byte may take three, and in the details.
const MAX_MESSAGE_BYTES: usize = 1 << 10;
/// A topic name and more. A fault has few values.
const MAX_VALUE_BYTES: usize = 256;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_excerpt_has_64_characters_and_says_that_there_was_more() {
        let whole = "ä".repeat(64);
        assert_eq!(excerpt(&whole), whole);
        assert_eq!(excerpt(&format!("{whole}b")), format!("{whole}…"));
    }

    #[test]
    fn a_status_has_4_kib_at_most_and_a_shorter_one_is_whole() {
        let with = |len: usize| {
            let long = "ä".repeat(len / 2);
            let fault = Fault::new(ErrorCode::OffsetOutOfRange, long.clone()).retry_after(Duration::from_secs(1));
            fault.with("offset", &long).with("log_start_offset", &long).with("log_end_offset", &long).to_status()
        };
        let value = |status: &Status| status.get_error_details().error_info().expect("always there").metadata["offset"].clone();
        let whole = with(MAX_VALUE_BYTES);
        assert_eq!((whole.message().len(), value(&whole).len()), (MAX_VALUE_BYTES, MAX_VALUE_BYTES));
        assert_eq!(with(MAX_MESSAGE_BYTES).message().len(), MAX_MESSAGE_BYTES);
        let status = with(1 << 20);
        assert!(status.message().ends_with('…') && value(&status).ends_with('…'));
        assert!(status.message().len() + status.details().len() <= 4 << 10, "{}", status.details().len());
        // As it travels, escaped and in base64: below the 8 KiB that the strictest peers take.
        let headers: usize =
            status.into_http::<()>().headers().iter().map(|(name, value)| name.as_str().len() + value.len() + 32).sum();
        assert!(headers <= 8 << 10, "{headers}");
    }

    #[test]
    fn reasons_are_kafkas_names() {
        assert_eq!(ErrorCode::OutOfOrderSequenceNumber.reason(), "OUT_OF_ORDER_SEQUENCE_NUMBER");
        assert_eq!(ErrorCode::OutOfOrderSequenceNumber as i32, 45);
        assert_eq!(ErrorCode::SequenceConflict as i32, 1000);
    }

    #[test]
    fn a_status_carries_reason_domain_and_metadata() {
        let fault = Fault::new(ErrorCode::ResourceExhausted, "full").with("limit", 5).retry_after(Duration::from_millis(100));
        let status = fault.to_status();
        assert_eq!(status.code(), Code::ResourceExhausted);
        let details = status.get_error_details();
        let info = details.error_info().expect("always there");
        assert_eq!((info.reason.as_str(), info.domain.as_str()), ("RESOURCE_EXHAUSTED", ERROR_DOMAIN));
        assert_eq!(info.metadata.get("limit").map(String::as_str), Some("5"));
        let delay = details.retry_info().and_then(|r| r.retry_delay);
        assert_eq!(delay, Some(Duration::from_millis(100)));
    }
}

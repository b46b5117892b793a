//! The table of errors: what each code means to a caller, in one place.
//!
//! The README prints this table; a test there compares the two.

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

    /// As the status of a call, with `ErrorInfo` and, where it helps, `RetryInfo`.
    pub fn to_status(&self) -> Status {
        let metadata = self.metadata.iter().map(|(key, value)| ((*key).to_owned(), value.clone()));
        let mut details = ErrorDetails::with_error_info(
            self.code.reason(),
            ERROR_DOMAIN,
            metadata.collect::<std::collections::HashMap<_, _>>(),
        );
        if let Some(delay) = self.retry_after {
            details.set_retry_info(Some(delay));
        }
        Status::with_error_details(self.code.grpc_code(), self.message.clone(), details)
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
            Self::TopicAuthorizationFailed => Code::PermissionDenied,
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

#[cfg(test)]
mod tests {
    use super::*;

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

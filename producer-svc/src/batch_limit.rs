//! How large a batch the broker takes, for those who could make a record larger than that.
//!
//! The session hears it with its producer id, and the driver passes it on. It may change with each recovery: what was made by
//! what the broker said before stays as it is.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

/// Largest batch that the broker takes, in bytes as sent, as it said last. Cheap to clone; clones hear the same.
#[derive(Clone, Debug)]
pub(crate) struct BatchLimit(Arc<AtomicUsize>);

impl BatchLimit {
    /// The broker has said nothing yet; it never does to a producer without an id. So it is what every broker takes.
    pub(crate) fn unknown() -> Self {
        Self(Arc::new(AtomicUsize::new(EVERY_BROKER_TAKES)))
    }

    /// The broker has said it.
    pub(crate) fn set(&self, bytes: usize) {
        // It stands for itself: whoever reads it reads nothing else by it.
        self.0.store(bytes, Ordering::Relaxed);
    }

    /// What it said last.
    pub(crate) fn get(&self) -> usize {
        self.0.load(Ordering::Relaxed)
    }
}

/// The least that a broker can be set to.
const EVERY_BROKER_TAKES: usize = 1 << 10;

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Debug, Parser)]
    struct Broker {
        #[command(flatten)]
        _config: broker_svc::Config,
    }

    #[test]
    fn until_the_broker_has_said_it_the_limit_is_what_no_broker_is_set_below() {
        let limit = BatchLimit::unknown();
        let can_be_set_to = |bytes: usize| {
            let limit = format!("--max-message-bytes={bytes}");
            Broker::try_parse_from(["broker-svc", "--data-dir=x", &limit]).is_ok()
        };
        assert!(can_be_set_to(limit.get()) && !can_be_set_to(limit.get() - 1));
        limit.clone().set(7);
        assert_eq!(limit.get(), 7);
    }
}

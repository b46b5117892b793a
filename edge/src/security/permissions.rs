//! Who may do what with which topics.
//!
//! The file has a line for each permission: an identity, or `*` for everybody who is known; what it may do, of `read`, `write`
//! and `administer`, with commas in between; and topics, with commas in between too: names, or beginnings of names with a `*`
//! behind. What no line gives is not allowed. `#` begins a comment.
//!
//! ```text
//! # who       may         with
//! orders-svc  write       orders,orders.*
//! reports     read        *
//! ops         read,write,administer  *
//! ```

use std::{collections::HashMap, ops::BitOr};

use oncelog_proto::TopicName;

use super::{identity::Identity, lines};

/// What somebody may do with a topic.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operation {
    /// `Fetch`.
    Read,
    /// `Send` and `Produce`, and by them create the topic where the broker creates topics on first use.
    Write,
    /// `CreateTopic` and `DeleteTopic`.
    Administer,
}

/// All permissions.
#[derive(Debug, Default)]
pub struct Permissions {
    everybody: Grants,
    by_identity: HashMap<Identity, Grants>,
}

/// All that the lines of one identity give: what is asked of every batch is one look-up, and one pass over the beginnings.
#[derive(Debug, Default)]
struct Grants {
    named: HashMap<TopicName, Operations>,
    prefixed: HashMap<String, Operations>,
    somewhere: Operations,
}

/// Some of the operations.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Operations(u8);

/// Topics, as a line names them.
#[derive(Clone, Debug)]
enum Topics {
    Named(TopicName),
    Prefixed(String),
}

impl Operation {
    /// As it stands in the file.
    pub fn word(self) -> &'static str {
        match self {
            Self::Read => "read",
            Self::Write => "write",
            Self::Administer => "administer",
        }
    }

    const ALL: [Self; 3] = [Self::Read, Self::Write, Self::Administer];
}

impl Permissions {
    /// Reads a file of permissions.
    ///
    /// # Errors
    /// Something in it cannot be understood; names the line. Or there is nothing in it: who wants to shut everybody out stops the
    /// service, so such a file is one that was not written yet.
    pub fn parse(text: &str) -> Result<Self, String> {
        let mut permissions = Self::default();
        for (number, words) in lines(text)? {
            let at = |error: String| format!("line {number}: {error}");
            let [who, operations, topics] = words[..] else {
                let have = words.len();
                return Err(at(format!("it has {have} words; it needs three, an identity, what it may do, and topics")));
            };
            let grants = match who {
                "*" => &mut permissions.everybody,
                name => permissions.by_identity.entry(Identity::parse(name).map_err(at)?).or_default(),
            };
            grants.add(operations, topics).map_err(at)?;
        }
        if permissions.everybody.is_empty() && permissions.by_identity.is_empty() {
            return Err("it gives nothing to anybody; each line is an identity, what it may do, and topics".to_owned());
        }
        Ok(permissions)
    }

    /// May it?
    pub fn allow(&self, identity: &Identity, operation: Operation, topic: &TopicName) -> bool {
        self.with(identity, topic).has(operation)
    }

    /// May it do anything with the topic? Else it need not know that there is one.
    pub fn show(&self, identity: &Identity, topic: &TopicName) -> bool {
        self.with(identity, topic) != Operations::default()
    }

    /// May it do this with any topic that there is or could be?
    pub fn allow_somewhere(&self, identity: &Identity, operation: Operation) -> bool {
        self.of(identity).any(|grants| grants.somewhere.has(operation))
    }

    fn with(&self, identity: &Identity, topic: &TopicName) -> Operations {
        self.of(identity).map(|grants| grants.with(topic)).fold(Operations::default(), Operations::bitor)
    }

    fn of(&self, identity: &Identity) -> impl Iterator<Item = &Grants> {
        self.by_identity.get(identity).into_iter().chain([&self.everybody])
    }
}

impl Grants {
    fn add(&mut self, operations: &str, topics: &str) -> Result<(), String> {
        let operations = Operations::parse(operations)?;
        for text in topics.split(',') {
            let given = match Topics::parse(text)? {
                Topics::Named(name) => self.named.entry(name).or_default(),
                Topics::Prefixed(prefix) => self.prefixed.entry(prefix).or_default(),
            };
            *given = *given | operations;
        }
        self.somewhere = self.somewhere | operations;
        Ok(())
    }

    fn is_empty(&self) -> bool {
        self.somewhere == Operations::default()
    }

    /// What they allow to be done with the topic.
    fn with(&self, topic: &TopicName) -> Operations {
        let named = self.named.get(topic).copied().unwrap_or_default();
        let prefixed = self.prefixed.iter().filter(|(prefix, _)| topic.as_str().starts_with(prefix.as_str()));
        prefixed.fold(named, |allowed, (_, operations)| allowed | *operations)
    }
}

impl Operations {
    fn parse(words: &str) -> Result<Self, String> {
        words.split(',').try_fold(Self::default(), |operations, word| {
            let operation = Operation::ALL.into_iter().find(|operation| operation.word() == word);
            let operation = operation
                .ok_or_else(|| format!("{word:?} is nothing that one may do: allowed are read, write and administer"))?;
            Ok(operations | Self(1 << operation as u8))
        })
    }

    fn has(self, operation: Operation) -> bool {
        self.0 & (1 << operation as u8) != 0
    }
}

impl BitOr for Operations {
    type Output = Self;

    fn bitor(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }
}

impl Topics {
    fn parse(text: &str) -> Result<Self, String> {
        let Some(prefix) = text.strip_suffix('*') else {
            return TopicName::parse(text).map(Self::Named).map_err(|fault| fault.message().to_owned());
        };
        // A letter behind it, and it is as long as a name may be, or is none at all.
        let is_beginning = prefix.is_empty() || TopicName::parse(&format!("{prefix}a")).is_ok();
        if !is_beginning {
            return Err(format!("{text:?} is the beginning of no topic name: a * stands at the end alone"));
        }
        Ok(Self::Prefixed(prefix.to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "
        # who       may         with
        orders-svc  write       orders,orders.*   # no reading
        reports     read        *
        ops         read,write,administer  ops-*
        ops         read        orders
        ops         write       orders
        *           read        public.*
    ";

    fn identity(name: &str) -> Identity {
        Identity::parse(name).expect("allowed")
    }

    fn topic(name: &str) -> TopicName {
        TopicName::parse(name).expect("allowed")
    }

    #[test]
    fn what_a_line_gives_is_allowed_and_nothing_else() {
        let permissions = Permissions::parse(TEXT).expect("allowed");
        let of = |who: &str, name: &str| {
            let allowed = |operation| permissions.allow(&identity(who), operation, &topic(name));
            Operation::ALL.map(allowed)
        };
        assert_eq!(of("orders-svc", "orders"), [false, true, false]);
        assert_eq!(of("orders-svc", "orders.eu"), [false, true, false]);
        assert_eq!(of("orders-svc", "orders-eu"), [false; 3], "a name is not a beginning");
        assert_eq!(of("orders-svc", "order"), [false; 3]);
        assert_eq!(of("reports", "anything"), [true, false, false]);
        assert_eq!(of("ops", "ops-1"), [true; 3]);
        assert_eq!(of("ops", "orders"), [true, true, false], "two lines are both true");
        assert_eq!(of("stranger", "public.news"), [true, false, false]);
        assert_eq!(of("stranger", "orders"), [false; 3]);
    }

    #[test]
    fn a_topic_is_shown_to_whoever_may_do_anything_with_it() {
        let permissions = Permissions::parse(TEXT).expect("allowed");
        assert!(permissions.show(&identity("orders-svc"), &topic("orders.eu")));
        assert!(!permissions.show(&identity("orders-svc"), &topic("ops-1")));
        assert!(permissions.allow_somewhere(&identity("orders-svc"), Operation::Write));
        assert!(!permissions.allow_somewhere(&identity("reports"), Operation::Write));
        assert!(permissions.show(&identity("stranger"), &topic("public.news")));
    }

    #[test]
    fn a_line_that_cannot_be_understood_is_named() {
        for (text, said) in [
            ("a read", "line 1: it has 2 words"),
            ("\na read t t", "line 2: it has 4 words"),
            ("a raed t", "\"raed\""),
            ("a read,, t", "\"\""),
            ("a read t*x", "line 1"),
            ("a read *x*", "line 1"),
            ("a read t,", "line 1"),
            ("a* read t", "no name"),
            ("", "nothing to anybody"),
            ("# nobody yet\n", "nothing to anybody"),
        ] {
            let error = Permissions::parse(text).expect_err(text);
            assert!(error.contains(said), "{text:?}: {error}");
        }
    }
}

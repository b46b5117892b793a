//! Who may do what with which topics.
//!
//! The file has a line for each permission: an identity, or `*` for everybody who is known; what it may do, of `read`, `write` and
//! `administer`, with commas in between; and topics, with commas in between too: names, or beginnings of names with a `*` behind.
//! What no line gives is not allowed. `#` begins a comment.
//!
//! ```text
//! # who       may         with
//! orders-svc  write       orders,orders.*
//! reports     read        *
//! ops         read,write,administer  *
//! ```

use std::collections::HashMap;

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
    everybody: Vec<Grant>,
    by_identity: HashMap<Identity, Vec<Grant>>,
}

/// One line.
#[derive(Clone, Debug)]
struct Grant {
    operations: [bool; 3],
    topics: Vec<Topics>,
}

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
    /// Reads a file of permissions. An empty one allows nothing.
    ///
    /// # Errors
    /// Something in it cannot be understood; names the line.
    pub fn parse(text: &str) -> Result<Self, String> {
        let mut permissions = Self::default();
        for (number, words) in lines(text)? {
            let at = |error: String| format!("line {number}: {error}");
            let [who, operations, topics] = words[..] else {
                let have = words.len();
                return Err(at(format!("it has {have} words; it needs three, an identity, what it may do, and topics")));
            };
            let grant = Grant::parse(operations, topics).map_err(at)?;
            match who {
                "*" => permissions.everybody.push(grant),
                name => permissions.by_identity.entry(Identity::parse(name).map_err(at)?).or_default().push(grant),
            }
        }
        Ok(permissions)
    }

    /// May it?
    pub fn allow(&self, identity: &Identity, operation: Operation, topic: &TopicName) -> bool {
        self.of(identity).any(|grant| grant.allows(operation) && grant.topics.iter().any(|topics| topics.contain(topic)))
    }

    /// May it do anything with the topic? Else it need not know that there is one.
    pub fn show(&self, identity: &Identity, topic: &TopicName) -> bool {
        Operation::ALL.iter().any(|operation| self.allow(identity, *operation, topic))
    }

    /// May it do this with any topic that there is or could be?
    pub fn allow_somewhere(&self, identity: &Identity, operation: Operation) -> bool {
        self.of(identity).any(|grant| grant.allows(operation))
    }

    fn of(&self, identity: &Identity) -> impl Iterator<Item = &Grant> {
        self.by_identity.get(identity).into_iter().flatten().chain(&self.everybody)
    }
}

impl Grant {
    fn parse(operations: &str, topics: &str) -> Result<Self, String> {
        let mut allowed = [false; 3];
        for word in operations.split(',') {
            let operation = Operation::ALL.into_iter().find(|operation| operation.word() == word);
            let operation = operation
                .ok_or_else(|| format!("{word:?} is nothing that one may do: allowed are read, write and administer"))?;
            allowed[operation as usize] = true;
        }
        let topics = topics.split(',').map(Topics::parse).collect::<Result<_, _>>()?;
        Ok(Self { operations: allowed, topics })
    }

    fn allows(&self, operation: Operation) -> bool {
        self.operations[operation as usize]
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

    fn contain(&self, topic: &TopicName) -> bool {
        match self {
            Self::Named(name) => name == topic,
            Self::Prefixed(prefix) => topic.as_str().starts_with(prefix),
        }
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
        assert_eq!(of("ops", "orders"), [true, false, false], "two lines are both true");
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
        assert!(!Permissions::parse("").expect("empty").show(&identity("ops"), &topic("t")));
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
        ] {
            let error = Permissions::parse(text).expect_err(text);
            assert!(error.contains(said), "{text:?}: {error}");
        }
    }
}

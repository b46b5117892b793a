//! What all who write and read have in common: where they are in the world, and who is still at work.

use std::{
    cell::{Cell, RefCell},
    rc::Rc,
    time::Duration,
};

use bytes::Bytes;
use oncelog_proto::v1::Record;
use oncelog_verify::history::Partition;
use tokio::time::sleep;

use crate::{chronicle::Chronicle, dice::Dice, weather::Weather, wire::Wires};

/// The place of one who works.
#[derive(Debug)]
pub(crate) struct Place {
    pub(crate) name: String,
    pub(crate) dice: Dice,
    pub(crate) weather: Weather,
    pub(crate) chronicle: Chronicle,
    pub(crate) wires: Wires,
    pub(crate) topics: Rc<Topics>,
    pub(crate) roll: Roll,
    pub(crate) largest_value: u64,
    next_record: u64,
}

/// A producer-svc, as those know it who call it.
#[derive(Clone, Debug)]
pub(crate) struct Service {
    pub(crate) host: String,
    /// It runs without idempotence, and may write a record more than once.
    pub(crate) repeats: bool,
}

/// The topics that are written to.
#[derive(Debug)]
pub(crate) struct Topics {
    /// Those that stay, and how many partitions they have.
    pub(crate) lasting: Vec<(String, i32)>,
    /// The one that is deleted and made again.
    pub(crate) brief: Option<String>,
}

impl Place {
    pub(crate) fn new(name: String, dice: Dice, wires: Wires, topics: Rc<Topics>, roll: Roll, largest_value: u64) -> Self {
        let (weather, chronicle) = (wires.weather.clone(), wires.chronicle.clone());
        Self { name, dice, weather, chronicle, wires, topics, roll, largest_value, next_record: 0 }
    }

    /// A record that nobody else sends.
    pub(crate) fn record(&mut self) -> Record {
        self.next_record += 1;
        let mut value = format!("{} {} ", self.name, self.next_record).into_bytes();
        let padding = self.dice.within(0..=self.largest_value);
        value.resize(value.len() + usize::try_from(padding).expect("small"), b'.');
        let key = self.dice.percent(50).then(|| Bytes::from(format!("key-{}", self.dice.within(0..=9))));
        Record { key, value: Some(value.into()), ..Record::default() }
    }

    pub(crate) fn topic(&mut self) -> String {
        match &self.topics.brief {
            Some(brief) if self.dice.percent(20) => brief.clone(),
            _ => self.dice.pick(&self.topics.lasting).0.clone(),
        }
    }

    /// Mostly short, sometimes none.
    pub(crate) async fn pause(&mut self, most: Duration) {
        let pause = if self.dice.percent(20) { Duration::ZERO } else { self.dice.long_tailed(most) };
        sleep(pause).await;
    }
}

impl Topics {
    pub(crate) fn partitions(&self) -> impl Iterator<Item = Partition> {
        self.lasting.iter().flat_map(|(topic, count)| (0..*count).map(|partition| Partition { topic: topic.clone(), partition }))
    }
}

/// Who is at work, so that it can be told who does not end.
#[derive(Clone, Debug, Default)]
pub(crate) struct Roll {
    present: Rc<RefCell<Vec<String>>>,
    writers: Rc<Cell<usize>>,
}

impl Roll {
    pub(crate) fn enter(&self, name: &str, writes: bool) {
        self.present.borrow_mut().push(name.to_owned());
        self.writers.set(self.writers.get() + usize::from(writes));
    }

    pub(crate) fn leave(&self, name: &str, writes: bool) {
        self.present.borrow_mut().retain(|present| present != name);
        self.writers.set(self.writers.get() - usize::from(writes));
    }

    pub(crate) fn present(&self) -> Vec<String> {
        self.present.borrow().clone()
    }

    /// Nobody will write any more.
    pub(crate) fn is_quiet(&self) -> bool {
        self.writers.get() == 0
    }
}

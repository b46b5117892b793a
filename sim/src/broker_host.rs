//! The host of the broker: the real one, over a simulated disk that outlives it.

use std::{
    cell::{Cell, RefCell},
    rc::Rc,
    sync::Arc,
    time::Duration,
};

use broker_svc::{
    Broker, Config, Surroundings, Workers,
    journal::sim_disk::{Pace, SimDisk},
};
use oncelog_edge::{security::access::Access, telemetry::Telemetry};
use oncelog_verify::history::Event;
use tokio::{sync::Notify, time::sleep};

use crate::{chronicle::Chronicle, dice::Dice, plan::Plan, weather::Weather, wire};

/// What the conductor sees of it. Clones are the same host.
#[derive(Clone, Debug)]
pub(crate) struct BrokerHost {
    pub(crate) disk: SimDisk,
    /// What it takes for a sync when it is well.
    sync: Duration,
    config: Config,
    weather: Weather,
    chronicle: Chronicle,
    dice: Rc<RefCell<Dice>>,
    stands: Rc<Cell<Stands>>,
    stop: Rc<Notify>,
}

/// How it stands with the process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stands {
    /// It runs, or is about to.
    Running,
    /// It ended by itself, because its disk failed, and waits to be buried.
    Failed,
    /// It was stopped in order.
    Stopped,
}

impl BrokerHost {
    pub(crate) fn new(plan: &Plan, weather: Weather, chronicle: Chronicle, dice: Dice) -> Self {
        let config = Config::parse_args(&plan.broker_flags).expect("the plan knows the flags");
        let host = Self {
            disk: SimDisk::new(),
            sync: plan.sync,
            config,
            weather,
            chronicle,
            dice: Rc::new(RefCell::new(dice)),
            stands: Rc::new(Cell::new(Stands::Running)),
            stop: Rc::default(),
        };
        host.usual_pace();
        host
    }

    /// From now on the disk is as fast as it is when it is well.
    pub(crate) fn usual_pace(&self) {
        let pace = Pace { write: self.sync / 4, sync: self.sync };
        self.disk.set_pace(self.dice.borrow_mut().next(), Some(pace));
    }

    pub(crate) fn stands(&self) -> Stands {
        self.stands.get()
    }

    /// It will run again.
    pub(crate) fn will_start(&self) {
        self.stands.set(Stands::Running);
    }

    /// Asks for an orderly stop.
    pub(crate) fn stop(&self) {
        self.stop.notify_one();
    }

    /// What runs on the host, from a start of the process to its end. It does not return: who returned could not be crashed, and
    /// its tasks would stay as they are.
    pub(crate) async fn run(self) -> turmoil::Result {
        self.stands.set(Stands::Running);
        self.chronicle.note(Event::BrokerStarted);
        let faults_before = self.disk.faults();
        let mut broker = match self.start().await {
            Ok(broker) => broker,
            Err(error) => return self.ended(&error, faults_before).await,
        };
        self.chronicle.deed("the broker is ready");
        let mut metered = Metered::default();
        let mut is_disk_noted = false;
        let mut has_failed_log = self.disk.has_failed_log();
        loop {
            tokio::select! {
                biased;
                // What the broker makes of it is another matter: it is judged by when the disk failed (I8).
                _ = has_failed_log.wait_for(|failed| *failed), if !is_disk_noted => {
                    is_disk_noted = true;
                    self.chronicle.note(Event::DiskFailed);
                }
                () = sleep(METER_EVERY) => metered.read(&broker.metrics(), &self.chronicle),
                // The process does not end in the same instant: what is still answered until then is judged (I8).
                error = broker.failed() => return self.ended(&error, faults_before).await,
                () = self.stop.notified() => break,
            }
        }
        match broker.shutdown().await {
            Ok(()) => {
                self.chronicle.count("broker: stopped in order");
                self.stands.set(Stands::Stopped);
                std::future::pending().await
            }
            Err(error) => self.ended(&error, faults_before).await,
        }
    }

    async fn ended(&self, error: &anyhow::Error, faults_before: u64) -> turmoil::Result {
        self.chronicle.deed(&format!("the broker ends: {error:#}"));
        // A disk without room is no fault of a moment: it may come at an opening, or keep a stop from ending.
        if self.disk.faults() == faults_before && !is_for_want_of_room(error) {
            self.chronicle.fail(format!("the broker ended although its disk did not fail: {error:#}"));
        }
        self.chronicle.note(Event::DiskFailed);
        self.stands.set(Stands::Failed);
        std::future::pending().await
    }

    async fn start(&self) -> anyhow::Result<Broker> {
        let (connections, local_addr) = wire::listen().await?;
        let surroundings = Surroundings {
            disk: Arc::new(self.disk.clone()),
            workers: Workers::Tasks(Arc::new(self.disk.clone())),
            wall_clock: self.weather.wall_clock(),
            seed: self.dice.borrow_mut().next(),
            connections,
            local_addr,
            access: Access::off(),
            admin: None,
            telemetry: Telemetry::off(),
        };
        Broker::start_with(self.config.clone(), surroundings).await
    }
}

/// What the metrics of one process have told so far: of what no caller can see.
#[derive(Debug, Default)]
struct Metered {
    held: u64,
    expired: u64,
}

impl Metered {
    fn read(&mut self, text: &str, chronicle: &Chronicle) {
        for line in text.lines() {
            let Some((name, value)) = line.split_once(' ') else { continue };
            let (before, what) = match name {
                "oncelog_broker_batches_held_total" => (&mut self.held, "broker: batches held"),
                "oncelog_broker_producers_expired_total" => (&mut self.expired, "broker: producers expired"),
                _ => continue,
            };
            let value = value.parse().expect("a number");
            chronicle.add(what, value - *before);
            *before = value;
        }
    }
}

fn is_for_want_of_room(error: &anyhow::Error) -> bool {
    let text = format!("{error:#}");
    ["no storage space", "bytes free", "is full"].iter().any(|sign| text.contains(sign))
}

const METER_EVERY: Duration = Duration::from_millis(50);

//! Lets things fail: hosts, disks, links and clocks, between two steps of the simulation, as the seed wants it. In the calm it
//! brings everything back.

use std::time::Duration;

use broker_svc::journal::sim_disk::{Operation, Pace};
use oncelog_verify::history::Event;
use turmoil::Sim;

use crate::{
    broker_host::{BrokerHost, Stands},
    chronicle::Chronicle,
    dice::Dice,
    plan::{Mishap, Plan},
    producer_host::ProducerHost,
    weather::Weather,
};

/// The conductor of one run.
#[derive(Debug)]
pub(crate) struct Conductor {
    dice: Dice,
    weather: Weather,
    chronicle: Chronicle,
    broker: BrokerHost,
    producers: Vec<ProducerHost>,
    mishaps: Vec<Mishap>,
    pause: Duration,
    next_mishap: Duration,
    /// What is to be undone, and when.
    remedies: Vec<(Duration, Remedy)>,
    /// The broker has failed or stopped; it is buried then.
    burial: Option<(Duration, Burial)>,
    /// It is down.
    is_down: bool,
}

#[derive(Clone, Debug)]
enum Remedy {
    StartBroker,
    StartProducer(usize),
    Room,
    Speed,
    Release(&'static str, String),
    Repair(&'static str, String),
    /// The machine has not stopped by itself: then it does now.
    Deadline,
}

/// How a process ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Burial {
    Kill,
    PowerLoss,
}

impl Conductor {
    pub(crate) fn new(
        plan: &Plan,
        dice: Dice,
        weather: Weather,
        chronicle: Chronicle,
        broker: BrokerHost,
        producers: Vec<ProducerHost>,
    ) -> Self {
        let (mishaps, pause) = (plan.mishaps.clone(), plan.mishap_pause);
        Self {
            dice,
            weather,
            chronicle,
            broker,
            producers,
            mishaps,
            pause,
            next_mishap: pause,
            remedies: Vec::new(),
            burial: None,
            is_down: false,
        }
    }

    /// Between two steps.
    pub(crate) fn act(&mut self, sim: &mut Sim<'_>) {
        let now = sim.elapsed();
        self.look_after_broker(sim, now);
        for index in 0..self.producers.len() {
            if self.producers[index].stands() != Stands::Running && !self.is_planned(&Remedy::StartProducer(index)) {
                self.kill_producer(sim, now, index);
            }
        }
        while let Some(at) = self.remedies.iter().position(|(due, _)| *due <= now) {
            let (_, remedy) = self.remedies.remove(at);
            self.remedy(sim, now, remedy);
        }
        if !self.weather.is_calm() && now >= self.next_mishap && !self.mishaps.is_empty() {
            self.next_mishap = now + self.dice.up_to(2 * self.pause);
            let mishap = *self.dice.pick(&self.mishaps);
            self.let_happen(sim, now, mishap);
        }
    }

    /// From here on nothing fails, and what is broken is mended.
    pub(crate) fn calm_down(&mut self, sim: &mut Sim<'_>) {
        self.weather.calm_down();
        self.chronicle.deed("calm");
        // A machine that is still to stop does it now.
        for (due, remedy) in &mut self.remedies {
            if !matches!(remedy, Remedy::StartBroker | Remedy::StartProducer(_)) {
                *due = Duration::ZERO;
            }
        }
        self.broker.disk.set_capacity(None);
        self.broker.usual_pace();
        self.broker.disk.fail_no_more();
        self.act(sim);
    }

    /// A power loss when all is over.
    pub(crate) fn lose_power(&mut self, sim: &mut Sim<'_>) {
        self.bury(sim, Burial::PowerLoss);
        self.plan(sim.elapsed() + Duration::from_millis(100), Remedy::StartBroker);
    }

    /// What of the planned did come true at the disk.
    pub(crate) fn tell_failures(&self) {
        for (why, many) in self.broker.disk.failures() {
            self.chronicle.add(format!("disk: {why:?}"), many);
        }
    }

    fn look_after_broker(&mut self, sim: &mut Sim<'_>, now: Duration) {
        match self.broker.stands() {
            _ if self.is_down => {}
            Stands::Running => {}
            Stands::Failed | Stands::Stopped => match self.burial {
                None => {
                    let burial = if self.dice.percent(50) { Burial::PowerLoss } else { Burial::Kill };
                    self.burial = Some((now + self.dice.millis(0..=300), burial));
                }
                Some((due, burial)) if due <= now => {
                    self.bury(sim, burial);
                    self.start_later(now);
                }
                Some(_) => {}
            },
        }
    }

    fn start_later(&mut self, now: Duration) {
        let pause = self.dice.long_tailed(Duration::from_secs(3));
        self.plan(now + pause, Remedy::StartBroker);
    }

    fn bury(&mut self, sim: &mut Sim<'_>, burial: Burial) {
        if self.is_down {
            return;
        }
        sim.crash("broker");
        self.chronicle.note(Event::BrokerDied);
        self.is_down = true;
        self.burial = None;
        self.remedies.retain(|(_, remedy)| !matches!(remedy, Remedy::Deadline | Remedy::StartBroker));
        match burial {
            Burial::Kill => {
                self.broker.disk.restart();
                self.chronicle.count("broker: killed");
            }
            Burial::PowerLoss => {
                let loss = self.broker.disk.crash(self.dice.next());
                self.chronicle.deed(&format!("power loss: {loss:?}"));
                self.chronicle.count("broker: power lost");
                self.chronicle.add("disk: unsynced names lost", loss.names);
                self.chronicle.add("disk: unsynced pages lost", loss.pages);
                if loss.pages > 0 && loss.kept_pages > 0 {
                    self.chronicle.count("disk: torn writes");
                }
            }
        }
    }

    fn kill_producer(&mut self, sim: &mut Sim<'_>, now: Duration, index: usize) {
        let name = self.producers[index].name.clone();
        sim.crash(name.as_str());
        self.chronicle.note(Event::ProducerDied);
        self.chronicle.count("producer: ended");
        let pause = self.dice.long_tailed(Duration::from_secs(2));
        self.plan(now + pause, Remedy::StartProducer(index));
    }

    fn plan(&mut self, due: Duration, remedy: Remedy) {
        self.remedies.push((due, remedy));
    }

    fn is_planned(&self, which: &Remedy) -> bool {
        self.remedies.iter().any(|(_, planned)| match (planned, which) {
            (Remedy::StartProducer(a), Remedy::StartProducer(b)) => a == b,
            (a, b) => std::mem::discriminant(a) == std::mem::discriminant(b),
        })
    }

    fn remedy(&mut self, sim: &mut Sim<'_>, now: Duration, remedy: Remedy) {
        self.chronicle.deed(&format!("{remedy:?}"));
        match remedy {
            Remedy::StartBroker => {
                self.is_down = false;
                self.broker.will_start();
                sim.bounce("broker");
            }
            Remedy::StartProducer(index) => {
                self.producers[index].will_start();
                sim.bounce(self.producers[index].name.as_str());
            }
            Remedy::Room => self.broker.disk.set_capacity(None),
            Remedy::Speed => self.broker.usual_pace(),
            Remedy::Release(a, b) => sim.release(a, b.as_str()),
            Remedy::Repair(a, b) => sim.repair(a, b.as_str()),
            Remedy::Deadline if self.is_down => {}
            Remedy::Deadline => {
                self.bury(sim, Burial::PowerLoss);
                self.start_later(now);
            }
        }
    }

    fn let_happen(&mut self, sim: &mut Sim<'_>, now: Duration, mishap: Mishap) {
        let concerns_broker = !matches!(
            mishap,
            Mishap::KillProducer
                | Mishap::StopProducer
                | Mishap::HoldLink
                | Mishap::CutLink
                | Mishap::ClockJump
                | Mishap::FullDisk
                | Mishap::SlowDisk
        );
        if concerns_broker && (self.is_down || self.broker.stands() != Stands::Running || self.is_planned(&Remedy::Deadline)) {
            return;
        }
        self.chronicle.deed(&format!("{mishap:?}"));
        self.chronicle.count(format!("mishap: {mishap:?}"));
        let disk = self.broker.disk.clone();
        match mishap {
            Mishap::KillBroker => {
                self.bury(sim, Burial::Kill);
                self.start_later(now);
            }
            Mishap::PowerLoss => {
                self.bury(sim, Burial::PowerLoss);
                self.start_later(now);
            }
            Mishap::StopAtChange => {
                disk.stop_after(self.dice.within(0..=20));
                self.plan(now + Duration::from_secs(2), Remedy::Deadline);
            }
            Mishap::StopAtOpening => {
                self.bury(sim, Burial::PowerLoss);
                disk.stop_after(self.dice.within(0..=14));
                self.plan(now + Duration::from_millis(20), Remedy::StartBroker);
                self.plan(now + Duration::from_secs(2), Remedy::Deadline);
            }
            Mishap::WriteError => disk.fail(Operation::Write, self.dice.within(0..=6)),
            Mishap::SyncError => disk.fail(Operation::Sync, self.dice.within(0..=6)),
            Mishap::NameError => {
                let operation = *self.dice.pick(&[Operation::SyncDir, Operation::Name]);
                disk.fail(operation, self.dice.within(0..=1));
            }
            Mishap::FullDisk => {
                let room = *self.dice.pick(&[0, 0, 4_096, 300_000]);
                disk.set_capacity(Some(disk.used() + room));
                // Space is asked for once in a segment.
                let pause = self.dice.millis(500..=15_000);
                self.plan(now + pause, Remedy::Room);
            }
            Mishap::SlowDisk => {
                let sync = self.dice.millis(2..=400);
                disk.set_pace(self.dice.next(), Some(Pace { write: sync / 4, sync }));
                let pause = self.dice.millis(200..=5_000);
                self.plan(now + pause, Remedy::Speed);
            }
            Mishap::StopBroker => self.broker.stop(),
            Mishap::KillProducer | Mishap::StopProducer => {
                let index = self.dice.index(self.producers.len());
                if self.producers[index].stands() != Stands::Running || self.is_planned(&Remedy::StartProducer(index)) {
                } else if mishap == Mishap::StopProducer {
                    self.producers[index].stop();
                } else {
                    self.kill_producer(sim, now, index);
                }
            }
            Mishap::HoldLink => {
                let (a, b) = self.link();
                sim.hold(a, b.as_str());
                let pause = self.dice.long_tailed(Duration::from_secs(3));
                self.plan(now + pause, Remedy::Release(a, b));
            }
            Mishap::CutLink => {
                let (a, b) = self.link();
                sim.partition(a, b.as_str());
                let pause = self.dice.long_tailed(Duration::from_secs(6));
                self.plan(now + pause, Remedy::Repair(a, b));
            }
            Mishap::ClockJump => {
                let forward = *self.dice.pick(&[1_000, 60_000, 3_600_000, 100 * 3_600_000]);
                let millis = if self.dice.percent(50) { forward } else { -forward };
                self.weather.jump(millis);
            }
        }
    }

    fn link(&mut self) -> (&'static str, String) {
        let producer = self.dice.pick(&self.producers).name.clone();
        match self.dice.within(0..=3) {
            0 => ("courier", "broker".to_owned()),
            1 => ("courier", producer),
            2 => ("actors", producer),
            _ => ("actors", "broker".to_owned()),
        }
    }
}

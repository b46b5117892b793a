//! One run: the hosts, those who work, the storm, the calm, and the verdict.

use std::{
    cell::RefCell,
    collections::BTreeMap,
    rc::Rc,
    sync::{Arc, Mutex},
    time::Duration,
};

use oncelog_proto::{Bearer, v1::broker_service_client::BrokerServiceClient};
use oncelog_verify::{
    Log, Report,
    history::{Began, Event, FORMAT},
    judge,
};
use serde::{Deserialize, Serialize};
use tokio::task::JoinSet;
use turmoil::Sim;

use crate::{
    broker_host::BrokerHost,
    callers, census,
    chronicle::Chronicle,
    conductor::Conductor,
    courier::Courier,
    dice::Dice,
    plan::{Mishap, Plan},
    producer_host::ProducerHost,
    raw, readers, topics,
    weather::Weather,
    wire::Wires,
    work::{Place, Roll, Service, Topics},
};

/// What came of a run.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Outcome {
    pub(crate) seed: u64,
    /// What must not be; empty: all is well.
    pub(crate) failures: Vec<String>,
    pub(crate) tallies: BTreeMap<String, u64>,
    /// Of all that happened.
    pub(crate) digest: String,
    pub(crate) simulated_ms: u64,
}

/// Runs what a seed planned.
pub(crate) fn run(plan: Plan, chronicle: Chronicle) -> Outcome {
    let seed = plan.seed;
    chronicle.deed(&format!("{plan:?}"));
    let mut world = World::new(plan, chronicle.clone());
    if let Err(error) = world.live() {
        chronicle.fail(error.to_string());
    }
    let simulated_ms = u64::try_from(world.sim.elapsed().as_millis()).expect("short");
    drop(world);
    let (failures, tallies, digest) = (chronicle.failures(), chronicle.tallies(), chronicle.digest());
    Outcome { seed, failures, tallies, digest, simulated_ms }
}

struct World<'a> {
    plan: Plan,
    chronicle: Chronicle,
    weather: Weather,
    conductor: Conductor,
    roll: Roll,
    sim: Sim<'a>,
}

impl World<'_> {
    fn new(plan: Plan, chronicle: Chronicle) -> Self {
        let mut dice = Dice::new(plan.seed);
        let weather = Weather::default();
        let mut sim = turmoil::Builder::new()
            .rng_seed(dice.next())
            .tick_duration(plan.tick)
            .simulation_duration(Duration::from_secs(3_600))
            .min_message_latency(Duration::from_micros(200))
            .max_message_latency(plan.slowest_message)
            .tcp_capacity(1_024)
            .enable_random_order()
            .build();
        let once = plan.courier.doubles == 0;
        let began = Began { format: FORMAT, alone: true, once, expiration_ms: expiration_ms(&plan) };
        chronicle.note(Event::Began(began));

        let broker = BrokerHost::new(&plan, weather.clone(), chronicle.clone(), dice.fork());
        let host = broker.clone();
        sim.host("broker", move || host.clone().run());
        let courier_seed = dice.next();
        let (carelessness, courier_weather, courier_chronicle) = (plan.courier, weather.clone(), chronicle.clone());
        sim.host("courier", move || {
            Courier::new(carelessness, Dice::new(courier_seed), courier_weather.clone(), courier_chronicle.clone()).run()
        });
        let mut producers = Vec::new();
        for (index, settings) in plan.producer_settings.iter().enumerate() {
            let name = format!("producer-{index}");
            let producer =
                ProducerHost::new(name.clone(), settings, plan.cut_percent, weather.clone(), chronicle.clone(), dice.fork());
            let host = producer.clone();
            sim.host(name, move || host.clone().run());
            producers.push(producer);
        }
        let roll = Roll::default();
        let service = |producer: &ProducerHost| Service { host: producer.name.clone(), repeats: producer.repeats };
        let services: Vec<_> = producers.iter().map(service).collect();
        sim.client("actors", act(&plan, services, &weather, &chronicle, &roll, &mut dice));
        let conductor = Conductor::new(&plan, dice.fork(), weather.clone(), chronicle.clone(), broker, producers);
        Self { plan, chronicle, weather, conductor, roll, sim }
    }

    fn live(&mut self) -> turmoil::Result {
        while self.sim.elapsed() < self.plan.storm {
            self.step()?;
        }
        self.conductor.calm_down(&mut self.sim);
        let roll = self.roll.clone();
        self.until_done(move || format!("still at work: {}", roll.present().join(", ")))?;
        let before = self.take_census("census")?;
        self.conductor.lose_power(&mut self.sim);
        let log = self.take_census("last-census")?;
        self.compare(&before, &log);
        self.judge(&log);
        self.conductor.tell_failures();
        Ok(())
    }

    /// What was read before a power loss has to be there after it, but for what was trimmed since. A copy of a call that is still
    /// on its way may come behind it; whether it had a right to is the checker's matter.
    fn compare(&self, before: &Log, after: &Log) {
        if before.partitions().len() != after.partitions().len() {
            self.chronicle.fail("a power loss changed the list of partitions");
        }
        for (before, after) in before.partitions().iter().zip(after.partitions()) {
            let kept = before.batches().iter().filter(|batch| batch.place.offset >= after.log_start()).count();
            let kept = &before.batches()[before.batches().len() - kept..];
            if after.log_end() < before.log_end() || !after.batches().starts_with(kept) {
                self.chronicle.fail(format!("a power loss changed what can be read of {}", before.name()));
            }
        }
    }

    fn step(&mut self) -> turmoil::Result<bool> {
        self.chronicle.set_now(self.sim.elapsed());
        self.conductor.act(&mut self.sim);
        self.sim.step()
    }

    fn until_done(&mut self, who: impl Fn() -> String) -> turmoil::Result {
        let limit = self.sim.elapsed() + CALM;
        while !self.step()? {
            if self.sim.elapsed() > limit {
                return Err(format!("not done after {CALM:?} of calm: {}", who()).into());
            }
        }
        Ok(())
    }

    fn take_census(&mut self, name: &'static str) -> turmoil::Result<Log> {
        let taken = Rc::new(RefCell::new(None));
        let (put, weather, chronicle) = (Rc::clone(&taken), self.weather.clone(), self.chronicle.clone());
        self.sim.client(name, async move {
            let wires = Wires { dice: Arc::new(Mutex::new(Dice::new(0))), weather, chronicle, cut_percent: 0 };
            let link = Bearer::none().on(wires.watched_channel("broker"));
            let broker = BrokerServiceClient::new(link).max_decoding_message_size(16 << 20);
            *put.borrow_mut() = Some(census::take(broker).await);
            Ok(())
        });
        self.until_done(|| "the log cannot be read".to_owned())?;
        let log = taken.borrow_mut().take();
        log.ok_or_else(|| "the census was not taken".into())
    }

    fn judge(&self, log: &Log) {
        let lines = self.chronicle.lines();
        let report = match judge(log, &lines) {
            Ok(report) => report,
            Err(error) => return self.chronicle.fail(format!("the history cannot be judged: {error}")),
        };
        for violation in &report.violations {
            self.chronicle.fail(violation.to_string());
        }
        let Report { counts, unjudged, .. } = report;
        for (what, many) in [
            ("judged: records in the log", counts.in_log),
            ("judged: records unknown to their callers, in the log", counts.unknown_in_log),
            ("judged: duplicates refused", counts.duplicates_refused),
            ("not judged: trimmed", unjudged.trimmed),
            ("not judged: deleted", unjudged.deleted),
            ("not judged: expired", unjudged.expiry),
        ] {
            self.chronicle.add(what, many);
        }
        self.chronicle.deed(&format!("judged: {counts:?} {unjudged:?}"));
    }
}

/// Everybody who works, on one host. It ends when they all have.
fn act(
    plan: &Plan,
    producers: Vec<Service>,
    weather: &Weather,
    chronicle: &Chronicle,
    roll: &Roll,
    dice: &mut Dice,
) -> impl Future<Output = turmoil::Result> + 'static {
    let brief = plan.brief().map(str::to_owned);
    let topics = Rc::new(Topics { lasting: plan.topics.clone(), brief: brief.clone() });
    let (cut_percent, largest_value) = (plan.cut_percent, plan.largest_value);
    let mut place = |name: String| {
        let wires = Wires {
            dice: Arc::new(Mutex::new(dice.fork())),
            weather: weather.clone(),
            chronicle: chronicle.clone(),
            cut_percent,
        };
        Place::new(name, dice.fork(), wires, Rc::clone(&topics), roll.clone(), largest_value)
    };
    let callers: Vec<_> = (0..plan.callers).map(|index| place(format!("caller-{index}"))).collect();
    let streams: Vec<_> = (0..plan.streams).map(|index| place(format!("stream-{index}"))).collect();
    let raws: Vec<_> = (0..plan.raws).map(|index| place(format!("client-{index}"))).collect();
    let followers: Vec<_> = topics.partitions().map(|partition| (place(format!("follower of {partition}")), partition)).collect();
    let looker = place("looker".to_owned());
    let founder = place("founder".to_owned());
    let deleter = brief.map(|topic| (place("deleter".to_owned()), topic));
    let roll = roll.clone();
    async move {
        topics::found(founder).await;
        let mut all = JoinSet::new();
        let ids = raw::Ids::default();
        let mut work = |name: String, writes: bool, work: std::pin::Pin<Box<dyn Future<Output = ()>>>| {
            roll.enter(&name, writes);
            let roll = roll.clone();
            all.spawn_local(async move {
                work.await;
                roll.leave(&name, writes);
            });
        };
        for place in callers {
            work(place.name.clone(), true, Box::pin(callers::send(place, producers.clone())));
        }
        for place in streams {
            work(place.name.clone(), true, Box::pin(callers::stream(place, producers.clone())));
        }
        for place in raws {
            work(place.name.clone(), true, Box::pin(raw::run(place, Rc::clone(&ids))));
        }
        if let Some((place, topic)) = deleter {
            work(place.name.clone(), true, Box::pin(topics::come_and_go(place, topic)));
        }
        for (place, partition) in followers {
            work(place.name.clone(), false, Box::pin(readers::follow(place, partition)));
        }
        work(looker.name.clone(), false, Box::pin(readers::look(looker)));
        while let Some(ended) = all.join_next().await {
            ended?;
        }
        Ok(())
    }
}

/// How long an id lives for certain. None: a group that waits for a slow or a full disk has the time at which it began to wait,
/// and so has every sign of life that joins it.
fn expiration_ms(plan: &Plan) -> Option<u64> {
    let expiration = plan.expiration.unwrap_or(Duration::from_secs(24 * 3_600));
    // The time of groups may run twice as fast as real time, to catch up with a wall clock that was set forward; and a sign of
    // life counts only if the last one is a 24th of the expiration ago.
    let certain = (expiration * 23 / 48).saturating_sub(20 * plan.sync);
    let may_wait = plan.mishaps.iter().any(|mishap| matches!(mishap, Mishap::SlowDisk | Mishap::FullDisk));
    (!may_wait).then(|| u64::try_from(certain.as_millis()).expect("a day at most"))
}

/// Longer than anybody needs who found a connection that hangs.
const CALM: Duration = Duration::from_secs(240);

//! A host of a producer-svc: the real one. What it has taken in dies with it.

use std::{
    cell::{Cell, RefCell},
    rc::Rc,
    sync::{Arc, Mutex},
};

use oncelog_edge::{security::access::Access, telemetry::Telemetry};
use oncelog_proto::Bearer;
use oncelog_verify::history::Event;
use producer_svc::{Config, Producer, Surroundings, surroundings::Seeds};
use tokio::sync::Notify;
use tonic::transport::Endpoint;

use crate::{
    broker_host::Stands,
    chronicle::Chronicle,
    dice::Dice,
    weather::Weather,
    wire::{self, Wires},
};

/// What the conductor sees of it. Clones are the same host.
#[derive(Clone, Debug)]
pub(crate) struct ProducerHost {
    pub(crate) name: String,
    /// It runs without idempotence.
    pub(crate) repeats: bool,
    config: Config,
    weather: Weather,
    chronicle: Chronicle,
    cut_percent: u64,
    dice: Rc<RefCell<Dice>>,
    stands: Rc<Cell<Stands>>,
    stop: Rc<Notify>,
}

impl ProducerHost {
    pub(crate) fn new(
        name: String,
        settings: &[(&'static str, String)],
        cut_percent: u64,
        weather: Weather,
        chronicle: Chronicle,
        dice: Dice,
    ) -> Self {
        let config = Config::default().broker(wire::url("courier")).admin_listen(None);
        let config = settings.iter().fold(config, |config, (key, value)| config.with(key, value));
        let dice = Rc::new(RefCell::new(dice));
        Self {
            name,
            repeats: settings.contains(&("enable.idempotence", false.to_string())),
            config,
            weather,
            chronicle,
            cut_percent,
            dice,
            stands: Rc::new(Cell::new(Stands::Running)),
            stop: Rc::default(),
        }
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

    /// What runs on the host, from a start of the process to its end; it does not return.
    pub(crate) async fn run(self) -> turmoil::Result {
        self.stands.set(Stands::Running);
        self.chronicle.note(Event::ProducerStarted);
        let stands = self.serve().await?;
        self.stands.set(stands);
        std::future::pending().await
    }

    async fn serve(&self) -> anyhow::Result<Stands> {
        let (connections, local_addr) = wire::listen().await?;
        let settings = self.config.resolve(&|_| None)?;
        let (seeds, dice) = {
            let mut dice = self.dice.borrow_mut();
            let mut next = || dice.next();
            (Seeds { token: [next(), next()], session: next(), partitioner: next() }, dice.fork())
        };
        let (weather, chronicle) = (self.weather.clone(), self.chronicle.clone());
        let wires = Wires { dice: Arc::new(Mutex::new(dice)), weather, chronicle, cut_percent: self.cut_percent };
        let connect = Box::new(move |endpoint: Endpoint| wires.channel(endpoint));
        let wall_clock = self.weather.wall_clock();
        let telemetry = Telemetry::off();
        let (access, bearer) = (Access::off(), Bearer::none());
        let surroundings =
            Surroundings { connections, local_addr, access, admin: None, connect, bearer, wall_clock, seeds, telemetry };
        let mut producer = Producer::start_with(settings, surroundings).await;
        tokio::select! {
            biased;
            error = producer.failed() => {
                self.chronicle.fail(format!("{} ended by itself: {error:#}", self.name));
                Ok(Stands::Failed)
            }
            () = self.stop.notified() => {
                // In a storm it may be cut short.
                match producer.shutdown().await {
                    Ok(()) => self.chronicle.count("producer: drained"),
                    Err(error) => self.chronicle.deed(&format!("{} was not drained: {error:#}", self.name)),
                }
                Ok(Stands::Stopped)
            }
        }
    }
}

//! Carries a failure out, and mends it.

use std::{path::Path, time::Duration};

use anyhow::Context;
use oncelog_verify::history::Event;
use rustix::process::{Pid, Signal};
use tokio::{task::spawn_blocking, time::sleep};

use crate::{
    moment::{Moment, Watch},
    plan::{Failure, Kind, Link},
    proxy::Proxy,
    recorder::Recorder,
    stage::Stage,
    volume::Volume,
};

/// What a failure happens to.
#[derive(Debug)]
pub(crate) struct Target<'a> {
    pub(crate) stage: &'a mut Stage,
    /// The broker's data directory.
    pub(crate) data: &'a Path,
    pub(crate) volume: Option<&'a Volume>,
    pub(crate) recorder: &'a Recorder,
}

impl Target<'_> {
    /// Lets it happen, and leaves everything running. False: its moment did not come.
    pub(crate) async fn strike(&mut self, failure: Failure) -> anyhow::Result<bool> {
        let Failure { kind, lasts, after, .. } = failure;
        match kind {
            Kind::KillBroker(Moment::Recovery) => {
                self.kill_broker().await?;
                let watch = Watch::on(self.data)?;
                self.launch_broker()?;
                let struck = self.strike_broker(watch, Moment::Recovery, after, Signal::KILL).await?;
                if struck {
                    self.broker_was_killed().await?;
                    self.launch_broker()?;
                }
                self.stage.broker_ready().await?;
                return Ok(struck);
            }
            Kind::KillBroker(moment) => {
                let watch = Watch::on(self.data)?;
                if !self.strike_broker(watch, moment, after, Signal::KILL).await? {
                    return Ok(false);
                }
                self.broker_was_killed().await?;
                self.restart_broker(lasts).await?;
            }
            Kind::SwallowAndKillBroker => {
                self.stage.inner.swallow_answers();
                self.stage.clients.swallow_answers();
                sleep(lasts).await;
                self.kill_broker().await?;
                self.stage.heal();
                self.restart_broker(Duration::ZERO).await?;
            }
            Kind::KillBrokerTwice => {
                self.kill_broker().await?;
                self.launch_broker()?;
                sleep(lasts / 8).await;
                self.kill_broker().await?;
                self.restart_broker(Duration::ZERO).await?;
            }
            Kind::PauseBroker(moment) => {
                let watch = Watch::on(self.data)?;
                if !self.strike_broker(watch, moment, after, Signal::STOP).await? {
                    return Ok(false);
                }
                sleep(lasts).await;
                self.stage.broker()?.go_on()?;
            }
            Kind::StopBroker => {
                let status = self.stage.take_broker()?.terminate().await?;
                anyhow::ensure!(status.success(), "the broker was asked to stop and ended with {status}");
                self.recorder.saw(Event::BrokerDied);
                self.restart_broker(lasts).await?;
            }
            Kind::KillProducer => {
                self.stage.kill_producer().await?;
                self.recorder.saw(Event::ProducerDied);
                sleep(lasts).await;
                self.recorder.saw(Event::ProducerStarted);
                self.stage.restart_producer().await?;
            }
            Kind::PauseProducer => {
                self.stage.producer()?.pause()?;
                sleep(lasts).await;
                self.stage.producer()?.go_on()?;
            }
            Kind::Swallow(link) => {
                self.link(link).swallow_answers();
                sleep(lasts).await;
                self.link(link).heal();
            }
            Kind::Cut(link) => {
                self.link(link).take_down();
                sleep(lasts).await;
                self.link(link).heal();
            }
            Kind::Delay(link) => {
                self.link(link).delay(lasts / 20);
                sleep(lasts).await;
                self.link(link).heal();
            }
            Kind::FillDisk => {
                let volume = self.volume.context("a disk is only filled if it is one of its own")?;
                volume.fill()?;
                sleep(lasts).await;
                volume.free()?;
            }
        }
        Ok(true)
    }

    fn link(&self, link: Link) -> &Proxy {
        match link {
            Link::Inner => &self.stage.inner,
            Link::Callers => &self.stage.callers,
            Link::Clients => &self.stage.clients,
        }
    }

    async fn strike_broker(&mut self, watch: Watch, moment: Moment, after: Duration, signal: Signal) -> anyhow::Result<bool> {
        let target: Pid = self.stage.broker()?.id()?;
        Ok(spawn_blocking(move || watch.strike(moment, after, PATIENCE, target, signal)).await??)
    }

    async fn kill_broker(&mut self) -> anyhow::Result<()> {
        self.stage.kill_broker().await?;
        self.recorder.saw(Event::BrokerDied);
        Ok(())
    }

    async fn broker_was_killed(&mut self) -> anyhow::Result<()> {
        self.stage.take_broker()?.killed().await?;
        self.recorder.saw(Event::BrokerDied);
        Ok(())
    }

    /// From here on, what is answered may be from the new life.
    fn launch_broker(&mut self) -> anyhow::Result<()> {
        self.recorder.saw(Event::BrokerStarted);
        self.stage.launch_broker()
    }

    async fn restart_broker(&mut self, down: Duration) -> anyhow::Result<()> {
        sleep(down).await;
        self.launch_broker()?;
        self.stage.broker_ready().await
    }
}

/// How long a moment is waited for. Segments and snapshots are small here, so theirs comes every second or so.
const PATIENCE: Duration = Duration::from_secs(3);

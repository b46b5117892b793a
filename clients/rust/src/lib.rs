//! What both programs share: the generated contract, and how they are told what to do.

use std::{env, str::FromStr, time::Duration};

use anyhow::Context;
use tonic::{
    Response, Status,
    transport::{Channel, Endpoint},
};

/// Generated from `proto/oncelog/v1`.
#[allow(clippy::all, clippy::pedantic)]
pub mod v1 {
    tonic::include_proto!("oncelog.v1");
}

/// What a program is told by its environment.
pub struct Assignment {
    /// As a URL.
    pub address: String,
    pub topic: String,
    pub records: u32,
    /// The deadline of each call.
    pub timeout: Duration,
}

impl Assignment {
    pub fn from_environment(address: &str) -> anyhow::Result<Self> {
        let text = |name, default: &str| env::var(name).unwrap_or_else(|_| default.to_owned());
        let number = |name, default| u32::from_str(&text(name, default)).context(name);
        Ok(Self {
            address: format!("http://{}", text("ONCELOG_ADDRESS", address)),
            topic: text("ONCELOG_TOPIC", "rust"),
            records: number("ONCELOG_RECORDS", "100")?,
            timeout: Duration::from_millis(number("ONCELOG_TIMEOUT_MS", "5000")?.into()),
        })
    }

    /// A channel that connects when it is first needed, and sends nothing again on its own.
    pub fn channel(&self) -> anyhow::Result<Channel> {
        Ok(Endpoint::new(self.address.clone())?.connect_timeout(self.timeout).connect_lazy())
    }

    /// The records to send, in order.
    pub fn records(&self) -> Vec<v1::Record> {
        let value = |number| format!("record {number}").into_bytes();
        (0..self.records).map(|number| v1::Record { value: Some(value(number)), ..Default::default() }).collect()
    }
}

/// A call that ends in time, also while it connects or its answer is read: the timeout of a request covers neither.
pub async fn within<T>(timeout: Duration, call: impl Future<Output = Result<Response<T>, Status>>) -> Result<T, Status> {
    match tokio::time::timeout(timeout, call).await {
        Ok(answer) => answer.map(Response::into_inner),
        Err(_) => Err(Status::deadline_exceeded("no answer came in time")),
    }
}

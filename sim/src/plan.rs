//! What a seed makes of a run. Not everything fails in every run: what is left out lets the rest get further.

use std::time::Duration;

use crate::dice::Dice;

/// All that is fixed before a run begins.
#[derive(Debug)]
pub(crate) struct Plan {
    pub(crate) seed: u64,
    /// How long things fail.
    pub(crate) storm: Duration,
    /// How much time a step of the simulation takes, which is how finely the hosts' work is interleaved.
    pub(crate) tick: Duration,
    pub(crate) slowest_message: Duration,
    pub(crate) callers: u64,
    pub(crate) streams: u64,
    pub(crate) raws: u64,
    /// Names and partitions of the topics that stay.
    pub(crate) topics: Vec<(String, i32)>,
    /// One more topic is deleted and made again all the time.
    pub(crate) is_deleting: bool,
    pub(crate) expiration: Option<Duration>,
    pub(crate) courier: Carelessness,
    pub(crate) cut_percent: u64,
    /// What the disk takes for a sync when it is well.
    pub(crate) sync: Duration,
    /// What fails, beside calls and connections, and after how long on average.
    pub(crate) mishaps: Vec<Mishap>,
    pub(crate) mishap_pause: Duration,
    /// Largest value of a record, in bytes.
    pub(crate) largest_value: u64,
    pub(crate) broker_flags: Vec<String>,
    /// Settings of each producer-svc.
    pub(crate) producer_settings: Vec<Vec<(&'static str, String)>>,
}

/// What the one who carries calls to the broker does to them, each in percent.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Carelessness {
    pub(crate) loses: u64,
    pub(crate) doubles: u64,
    pub(crate) delays: u64,
    pub(crate) loses_answers: u64,
    /// At most that long.
    pub(crate) delay: Duration,
    /// One that does not know streams is called for each request.
    pub(crate) carries_streams: bool,
}

/// What happens to hosts, disks and links.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Mishap {
    /// `kill -9`: what was written is seen by the next process, synced or not.
    KillBroker,
    /// Power loss: of what was not synced, some pages and names are gone.
    PowerLoss,
    /// Power loss at one of the next changes of the disk.
    StopAtChange,
    /// Power loss while the journal is being opened.
    StopAtOpening,
    /// One of the next writes fails.
    WriteError,
    /// One of the next syncs fails, and takes the pages along.
    SyncError,
    /// One of the next syncs of the directory fails, or a change of a name.
    NameError,
    /// The disk is full for a while.
    FullDisk,
    /// The disk is slow for a while.
    SlowDisk,
    /// An orderly stop.
    StopBroker,
    KillProducer,
    StopProducer,
    /// What is sent on a link arrives later, all at once.
    HoldLink,
    /// What is sent on a link is gone; connections over it hang.
    CutLink,
    ClockJump,
}

impl Mishap {
    pub(crate) const ALL: [Self; 15] = [
        Self::KillBroker,
        Self::PowerLoss,
        Self::StopAtChange,
        Self::StopAtOpening,
        Self::WriteError,
        Self::SyncError,
        Self::NameError,
        Self::FullDisk,
        Self::SlowDisk,
        Self::StopBroker,
        Self::KillProducer,
        Self::StopProducer,
        Self::HoldLink,
        Self::CutLink,
        Self::ClockJump,
    ];
}

impl Plan {
    /// The topic that comes and goes, if there is one.
    pub(crate) fn brief(&self) -> Option<&'static str> {
        self.is_deleting.then_some("brief")
    }

    pub(crate) fn of(seed: u64) -> Self {
        let mut dice = Dice::new(seed ^ 0x0_5EED_0F07_1AEB);
        let some = |dice: &mut Dice, percent: u64, range| if dice.percent(percent) { dice.within(range) } else { 0 };
        let courier = Carelessness {
            loses: some(&mut dice, 60, 1..=15),
            doubles: some(&mut dice, 60, 1..=30),
            delays: some(&mut dice, 60, 1..=40),
            loses_answers: some(&mut dice, 60, 1..=15),
            delay: dice.millis(20..=4_000),
            carries_streams: dice.percent(60),
        };
        let mut mishaps: Vec<_> = Mishap::ALL.into_iter().filter(|_| dice.percent(40)).collect();
        // A link that was cut shows only after the keepalive's 40 seconds; such runs are long.
        if dice.percent(50) {
            mishaps.retain(|mishap| *mishap != Mishap::CutLink);
        }
        let producers = dice.within(1..=3);
        let names = ["orders", "events"];
        let topics =
            names[..dice.index(names.len()) + 1].iter().map(|name| ((*name).to_owned(), 1 + i32::from(dice.percent(50)) * 2));
        let topics: Vec<_> = topics.collect();
        let expiration = dice.percent(30).then(|| dice.millis(1_000..=8_000));
        let largest_value = *dice.pick(&[16, 200, 2_000, 12_000, 30_000]);
        // Of its own, so that it moves nothing else.
        let mut idempotence = Dice::new(seed ^ 0x1DE3_907E_4CE0_0FF0);
        Self {
            seed,
            storm: dice.millis(3_000..=10_000),
            tick: Duration::from_millis(*dice.pick(&[1, 1, 2, 5])),
            slowest_message: dice.millis(1..=40),
            callers: dice.within(1..=3),
            streams: dice.within(0..=2),
            raws: dice.within(0..=3),
            topics,
            is_deleting: dice.percent(30),
            expiration,
            courier,
            cut_percent: some(&mut dice, 50, 5..=60),
            sync: *dice.pick(&[Duration::from_micros(400), Duration::from_millis(4), Duration::from_millis(20)]),
            mishaps,
            mishap_pause: dice.millis(400..=4_000),
            largest_value,
            broker_flags: broker_flags(&mut dice, expiration, largest_value),
            producer_settings: (0..producers).map(|_| producer_settings(&mut dice, idempotence.percent(90))).collect(),
        }
    }
}

fn broker_flags(dice: &mut Dice, expiration: Option<Duration>, largest_value: u64) -> Vec<String> {
    let mut flags = vec![
        "--data-dir=simulated".to_owned(),
        "--segment-bytes=1048576".to_owned(),
        "--snapshot-bytes=1048576".to_owned(),
        "--max-message-bytes=131072".to_owned(),
        "--shutdown-timeout-ms=2000".to_owned(),
        format!("--default-partitions={}", dice.within(1..=3)),
        format!("--hold-ms={}", dice.pick(&[0, 20, 200, 1_000])),
    ];
    // Where segments fill, the oldest of them go.
    if largest_value > 20_000 || dice.percent(40) {
        flags.push(format!("--retention-bytes={}", dice.within(1..=3) << 20));
    }
    if let Some(expiration) = expiration {
        flags.push(format!("--producer-id-expiration-ms={}", expiration.as_millis()));
    }
    flags
}

fn producer_settings(dice: &mut Dice, is_idempotent: bool) -> Vec<(&'static str, String)> {
    let linger = *dice.pick(&[0, 5, 40]);
    let request_timeout = dice.within(300..=2_000);
    let delivery_timeout = linger + request_timeout + dice.within(0..=15_000);
    let first_pause = dice.within(5..=100);
    vec![
        ("enable.idempotence", is_idempotent.to_string()),
        ("linger.ms", linger.to_string()),
        ("batch.size", dice.pick(&[0, 200, 4_000, 32_768]).to_string()),
        ("max.request.size", "65536".to_owned()),
        ("buffer.memory", dice.pick(&[65_536, 33_554_432]).to_string()),
        ("request.timeout.ms", request_timeout.to_string()),
        ("delivery.timeout.ms", delivery_timeout.to_string()),
        ("max.block.ms", dice.within(500..=5_000).to_string()),
        ("max.in.flight.requests.per.connection", dice.within(1..=5).to_string()),
        ("compression.type", (*dice.pick(&["none", "snappy", "lz4", "zstd"])).to_owned()),
        ("retry.backoff.ms", first_pause.to_string()),
        ("retry.backoff.max.ms", (first_pause + dice.within(0..=900)).to_string()),
        ("shutdown.timeout.ms", dice.within(0..=3_000).to_string()),
    ]
}

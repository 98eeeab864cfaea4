//! `demo`: the whole loop on a broker in this process, under readers that never pause, with proof.
//!
//! The parts are the product's own: the roles of `run`, one more `worker` as a process, the gateway,
//! the catalog's client. What is added is a shop that writes ([`shop`], [`writer`]), readers that judge
//! ([`ask`], [`readers`]), and a truth that shares no code with the worker ([`oracle`]).

mod ask;
mod operator;
mod oracle;
mod proof;
mod readers;
mod resp;
mod shop;
mod stage;
mod story;
mod views;
mod writer;

use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use anyhow::Context as _;
use materializer_kafka::BulkWriter;
use materializer_model::{Clock, Topic};

use crate::clock::SystemClock;
use crate::output::{Exit, Failure, Format, Output};
use operator::Interrupted;
use oracle::Oracle;
use shop::Shop;
use stage::Stage;
use story::Story;
use writer::Writer;

/// Into how many partitions the log is spread: a mock broker keeps 5 MiB of each.
const PARTITIONS: i32 = 12;
/// How long `--hold` goes on: by then the mock broker's progress topic is nearly full.
const HOLD_MAX: Duration = Duration::from_secs(15 * 60);

/// What the demo is asked for.
#[derive(Clone, Copy, Debug)]
pub struct Settings {
    /// How many events there are before the first version is built.
    pub events: u64,
    /// What the shop is made of.
    pub seed: u64,
    /// Whether to go on serving after the proof.
    pub hold: bool,
}

/// Tells what happens while it happens, to people.
#[derive(Clone, Debug)]
struct Narrator {
    output: Output,
    clock: SystemClock,
}

impl Narrator {
    fn tell(&self, what: impl AsRef<str>) -> anyhow::Result<()> {
        let elapsed = self.clock.monotonic().0.as_secs_f64();
        Ok(self
            .output
            .note(format!("{elapsed:6.1} s  {}", what.as_ref()))?)
    }
}

/// Runs the demo and shows the proof.
///
/// # Errors
/// Where something could not be started or did not come to its end; a proof that does not hold is an
/// exit code.
pub fn run(settings: Settings, output: Output, clock: &SystemClock) -> Result<Exit, Failure> {
    let interrupted = on_signals()?;
    let narrator = Narrator {
        output,
        clock: clock.clone(),
    };
    let topic = Topic::new(views::TOPIC);
    let mut stage = Stage::open(&topic, PARTITIONS, clock, &interrupted)?;
    let told = tell_proof(settings, &mut stage, &narrator, &interrupted);
    told.map_err(|error| match stage.last_words() {
        words if words.is_empty() || interrupted.is_set() => error.into(),
        words => Failure::new(Exit::Failed, error, format!("the processes said:{words}")),
    })
}

fn on_signals() -> anyhow::Result<Interrupted> {
    let flag = Arc::new(AtomicBool::new(false));
    for signal in [signal_hook::consts::SIGTERM, signal_hook::consts::SIGINT] {
        signal_hook::flag::register(signal, Arc::clone(&flag)).context("listen to signals")?;
    }
    Ok(Interrupted(flag))
}

fn tell_proof(
    settings: Settings,
    stage: &mut Stage,
    narrator: &Narrator,
    interrupted: &Interrupted,
) -> anyhow::Result<Exit> {
    let Narrator { output, clock } = narrator;
    let shop = Shop::open(settings.seed, settings.events);
    let products = shop.products();
    let oracle = Arc::new(Oracle::new(settings.seed, products));
    let writer = Writer {
        shop,
        oracle: Arc::clone(&oracle),
        topic: Topic::new(views::TOPIC),
        log: BulkWriter::open(&stage.broker.settings())?,
        clock: clock.clone(),
        written: 0,
    };
    let story = Story {
        settings,
        oracle: Arc::clone(&oracle),
        products,
        narrator: narrator.clone(),
        interrupted: interrupted.clone(),
    };
    let proof = story.tell(stage, writer)?;
    if output.format() == Format::Text || settings.hold {
        output.note("")?;
    }
    output.show(&proof)?;
    if settings.hold {
        hold(stage, &oracle, narrator, interrupted)?;
    }
    let is_proved = proof.unmet.is_empty();
    Ok(if is_proved { Exit::Done } else { Exit::Failed })
}

/// Goes on serving, and says what there is to try.
fn hold(
    stage: &Stage,
    oracle: &Oracle,
    narrator: &Narrator,
    interrupted: &Interrupted,
) -> anyhow::Result<()> {
    let (http, key) = (stage.http, shop::key(oracle.listed().unwrap_or(0)));
    let mut lines = vec![
        format!("curl -i '{http}/v1/views/product-search/search?q=title:shoe&size=3'"),
        format!("curl -i {http}/v1/views/product-search/documents/{key}"),
        format!("curl {http}/v1/views"),
        format!("curl {http}/metrics"),
    ];
    if stage.redis().is_some() {
        let port = stage.redis_port.port();
        lines.push(format!("redis-cli -p {port} GET product:{key}"));
    }
    let minutes = HOLD_MAX.as_secs() / 60;
    narrator.tell(format!(
        "still serving, for {minutes} minutes or until Ctrl-C; try"
    ))?;
    for line in lines {
        narrator.output.note(format!("    {line}"))?;
    }
    let clock = &narrator.clock;
    let until = clock.monotonic().plus(HOLD_MAX);
    while clock.monotonic() < until && !interrupted.is_set() {
        stage.alive()?;
        std::thread::sleep(Duration::from_millis(100));
    }
    Ok(())
}

//! The pipeline and the client, as they are, against a model cluster that misbehaves, each run drawn from one seed.
//!
//! ```text
//!   writers ─▶ Pipeline ─▶ kafka_client ─▶ in-memory streams ─▶ brokers ─▶ one log per partition
//!      │                                     (broker.rs: requests met    (log.rs: what Kafka
//!      ▼                                      by delays, cuts, silence)   knows of producers)
//!   what each line was told ──────────────────▶ checker ◀────────────────────────┘
//! ```
//!
//! Time is paused: a run of minutes takes milliseconds. Everything random is drawn from the seed, so a seed is repeated
//! exactly, and a failure says how:
//!
//! ```text
//! SIM_SEED=4711 cargo test -p produce-pipeline --test simulation
//! ```
//!
//! `SIM_SEEDS` sets how many seeds are run (default 1,000), `SIM_FIRST` the first of them; `SIM_TRACE` prints what happens.
//!
//! On the same model `scripted.rs` has one scenario for each way to come to grief, with what goes wrong written down.
//!
//! What is not drawn from the seed: nothing that is known of. Time comes from the paused clock, jitter and rotation from the
//! thread's `fastrand`, `select!` is biased everywhere, and no hash map's order decides anything; a test compares two runs.

mod broker;
mod checker;
mod cluster;
mod log;
mod scenario;
mod scripted;
mod workload;

use broker::FIRST_PORT;
use checker::{Broken, Tally, Violations};
use cluster::Cluster;
use fastrand::Rng;
use kafka_records::HeaderBlock;
use produce_pipeline::{Cause, MemoryBudget, Pipeline, Target};
use scenario::Scenario;
use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Once};
use std::time::Duration;
use tokio::task::LocalSet;
use tokio::time::{sleep, timeout};
use workload::{Line, Request, Writer};

/// So long after the last fault everything works: what hung on it has timed out.
const HEALED_WITHIN: Duration = Duration::from_secs(30);

/// Seeds of a run unless `SIM_SEEDS` says otherwise.
const SEEDS: u64 = 1_000;

/// What one seed came to.
struct Run {
    tally: Tally,
    violations: Violations,
    digest: u64,
    requests: u64,
}

thread_local! {
    /// Panics of this thread's tasks, which a runtime keeps to itself.
    static PANICS: Cell<u64> = const { Cell::new(0) };
}

fn count_panics() {
    static HOOK: Once = Once::new();
    HOOK.call_once(|| {
        let print = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |panic| {
            PANICS.set(PANICS.get() + 1);
            print(panic);
        }));
    });
}

/// What the client and the pipeline log goes between what the model prints, for as long as the guard lives.
fn traced() -> Option<tracing::subscriber::DefaultGuard> {
    std::env::var_os("SIM_TRACE")?;
    let printed = tracing_subscriber::fmt().with_max_level(tracing::Level::TRACE).without_time().with_ansi(false);
    Some(tracing::subscriber::set_default(printed.finish()))
}

/// One seed, from an empty cluster to the last word on every line.
fn run(seed: u64, idempotence: bool) -> Run {
    count_panics();
    PANICS.set(0);
    let _tracing = traced();
    // The client's jitter and the pipeline's first partitions come from the thread's generator.
    fastrand::seed(seed);
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build()
        .expect("a runtime without I/O");
    let mut run = LocalSet::new().block_on(&runtime, simulate(seed, idempotence));
    if PANICS.get() > 0 {
        run.violations.push((Broken::Panicked, format!("{} tasks", PANICS.get())));
    }
    run
}

async fn simulate(seed: u64, idempotence: bool) -> Run {
    let mut rng = Rng::with_seed(seed);
    let mut scenario = Scenario::draw(&mut rng);
    scenario.pipeline.idempotence = idempotence;
    let cluster = Cluster::new(scenario.clone(), rng.fork());
    let client = kafka_client::Cluster::start(kafka_client::Config {
        bootstrap_servers: (0..scenario.brokers).map(|i| format!("b:{}", usize::from(FIRST_PORT) + i)).collect(),
        connector: Some(Arc::new(cluster.clone())),
        request_timeout: Duration::from_secs(5),
        ..kafka_client::Config::default()
    });
    let budget = MemoryBudget::new(64 << 20);
    let pipeline = Pipeline::new(scenario.pipeline.clone(), client.clone(), budget.clone(), Arc::new(()));
    let violations: Rc<RefCell<Violations>> = Rc::default();
    let watching = tokio::task::spawn_local(watch_connections(cluster.clone(), client.clone(), violations.clone()));
    let misfortune = tokio::spawn(cluster.clone().misfortune());

    let mut writers: Vec<_> = (0..scenario.writers)
        .map(|number| Writer {
            number,
            rng: rng.fork(),
            sequence: 0,
            pipeline: pipeline.clone(),
            client: client.clone(),
            cluster: cluster.clone(),
        })
        .collect();
    if let Some(after) = scenario.abandoned_after {
        let pipeline = pipeline.clone();
        // As at the end of a drain that has run out of time, except that this one goes on.
        tokio::task::spawn_local(async move {
            sleep(after).await;
            pipeline.abandon();
        });
    }
    let mut requests = Vec::new();
    for half in 0..2 {
        let running: Vec<_> = writers
            .drain(..)
            .map(|mut writer| {
                let scenario = scenario.clone();
                tokio::task::spawn_local(async move {
                    let requests = writer.run(&scenario).await;
                    (writer, requests)
                })
            })
            .collect();
        for writer in running {
            let (writer, done) = writer.await.expect("writers do not panic");
            writers.push(writer);
            requests.extend(done);
        }
        if half == 0 {
            cluster.state().quiet = true;
            sleep(scenario.pause).await;
            cluster.state().quiet = false;
        }
    }
    cluster.heal();
    drop(writers);
    if timeout(Duration::from_secs(60), pipeline.flush()).await.is_err() {
        violations.borrow_mut().push((Broken::Unresolved, format!("{} records", pipeline.unresolved_records())));
    }
    sleep(HEALED_WITHIN).await;
    requests.extend(probe(&scenario, &pipeline, &client, &violations).await);
    watching.abort();
    misfortune.abort();
    drop(pipeline);
    drop(client);
    // The tasks that the last handles ended go at their next turn.
    sleep(Duration::from_millis(1)).await;
    let mut violations = violations.take();
    if budget.used() != 0 {
        violations.push((Broken::Leaked, format!("{} bytes", budget.used())));
    }
    let state = cluster.state();
    let (tally, found) = checker::check(&state, &requests);
    violations.extend(found);
    Run { tally, violations, digest: state.digest(), requests: state.requests }
}

/// One record for every partition: after all that happened, each must be written. Where the client did not know yet that
/// the topic was made again, that is what it learns first, and then each must be written.
async fn probe(
    scenario: &Scenario,
    pipeline: &Pipeline,
    client: &kafka_client::Cluster,
    violations: &RefCell<Violations>,
) -> Vec<Request> {
    let mut requests = Vec::new();
    for (name, attempt) in scenario.topics.iter().flat_map(|name| [(name, 1), (name, 2)]) {
        let topic = match pipeline.topic(name).await {
            Ok(topic) => topic,
            Err(error) => {
                violations.borrow_mut().push((Broken::Stuck, format!("{name}: {error}")));
                continue;
            }
        };
        let id = u128::from_be_bytes(client.metadata().topics[name.as_str()].id.0);
        let delivery = pipeline.delivery(None, 1);
        let mut request = Request::new(id, 1);
        let partitions = topic.partition_count();
        let mut appender = topic.appender(&delivery, 0, HeaderBlock::none());
        for partition in 0..partitions {
            let value = format!("probe-{name}-{attempt}:{partition}:");
            appender.append(Target::Partition(partition, None), Some(value.as_bytes()));
            request.lines.push(Line::Record { value, partition: Some(partition) });
        }
        drop(appender);
        delivery.resolved().await;
        let summary = delivery.summary();
        let failures = &summary.failures;
        let learned = attempt == 1 && failures.iter().all(|failure| failure.cause == Cause::TopicGone);
        if summary.written != summary.lines && !learned {
            violations.borrow_mut().push((Broken::Stuck, format!("{name}: {summary:?}")));
        }
        request.summary = Some(summary);
        requests.push(request);
    }
    requests
}

/// One connection per broker for producing, and one for short questions.
async fn watch_connections(cluster: Cluster, client: kafka_client::Cluster, violations: Rc<RefCell<Violations>>) {
    loop {
        for (broker, open) in client.connection_counts() {
            if open > 2 {
                violations.borrow_mut().push((Broken::Connections, format!("{open} to broker {broker}")));
            }
        }
        let pause = if cluster.state().quiet { 20_000 } else { 100 };
        sleep(Duration::from_millis(pause)).await;
    }
}

fn variable(name: &str) -> Option<u64> {
    let value = std::env::var(name).ok()?;
    Some(value.parse().unwrap_or_else(|_| panic!("{name}={value} is not a number")))
}

/// Runs `seeds` on all cores; `each` gets every result.
fn run_all(seeds: std::ops::Range<u64>, idempotence: bool, each: impl Fn(u64, Run) + Sync) {
    let next = AtomicU64::new(seeds.start);
    std::thread::scope(|scope| {
        for _ in 0..std::thread::available_parallelism().map_or(1, usize::from) {
            scope.spawn(|| {
                loop {
                    let seed = next.fetch_add(1, Relaxed);
                    if seed >= seeds.end {
                        return;
                    }
                    let run = std::panic::catch_unwind(|| run(seed, idempotence));
                    match run {
                        Ok(run) => each(seed, run),
                        Err(panic) => {
                            eprintln!("seed {seed} panicked; {}", again(seed));
                            std::panic::resume_unwind(panic);
                        }
                    }
                }
            });
        }
    });
}

fn again(seed: u64) -> String {
    format!("again: SIM_SEED={seed} cargo test -p produce-pipeline --test simulation every_line")
}

#[test]
fn every_line_becomes_what_it_was_told_to_become() {
    let seeds = match variable("SIM_SEED") {
        Some(seed) => seed..seed + 1,
        None => {
            let first = variable("SIM_FIRST").unwrap_or(0);
            first..first + variable("SIM_SEEDS").unwrap_or(SEEDS)
        }
    };
    let total = std::sync::Mutex::new((Tally::default(), 0));
    let failed = std::sync::Mutex::new(Vec::new());
    run_all(seeds.clone(), true, |seed, run| {
        let mut total = total.lock().expect("no panic under it");
        total.0.add(run.tally);
        total.1 += run.requests;
        if !run.violations.is_empty() {
            failed.lock().expect("no panic under it").push((seed, run.violations));
        }
    });
    let (tally, requests) = *total.lock().expect("no panic under it");
    let count = seeds.end - seeds.start;
    println!("{count} seeds, {requests} requests to brokers, {tally:?}");
    let mut failed = failed.into_inner().expect("no panic under it");
    failed.sort_by_key(|(seed, _)| *seed);
    for (seed, violations) in failed.iter().take(3) {
        eprintln!("seed {seed}: {}", again(*seed));
        violations.iter().take(5).for_each(|(broken, what)| eprintln!("  {broken:?}: {what}"));
    }
    let seeds: Vec<_> = failed.iter().map(|(seed, violations)| (*seed, violations[0].0)).collect();
    assert!(failed.is_empty(), "{} seeds failed: {:?}", seeds.len(), &seeds[..seeds.len().min(20)]);
    assert!(tally.written > 0 || count == 1);
}

/// The proof that the checker sees duplicates.
#[test]
fn without_idempotence_the_checker_finds_duplicates() {
    let duplicates = AtomicU64::new(0);
    run_all(0..50, false, |_, run| {
        let found = run.violations.iter().any(|(broken, _)| *broken == Broken::Duplicate);
        duplicates.fetch_add(u64::from(found), Relaxed);
    });
    assert!(duplicates.into_inner() > 0);
}

#[test]
fn a_seed_is_repeated_exactly() {
    for seed in 0..20 {
        assert_eq!(run(seed, true).digest, run(seed, true).digest, "seed {seed}");
    }
}

//! One run: start, load, faults one after another, healing, and the comparison.

use std::{collections::BTreeSet, thread::available_parallelism, time::Duration};

use penstock_tests::tools::kcat_read;

use crate::{
    check::{Finding, Kind, Logged, check},
    faults::Field,
    goodput::{WINDOW, goodput, impaired, recovery},
    history::{Line, Outcome, Request, since_creation},
    readers::Readers,
    report::{FaultRow, Report},
    schedule::{self, Fault, Step, Wishes},
    workload::{Load, Workload},
};

/// What a run is to be.
#[derive(Debug, Clone)]
pub(crate) struct Plan {
    /// What everything is drawn from.
    pub(crate) seed: u64,
    /// When the last fault begins, at the latest.
    pub(crate) length: Duration,
    /// Which faults.
    pub(crate) wishes: Wishes,
    /// How many writers.
    pub(crate) writers: u32,
    /// Lines a second of all writers.
    pub(crate) rate: f64,
}

/// Writers of the topic that is re-created. Their numbers follow the others'.
const RECREATED_WRITERS: u32 = 1;
/// Members of the group that reads the topic.
const READERS: usize = 2;
/// After everything is healed: how long the readers may take to have read it all. A member that a killed bridge left behind, and a
/// coordinator that is lost, each take a session's timeout.
const READ_UP: Duration = Duration::from_secs(60);
/// How long the next fault waits for goodput to come back; longer than the bar.
const RECOVERY_WAIT: Duration = Duration::from_secs(15);
/// After everything is healed: how long requests may stay unanswered.
const RESOLUTION: Duration = Duration::from_secs(30);
/// A request sent this long before a topic's deletion was taken in by the bridge before it.
const TAKEN_IN: Duration = Duration::from_secs(1);

/// Runs a plan to its end.
pub(crate) fn run(plan: &Plan) -> Report {
    let Wishes { quick, control, full_disk, .. } = plan.wishes;
    let threads = available_parallelism().map_or(2, |count| count.get().min(4));
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(threads).enable_all().build();
    let runtime = runtime.expect("threads can be started");
    let mut field = Field::start(runtime, plan.seed, !control, full_disk);
    let steps = schedule::draw(plan.seed, &plan.wishes, field.partitions);
    let names: Vec<_> = steps.iter().map(name).collect();
    println!("seed {}, for as long as there is time: {}", plan.seed, names.join(", "));

    let mut loads = load(&field, plan);
    let mut readers = Readers::start(field.runtime().handle(), field.bridge.port, &field.topic, READERS);
    // The first two seconds belong to connections, topics and producer ids.
    let settled = field.now() + Duration::from_secs(2);
    field.wait(Duration::from_secs(if quick { 5 } else { 10 }));
    let first_fault = field.now();
    let baseline = goodput(&loads, settled, first_fault);
    println!("{:>7.1} s  baseline: {baseline:.0} lines/s", first_fault.as_secs_f64());

    let mut rows = Vec::new();
    for step in &steps {
        if field.now() >= plan.length {
            break;
        }
        rows.push(play(&mut field, &loads, step, baseline));
    }
    field.wait(Duration::from_secs(2));
    let [checked, recreated] = &mut loads;
    field.runtime().block_on(async { tokio::join!(checked.stop(RESOLUTION), recreated.stop(RESOLUTION)) });
    let ended = field.now();
    println!("{:>7.1} s  healed and stopped; reading", ended.as_secs_f64());

    // Once more, now that the answers are there to what was on its way when it was looked at.
    let baseline = goodput(&loads, settled, first_fault);
    let requests: Vec<_> = loads.iter().flat_map(Workload::requests).collect();
    for number in 0..rows.len() {
        let next = rows.get(number + 1).map_or(ended, |next: &FaultRow| next.begun);
        let row = &mut rows[number];
        // Where the next fault came before that can be seen, what was seen then counts.
        row.recovery = recovery(&loads, baseline, row.healed, next).or(row.recovery);
        row.impaired = impaired(&loads, baseline, row.begun, next);
        let told = |outcome| {
            let requests = requests.iter().filter(|request| row.begun <= request.invoked && request.invoked < next);
            requests.map(|request| request.told(outcome)).sum()
        };
        (row.not_written, row.unknown) = (told(Outcome::NotWritten), told(Outcome::Unknown));
    }
    let (findings, lost_connections) = compare(&mut field, &loads, &mut readers);
    let (read, streams) = readers.counts();
    println!("{READERS} readers got {read} records in {streams} streams");
    Report {
        seed: plan.seed,
        idempotence: !control,
        seconds: ended.as_secs_f64(),
        baseline,
        faults: rows,
        requests,
        lost_connections,
        peak_resident_bytes: field.peak_resident_bytes(),
        findings,
    }
}

/// The writers of the topic that is checked, and those of the topic that is re-created.
fn load(field: &Field, plan: &Plan) -> [Workload; 2] {
    let checked = Load {
        port: field.bridge.port,
        topic: field.topic.clone(),
        partitions: field.partitions,
        first_writer: 0,
        writers: plan.writers,
        rate: plan.rate / f64::from(plan.writers + RECREATED_WRITERS),
        seed: plan.seed,
    };
    let recreated = Load {
        topic: field.recreated.clone(),
        partitions: field.recreated_partitions,
        first_writer: plan.writers,
        writers: RECREATED_WRITERS,
        ..checked.clone()
    };
    [checked, recreated].map(|load| Workload::start(field.runtime().handle(), &load, field.start_time()))
}

/// Everything that is wrong, and how many connections were lost with a request on them while nobody killed the bridge.
fn compare(field: &mut Field, loads: &[Workload; 2], readers: &mut Readers) -> (Vec<Finding>, usize) {
    let [checked, recreated] = loads;
    let logged = read(field, &field.topic);
    let mut findings = check(&checked.requests(), &logged);
    let places: BTreeSet<_> = logged.iter().map(|record| (record.partition, record.offset)).collect();
    field.runtime().block_on(readers.stop(&places, READ_UP));
    findings.extend(readers.check(&places));
    findings.extend(check_recreated(field, recreated.requests()));
    findings.append(&mut field.findings);
    let mut lost_connections = 0;
    for journal in loads.iter().flat_map(Workload::journals) {
        findings.extend(journal.findings.iter().cloned());
        // Whoever was sending when the bridge was killed sees it later.
        let killed = |(sent, seen): &(Duration, Duration)| {
            field.kills.iter().any(|(killed, back)| sent <= back && killed <= seen)
        };
        for (sent, seen) in journal.cuts.iter().filter(|cut| !killed(cut)) {
            findings.push(Finding { kind: Kind::CutAnswer, detail: format!("sent at {sent:.3?}, cut at {seen:.3?}") });
        }
        lost_connections += journal.losses.iter().filter(|loss| !killed(loss)).count();
    }
    field.look_at_bridge();
    findings.extend(field.panics().map(|line| Finding { kind: Kind::Panic, detail: line.to_owned() }));
    (findings, lost_connections)
}

/// One step: begins its faults, holds them, ends them, and waits until goodput and replicas are back.
fn play(field: &mut Field, loads: &[Workload], step: &Step, baseline: f64) -> FaultRow {
    // Leaders are asked for while all brokers answer.
    let targets: Vec<_> =
        step.faults.iter().map(|(fault, partition)| (*fault, field.leader(&field.topic, *partition))).collect();
    let begun = field.now();
    let mut running = Vec::new();
    for (fault, node) in &targets {
        if !running.is_empty() {
            field.wait(Duration::from_millis(300));
        }
        running.push(field.begin(*fault, *node));
    }
    field.wait(step.hold);
    while let Some(last) = running.pop() {
        field.end(last);
    }
    let healed = field.now();
    let back = loop {
        let now = field.now();
        let back = recovery(loads, baseline, healed, now);
        if back.is_some() || now > healed + RECOVERY_WAIT {
            break back;
        }
        field.wait(WINDOW / 5);
    };
    let impaired = impaired(loads, baseline, begun, field.now());
    let at = |(fault, node): &(Fault, usize)| {
        if fault.is_at_a_leader() { format!("{fault} (broker {})", node + 1) } else { fault.to_string() }
    };
    let row = FaultRow {
        name: name(step),
        place: targets.iter().map(at).collect::<Vec<_>>().join(" + "),
        begun,
        healed,
        impaired,
        not_written: 0,
        unknown: 0,
        recovery: back,
    };
    println!("{row}");
    field.wait(WINDOW);
    field.wait_until_whole();
    field.look_at_bridge();
    row
}

fn name(step: &Step) -> String {
    let names: Vec<_> = step.faults.iter().map(|(fault, _)| fault.to_string()).collect();
    names.join(" + ")
}

/// Every record of a topic, read by `kcat` past the proxies.
fn read(field: &Field, topic: &str) -> Vec<Logged> {
    let records = kcat_read(&field.cluster.direct_bootstrap(), topic).into_iter();
    records
        .map(|record| Logged {
            partition: record.partition,
            offset: record.offset,
            key: record.key.map(|key| String::from_utf8_lossy(&key).into_owned()),
            line: record.value.and_then(|value| Line::parse(&value)),
        })
        .collect()
}

/// What was acknowledged before the last deletion went with it; no record of before is in the new topic.
fn check_recreated(field: &Field, mut requests: Vec<Request>) -> Vec<Finding> {
    if let Some((deleted, created)) = field.recreation {
        since_creation(&mut requests, deleted, created, TAKEN_IN);
    }
    let mut findings = check(&requests, &read(field, &field.recreated));
    for finding in &mut findings {
        finding.detail = format!("re-created topic: {}", finding.detail);
    }
    findings
}

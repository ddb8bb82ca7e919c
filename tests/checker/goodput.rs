//! Goodput: how many lines a second were written in a span of the run.
//!
//! Requests are of 1 to 500 lines and each writer sends them at its pace, so counting acknowledgements would jump
//! about. A request's written lines are spread over the time that it stands for instead: from its sending to the next
//! one's turn. Writers that nothing holds up give exactly their rates; one that waits for an answer gives less, one
//! that gets none nothing.

use std::time::Duration;

use crate::{
    history::{Outcome, Request},
    workload::Workload,
};

/// The share of the baseline that counts as recovered.
pub(crate) const RECOVERED: f64 = 0.9;
/// The span over which goodput is looked at.
pub(crate) const WINDOW: Duration = Duration::from_secs(1);
/// The distance between two looks.
const STEP: Duration = Duration::from_millis(100);

/// Written lines a second between two times.
pub(crate) fn goodput(workloads: &[Workload], from: Duration, to: Duration) -> f64 {
    let lines: f64 = workloads
        .iter()
        .flat_map(Workload::journals)
        .map(|journal| journal.requests.iter().map(|request| written_within(request, from, to)).sum::<f64>())
        .sum();
    lines / (to - from).as_secs_f64()
}

fn written_within(request: &Request, from: Duration, to: Duration) -> f64 {
    let (until, written) = match request.answered {
        Some(answered) => (answered.max(request.invoked + request.slot), request.count(Outcome::Written)),
        // Taken for good while it is still being sent: looked at again when the answer is there.
        None if !request.sending.is_zero() => (request.invoked + request.slot, request.lines.len()),
        None => return 0.0,
    };
    let overlap = to.min(until).saturating_sub(from.max(request.invoked));
    if overlap.is_zero() {
        return 0.0;
    }
    let share = overlap.as_secs_f64() / (until - request.invoked).as_secs_f64();
    share * written as f64
}

/// How long after `healed` a window begins in which goodput is back; `None` when there is none until `now`.
pub(crate) fn recovery(workloads: &[Workload], baseline: f64, healed: Duration, now: Duration) -> Option<Duration> {
    steps(healed, now)
        .find(|from| goodput(workloads, *from, *from + WINDOW) >= RECOVERED * baseline)
        .map(|from| from - healed)
}

/// For how long between two times goodput was below the share that counts as recovered.
pub(crate) fn impaired(workloads: &[Workload], baseline: f64, from: Duration, to: Duration) -> Duration {
    let below = |at: &Duration| goodput(workloads, *at, *at + WINDOW) < RECOVERED * baseline;
    STEP * steps(from, to).filter(below).count() as u32
}

/// Beginnings of windows that end by `to`.
fn steps(from: Duration, to: Duration) -> impl Iterator<Item = Duration> {
    (0..).map(move |step| from + STEP * step).take_while(move |at| *at + WINDOW <= to)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::history::{Line, Told};

    #[test]
    fn a_request_s_lines_are_spread_over_its_turn_or_its_wait() {
        let second = Duration::from_secs(1);
        let line = Line { writer: 0, key: 0, seq: 0, attempt: 0 };
        let mut request = Request {
            connection: 0,
            partition: None,
            keyed: false,
            abandoned: false,
            lines: vec![line; 100],
            invoked: 10 * second,
            slot: second,
            sending: Duration::ZERO,
            due: second,
            answered: Some(10 * second),
            told: Told::all(Outcome::Written, 100),
        };
        let within = |request: &Request, from: u32, to: u32| written_within(request, from * second, to * second);
        assert_eq!(within(&request, 10, 11), 100.0);
        assert_eq!(within(&request, 11, 12), 0.0);
        request.answered = Some(14 * second);
        assert_eq!(within(&request, 10, 11), 25.0);
        assert_eq!(within(&request, 0, 20), 100.0);
        request.told = Told::all(Outcome::Unknown, 100);
        assert_eq!(within(&request, 0, 20), 0.0);
        request.answered = None;
        assert_eq!(within(&request, 0, 20), 0.0);
    }
}

//! Three bridges behind a load balancer, replaced one by one while callers go on.

use std::{net::Ipv4Addr, time::Duration};

use penstock_tests::{
    eventually,
    fleet::{
        Fleet, Leave,
        load::{Callers, Load},
    },
    shared::three_brokers,
};

const LIMIT: Duration = Duration::from_secs(120);
/// A notice of 4.3 seconds.
const FASTER: f64 = 30.0;

#[test]
fn a_fleet_is_replaced_bridge_by_bridge_and_no_caller_notices() {
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().expect("a runtime");
    let cluster = three_brokers();
    let topic = cluster.create_topic("fleet", 6);
    let listen = (Ipv4Addr::LOCALHOST, 0).into();
    let mut fleet = Fleet::start(runtime.handle(), &cluster.bootstrap(), 3, FASTER, listen).expect("loopback");
    let load = Load { port: fleet.port(), topic: topic.clone(), uploads: 20, requests: 50 };
    let callers = Callers::start(runtime.handle(), &load);
    eventually("every kind of caller was answered", LIMIT, || {
        let (requests, uploads) = callers.answered();
        (requests > 50 && uploads > 0).then_some(())
    });
    for (index, leave) in [(0, Leave::Signalled), (1, Leave::Deregistered), (2, Leave::Signalled)] {
        let replaced = fleet.replace(index, leave);
        assert_eq!(replaced.refused, 0, "{replaced}");
    }
    let outcome = callers.finish(runtime.handle(), &cluster.bootstrap(), &topic);
    assert!(outcome.is_clean(), "{outcome}");
}

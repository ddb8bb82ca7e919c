//! `fake-nlb`: a load balancer that behaves as AWS's network load balancers do, on this machine. See
//! [`penstock_tests::nlb`] for what it imitates.
//!
//! ```text
//! fake-nlb --listen 127.0.0.1:8443=vpce-0123 --control 127.0.0.1:8500 --faster 10 \
//!     --target 127.0.0.1:18443,127.0.0.1:18081 --target 127.0.0.1:28443,127.0.0.1:28081
//! ```
//!
//! A bridge behind it needs `listen.proxy_protocol = "required"` and the nodes in `listen.proxy_trusted`:
//! `["127.0.1.0/24"]`.

use std::{
    net::{IpAddr, Ipv4Addr, SocketAddr},
    process::ExitCode,
    sync::Arc,
    time::Duration,
};

use clap::Parser;
use penstock_tests::nlb::{Check, Nlb, Settings, control, group::Target};
use tokio::{net::TcpListener, runtime::Handle};

/// A network load balancer with VPC endpoints in front, on loopback. Times are in seconds, before `--faster`.
#[derive(Debug, Parser)]
#[command(version)]
struct Options {
    /// Where clients connect, and the VPC endpoint that they then came through; repeated
    #[arg(long, value_name = "IP:PORT[=ENDPOINT]", required = true, value_parser = listener)]
    listen: Vec<(SocketAddr, Option<String>)>,
    /// The VPC endpoint of a client's address; goes before that of the listener; repeated
    #[arg(long, value_name = "IP=ENDPOINT", value_parser = source)]
    source: Vec<(IpAddr, String)>,
    /// A target, and where its health is asked for; repeated
    #[arg(long, value_name = "IP:PORT[,IP:PORT]", value_parser = target)]
    target: Vec<Target>,
    /// Where scripts register and deregister targets and ask for their status
    #[arg(long, value_name = "IP:PORT")]
    control: Option<SocketAddr>,
    /// A node's address, which targets see; repeated
    #[arg(long, value_name = "IP", default_values = ["127.0.1.1", "127.0.1.2", "127.0.1.3"])]
    node: Vec<Ipv4Addr>,
    /// Divides every time
    #[arg(long, value_name = "FACTOR", default_value_t = 1.0)]
    faster: f64,
    /// No PROXY header
    #[arg(long)]
    no_proxy_protocol: bool,
    /// PROXY headers without a checksum
    #[arg(long)]
    no_checksum: bool,
    /// The path of health checks; `tcp` for a connection alone
    #[arg(long, value_name = "PATH", default_value = "/readyz")]
    check: String,
    #[arg(long, value_name = "SECONDS", default_value_t = 5.0)]
    check_interval: f64,
    #[arg(long, value_name = "SECONDS", default_value_t = 3.0)]
    check_timeout: f64,
    #[arg(long, value_name = "CHECKS", default_value_t = 2)]
    healthy_threshold: u32,
    #[arg(long, value_name = "CHECKS", default_value_t = 2)]
    unhealthy_threshold: u32,
    /// How long an unhealthy target still gets new flows: from its first node, and from its last
    #[arg(long, value_name = "SECONDS", num_args = 2, default_values_t = [30.0, 40.0])]
    unhealthy_lag: Vec<f64>,
    /// How long a deregistered target still gets new flows: from its first node, and from its last
    #[arg(long, value_name = "SECONDS", num_args = 2, default_values_t = [30.0, 120.0])]
    deregistered_lag: Vec<f64>,
    #[arg(long, value_name = "SECONDS", default_value_t = 180.0)]
    deregistration_delay: f64,
    /// Flows that are left after the deregistration delay go on
    #[arg(long)]
    no_deregistration_termination: bool,
    /// Flows of a target that turns unhealthy are reset at once
    #[arg(long)]
    unhealthy_termination: bool,
    #[arg(long, value_name = "SECONDS", default_value_t = 180.0)]
    unhealthy_draining: f64,
    #[arg(long, value_name = "SECONDS", default_value_t = 350.0)]
    idle_timeout: f64,
}

fn listener(text: &str) -> Result<(SocketAddr, Option<String>), String> {
    let (address, endpoint) = text.split_once('=').map_or((text, None), |(address, id)| (address, Some(id.to_owned())));
    Ok((address.parse().map_err(|_| format!("{address} is no IP:PORT"))?, endpoint))
}

fn source(text: &str) -> Result<(IpAddr, String), String> {
    let (ip, endpoint) = text.split_once('=').ok_or("IP=ENDPOINT")?;
    Ok((ip.parse().map_err(|_| format!("{ip} is no IP address"))?, endpoint.to_owned()))
}

fn target(text: &str) -> Result<Target, String> {
    let (address, health) = text.split_once(',').unwrap_or((text, text));
    let parse = |text: &str| text.parse().map_err(|_| format!("{text} is no IP:PORT"));
    Ok(Target { address: parse(address)?, health: parse(health)? })
}

impl Options {
    fn settings(&self) -> Result<Settings, String> {
        let seconds =
            |value: f64| Duration::try_from_secs_f64(value).map_err(|_| format!("{value} is no number of seconds"));
        let lag = |values: &[f64]| Ok::<_, String>((seconds(values[0])?, seconds(values[1])?));
        if !(self.faster.is_finite() && self.faster > 0.0) {
            return Err(format!("--faster {}: a number above 0", self.faster));
        }
        let mut settings = Settings::new("");
        settings.listeners.clone_from(&self.listen);
        settings.endpoints = self.source.iter().cloned().collect();
        settings.nodes.clone_from(&self.node);
        settings.proxy_protocol = !self.no_proxy_protocol;
        settings.checksum = !self.no_checksum;
        settings.check = if self.check == "tcp" { Check::Tcp } else { Check::Http(self.check.clone()) };
        settings.check_interval = seconds(self.check_interval)?;
        settings.check_timeout = seconds(self.check_timeout)?;
        settings.idle_timeout = seconds(self.idle_timeout)?;
        let attributes = &mut settings.attributes;
        attributes.healthy_threshold = self.healthy_threshold;
        attributes.unhealthy_threshold = self.unhealthy_threshold;
        attributes.unhealthy_lag = lag(&self.unhealthy_lag)?;
        attributes.deregistered_lag = lag(&self.deregistered_lag)?;
        attributes.deregistration_delay = seconds(self.deregistration_delay)?;
        attributes.deregistration_termination = !self.no_deregistration_termination;
        attributes.unhealthy_termination = self.unhealthy_termination;
        attributes.unhealthy_draining = seconds(self.unhealthy_draining)?;
        if settings.check_interval.is_zero() {
            return Err("--check-interval: more than 0".to_owned());
        }
        Ok(settings.faster(self.faster))
    }
}

fn main() -> ExitCode {
    let options = Options::parse();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    match runtime.block_on(run(&options)) {
        Ok(never) => match never {},
        Err(error) => {
            eprintln!("fake-nlb: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Runs until the process is ended.
async fn run(options: &Options) -> Result<std::convert::Infallible, String> {
    let nlb = Nlb::start(&Handle::current(), options.settings()?).map_err(|error| format!("--listen: {error}"))?;
    let nlb = Arc::new(nlb);
    for target in &options.target {
        if !nlb.register(*target) {
            return Err(format!("--target {} twice", target.address));
        }
    }
    for address in nlb.addresses() {
        println!("listening {address}");
    }
    if let Some(address) = options.control {
        let listener = TcpListener::bind(address).await.map_err(|error| format!("--control {address}: {error}"))?;
        println!("control {}", listener.local_addr().map_err(|error| error.to_string())?);
        control::serve(nlb, listener).await;
    }
    std::future::pending().await
}

//! The loads: each carries out one kind of order.

mod connections;
mod datagrams;
mod echo;
mod fairness;
mod floor;
mod latency;
mod paced;
mod streams;
mod transfer;
mod tunnels;

use serde_json::{Value, json};

use crate::failure::{Outcome, fail};
use crate::order::Order;

/// Carries out an order and gives its answer.
pub fn run(order: &Order) -> Outcome<Value> {
    match order.load.as_str() {
        "datagrams" => Ok(json!(datagrams::run(order)?)),
        "fairness" => fairness::run(order),
        "floor" => Ok(json!(floor::run(order)?)),
        "handshakes" => Ok(json!(connections::run_handshakes(order)?)),
        "latency" => latency::run(order),
        "memory" => connections::run_memory(order),
        "paced-streams" => Ok(json!(paced::run(order)?)),
        "probe" => connections::run_probe(order),
        "streams" => Ok(json!(streams::run(order)?)),
        "tunnels" => Ok(json!(tunnels::run(order)?)),
        unknown => fail(format!("no load {unknown}")),
    }
}

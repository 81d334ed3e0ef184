//! The event `update-graph`: what became of each graph, when all of it was known.

use std::sync::Arc;

use oxidask_protocol::Value;
use oxidask_scheduler_core::action::GraphUpdated;

use crate::clock::unix_time;
use crate::coordinate;
use crate::driver::Driver;
use crate::server::Server;

/// A graph on its way into the core.
#[derive(Clone, Debug)]
pub struct Coming {
    /// The name of its client.
    pub client: Arc<str>,
    /// When it came. Unit: Unix seconds.
    pub began: f64,
    /// When all its nodes were there. Unit: Unix seconds.
    pub materialised: f64,
}

/// Logs what has come since the last call; true if anything has.
pub fn write(server: &Server, driver: &mut Driver) -> bool {
    let graphs = driver.take_graphs();
    for (coming, outcome) in &graphs {
        let topics = ["scheduler", &*coming.client];
        coordinate::log_event(server, driver, &topics, &message(coming, outcome));
    }
    !graphs.is_empty()
}

/// The order of the tasks is found while they come in, so its time is part of that.
fn message(coming: &Coming, graph: &GraphUpdated) -> Value {
    let now = unix_time();
    let mut event = vec![
        ("action", Value::from("update-graph")),
        ("stimulus_id", (&*graph.stimulus_id).into()),
    ];
    if graph.refused {
        event.push(("status", "cancelled".into()));
        return Value::map(event);
    }
    let &Coming {
        began,
        materialised,
        ..
    } = coming;
    let metrics = Value::map([
        ("tasks", Value::from(graph.tasks)),
        ("new_tasks", graph.new_tasks.into()),
        ("key_collisions", graph.key_collisions.into()),
        ("start_timestamp_seconds", began.into()),
        (
            "materialization_duration_seconds",
            (materialised - began).into(),
        ),
        ("ordering_duration_seconds", 0.0.into()),
        (
            "state_initialization_duration_seconds",
            (now - materialised).into(),
        ),
        ("duration_seconds", (now - began).into()),
    ]);
    event.push(("metrics", metrics));
    event.push(("status", "OK".into()));
    Value::map(event)
}

//! The topic `stealing`: what became of moving tasks to idle workers, in the words of distributed.

use oxidask_protocol::Value;
use oxidask_scheduler_core::action::{StealNote, StealOutcome, StealRequested};

use crate::clock::unix_time;
use crate::coordinate;
use crate::driver::Driver;
use crate::server::Server;

/// Logs what has come since the last call.
pub fn write(server: &Server, driver: &mut Driver) {
    for note in driver.take_steal_notes() {
        let message = message(&note, unix_time());
        coordinate::log_event(server, driver, &["stealing"], &message);
    }
}

/// Source: distributed `WorkStealing.balance`, `move_task_confirm`.
fn message(note: &StealNote, now: f64) -> Value {
    let (outcome, key, state, victim, stimulus_id) = match note {
        StealNote::Requested(requests) => {
            let requests = requests.iter().map(|request| requested(request, now));
            return Value::array([Value::from("request"), Value::array(requests)]);
        }
        StealNote::Answered {
            outcome,
            key,
            state,
            victim,
            stimulus_id,
        } => (outcome, key, state, victim, stimulus_id),
    };
    let mut fields: Vec<Value> = vec![Value::from(word(outcome))];
    if let StealOutcome::Rescheduled { thief_is_gone, .. } = outcome {
        fields.push((*thief_is_gone).into());
    }
    fields.push(key.into());
    fields.push(state.as_deref().map_or(Value::Nil, Value::from));
    fields.push((&**victim).into());
    match outcome {
        StealOutcome::Aborted | StealOutcome::Stale => {}
        StealOutcome::AlreadyComputing(thief)
        | StealOutcome::Confirmed(thief)
        | StealOutcome::Rescheduled { thief, .. } => fields.push((&**thief).into()),
    }
    fields.push((&**stimulus_id).into());
    Value::array(fields)
}

fn word(outcome: &StealOutcome) -> &'static str {
    match outcome {
        StealOutcome::Aborted => "already-aborted",
        StealOutcome::Stale => "stale-response",
        StealOutcome::AlreadyComputing(_) => "already-computing",
        StealOutcome::Confirmed(_) => "confirm",
        StealOutcome::Rescheduled { .. } => "reschedule",
    }
}

fn requested(request: &StealRequested, now: f64) -> Value {
    let StealRequested {
        level,
        key,
        cost,
        victim,
        victim_occupancy,
        thief,
        thief_occupancy,
    } = request;
    Value::array([
        Value::from(now),
        (*level as u64).into(),
        key.into(),
        (*cost).into(),
        (&**victim).into(),
        (*victim_occupancy).into(),
        (&**thief).into(),
        (*thief_occupancy).into(),
    ])
}

#[cfg(test)]
mod tests {
    use oxidask_protocol::Key;

    use super::*;

    fn answered(outcome: StealOutcome, state: Option<&str>) -> Value {
        let note = StealNote::Answered {
            outcome,
            key: Key::from("x"),
            state: state.map(ToOwned::to_owned),
            victim: "tcp://a:1".into(),
            stimulus_id: "steal-1".into(),
        };
        message(&note, 0.0)
    }

    #[test]
    fn answers_have_the_fields_of_distributed() {
        let thief = || "tcp://b:1".into();
        let confirmed = answered(StealOutcome::Confirmed(thief()), Some("ready"));
        let words = ["confirm", "x", "ready", "tcp://a:1", "tcp://b:1", "steal-1"];
        assert_eq!(confirmed, Value::array(words.map(Value::from)));
        let stale = answered(StealOutcome::Stale, Some("executing"));
        let words = ["stale-response", "x", "executing", "tcp://a:1", "steal-1"];
        assert_eq!(stale, Value::array(words.map(Value::from)));
        let rescheduled = StealOutcome::Rescheduled {
            thief: thief(),
            thief_is_gone: true,
        };
        let fields: [Value; 7] = [
            "reschedule".into(),
            true.into(),
            "x".into(),
            Value::Nil,
            "tcp://a:1".into(),
            "tcp://b:1".into(),
            "steal-1".into(),
        ];
        assert_eq!(answered(rescheduled, None), Value::array(fields));
    }
}

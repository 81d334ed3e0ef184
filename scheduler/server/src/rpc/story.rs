//! `get_story`: what became of tasks, and what caused it.

use oxidask_protocol::message::rpc::GetStory;
use oxidask_protocol::{Key, Value};
use oxidask_scheduler_core::Time;
use oxidask_scheduler_core::action::Transition;

use super::{Answer, Outcome};
use crate::clock::Clock;
use crate::server::Server;

/// `get_story`: transitions of keys, or those that stimuli caused, the oldest first.
pub(super) fn story(server: &Server, body: &GetStory) -> Outcome {
    let asked = &body.keys_or_stimuli;
    let keys: Vec<Key> = asked.iter().filter_map(Value::to_key).collect();
    let texts = asked.iter().filter_map(Value::as_str);
    let stimuli: Vec<String> = texts.map(str::to_owned).collect();
    let story = server.driver().core().story(&keys, &stimuli);
    let story = story.iter().map(|entry| row(&server.clock, entry));
    Answer::value(Value::Array(story.collect()))
}

/// Key, state before, state after, what was recommended because of it, stimulus, Unix seconds.
///
/// Recommendations are carried out and not kept; the place is there because callers count columns.
pub(super) fn row(clock: &Clock, (time, transition): &(Time, Transition)) -> Value {
    Value::Array(vec![
        Value::from(&transition.key),
        transition.start.as_str().into(),
        transition.finish.as_str().into(),
        Value::Map(Vec::new()),
        (&*transition.stimulus_id).into(),
        clock.unix(*time).into(),
    ])
}

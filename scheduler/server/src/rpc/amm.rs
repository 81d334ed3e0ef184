//! `amm_handler`: the active memory manager is started, stopped, run once, or asked whether it runs.

use oxidask_scheduler_core::Event;
use oxidask_scheduler_core::event::AmmCommand;

use super::reply::raise;
use super::{Answer, Outcome};
use crate::aside::Hook;
use crate::server::Server;

/// `amm_handler`.
pub(super) fn command(server: &Server, method: &str) -> Outcome {
    let command = match method {
        "start" => AmmCommand::Start,
        "stop" => AmmCommand::Stop,
        "run_once" => AmmCommand::RunOnce,
        "running" => return Answer::value(server.driver().core().memory_manager_runs()),
        other => {
            let text = format!("amm_handler: {other:?} is none of start, stop, run_once, running");
            return Err(raise("ValueError", &text));
        }
    };
    server.driver().handle(Event::MemoryManager(command));
    server
        .aside
        .tell(Hook::MemoryManager, vec![method.into()], Vec::new());
    Answer::nil()
}

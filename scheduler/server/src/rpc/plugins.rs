//! Plugins of workers, nannies and the scheduler.

use std::sync::Arc;

use oxidask_protocol::Value;
use oxidask_protocol::message::rpc::RegisterPlugin;

use super::python::refusal;
use super::reply::raise;
use super::{Answer, Outcome, broadcast};
use crate::aside::Hook;
use crate::plugins::{PluginList, Plugins};
use crate::server::Server;

/// Whose plugin it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Host {
    /// A worker's.
    Worker,
    /// A nanny's.
    Nanny,
}

impl Host {
    fn list(self, plugins: &mut Plugins) -> &mut PluginList {
        match self {
            Self::Worker => &mut plugins.worker,
            Self::Nanny => &mut plugins.nanny,
        }
    }

    fn word(self) -> &'static str {
        match self {
            Self::Worker => "worker",
            Self::Nanny => "nanny",
        }
    }

    /// The request that adds or removes one, which workers and nannies spell differently.
    fn op(self, add: bool) -> &'static str {
        match (self, add) {
            (Self::Worker, true) => "plugin-add",
            (Self::Worker, false) => "plugin-remove",
            (Self::Nanny, true) => "plugin_add",
            (Self::Nanny, false) => "plugin_remove",
        }
    }
}

/// `register_worker_plugin`, `register_nanny_plugin`: for those that are there and those to come.
pub(super) async fn register(server: &Arc<Server>, host: Host, body: RegisterPlugin) -> Outcome {
    let Some(name) = body.name else {
        return Err(raise("TypeError", "the name of a plugin is missing"));
    };
    {
        let mut plugins = server.plugins();
        let list = host.list(&mut plugins);
        if body.idempotent == Some(true) && list.contains(&name) {
            return Answer::value(Value::Map(Vec::new()));
        }
        // A copy: the message that brought it may be much larger.
        list.set(&name, bytes::Bytes::copy_from_slice(&body.plugin));
    }
    if host == Host::Nanny {
        nannies_started(server).await;
    }
    let message = Value::map([
        ("op", Value::from(host.op(true))),
        ("plugin", Value::Bin(body.plugin)),
        ("name", name.into()),
    ]);
    broadcast::to_all(server, &message, host == Host::Nanny).await
}

/// `unregister_worker_plugin`, `unregister_nanny_plugin`.
pub(super) async fn unregister(server: &Arc<Server>, host: Host, name: String) -> Outcome {
    if !host.list(&mut server.plugins()).remove(&name) {
        let text = format!("The {} plugin {name} does not exist", host.word());
        return Err(raise("ValueError", &text));
    }
    let message = Value::map([("op", Value::from(host.op(false))), ("name", name.into())]);
    broadcast::to_all(server, &message, host == Host::Nanny).await
}

/// Waits for nannies that got their plugins before this one and cannot be asked yet.
async fn nannies_started(server: &Server) {
    loop {
        let started = Arc::clone(&server.plugins().nanny_started);
        let notified = started.notified();
        if server.plugins().starting_nannies.is_empty() {
            return;
        }
        notified.await;
    }
}

/// `register_scheduler_plugin`: starts it in the process beside the scheduler, and in graph helpers.
pub(super) async fn register_scheduler(server: &Arc<Server>, body: RegisterPlugin) -> Outcome {
    let plugin = bytes::Bytes::copy_from_slice(&body.plugin);
    let idempotent = body.idempotent.unwrap_or(false);
    let name = server
        .aside
        .register_plugin(plugin.clone(), body.name, idempotent)
        .await
        .map_err(refusal)?;
    server.intake.set_plugin(&name, Some(&plugin));
    Answer::nil()
}

/// `unregister_scheduler_plugin`.
pub(super) async fn unregister_scheduler(server: &Arc<Server>, name: &str) -> Outcome {
    server
        .aside
        .unregister_plugin(name)
        .await
        .map_err(refusal)?;
    server.intake.set_plugin(name, None);
    Answer::nil()
}

/// Has transitions and graphs reported exactly while a plugin wants to hear of them.
pub fn observe(server: &Server) {
    let transitions = server.aside.wants(Hook::Transition);
    let graphs = server.aside.wants(Hook::UpdateGraph);
    server.driver().observe(transitions, graphs);
}

//! How many workers of each group its scheduler knows: for the metrics alone,
//! so it is asked seldom, and nothing waits for the answers.

use std::collections::{BTreeMap, HashSet};
use std::time::Duration;

use futures::StreamExt as _;
use kube::ResourceExt as _;
use tracing::debug;

use crate::context::Context;
use crate::labels;
use crate::scheduler::WorkerInfo;
use crate::stores::pods_of;

/// Pause between two rounds over all clusters.
const PERIOD: Duration = Duration::from_secs(15);
/// Schedulers that are asked at a time.
const AT_ONCE: usize = 4;

/// Groups by namespace and cluster.
type Groups = BTreeMap<(String, String), Vec<String>>;

/// Goes round for ever.
pub(crate) async fn count(context: Context) {
    loop {
        let mut groups = Groups::new();
        for group in context.stores.groups.all() {
            let cluster = (
                group.namespace().unwrap_or_default(),
                group.spec.cluster.clone(),
            );
            groups.entry(cluster).or_default().push(group.name_any());
        }
        futures::stream::iter(groups)
            .for_each_concurrent(AT_ONCE, |((namespace, cluster), groups)| {
                count_of(&context, namespace, cluster, groups)
            })
            .await;
        tokio::time::sleep(PERIOD).await;
    }
}

async fn count_of(context: &Context, namespace: String, cluster: String, groups: Vec<String>) {
    let infos = match context.endpoint(&namespace, &cluster) {
        // Nobody can be connected to it.
        None => Ok(Vec::new()),
        Some(endpoint) => context.scheduler.connected(&endpoint).await,
    };
    let infos = infos
        .inspect_err(|error| debug!(namespace, cluster, %error, "the scheduler tells no workers"))
        .ok();
    for group in groups {
        // One that went meanwhile has no number any more.
        if context.stores.groups.get(&namespace, &group).is_some() {
            let connected = infos
                .as_ref()
                .map(|infos| connected(context, &namespace, &group, infos));
            context.metrics.connected(&namespace, &group, connected);
        }
    }
}

/// Workers of one group: by the name of their Deployment, or by their pod's
/// address where users chose other names.
fn connected(context: &Context, namespace: &str, group: &str, infos: &[WorkerInfo]) -> usize {
    let deployments = context.stores.deployments.indexed(namespace, group);
    let names: HashSet<String> = deployments.iter().map(|d| d.name_any()).collect();
    let pods = pods_of(labels::WORKER, group);
    let pods = context.stores.pods.indexed(namespace, &pods);
    let hosts: HashSet<&str> = pods
        .iter()
        .filter_map(|pod| pod.status.pod_ip.as_deref())
        .collect();
    let is_ours = |info: &&WorkerInfo| names.contains(&info.name) || hosts.contains(info.host());
    infos.iter().filter(is_ours).count()
}

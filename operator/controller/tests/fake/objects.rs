//! What the server does with objects.

use bytes::Bytes;
use serde_json::{Value, json};

use super::{
    AUTOSCALERS, BUDGETS, CLUSTERS, CONFIG_MAPS, DEPLOYMENTS, EXPERIMENTS, GROUPS, JOBS, PODS,
    POLICIES, Path, SECRETS, SERVICES, State, Watch,
};

impl Watch {
    fn wants(&self, kind: &str, object: &Value) -> bool {
        self.kind == kind
            && self
                .namespace
                .as_ref()
                .is_none_or(|ns| object["metadata"]["namespace"] == **ns)
            && matches(&self.selector, object)
    }
}

/// Whether an object has the labels of a selector (`a=b`, `a in (b,c)`).
pub fn matches(selector: &[String], object: &Value) -> bool {
    selector.iter().all(|term| {
        let (label, values) = match term.split_once(" in ") {
            Some((label, values)) => (label, values.trim_matches(['(', ')']).split(',').collect()),
            None => {
                let (label, value) = term.split_once('=').unwrap();
                (label, vec![value])
            }
        };
        let has = object["metadata"]["labels"][label].as_str();
        has.is_some_and(|has| values.contains(&has))
    })
}

impl State {
    pub fn version(&self) -> u64 {
        self.version
    }

    /// Stores an object as the API server would: with uid, version, generation
    /// and defaults; and tells the watches. Nothing happens if nothing changed.
    pub fn put(&mut self, path: &Path, mut object: Value) -> Value {
        let old = self.objects.get(path).cloned();
        let meta = &mut object["metadata"];
        meta["name"] = json!(path.2);
        meta["namespace"] = json!(path.1);
        if old.is_none() {
            self.serial += 1;
            meta["uid"] = json!(format!("uid-{}", self.serial));
            let now = self.clock.now();
            meta["creationTimestamp"] = json!(now.strftime("%Y-%m-%dT%H:%M:%SZ").to_string());
            meta["generation"] = json!(1);
        }
        default(&path.0, &mut object);
        if let Some(old) = &old {
            let mut same = object.clone();
            same["metadata"]["resourceVersion"] = old["metadata"]["resourceVersion"].clone();
            if same == *old {
                return same;
            }
            if object["spec"] != old["spec"] {
                let generation = old["metadata"]["generation"].as_u64().unwrap_or(0) + 1;
                object["metadata"]["generation"] = json!(generation);
            }
        }
        let deleting = !object["metadata"]["deletionTimestamp"].is_null();
        if deleting
            && object["metadata"]["finalizers"]
                .as_array()
                .is_none_or(Vec::is_empty)
        {
            self.objects.insert(path.clone(), object.clone());
            self.remove(path);
            return object;
        }
        self.version += 1;
        object["metadata"]["resourceVersion"] = json!(self.version.to_string());
        self.objects.insert(path.clone(), object.clone());
        self.tell(
            if old.is_some() { "MODIFIED" } else { "ADDED" },
            &path.0,
            object.clone(),
        );
        if path.0 == DEPLOYMENTS {
            self.run_deployment(path);
        }
        self.objects.get(path).cloned().unwrap_or(object)
    }

    fn tell(&mut self, what: &str, kind: &str, object: Value) {
        let event = json!({"type": what, "object": object});
        self.log
            .push((self.version, kind.to_owned(), event.clone()));
        let line = Bytes::from(format!("{event}\n"));
        self.watches.retain(|watch| {
            !watch.wants(kind, &event["object"]) || watch.sender.send(line.clone()).is_ok()
        });
    }

    pub fn watch(
        &mut self,
        watch: (String, Option<String>, Vec<String>),
        since: u64,
    ) -> tokio::sync::mpsc::UnboundedReceiver<Bytes> {
        let (sender, receiver) = tokio::sync::mpsc::unbounded_channel();
        let watch = Watch {
            kind: watch.0,
            namespace: watch.1,
            selector: watch.2,
            sender,
        };
        for (version, kind, event) in &self.log {
            if *version > since && watch.wants(kind, &event["object"]) {
                let _ = watch.sender.send(Bytes::from(format!("{event}\n")));
            }
        }
        self.watches.push(watch);
        receiver
    }

    /// Ends all watches, and forgets what they could go on from.
    pub fn expire_watches(&mut self) {
        self.drop_watches();
        self.oldest = self.version;
    }

    /// Ends all watches, as an API server does that restarts.
    pub fn drop_watches(&mut self) {
        self.watches.clear();
    }

    /// Deletes an object in the background: at once, or after its finalizers.
    /// A pod with a hook stays until [`State::end_held`].
    pub fn delete(&mut self, path: &Path) {
        let Some(object) = self.objects.get(path) else {
            return;
        };
        if path.0 == PODS && is_held(object) {
            self.hold(path);
            return;
        }
        if object["metadata"]["finalizers"]
            .as_array()
            .is_some_and(|list| !list.is_empty())
        {
            let mut object = object.clone();
            object["metadata"]["deletionTimestamp"] = json!("2026-01-01T00:00:00Z");
            self.put(path, object);
        } else {
            self.remove(path);
        }
    }

    fn remove(&mut self, path: &Path) {
        let Some(mut object) = self.objects.remove(path) else {
            return;
        };
        self.version += 1;
        object["metadata"]["resourceVersion"] = json!(self.version.to_string());
        self.tell("DELETED", &path.0, object.clone());
        if path.0 == DEPLOYMENTS {
            self.end_pods(path, &object);
        }
        // The garbage collector.
        let uid = object["metadata"]["uid"].clone();
        let children: Vec<Path> = self
            .objects
            .iter()
            .filter(|(_, child)| {
                let owners = child["metadata"]["ownerReferences"].as_array();
                owners.is_some_and(|owners| owners.iter().any(|owner| owner["uid"] == uid))
            })
            .map(|(path, _)| path.clone())
            .collect();
        for child in children {
            self.scheduler.doomed = true;
            self.delete(&child);
            self.scheduler.doomed = false;
        }
    }

    /// The Deployment controller and kubelet: a pod that is ready at once.
    fn run_deployment(&mut self, path: &Path) {
        let deployment = self.objects[path].clone();
        let wanted = deployment["spec"]["replicas"].as_i64().unwrap_or(1);
        let pod = (
            PODS.to_owned(),
            path.1.clone(),
            format!("{}-abc-xyz", path.2),
        );
        if wanted == 0 || self.no_pods {
            self.end_pods(path, &deployment);
        } else if !self.objects.contains_key(&pod) {
            let mut labels = deployment["spec"]["template"]["metadata"]["labels"].clone();
            labels["pod-template-hash"] = json!("abc");
            self.serial += 1;
            let ip = format!("10.0.{}.{}", self.serial / 250, self.serial % 250 + 1);
            let group = labels["dask.org/workergroup-name"].as_str();
            let stuck = group.is_some_and(|group| self.unschedulable.iter().any(|g| g == group));
            let ready = if self.unready_pods || stuck {
                "False"
            } else {
                "True"
            };
            let manifest = json!({
                "apiVersion": "v1", "kind": "Pod",
                "metadata": {"labels": labels, "ownerReferences": [
                    {"kind": "ReplicaSet", "name": format!("{}-abc", path.2), "uid": "rs", "controller": true, "apiVersion": "apps/v1"},
                ]},
                "spec": deployment["spec"]["template"]["spec"],
                "status": {"phase": "Running", "podIP": ip, "conditions": [{"type": "Ready", "status": ready}]},
            });
            let mut manifest = manifest;
            if stuck {
                manifest["status"] = json!({"phase": "Pending", "conditions": [
                    {"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": "0/3 nodes are available"},
                ]});
            }
            self.put(&pod, manifest);
        }
        let is_ready = |pod: &Value| pod["status"]["conditions"][0]["status"] == "True";
        let ready = i64::from(self.objects.get(&pod).is_some_and(is_ready));
        let mut deployment = self.objects[path].clone();
        if deployment["status"]["readyReplicas"].as_i64().unwrap_or(0) != ready {
            deployment["status"] = json!({"readyReplicas": ready});
            self.version += 1;
            deployment["metadata"]["resourceVersion"] = json!(self.version.to_string());
            self.objects.insert(path.clone(), deployment.clone());
            self.tell("MODIFIED", DEPLOYMENTS, deployment);
        }
    }

    fn end_pods(&mut self, path: &Path, deployment: &Value) {
        let pod = (
            PODS.to_owned(),
            path.1.clone(),
            format!("{}-abc-xyz", path.2),
        );
        if self.objects.contains_key(&pod) {
            let labels = &deployment["metadata"]["labels"];
            let is_worker = labels["dask.org/component"] == "worker";
            if is_held(&self.objects[&pod]) {
                self.hold(&pod);
                return;
            }
            if is_worker
                && !self.scheduler.doomed
                && self.scheduler.would_lose(&path.2)
                && self.has_staying_workers(labels)
            {
                self.lost.push(path.2.clone());
            }
            self.remove(&pod);
        }
    }

    /// Makes a pod wait for its hook.
    fn hold(&mut self, path: &Path) {
        let mut pod = self.objects[path].clone();
        if pod["metadata"]["deletionTimestamp"].is_null() {
            pod["metadata"]["deletionTimestamp"] = json!("2026-01-01T00:00:00Z");
            let grace = pod["spec"]["terminationGracePeriodSeconds"].clone();
            pod["metadata"]["deletionGracePeriodSeconds"] = grace;
            pod["status"]["conditions"][0]["status"] = json!("False");
            self.version += 1;
            pod["metadata"]["resourceVersion"] = json!(self.version.to_string());
            self.objects.insert(path.clone(), pod.clone());
            self.tell("MODIFIED", PODS, pod);
        }
    }

    /// The end of a pod's hook.
    pub fn end_held(&mut self, path: &Path) {
        let Some(pod) = self.objects.get(path).cloned() else {
            return;
        };
        let labels = &pod["metadata"]["labels"];
        let worker = path.2.trim_end_matches("-abc-xyz").to_owned();
        if self.scheduler.would_lose(&worker) && self.has_staying_workers(labels) {
            self.lost.push(worker);
        }
        self.remove(path);
    }
}

/// Whether a pod has a hook.
fn is_held(pod: &Value) -> bool {
    !pod["spec"]["containers"][0]["lifecycle"]["preStop"]["exec"].is_null()
}

impl State {
    /// Whether a cluster has workers that are not being retired: results can
    /// be moved to them.
    fn has_staying_workers(&self, labels: &Value) -> bool {
        self.objects.iter().any(|(path, object)| {
            let meta = &object["metadata"];
            path.0 == DEPLOYMENTS
                && meta["labels"]["dask.org/component"] == "worker"
                && meta["labels"]["dask.org/cluster-name"] == labels["dask.org/cluster-name"]
                && meta["annotations"]["oxidask.io/retiring-since"].is_null()
        })
    }
}

fn default(kind: &str, object: &mut Value) {
    let set = |object: &mut Value, path: &str, value: Value| {
        let (parent, name) = path.rsplit_once('/').unwrap();
        if let Some(Value::Object(parent)) = object.pointer_mut(parent) {
            parent.entry(name).or_insert(value);
        }
    };
    match kind {
        CLUSTERS | GROUPS => set(object, "/spec/worker/replicas", json!(1)),
        JOBS => set(object, "/spec/cluster/spec/worker/replicas", json!(1)),
        SERVICES => {
            set(object, "/spec/type", json!("ClusterIP"));
            set(object, "/status", json!({"loadBalancer": {}}));
        }
        PODS => set(object, "/status", json!({"phase": "Pending"})),
        _ => assert!(
            kind == DEPLOYMENTS
                || kind == AUTOSCALERS
                || kind == SECRETS
                || kind == POLICIES
                || kind == BUDGETS
                || kind == EXPERIMENTS
                || kind == CONFIG_MAPS
                || kind.ends_with("/events")
                || kind.ends_with("/leases")
        ),
    }
}

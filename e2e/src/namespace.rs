//! A namespace for one test, with what a test does in it and what is printed when it fails.

use std::{fmt::Debug, panic::AssertUnwindSafe, time::Duration};

use anyhow::{Context, Result, anyhow};
use futures::FutureExt;
use k8s_openapi::api::core::v1::{self as core, Pod};
use kube::{
    Api, Resource,
    api::{DeleteParams, ListParams, ObjectMeta, PostParams},
    core::NamespaceResourceScope,
};
use serde_json::{Value, json};
use tokio::sync::Mutex;

use crate::{
    cluster::Cluster,
    operator::{self, Alone, Process, Whose},
    wait,
};

/// Label of every namespace that a test made, so that leftovers of a killed run can be found.
pub const LABEL: &str = "oxidask.io/e2e";

/// How long a deleted namespace may take to go, its pods' grace periods included.
const GONE_DEADLINE: Duration = Duration::from_secs(90);

/// How long a pod may take from its creation to its end.
const POD_DEADLINE: Duration = Duration::from_secs(300);

/// A namespace of the cluster under test, removed at the end of the test.
pub struct Namespace {
    /// The cluster it is in.
    pub cluster: Cluster,
    /// Its name.
    pub name: String,
    /// The operator of this namespace alone, where the tests run on a program instead of an image.
    pub operator: Mutex<Option<Process>>,
}

/// Runs `test` in a new namespace; panics with its error after printing what is in the namespace.
///
/// The namespace is removed in either case, and its removal is part of the test: what hangs in it, for example
/// on a finalizer that nobody removes, fails the test.
pub fn with_temp_namespace(test: impl AsyncFnOnce(&Namespace) -> Result<()> + Send) {
    crate::cluster::run(async |cluster| {
        let _operator = operator::shared().await;
        in_temp_namespace(cluster, test).await
    });
}

/// As [`with_temp_namespace`], while no other test uses the operator, so that this one may take it away.
pub fn with_temp_namespace_alone(test: impl AsyncFnOnce(&Namespace, &Alone) -> Result<()> + Send) {
    crate::cluster::run(async |cluster| {
        let alone = operator::alone().await;
        in_temp_namespace(cluster, async |namespace| test(namespace, &alone).await).await
    });
}

async fn in_temp_namespace(
    cluster: Cluster,
    test: impl AsyncFnOnce(&Namespace) -> Result<()>,
) -> Result<()> {
    let namespace = Namespace::create(cluster).await?;
    if let Whose::Program(program) = Whose::wanted()? {
        operator::ensure(&namespace.cluster).await?;
        let mut process = Process::new(&program, &namespace.cluster, &namespace.name);
        process.start().await?;
        *namespace.operator.lock().await = Some(process);
    }
    // A panic of an assertion must not keep the namespace from being printed and removed.
    let outcome = AssertUnwindSafe(test(&namespace))
        .catch_unwind()
        .await
        .unwrap_or_else(|panic| Err(anyhow!("{}", text_of(&*panic))));
    if outcome.is_err() {
        eprintln!("{}", namespace.describe().await);
    }
    let removed = namespace.delete().await;
    outcome.and(removed)
}

impl Namespace {
    async fn create(cluster: Cluster) -> Result<Self> {
        let namespaces: Api<core::Namespace> = Api::all(cluster.client.clone());
        let wanted = core::Namespace {
            metadata: ObjectMeta {
                generate_name: Some(prefix()),
                labels: Some([(LABEL.into(), "true".into())].into()),
                ..ObjectMeta::default()
            },
            ..core::Namespace::default()
        };
        let made = namespaces
            .create(&PostParams::default(), &wanted)
            .await
            .context("failed to create a namespace")?;
        let name = made
            .metadata
            .name
            .context("the API server named no namespace")?;
        Ok(Self {
            cluster,
            name,
            operator: Mutex::default(),
        })
    }

    /// Objects of one kind in this namespace.
    pub fn api<K>(&self) -> Api<K>
    where
        K: Resource<Scope = NamespaceResourceScope>,
        K::DynamicType: Default,
    {
        Api::namespaced(self.cluster.client.clone(), &self.name)
    }

    /// `kubectl --namespace NAME arguments…`
    ///
    /// # Errors
    /// When kubectl fails; the message holds what it said.
    pub async fn kubectl(&self, arguments: &[&str]) -> Result<String> {
        let mut words = vec!["--namespace", self.name.as_str()];
        words.extend(arguments);
        self.cluster.kubectl.run(&words).await
    }

    /// `kubectl apply` of a manifest.
    ///
    /// # Errors
    /// When the API server refuses it.
    pub async fn apply(&self, manifest: &str) -> Result<()> {
        let words = ["--namespace", self.name.as_str(), "apply", "-f", "-"];
        self.cluster.kubectl.feed(&words, manifest).await.map(drop)
    }

    /// Runs a Python program in a pod of `image` and returns what it printed.
    ///
    /// # Errors
    /// When the program fails or does not end within five minutes; the message holds its output.
    pub async fn python(&self, image: &str, program: &str, arguments: &[&str]) -> Result<String> {
        let mut words = vec!["python", "-c", program];
        words.extend(arguments);
        self.run_pod(json!({
            "containers": [{
                "name": "client",
                "image": image,
                "imagePullPolicy": "IfNotPresent",
                "args": words,
            }],
        }))
        .await
    }

    /// Runs a pod to its end and returns what it printed.
    ///
    /// # Errors
    /// When it fails or does not end within five minutes; the message holds its output.
    pub async fn run_pod(&self, mut spec: Value) -> Result<String> {
        spec["restartPolicy"] = "Never".into();
        spec["terminationGracePeriodSeconds"] = 1.into();
        let pod: Pod =
            serde_json::from_value(json!({"metadata": {"generateName": "client-"}, "spec": spec}))
                .context("failed to build the pod")?;
        let pods = self.api::<Pod>();
        let made = pods
            .create(&PostParams::default(), &pod)
            .await
            .context("failed to create a client pod")?;
        let name = made.metadata.name.context("the API server named no pod")?;
        let phase = wait::until(format!("end of pod {name}"), POD_DEADLINE, async || {
            let pod = pods.get(&name).await?;
            let phase = pod
                .status
                .and_then(|status| status.phase)
                .unwrap_or_default();
            Ok(if phase == "Succeeded" || phase == "Failed" {
                Ok(phase)
            } else {
                Err(phase)
            })
        })
        .await?;
        let output = self.kubectl(&["logs", &name]).await?;
        if phase == "Failed" {
            return Err(anyhow!("the client failed: {output}"));
        }
        Ok(output)
    }

    /// Waits until no object of this kind has this label.
    ///
    /// # Errors
    /// After the deadline, with the names of those that are left.
    pub async fn until_none<K>(&self, label: &str, deadline: Duration) -> Result<()>
    where
        K: Resource<Scope = NamespaceResourceScope> + Clone + Debug,
        K: for<'de> k8s_openapi::serde::Deserialize<'de>,
        K::DynamicType: Default,
    {
        let api = self.api::<K>();
        let kind = K::kind(&K::DynamicType::default()).into_owned();
        wait::until(format!("no {kind} with {label}"), deadline, async || {
            let left = api.list(&ListParams::default().labels(label)).await?;
            let names: Vec<_> = left
                .items
                .into_iter()
                .filter_map(|object| object.meta().name.clone())
                .collect();
            Ok(if names.is_empty() {
                Ok(())
            } else {
                Err(names.join(", "))
            })
        })
        .await
    }

    /// What a person would look at after a failure: objects, events, logs of pods and of the operator.
    async fn describe(&self) -> String {
        let kinds = "all,daskclusters,daskworkergroups,daskjobs,daskautoscalers,scalingexperiments";
        let mut text = format!(
            "---- namespace {} at the time of the failure ----\n",
            self.name
        );
        let commands: [&[&str]; 3] = [
            &["get", kinds, "-o", "wide"],
            &[
                "get",
                "daskclusters,daskworkergroups,daskjobs,daskautoscalers,scalingexperiments",
                "-o",
                "yaml",
            ],
            &["get", "events", "--sort-by=.lastTimestamp"],
        ];
        for arguments in commands {
            text += &self.section(arguments).await;
        }
        let pods = self
            .kubectl(&["get", "pods", "-o", "name"])
            .await
            .unwrap_or_default();
        for pod in pods.lines() {
            text += &self
                .section(&[
                    "logs",
                    pod,
                    "--all-containers",
                    "--tail=40",
                    "--ignore-errors",
                ])
                .await;
        }
        text += "$ the operator\n";
        text += &operator::log(self)
            .await
            .unwrap_or_else(|error| format!("{error:#}\n"));
        text
    }

    async fn section(&self, arguments: &[&str]) -> String {
        let output = self
            .kubectl(arguments)
            .await
            .unwrap_or_else(|error| format!("{error:#}\n"));
        format!("$ kubectl {}\n{output}\n", arguments.join(" "))
    }

    /// Deletes the namespace and waits until it is gone; does nothing if it is gone already.
    ///
    /// # Errors
    /// When something in it keeps it for more than a minute and a half; the message says what.
    pub async fn delete(&self) -> Result<()> {
        let namespaces: Api<core::Namespace> = Api::all(self.cluster.client.clone());
        if namespaces.get_opt(&self.name).await?.is_none() {
            return Ok(());
        }
        namespaces
            .delete(&self.name, &DeleteParams::default())
            .await
            .with_context(|| format!("failed to delete namespace {}", self.name))?;
        wait::until(
            format!("end of namespace {}", self.name),
            GONE_DEADLINE,
            async || {
                Ok(match namespaces.get_opt(&self.name).await? {
                    None => Ok(()),
                    Some(left) => {
                        let status = left.status.unwrap_or_default();
                        let messages = status.conditions.into_iter().flatten();
                        let messages = messages.filter_map(|condition| condition.message);
                        Err(messages.collect::<Vec<_>>().join("; "))
                    }
                })
            },
        )
        .await
    }
}

/// What names begin with. The operator's image works on these; a program has each its own, and no image on them.
fn prefix() -> String {
    match Whose::wanted() {
        Ok(Whose::Program(_)) => "own-e2e-".into(),
        _ => "e2e-".into(),
    }
}

fn text_of(panic: &(dyn std::any::Any + Send)) -> String {
    panic
        .downcast_ref::<String>()
        .cloned()
        .or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned()))
        .unwrap_or_else(|| "panicked without a message".into())
}

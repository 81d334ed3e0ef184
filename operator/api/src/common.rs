//! Parts that several kinds share: metadata, pod and Service specs, workers.

use std::collections::BTreeMap;

use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::pod_schema;

/// Labels and annotations for the objects made from a part of a resource.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct SubMetadata {
    /// Labels, over those of the resource itself.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub labels: Option<BTreeMap<String, String>>,
    /// Annotations, over those of the resource itself.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub annotations: Option<BTreeMap<String, String>>,
}

/// A pod spec as the user wrote it, after the API server's validation.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct PodSpec(pub Map<String, Value>);

/// A Service spec as the user wrote it, after the API server's validation.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct ServiceSpec(pub Map<String, Value>);

impl JsonSchema for PodSpec {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "PodSpec".into()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        pod_schema::pod_spec(generator)
    }
}

impl JsonSchema for ServiceSpec {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "ServiceSpec".into()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        pod_schema::service_spec(generator)
    }
}

/// The workers of one group.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct WorkerSpec {
    /// How many workers the group should have.
    #[serde(default = "one_replica")]
    #[schemars(range(min = 0))]
    pub replicas: i64,
    /// Labels and annotations of the group and of its workers' pods.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub metadata: Option<SubMetadata>,
    /// The pod of each worker.
    #[serde(default)]
    pub spec: PodSpec,
    /// Threads of each worker: `--nthreads` is added to the words that start
    /// it, unless they have it. Unset: as the image does, one for each core.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1))]
    pub nthreads: Option<i64>,
    /// Seconds that a worker has to hand over its results and finish its
    /// tasks when the group shrinks, before it is ended with what it still
    /// has. Unset: 60. If it is set, a worker whose pod is evicted (`kubectl
    /// drain`, a spot notice) has this time too: its pod stays for so long.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0))]
    pub drain_timeout_seconds: Option<i64>,
}

impl Default for WorkerSpec {
    fn default() -> Self {
        Self {
            replicas: one_replica(),
            metadata: None,
            spec: PodSpec::default(),
            nthreads: None,
            drain_timeout_seconds: None,
        }
    }
}

fn one_replica() -> i64 {
    1
}

